//! Ethernet frames with UDP in them, read and written.
//!
//! Reading is total: any octets give a datagram or a [`Reject`]. The program in the kernel lets only
//! packets of known streams through, so whatever is refused here is a fault of somebody's, counted.

use super::Way;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERNET_BYTES: usize = 14;
const TAG_BYTES: usize = 4;
const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
/// Ethernet with a tag, IPv6, UDP.
const HEAD_MAX_BYTES: usize = ETHERNET_BYTES + TAG_BYTES + V6_BYTES + UDP_BYTES;

const ETHERTYPE_V4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const PROTOCOL_UDP: u8 = 17;

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reject {
    /// Cut short, or lengths that disagree.
    Malformed,
    /// Not UDP over IP over Ethernet, with one tag at most; or a fragment, or with options.
    Foreign,
    /// The checksum of IP or UDP is wrong.
    Checksum,
}

/// A datagram in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'f> {
    pub(crate) source: SocketAddr,
    pub(crate) target: SocketAddr,
    /// Where in the frame the payload begins.
    pub(crate) start: usize,
    pub(crate) payload: &'f [u8],
}

/// Sum of the 16-bit words of `octets`, in machine order; the last one is filled up with zero.
fn sum(octets: &[u8]) -> u64 {
    let mut words = octets.chunks_exact(4);
    let mut sum: u64 =
        words.by_ref().map(|w| u64::from(u32::from_ne_bytes([w[0], w[1], w[2], w[3]]))).sum();
    let mut pairs = words.remainder().chunks_exact(2);
    sum += pairs.by_ref().map(|p| u64::from(u16::from_ne_bytes([p[0], p[1]]))).sum::<u64>();
    if let [last] = pairs.remainder() {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// What the pseudo header adds to the sum of a datagram (RFC 768, RFC 8200 8.1): `addresses` are
/// both, one after the other.
fn pseudo(addresses: u64, udp_bytes: u16) -> u64 {
    addresses + u64::from(u16::from(PROTOCOL_UDP).to_be()) + u64::from(udp_bytes.to_be())
}

fn word(at: &[u8], place: usize) -> Option<u16> {
    let pair = at.get(place..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*pair))
}

/// The datagram of a frame. `partial`: the interface hands over packets of this machine whose
/// checksum is still that of the pseudo header alone, for hardware that is not there.
pub(crate) fn parse(frame: &[u8], partial: bool) -> Result<Datagram<'_>, Reject> {
    let (ethernet, rest) = frame.split_first_chunk::<ETHERNET_BYTES>().ok_or(Reject::Malformed)?;
    let mut protocol = [ethernet[12], ethernet[13]];
    let mut ip = rest;
    let mut start = ETHERNET_BYTES;
    if protocol == ETHERTYPE_VLAN {
        start += TAG_BYTES;
        let (tag, rest) = rest.split_first_chunk::<TAG_BYTES>().ok_or(Reject::Malformed)?;
        protocol = [tag[2], tag[3]];
        ip = rest;
    }
    match protocol {
        ETHERTYPE_V4 => {
            let (header, rest) = ip.split_first_chunk::<V4_BYTES>().ok_or(Reject::Malformed)?;
            // No options, no fragment, nothing reserved.
            if header[0] != 0x45 || header[9] != PROTOCOL_UDP {
                return Err(Reject::Foreign);
            }
            if header[6] & 0xbf != 0 || header[7] != 0 {
                return Err(Reject::Foreign);
            }
            if fold(sum(header)) != 0xffff {
                return Err(Reject::Checksum);
            }
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let length = total.checked_sub(V4_BYTES).ok_or(Reject::Malformed)?;
            let udp = rest.get(..length).ok_or(Reject::Malformed)?;
            let address = |at: usize| {
                Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into()
            };
            let start = start + V4_BYTES;
            datagram(udp, start, address(12), address(16), sum(&header[12..]), partial)
        }
        ETHERTYPE_V6 => {
            let (header, rest) = ip.split_first_chunk::<V6_BYTES>().ok_or(Reject::Malformed)?;
            if header[0] >> 4 != 6 || header[6] != PROTOCOL_UDP {
                return Err(Reject::Foreign);
            }
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let udp = rest.get(..length).ok_or(Reject::Malformed)?;
            let address = |at: usize| {
                let octets = header.get(at..).and_then(|rest| rest.first_chunk::<16>());
                Ipv6Addr::from(octets.copied().unwrap_or_default()).into()
            };
            let start = start + V6_BYTES;
            datagram(udp, start, address(8), address(24), sum(&header[8..]), partial)
        }
        _ => Err(Reject::Foreign),
    }
}

fn datagram(
    udp: &[u8],
    start: usize,
    source: IpAddr,
    target: IpAddr,
    addresses: u64,
    partial: bool,
) -> Result<Datagram<'_>, Reject> {
    let (header, payload) = udp.split_first_chunk::<UDP_BYTES>().ok_or(Reject::Malformed)?;
    let ports = (word(header, 0), word(header, 2));
    let (Some(source_port), Some(target_port)) = ports else { return Err(Reject::Malformed) };
    let length = u16::from_be_bytes([header[4], header[5]]);
    if usize::from(length) != udp.len() {
        return Err(Reject::Malformed);
    }
    let check = u16::from_ne_bytes([header[6], header[7]]);
    let pseudo = pseudo(addresses, length);
    let whole = || fold(pseudo + sum(udp)) == 0xffff;
    let right = match check {
        // None, as IPv4 allows and IPv6 does not.
        0 => source.is_ipv4(),
        check => (partial && check == fold(pseudo)) || whole(),
    };
    if !right {
        return Err(Reject::Checksum);
    }
    Ok(Datagram {
        source: SocketAddr::new(source, source_port),
        target: SocketAddr::new(target, target_port),
        start: start + UDP_BYTES,
        payload,
    })
}

/// Headers of the packets from one port to one place, but for what each packet has of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    head: [u8; HEAD_MAX_BYTES],
    bytes: usize,
    /// Where the IP header begins.
    ip: usize,
    v4: bool,
    mtu: usize,
    /// Sums of what is the same in each packet: of the IPv4 header, and of pseudo and UDP header
    /// without the two lengths.
    ip_sum: u64,
    udp_sum: u64,
}

impl Template {
    /// `None`: the two addresses are of different families.
    pub(crate) fn new(from: SocketAddr, to: SocketAddr, tos: u8, way: &Way) -> Option<Self> {
        let mut head = [0; HEAD_MAX_BYTES];
        let mut bytes = 0;
        let mut put = |octets: &[u8]| {
            if let Some(place) = head.get_mut(bytes..bytes + octets.len()) {
                place.copy_from_slice(octets);
            }
            bytes += octets.len();
        };
        put(&way.target_mac);
        put(&way.source_mac);
        if way.vlan != 0 {
            put(&ETHERTYPE_VLAN);
            put(&way.vlan.to_be_bytes());
        }
        let ip = ETHERNET_BYTES + if way.vlan == 0 { 0 } else { TAG_BYTES };
        let v4 = from.is_ipv4();
        // As the sockets send: not to be fragmented, hence without identification; no flow label.
        let addresses = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                put(&ETHERTYPE_V4);
                put(&[0x45, tos, 0, 0, 0, 0, 0x40, 0, way.ttl, PROTOCOL_UDP, 0, 0]);
                put(&from.octets());
                put(&to.octets());
                sum(&from.octets()) + sum(&to.octets())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                put(&ETHERTYPE_V6);
                put(&[0x60 | tos >> 4, tos << 4, 0, 0, 0, 0, PROTOCOL_UDP, way.ttl]);
                put(&from.octets());
                put(&to.octets());
                sum(&from.octets()) + sum(&to.octets())
            }
            _ => return None,
        };
        put(&from.port().to_be_bytes());
        put(&to.port().to_be_bytes());
        put(&[0; 4]);
        let ip_sum = if v4 { sum(head.get(ip..ip + V4_BYTES)?) } else { 0 };
        let udp_sum = pseudo(addresses, 0) + sum(head.get(bytes - UDP_BYTES..bytes)?);
        Some(Self { head, bytes, ip, v4, mtu: usize::from(way.mtu), ip_sum, udp_sum })
    }

    /// Reads it, for the sake of reading.
    pub(crate) fn read_ahead(&self) -> u64 {
        u64::from(self.head[0]) ^ self.udp_sum ^ self.mtu as u64
    }

    /// Octets of the frame around a payload; `None`: longer than may leave there.
    pub(crate) fn frame_bytes(&self, payload: usize) -> Option<usize> {
        let bytes = self.bytes + payload;
        (bytes - self.ip <= self.mtu).then_some(bytes)
    }

    /// Writes the frame around a payload and returns its length; `None` if it is longer than may
    /// leave there, or than `frame`.
    pub(crate) fn write(&self, frame: &mut [u8], payload: &[u8]) -> Option<usize> {
        let bytes = self.frame_bytes(payload.len())?;
        let frame = frame.get_mut(..bytes)?;
        let (head, rest) = frame.split_at_mut_checked(self.bytes)?;
        head.copy_from_slice(self.head.get(..self.bytes)?);
        rest.copy_from_slice(payload);
        let udp_bytes = u16::try_from(UDP_BYTES + payload.len()).ok()?;
        let ip = head.get_mut(self.ip..)?;
        let udp = if self.v4 {
            let total = udp_bytes.checked_add(V4_BYTES as u16)?;
            ip.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
            let check = !fold(self.ip_sum + u64::from(total.to_be()));
            ip.get_mut(10..12)?.copy_from_slice(&check.to_ne_bytes());
            ip.get_mut(V4_BYTES..)?
        } else {
            ip.get_mut(4..6)?.copy_from_slice(&udp_bytes.to_be_bytes());
            ip.get_mut(V6_BYTES..)?
        };
        udp.get_mut(4..6)?.copy_from_slice(&udp_bytes.to_be_bytes());
        // The length counts twice: in the pseudo header and in the header itself.
        let sum = self.udp_sum + 2 * u64::from(udp_bytes.to_be()) + sum(payload);
        // Zero would say that there is none (RFC 768).
        let check = match !fold(sum) {
            0 => 0xffff,
            check => check,
        };
        udp.get_mut(6..8)?.copy_from_slice(&check.to_ne_bytes());
        Some(bytes)
    }
}

#[cfg(test)]
mod tests;
