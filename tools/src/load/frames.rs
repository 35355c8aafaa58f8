//! Streams as whole Ethernet frames: past routing, queueing disciplines and sockets. Costs a
//! fraction of what sockets do, and is what a device is measured with.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ravelin_io::sys::packet::{self, FRAME_MAX_BYTES, FrameReceiver, FrameSender};

use super::{
    Arrived, Medium,
    namespace::Namespace,
    plan::{Plan, Stream},
};
use crate::exit::Failure;

/// Frames that may wait to be looked at, per side: a second at 32,000 a second.
const RECEIVE_SLOTS: usize = 32_768;
/// Frames taken at a time per side.
const RECEIVE_BATCH: usize = 256;
const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const UDP_PROTOCOL: u8 = 17;
const TTL: u8 = 64;

struct Side {
    sender: FrameSender,
    receiver: FrameReceiver,
}

/// Everything of a frame that is the same for each packet of a stream.
pub(super) struct Head {
    pub(super) bytes: [u8; ETHERNET_BYTES + IPV6_BYTES + UDP_BYTES],
    length: usize,
    side: usize,
    /// Ones' complement sum over the pseudo header and the UDP header.
    pub(super) sum: u32,
}

pub(super) struct Frames {
    sides: Vec<Side>,
    heads: Vec<Head>,
    /// Places where streams arrive, by side and address.
    places: HashMap<(usize, SocketAddr), u32>,
    datagram: usize,
}

impl Frames {
    pub(super) fn open(plan: &Plan, datagram: usize) -> Result<Self, Failure> {
        let mut sides = Vec::new();
        let mut links = Vec::new();
        for (index, side) in plan.sides.iter().enumerate() {
            let (interface, next_hop) = side.link()?;
            let inside = Namespace::enter(side)?;
            let v6 = plan.family(index).unwrap_or(false);
            let failed = |error: std::io::Error| {
                Failure::cannot_run(format!("frames on {interface}: {error} (needs CAP_NET_RAW)"))
            };
            let own = packet::hardware_address(interface).map_err(failed)?;
            sides.push(Side {
                sender: FrameSender::new(interface).map_err(failed)?,
                receiver: FrameReceiver::new(interface, v6, RECEIVE_SLOTS).map_err(failed)?,
            });
            links.push((own, next_hop));
            inside.leave()?;
        }
        let heads = plan
            .streams
            .iter()
            .map(|stream| head(stream, links[stream.side], datagram))
            .collect::<Result<_, Failure>>()?;
        let mut places = HashMap::new();
        for stream in &plan.streams {
            let key = (stream.arrives.side, stream.arrives.at);
            let next = u32::try_from(places.len()).unwrap_or(u32::MAX);
            places.entry(key).or_insert(next);
        }
        Ok(Self { sides, heads, places, datagram })
    }
}

pub(super) fn head(
    stream: &Stream,
    link: ([u8; 6], [u8; 6]),
    datagram: usize,
) -> Result<Head, Failure> {
    let (own, next_hop) = link;
    let mut bytes = [0; ETHERNET_BYTES + IPV6_BYTES + UDP_BYTES];
    let udp_length = u16::try_from(UDP_BYTES + datagram)
        .map_err(|_| Failure::cannot_run("the payload does not fit a datagram"))?;
    bytes[..6].copy_from_slice(&next_hop);
    bytes[6..12].copy_from_slice(&own);
    let (v6, at) = match (stream.from.ip(), stream.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes[12..14].copy_from_slice(&0x0800_u16.to_be_bytes());
            let ip = &mut bytes[ETHERNET_BYTES..ETHERNET_BYTES + IPV4_BYTES];
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&(udp_length + IPV4_BYTES as u16).to_be_bytes());
            // Do not fragment.
            ip[6] = 0x40;
            ip[8] = TTL;
            ip[9] = UDP_PROTOCOL;
            ip[12..16].copy_from_slice(&from.octets());
            ip[16..20].copy_from_slice(&to.octets());
            let sum = fold(sum(ip));
            ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
            (false, ETHERNET_BYTES + IPV4_BYTES)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes[12..14].copy_from_slice(&0x86dd_u16.to_be_bytes());
            let ip = &mut bytes[ETHERNET_BYTES..ETHERNET_BYTES + IPV6_BYTES];
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&udp_length.to_be_bytes());
            ip[6] = UDP_PROTOCOL;
            ip[7] = TTL;
            ip[8..24].copy_from_slice(&from.octets());
            ip[24..40].copy_from_slice(&to.octets());
            (true, ETHERNET_BYTES + IPV6_BYTES)
        }
        _ => return Err(Failure::cannot_run("from and to are of different families")),
    };
    let udp = &mut bytes[at..at + UDP_BYTES];
    udp[..2].copy_from_slice(&stream.from.port().to_be_bytes());
    udp[2..4].copy_from_slice(&stream.to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
    let addresses = if v6 { ETHERNET_BYTES + 8..at } else { ETHERNET_BYTES + 12..at };
    let sum = sum(&bytes[addresses])
        + sum(&bytes[at..at + UDP_BYTES])
        + u32::from(UDP_PROTOCOL)
        + u32::from(udp_length);
    Ok(Head { bytes, length: at + UDP_BYTES, side: stream.side, sum })
}

/// Sum of the 16-bit words, the last one padded (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |octet| u32::from(*octet) << 8);
    words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>() + odd
}

pub(super) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Medium for Frames {
    fn place(&self, side: usize, at: SocketAddr) -> Option<u32> {
        self.places.get(&(side, at)).copied()
    }

    fn push(&mut self, stream: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> bool {
        let Some(head) = self.heads.get(stream) else { return false };
        let datagram = self.datagram;
        self.sides[head.side].sender.push(|frame: &mut [u8; FRAME_MAX_BYTES]| {
            frame[..head.length].copy_from_slice(&head.bytes[..head.length]);
            let end = head.length + datagram;
            let payload = &mut frame[head.length..end];
            fill(payload);
            let checksum = match !fold(head.sum + sum(payload)) {
                // 0 would mean that there is none (RFC 768).
                0 => 0xffff,
                checksum => checksum,
            };
            frame[head.length - 2..head.length].copy_from_slice(&checksum.to_be_bytes());
            end
        })
    }

    fn flush(&mut self) -> Result<u64, Failure> {
        let mut refused = 0;
        for side in &mut self.sides {
            if side.sender.waiting() > 0 {
                let count = side.sender.flush();
                let count =
                    count.map_err(|error| Failure::cannot_run(format!("send frames: {error}")))?;
                refused += count as u64;
            }
        }
        Ok(refused)
    }

    fn receive(&mut self, sink: &mut dyn FnMut(Arrived<'_>)) -> Result<usize, Failure> {
        let mut taken = 0;
        let places = &self.places;
        for (index, side) in self.sides.iter_mut().enumerate() {
            taken += side.receiver.receive(RECEIVE_BATCH, &mut |frame| {
                let Some((from, to, bytes)) = datagram(frame.bytes) else { return };
                if let Some(place) = places.get(&(index, to)) {
                    sink(Arrived { place: *place, from, bytes, at_ns: frame.at_ns });
                }
            });
        }
        Ok(taken)
    }

    fn overruns(&mut self) -> u64 {
        let each = self.sides.iter().map(|side| side.receiver.take_overruns().unwrap_or(u32::MAX));
        each.map(u64::from).sum()
    }
}

/// The UDP datagram in a frame: source, destination, payload. None for anything else.
fn datagram(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let (ethernet, ip) = frame.split_at_checked(ETHERNET_BYTES)?;
    let address4 = |at: usize| {
        let octets: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    };
    let address6 = |at: usize| {
        let octets: [u8; 16] = ip.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    let (from, to, protocol, header) = match ethernet[12..14] {
        [0x08, 0x00] => {
            let header = usize::from(ip.first()? & 0x0f) * 4;
            (address4(12)?, address4(16)?, *ip.get(9)?, header)
        }
        [0x86, 0xdd] => (address6(8)?, address6(24)?, *ip.get(6)?, IPV6_BYTES),
        _ => return None,
    };
    if protocol != UDP_PROTOCOL {
        return None;
    }
    let udp = ip.get(header..)?;
    let word = |at: usize| Some(u16::from_be_bytes(udp.get(at..at + 2)?.try_into().ok()?));
    let payload = udp.get(UDP_BYTES..usize::from(word(4)?))?;
    Some((SocketAddr::new(from, word(0)?), SocketAddr::new(to, word(2)?), payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::plan::Arrival;

    fn frame(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
        let stream = Stream {
            side: 0,
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            arrives: Arrival { side: 0, at: to.parse().unwrap(), from: None },
        };
        let head = head(&stream, ([1; 6], [2; 6]), payload.len()).unwrap();
        let mut frame = head.bytes[..head.length].to_vec();
        frame.extend_from_slice(payload);
        let checksum = !fold(head.sum + sum(payload));
        frame[head.length - 2..head.length].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    #[test]
    fn a_frame_reads_back_as_what_was_written() {
        for (from, to) in
            [("192.0.2.1:2", "192.0.2.2:65534"), ("[2001:db8::1]:5004", "[2001:db8::2]:9")]
        {
            let frame = frame(from, to, b"an odd one");
            let (source, destination, payload) = datagram(&frame).unwrap();
            assert_eq!((source.to_string(), destination.to_string()), (from.into(), to.into()));
            assert_eq!(payload, b"an odd one");
            for length in 0..frame.len() {
                assert_eq!(datagram(&frame[..length]), None, "{length} octets");
            }
        }
    }

    /// The receiver's rule (RFC 1071): the sum over what is covered, checksum included, is all ones.
    #[test]
    fn checksums_verify() {
        for payload in [&b"even"[..], b"odd"] {
            let frame = frame("192.0.2.1:5004", "198.51.100.7:6000", payload);
            assert_eq!(fold(sum(&frame[14..34])), 0xffff);
            let length = (frame.len() - 34) as u32;
            assert_eq!(fold(sum(&frame[26..34]) + 17 + length + sum(&frame[34..])), 0xffff);
        }
    }
}
