//! The called end: a trunk that takes calls, speaks, listens, and remembers what it saw.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use ravelin_wire::sip::HeaderName;

use super::{
    audio::{Audio, Heard, Voice},
    sip::{Received, Socket, sdp, with_body},
};

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a trunk saw of one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) invites: usize,
    pub(crate) request_uri: String,
    pub(crate) identity: Option<String>,
    pub(crate) has_location: bool,
    pub(crate) acknowledged: bool,
    pub(crate) ended: bool,
    pub(crate) sent: usize,
    pub(crate) heard: Heard,
}

/// A running trunk.
#[derive(Debug)]
pub(crate) struct Callee {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

struct Answering {
    socket: Socket,
    voice: Voice,
    other: Voice,
    packets: u16,
    seen: Arc<Mutex<Seen>>,
    audio: Option<Audio>,
    /// Call-ID and 200 of the call that is up.
    answer: Option<(Vec<u8>, Vec<u8>)>,
    /// Where the caller listens, until the ACK says that it has the answer.
    speak_to: Option<SocketAddr>,
}

impl Callee {
    /// Takes calls at `at`, one at a time.
    pub(crate) fn start(
        at: SocketAddr,
        voice: Voice,
        other: Voice,
        packets: u16,
    ) -> io::Result<Self> {
        let socket = Socket::bind(at)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut answering = Answering {
            socket,
            voice,
            other,
            packets,
            seen: Arc::clone(&seen),
            audio: None,
            answer: None,
            speak_to: None,
        };
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if let Some(received) = answering.socket.receive(LOOK_EVERY)? {
                    answering.take(&received)?;
                }
            }
            Ok(())
        });
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Answering {
    fn take(&mut self, request: &Received) -> io::Result<()> {
        match request.method().as_deref() {
            Some("INVITE") => self.invite(request),
            Some("ACK") => self.acknowledged(request),
            Some("BYE") => {
                self.finish()?;
                self.reply(request, 200, "OK", "", "")
            }
            Some("CANCEL" | "OPTIONS") => self.reply(request, 200, "OK", "", ""),
            Some(_) => self.reply(request, 405, "Method Not Allowed", "", ""),
            None => Ok(()),
        }
    }

    fn invite(&mut self, request: &Received) -> io::Result<()> {
        let Some(message) = request.message() else { return Ok(()) };
        if let Some((call_id, answer)) = &self.answer {
            // The same INVITE again, or a second call while one is up.
            if call_id == message.call_id() {
                return self.socket.send(request.source, answer);
            }
            return self.reply(request, 486, "Busy Here", "", "");
        }
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.invites += 1;
            seen.request_uri = request.request_uri();
            seen.identity = request.text(HeaderName::Identity);
            seen.has_location = request.has_location();
        }
        let audio = Audio::open(self.socket.local.ip(), self.other)?;
        let body = sdp(self.socket.local.ip(), audio.port()?);
        self.audio = Some(audio);
        self.reply(request, 180, "Ringing", &self.contact(), "")?;
        let answer = self.response(request, 200, "OK", &self.contact(), &body);
        self.answer = Some((message.call_id().to_vec(), answer.clone()));
        self.speak_to = request.audio_address();
        self.socket.send(request.source, &answer)
    }

    fn acknowledged(&mut self, request: &Received) -> io::Result<()> {
        let ours = self.answer.as_ref().map(|(call_id, _)| call_id.as_slice());
        if request.message().is_none_or(|message| Some(message.call_id()) != ours) {
            return Ok(());
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).acknowledged = true;
        match (&mut self.audio, self.speak_to.take()) {
            (Some(audio), Some(to)) => audio.speak(self.voice, to, self.packets),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.answer = None;
        let Some(mut audio) = self.audio.take() else { return Ok(()) };
        let sent = audio.finish_speaking();
        let heard = audio.hear_out(self.packets, |time| {
            std::thread::sleep(time);
            Ok(())
        })?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.sent = sent;
        seen.heard = heard;
        seen.ended = true;
        Ok(())
    }

    fn contact(&self) -> String {
        format!("Contact: <sip:callee@{}>\r\n", self.socket.local)
    }

    fn reply(
        &self,
        request: &Received,
        code: u16,
        reason: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<()> {
        let response = self.response(request, code, reason, headers, body);
        self.socket.send(request.source, &response)
    }

    /// A response with what RFC 3261 8.2.6 copies from the request.
    fn response(
        &self,
        request: &Received,
        code: u16,
        reason: &str,
        headers: &str,
        body: &str,
    ) -> Vec<u8> {
        let Some(message) = request.message() else { return Vec::new() };
        let mut head = format!("SIP/2.0 {code} {reason}\r\n");
        for header in message.headers() {
            let name = match header.name {
                HeaderName::Via => "Via",
                HeaderName::From => "From",
                HeaderName::CallId => "Call-ID",
                HeaderName::CSeq => "CSeq",
                HeaderName::To => "To",
                _ => continue,
            };
            let value = String::from_utf8_lossy(header.value);
            let tag = if header.name == HeaderName::To && message.to().tag().is_none() {
                format!(";tag=callee-{:x}", self.voice.0)
            } else {
                String::new()
            };
            head.push_str(&format!("{name}: {value}{tag}\r\n"));
        }
        head.push_str(headers);
        with_body(&head, body)
    }
}
