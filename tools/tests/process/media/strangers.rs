//! Those who send what is not theirs to say.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::voice::{drained, rtp, sender_report, socket};

/// Attackers that reach one realm: a host that no call knows, and one port after another of the
/// party's own host, where a NAT might put it.
pub(super) struct Strangers {
    sockets: Vec<UdpSocket>,
    /// Sockets that parties have left, and the port of ours that they sent to.
    strays: Vec<(SocketAddr, UdpSocket)>,
    pub(super) sent: usize,
}

impl Strangers {
    pub(super) fn new(hosts: &[IpAddr], ports: &[u16]) -> Self {
        let each = hosts.iter().flat_map(|host| ports.iter().map(|port| socket(*host, *port)));
        Self { sockets: each.collect(), strays: Vec::new(), sent: 0 }
    }

    /// A party has left its sockets: what still comes of them to `port` is nobody's.
    pub(super) fn join(&mut self, port: SocketAddr, sockets: [UdpSocket; 2]) {
        self.strays.extend(sockets.map(|socket| (port, socket)));
    }

    /// Each of them sends every kind of packet to `port` and the one above. `ssrc`, `sequence`: of
    /// the party, as somebody who listens on the wire would know them.
    pub(super) fn attack(&mut self, port: SocketAddr, ssrc: u32, sequence: u16) {
        let above = SocketAddr::new(port.ip(), port.port() + 1);
        let packets = arsenal(ssrc, sequence);
        let strays = self.strays.iter().filter(|(to, _)| *to == port).map(|(_, socket)| socket);
        for socket in self.sockets.iter().chain(strays) {
            for packet in &packets {
                for to in [port, above] {
                    // An ICMP error of an earlier packet may be told here.
                    let _ = socket.send_to(packet, to).or_else(|_| socket.send_to(packet, to));
                    self.sent += 1;
                }
            }
        }
    }

    /// `count` RTP packets of `ssrc` at once.
    pub(super) fn burst(&mut self, to: SocketAddr, ssrc: u32, sequence: u16, count: u16) {
        for socket in &self.sockets {
            for number in 1..=count {
                let packet = rtp(0, sequence.wrapping_add(number), ssrc, b"a stranger's voice");
                let _ = socket.send_to(&packet, to);
                self.sent += 1;
            }
        }
    }

    /// What anybody told them.
    pub(super) fn heard(&self) -> Vec<Vec<u8>> {
        let strays = self.strays.iter().map(|(_, socket)| socket);
        self.sockets.iter().chain(strays).flat_map(drained).collect()
    }
}

/// Every kind of packet that has fooled somebody.
fn arsenal(ssrc: u32, sequence: u16) -> Vec<Vec<u8>> {
    let next = sequence.wrapping_add(1);
    let voice = [b"a stranger's voice ".as_slice(); 8].concat();
    let mut bye = sender_report(ssrc, 9);
    bye.extend([0x81, 203, 0, 1]);
    bye.extend(ssrc.to_be_bytes());
    let mut stun = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    stun.extend(b"stranger....");
    let mut sealed = rtp(0, next, ssrc, &voice);
    sealed.extend([0x5a; 10]);
    let mut sealed_report = sender_report(ssrc, 7);
    sealed_report.extend([0x80, 0, 0, 1]);
    sealed_report.extend([0x5a; 10]);
    let mut digit = rtp(101, next, ssrc, &[5, 0x8a, 3, 0x20]);
    digit[1] |= 0x80;
    // A record of DTLS 1.2 with a ClientHello of nothing, and an alert in the clear.
    let hello =
        [&[22, 254, 253][..], &[0; 8], &[0, 12, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let alert = [&[21, 254, 253][..], &[0; 8], &[0, 2, 2, 40]].concat();
    let mut padded = rtp(0, next, ssrc, &voice);
    padded[0] |= 0x20;
    *padded.last_mut().expect("octets") = 255;
    let mut extended = rtp(0, next, ssrc, &[0xbe, 0xde, 0xff, 0xff]);
    extended[0] |= 0x10;
    vec![
        rtp(0, next, ssrc, &voice),
        rtp(0, sequence, ssrc, &voice),
        rtp(0, next, !ssrc, &voice),
        rtp(96, next, 1, b""),
        digit,
        sender_report(ssrc, 1),
        sender_report(!ssrc, 1),
        bye,
        vec![0x80, 200, 0, 0],
        vec![0x80, 201, 0, 0],
        vec![0x81, 203, 0, 0],
        [&[0x80, 200, 0xff, 0xff][..], &ssrc.to_be_bytes()].concat(),
        [&[0x9f, 201, 0, 1][..], &ssrc.to_be_bytes()].concat(),
        stun,
        sealed,
        sealed_report,
        hello,
        alert,
        padded,
        extended,
        vec![0x8f, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![0xde; 40],
        vec![0x80],
        vec![],
        b"\r\n".to_vec(),
        vec![0x40, 0, 0x11, 0x22, 1, 2, 3, 4],
    ]
}
