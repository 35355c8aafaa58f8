//! A SIP peer over UDP, played by hand: says what a test has it say, and reads what it is sent.

use std::{
    collections::HashSet,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{PATIENCE, text};

/// A socket that talks to one listener of Ravelin.
pub(crate) struct Peer {
    socket: UdpSocket,
    listener: SocketAddr,
    /// Received and not yet asked for.
    waiting: Vec<String>,
    /// Everything that was received: what comes again, octet for octet, was sent again because this
    /// test was held up, and is nothing new.
    seen: HashSet<String>,
}

/// Ports that are given where a test names none: below those that the kernel gives, among which some
/// tests name theirs.
const PORTS_OF_OURS: std::ops::Range<u16> = 10_000..20_000;

/// A process that another test starts holds every socket of ours from its fork to its exec: one that
/// was closed may be in use a little longer. Port 0: one that no other socket of this process has.
#[track_caller]
pub(crate) fn bind(mut at: SocketAddr) -> UdpSocket {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    if at.port() == 0 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS_OF_OURS.len() as u16;
        at.set_port(PORTS_OF_OURS.start + number);
    }
    let end = Instant::now() + PATIENCE;
    loop {
        match UdpSocket::bind(at) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(Duration::from_millis(10));
            }
            bound => return bound.expect("a socket"),
        }
    }
}

impl Peer {
    pub(crate) fn new(at: SocketAddr, listener: SocketAddr) -> Self {
        let socket = bind(at);
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        Self { socket, listener, waiting: Vec::new(), seen: HashSet::new() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("an address")
    }

    pub(crate) fn send(&self, message: &str) {
        self.socket.send_to(message.as_bytes(), self.listener).expect("sent");
    }

    /// The next message that begins with `start` and contains `part`; others wait. Each is given once,
    /// however often it was sent.
    #[track_caller]
    pub(crate) fn expect(&mut self, start: &str, part: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 65_536];
        loop {
            let found = self.waiting.iter().position(|m| m.starts_with(start) && m.contains(part));
            if let Some(at) = found {
                return self.waiting.remove(at);
            }
            assert!(
                Instant::now() < end,
                "no {start:?} with {part:?} at {}: {:#?}",
                self.address(),
                self.waiting
            );
            if let Ok((length, _)) = self.socket.recv_from(&mut buffer) {
                let message = text(&buffer[..length]);
                if self.seen.insert(message.clone()) {
                    self.waiting.push(message);
                }
            }
        }
    }

    /// Dials; `name` tells this call from others.
    pub(crate) fn invite(&self, name: &str, user: &str) {
        self.offer(name, user, &sdp(self.address()));
    }

    /// Dials with a session description of the test's own.
    pub(crate) fn offer(&self, name: &str, user: &str, sdp: &str) {
        let (me, to) = (self.address(), self.listener);
        self.send(&format!(
            "INVITE sip:{user}@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{name};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+13135550100@{me}>;tag={name}\r\nTo: <sip:{user}@{to}>\r\n\
             Call-ID: {name}@{me}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{me}>\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        ));
    }

    /// Acknowledges an answer to [`Self::invite`].
    pub(crate) fn ack(&self, name: &str, answer: &str) {
        let me = self.address();
        let contact = header(answer, "Contact");
        let target = contact.trim_matches(['<', '>']);
        self.send(&format!(
            "ACK {target} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bKa{name};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+13135550100@{me}>;tag={name}\r\nTo: {}\r\n\
             Call-ID: {name}@{me}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
            header(answer, "To")
        ));
    }

    /// Acknowledges a refusal of an INVITE to `user` (RFC 3261 17.1.1.3).
    pub(crate) fn ack_refusal(&self, name: &str, user: &str, refusal: &str) {
        let (me, to) = (self.address(), self.listener);
        self.send(&format!(
            "ACK sip:{user}@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{name};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+13135550100@{me}>;tag={name}\r\nTo: {}\r\n\
             Call-ID: {name}@{me}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
            header(refusal, "To")
        ));
    }

    /// Answers a request; with a session description if it is an INVITE that is accepted.
    pub(crate) fn reply(&self, request: &str, status: &str) {
        let accepted = request.starts_with("INVITE") && status.starts_with('2');
        let body = if accepted { sdp(self.address()) } else { String::new() };
        self.answer(request, status, &body);
    }

    /// Answers with a session description of the test's own; empty: with none.
    pub(crate) fn answer(&self, request: &str, status: &str, body: &str) {
        let me = self.address();
        let mut answer = format!("SIP/2.0 {status}\r\n");
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            let value = header(request, name);
            let tag = if name == "To" && !value.contains(";tag=") { ";tag=callee" } else { "" };
            answer.push_str(&format!("{name}: {value}{tag}\r\n"));
        }
        answer.push_str(&format!("Contact: <sip:b@{me}>\r\n"));
        if !body.is_empty() {
            answer.push_str("Content-Type: application/sdp\r\n");
        }
        answer.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        self.send(&answer);
    }
}

fn sdp(me: SocketAddr) -> String {
    let ip = me.ip();
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
    )
}

/// The value of the first header with this name.
pub(crate) fn header(message: &str, name: &str) -> String {
    let found = message.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    });
    found.unwrap_or_else(|| panic!("no {name} in\n{message}"))
}

/// A call from `caller` through Ravelin to `callee`, answered and acknowledged.
pub(crate) fn connect(caller: &mut Peer, callee: &mut Peer, name: &str, user: &str) {
    caller.invite(name, user);
    let invite = callee.expect("INVITE ", "");
    callee.reply(&invite, "200 OK");
    callee.expect("ACK ", "");
    let answer = caller.expect("SIP/2.0 200", name);
    caller.ack(name, &answer);
}
