//! The calling end: INVITE, audio, BYE.

use std::{net::SocketAddr, time::Duration};

use super::{
    audio::{Audio, Heard, PACKET_EVERY, Voice},
    sip::{Received, Socket, sdp, with_body},
};

/// A call to place.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Address of the caller, with the port it sends SIP from.
    pub(crate) local: SocketAddr,
    /// Listener of Ravelin.
    pub(crate) ravelin: SocketAddr,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) call_id: String,
    pub(crate) voice: Voice,
    pub(crate) other: Voice,
    pub(crate) packets: u16,
}

/// How it went for the caller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Final status of the INVITE; 0 if none came.
    pub(crate) status: u16,
    pub(crate) sent: usize,
    pub(crate) heard: Heard,
    /// Status of the BYE; 0 if none came.
    pub(crate) bye_status: u16,
}

struct Dialog<'a> {
    call: &'a Call,
    socket: Socket,
    tag: String,
}

/// Places the call, speaks, listens, hangs up.
pub(crate) fn place(call: &Call) -> std::io::Result<Outcome> {
    let socket = Socket::bind(call.local)?;
    let mut audio = Audio::open(call.local.ip(), call.other)?;
    let dialog = Dialog { call, socket, tag: format!("caller-{:x}", call.voice.0) };
    let mut outcome = Outcome::default();

    let body = sdp(call.local.ip(), audio.port()?);
    let head = dialog.head("INVITE", &call.to, None, "1 INVITE", "invite");
    let invite = with_body(&format!("{head}{}", dialog.contact()), &body);
    let is_final = |received: &Received| {
        dialog.is_ours(received, "INVITE") && received.code().is_some_and(|code| code >= 200)
    };
    let Some(answer) = dialog.socket.request(call.ravelin, &invite, is_final, |_| {})? else {
        return Ok(outcome);
    };
    outcome.status = answer.code().unwrap_or(0);
    let target = answer.contact_uri().unwrap_or_else(|| call.to.clone());
    if outcome.status >= 300 {
        // The ACK of a refusal belongs to the INVITE's transaction (RFC 3261 17.1.1.3).
        let ack = dialog.head("ACK", &call.to, answer.to_tag(), "1 ACK", "invite");
        dialog.socket.send(call.ravelin, &with_body(&ack, ""))?;
        return Ok(outcome);
    }
    let ack = dialog.head("ACK", &target, answer.to_tag(), "1 ACK", "ack");
    let ack = with_body(&ack, "");
    dialog.socket.send(call.ravelin, &ack)?;

    if let Some(to) = answer.audio_address() {
        audio.speak(call.voice, to, call.packets)?;
        let until = PACKET_EVERY * u32::from(call.packets);
        dialog.listen(until, &ack)?;
        outcome.sent = audio.finish_speaking();
        outcome.heard = audio.hear_out(call.packets, |time| dialog.listen(time, &ack))?;
    }

    let bye = with_body(&dialog.head("BYE", &target, answer.to_tag(), "2 BYE", "bye"), "");
    let is_answer = |received: &Received| {
        dialog.is_ours(received, "BYE") && received.code().is_some_and(|code| code >= 200)
    };
    let ended = dialog.socket.request(call.ravelin, &bye, is_answer, |_| {})?;
    outcome.bye_status = ended.and_then(|answer| answer.code()).unwrap_or(0);
    Ok(outcome)
}

impl Dialog<'_> {
    fn head(
        &self,
        method: &str,
        uri: &str,
        to_tag: Option<String>,
        cseq: &str,
        branch: &str,
    ) -> String {
        let Call { local, from, to, call_id, voice, .. } = self.call;
        let to_tag = to_tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
        format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch=z9hG4bK-{branch}-{:x};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <{from}>;tag={}\r\n\
             To: <{to}>{to_tag}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq}\r\n",
            voice.0, self.tag
        )
    }

    fn contact(&self) -> String {
        format!("Contact: <sip:caller@{}>\r\n", self.call.local)
    }

    fn is_ours(&self, received: &Received, method: &str) -> bool {
        received.message().is_some_and(|message| {
            message.call_id() == self.call.call_id.as_bytes()
                && message.cseq().method.as_bytes() == method.as_bytes()
        })
    }

    /// Lets time pass; answers a repeated 2xx with the ACK again (RFC 3261 13.2.2.4).
    fn listen(&self, time: Duration, ack: &[u8]) -> std::io::Result<()> {
        let end = std::time::Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            match self.socket.receive(left)? {
                Some(received)
                    if self.is_ours(&received, "INVITE")
                        && received.code().is_some_and(|code| code / 100 == 2) =>
                {
                    self.socket.send(self.call.ravelin, ack)?;
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}
