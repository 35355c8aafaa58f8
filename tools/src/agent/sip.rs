//! The test agent's SIP: just enough of a user agent to place and take a call over UDP. Messages are
//! written by hand here and read with the data plane's parser.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use ravelin_wire::{
    sdp::Description,
    sip::{Framing, HeaderName, Message},
};

/// T1 of RFC 3261 17.1.1.1.
const T1: Duration = Duration::from_millis(500);
/// Whoever waits for a demonstration is less patient than timer B (32 s).
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// A received message that owns its octets.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) source: SocketAddr,
}

impl Received {
    /// The message; what does not parse is not delivered by [`Socket::receive`].
    pub(crate) fn message(&self) -> Option<Message<'_>> {
        Message::parse(&self.bytes, Framing::Datagram).ok()
    }

    pub(crate) fn text(&self, name: HeaderName) -> Option<String> {
        let value = self.message()?.header(name)?.to_vec();
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    pub(crate) fn code(&self) -> Option<u16> {
        self.message()?.code()
    }

    pub(crate) fn method(&self) -> Option<String> {
        Some(self.message()?.method()?.to_string())
    }

    pub(crate) fn request_uri(&self) -> String {
        let message = self.message();
        let uri = message.as_ref().and_then(Message::request_uri).unwrap_or_default();
        String::from_utf8_lossy(uri).into_owned()
    }

    pub(crate) fn to_tag(&self) -> Option<String> {
        let tag = self.message()?.to().tag()?.to_vec();
        Some(String::from_utf8_lossy(&tag).into_owned())
    }

    pub(crate) fn contact_uri(&self) -> Option<String> {
        let uri = self.message()?.contact()?.uri.to_vec();
        Some(String::from_utf8_lossy(&uri).into_owned())
    }

    /// The SDP body, alone or as a part of a multipart body.
    fn sdp(&self) -> Option<Vec<u8>> {
        let message = self.message()?;
        let content = message.content()?;
        if content.is(b"application", b"sdp") {
            return Some(message.body().to_vec());
        }
        Some(content.find_part(message.body(), b"application", b"sdp")?.body.to_vec())
    }

    /// Whether the body carries a location document (RFC 6442).
    pub(crate) fn has_location(&self) -> bool {
        let find = || {
            let message = self.message()?;
            let content = message.content()?;
            content.find_part(message.body(), b"application", b"pidf+xml").map(|_| ())
        };
        find().is_some()
    }

    /// Where the other end wants its audio.
    pub(crate) fn audio_address(&self) -> Option<SocketAddr> {
        let sdp = self.sdp()?;
        let description = Description::parse(&sdp).ok()?;
        let media = description.medias().first()?;
        let address = description.connection_of(media)?.address?;
        (media.port != 0).then(|| SocketAddr::new(address, media.port))
    }
}

/// An audio-only description.
pub(crate) fn sdp(ip: IpAddr, port: u16) -> String {
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=agent 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n"
    )
}

/// A message with its length; `head` ends without an empty line.
pub(crate) fn with_body(head: &str, body: &str) -> Vec<u8> {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!("{head}{kind}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A SIP socket of the agent.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: UdpSocket,
    pub(crate) local: SocketAddr,
}

impl Socket {
    pub(crate) fn bind(at: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(at)?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, to).map(drop)
    }

    /// The next message that parses, within `limit`.
    pub(crate) fn receive(&self, limit: Duration) -> io::Result<Option<Received>> {
        let end = Instant::now() + limit;
        let mut buffer = vec![0; 65_536];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let (length, source) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Ok(None),
                    // A port that was closed a moment ago (ICMP); the timers decide.
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                },
            };
            let received =
                Received { bytes: buffer.get(..length).unwrap_or_default().to_vec(), source };
            if received.message().is_some() {
                return Ok(Some(received));
            }
        }
    }

    /// Sends a request and waits for a response that `wanted` takes; repeats the request as
    /// RFC 3261 17.1 says until the first response. Other messages go to `other`.
    pub(crate) fn request(
        &self,
        to: SocketAddr,
        request: &[u8],
        mut wanted: impl FnMut(&Received) -> bool,
        mut other: impl FnMut(&Received),
    ) -> io::Result<Option<Received>> {
        let end = Instant::now() + GIVE_UP_AFTER;
        let mut interval = T1;
        let mut answered = false;
        self.send(to, request)?;
        let mut again = Instant::now() + interval;
        while Instant::now() < end {
            let until = if answered { end } else { again.min(end) };
            match self.receive(until.saturating_duration_since(Instant::now()))? {
                Some(received) if wanted(&received) => return Ok(Some(received)),
                Some(received) => {
                    answered |= received.code().is_some_and(|code| code < 200);
                    other(&received);
                }
                None if !answered => {
                    self.send(to, request)?;
                    interval *= 2;
                    again = Instant::now() + interval;
                }
                None => {}
            }
        }
        Ok(None)
    }
}
