//! Packets octet by octet, with every mistake that a test wants.

use std::net::{IpAddr, SocketAddr};

/// One frame to be made; what is not said is right.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) target_mac: [u8; 6],
    pub(crate) source_mac: [u8; 6],
    pub(crate) vlan: Option<u16>,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) payload: Vec<u8>,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    /// Flags and offset of IPv4.
    pub(crate) fragment: u16,
    /// Options of IPv4, or an extension header of IPv6 of this next-header number.
    pub(crate) options: Vec<u8>,
    pub(crate) extension: Option<u8>,
    pub(crate) udp_checksum: Option<u16>,
    pub(crate) ip_checksum: Option<u16>,
    /// Added to the lengths that the headers give.
    pub(crate) udp_length_off: i32,
    pub(crate) ip_length_off: i32,
    /// Octets behind the packet.
    pub(crate) trailer: usize,
    /// Octets cut off at the end.
    pub(crate) cut: usize,
}

pub(crate) fn sum(octets: &[u8], start: u32) -> u32 {
    let mut sum = start;
    for pair in octets.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Checksum of a UDP header with payload between two addresses, whose own field is zero; of as much
/// as its length names.
pub(crate) fn udp_checksum(from: IpAddr, to: IpAddr, udp: &[u8]) -> u16 {
    let mut pseudo = octets(from);
    pseudo.extend(octets(to));
    pseudo.extend((udp.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 17]);
    match !(sum(udp, sum(&pseudo, 0)) as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

impl Packet {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let length = (8 + self.payload.len()) as i32 + self.udp_length_off;
        let mut udp = Vec::new();
        udp.extend(self.from.port().to_be_bytes());
        udp.extend(self.to.port().to_be_bytes());
        udp.extend((length as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let named = usize::try_from(length).unwrap_or(0).clamp(8, udp.len());
        let right = udp_checksum(self.from.ip(), self.to.ip(), &udp[..named]);
        udp[6..8].copy_from_slice(&self.udp_checksum.unwrap_or(right).to_be_bytes());

        let mut frame = Vec::new();
        frame.extend(self.target_mac);
        frame.extend(self.source_mac);
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        let ip = frame.len() + 2;
        let total = (udp.len() + self.options.len()) as i32 + self.ip_length_off;
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([0x08, 0x00]);
                let words = 5 + self.options.len() / 4;
                frame.extend([0x40 | words as u8, self.tos]);
                frame.extend(((20 + total) as u16).to_be_bytes());
                frame.extend([0x12, 0x34]);
                frame.extend(self.fragment.to_be_bytes());
                frame.extend([self.ttl, 17, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                frame.extend(&self.options);
                let check = !(sum(&frame[ip..], 0) as u16);
                let check = self.ip_checksum.unwrap_or(check);
                frame[ip + 10..ip + 12].copy_from_slice(&check.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd]);
                let class = 0x6000_0000 | u32::from(self.tos) << 20 | 0x54321;
                frame.extend(class.to_be_bytes());
                frame.extend((total as u16).to_be_bytes());
                frame.extend([self.extension.unwrap_or(17), self.ttl]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                frame.extend(&self.options);
            }
            _ => panic!("one family"),
        }
        frame.extend(udp);
        frame.extend(vec![0xee; self.trailer]);
        frame.truncate(frame.len() - self.cut);
        frame
    }
}

/// An RTP packet.
pub(crate) fn rtp(first: u8, second: u8, sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![first, second];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A frame without what the two paths may differ in: identification, TTL, flow label, and the
/// header checksum that follows from them. It must be right all the same.
pub(crate) fn comparable(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let tagged = frame[12..14] == [0x81, 0x00];
    let ip = if tagged { 18 } else { 14 };
    match frame[ip] >> 4 {
        4 => {
            assert_eq!(sum(&frame[ip..ip + 20], 0), 0xffff, "IPv4 checksum of {frame:02x?}");
            frame[ip + 4..ip + 6].fill(0);
            assert!(frame[ip + 8] >= 32, "TTL");
            frame[ip + 8] = 0;
            frame[ip + 10..ip + 12].fill(0);
        }
        6 => {
            assert!(frame[ip + 7] >= 32, "hop limit");
            frame[ip + 1] &= 0xf0;
            frame[ip + 2..ip + 4].fill(0);
            frame[ip + 7] = 0;
        }
        version => panic!("IP version {version}"),
    }
    frame
}

/// The same without "don't fragment": what waited while a shard did not run leaves in one send, and where
/// all of it is longer than the MTU, the kernel cuts it into packets that lack that bit.
pub(crate) fn comparable_by_sockets(frame: &[u8]) -> Vec<u8> {
    let mut frame = comparable(frame);
    let ip = if frame[12..14] == [0x81, 0x00] { 18 } else { 14 };
    if frame[ip] >> 4 == 4 {
        frame[ip + 6] &= !0x40;
    }
    frame
}
