//! A party's audio: what it says, what it should hear, and what it hears besides.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

/// How long packets are waited for that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Binds without waiting for anything.
pub(super) fn socket(ip: IpAddr, port: u16) -> UdpSocket {
    let socket = crate::peer::bind((ip, port).into());
    socket.set_nonblocking(true).expect("a socket that does not wait");
    socket
}

/// Everything that waits in a socket.
pub(super) fn drained(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = [0; 2_048];
    let next = || {
        let length = socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    };
    std::iter::from_fn(next).collect()
}

pub(super) fn rtp(payload_type: u8, sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A sender report without blocks.
pub(super) fn sender_report(ssrc: u32, number: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6];
    for word in [ssrc, 0, 0, number, number, number] {
        packet.extend(word.to_be_bytes());
    }
    packet
}

/// The two sockets of a party's audio.
pub(super) struct Voice {
    pub(super) rtp: UdpSocket,
    pub(super) rtcp: UdpSocket,
    /// Where Ravelin takes its RTP; RTCP goes one port up.
    pub(super) to: SocketAddr,
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
    /// What the other party said and has not arrived.
    due: VecDeque<Vec<u8>>,
    due_rtcp: VecDeque<Vec<u8>>,
    /// What arrived and was never said to it.
    pub(super) foreign: Vec<Vec<u8>>,
}

impl Voice {
    pub(super) fn new(ip: IpAddr, port: u16, ssrc: u32) -> Self {
        Self {
            rtp: socket(ip, port),
            rtcp: socket(ip, port + 1),
            to: (ip, 0).into(),
            ssrc,
            sequence: 0,
            due: VecDeque::new(),
            due_rtcp: VecDeque::new(),
            foreign: Vec::new(),
        }
    }

    /// The same stream goes on at other ports.
    pub(super) fn moved(&mut self, port: u16) -> [UdpSocket; 2] {
        let ip = self.rtp.local_addr().expect("an address").ip();
        let rtp = std::mem::replace(&mut self.rtp, socket(ip, port));
        let rtcp = std::mem::replace(&mut self.rtcp, socket(ip, port + 1));
        [rtp, rtcp]
    }

    pub(super) fn rtcp_to(&self) -> SocketAddr {
        SocketAddr::new(self.to.ip(), self.to.port() + 1)
    }

    /// The next packet of this stream, sent.
    pub(super) fn say(&mut self) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let text = format!("{:08x} says number {:05} ", self.ssrc, self.sequence);
        let payload: Vec<u8> = text.bytes().cycle().take(160).collect();
        let packet = rtp(0, self.sequence, self.ssrc, &payload);
        self.rtp.send_to(&packet, self.to).expect("sent");
        packet
    }

    fn report(&self) -> Vec<u8> {
        let packet = sender_report(self.ssrc, u32::from(self.sequence));
        self.rtcp.send_to(&packet, self.rtcp_to()).expect("sent");
        packet
    }

    /// Takes what has come; tells what was due from what was not.
    pub(super) fn listen(&mut self) {
        for packet in drained(&self.rtp) {
            take(packet, &mut self.due, &mut self.foreign);
        }
        for packet in drained(&self.rtcp) {
            take(packet, &mut self.due_rtcp, &mut self.foreign);
        }
    }

    fn is_content(&self) -> bool {
        self.due.is_empty() && self.due_rtcp.is_empty()
    }
}

fn take(packet: Vec<u8>, due: &mut VecDeque<Vec<u8>>, foreign: &mut Vec<Vec<u8>>) {
    match due.iter().position(|wanted| *wanted == packet) {
        Some(at) => drop(due.remove(at)),
        None => foreign.push(packet),
    }
}

/// Both parties of each call say one packet, and a report; then each waits for what is its.
#[track_caller]
pub(super) fn talk(calls: &mut [[Voice; 2]], with_reports: bool) {
    let waiting = talk_within(PATIENCE, calls, with_reports);
    assert!(waiting == 0, "{waiting} parties do not hear what was said to them");
}

/// The same, for a while; gives how many parties have not heard everything.
pub(super) fn talk_within(patience: Duration, calls: &mut [[Voice; 2]], reports: bool) -> usize {
    for [caller, callee] in calls.iter_mut() {
        callee.due.push_back(caller.say());
        caller.due.push_back(callee.say());
        if reports {
            callee.due_rtcp.push_back(caller.report());
            caller.due_rtcp.push_back(callee.report());
        }
    }
    let end = Instant::now() + patience;
    loop {
        calls.iter_mut().flatten().for_each(Voice::listen);
        let waiting = calls.iter().flatten().filter(|voice| !voice.is_content()).count();
        if waiting == 0 || Instant::now() >= end {
            return waiting;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
