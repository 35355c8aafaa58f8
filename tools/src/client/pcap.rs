//! Captures that other tools read: classic pcap with raw IP packets around the SIP messages that a
//! node kept. The headers are made here from the addresses; what is inside is as it came or went.

use std::{collections::HashMap, net::SocketAddr};

use ravelin_contract::view::LadderPacket;

/// Classic pcap, microseconds, in the byte order of this file.
const MAGIC: u32 = 0xa1b2_c3d4;
/// LINKTYPE_RAW: packets begin with the IP header.
const LINKTYPE_RAW: u32 = 101;
const SNAPLEN: u32 = 262_144;
/// Octets of a message in one packet of a stream; over UDP a message is one packet.
const SEGMENT_BYTES: usize = 60_000;
const UDP: u8 = 17;
const TCP: u8 = 6;
const PSH_ACK: u8 = 0x18;

/// The file.
///
/// # Errors
/// What is wrong with a packet.
pub(crate) fn file(packets: &[LadderPacket]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    for half in [2_u16, 4] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    for word in [0, 0, SNAPLEN, LINKTYPE_RAW] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let mut sent: HashMap<(SocketAddr, SocketAddr), u32> = HashMap::new();
    for packet in packets {
        let bytes = octets(&packet.hex).ok_or("a message of the trace is not hexadecimal")?;
        let (from, to) = (packet.from, packet.to);
        if !packet.stream {
            record(packet.unix_ms, &ip(from, to, UDP, udp(from, to, &bytes)?)?, &mut out)?;
            continue;
        }
        for segment in bytes.chunks(SEGMENT_BYTES) {
            let seen = sent.get(&(to, from)).copied().unwrap_or(1);
            let place = sent.entry((from, to)).or_insert(1);
            let payload = tcp(from, to, (*place, seen), segment);
            *place = place.wrapping_add(u32::try_from(segment.len()).unwrap_or(0));
            record(packet.unix_ms, &ip(from, to, TCP, payload)?, &mut out)?;
        }
    }
    Ok(out)
}

fn octets(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
}

fn record(unix_ms: u64, packet: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let length = length(packet.len())?;
    let seconds = u32::try_from(unix_ms / 1_000).map_err(|_| "a time is beyond 2106")?;
    let micros = u32::try_from(unix_ms % 1_000 * 1_000).unwrap_or(0);
    for word in [seconds, micros, length, length] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(packet);
    Ok(())
}

fn length<T: TryFrom<usize>>(octets: usize) -> Result<T, String> {
    T::try_from(octets).map_err(|_| "a message is too large for a packet".to_owned())
}

fn udp(from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
    out.extend_from_slice(&length::<u16>(bytes.len() + 8)?.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(bytes);
    let sum = checksum(&pseudo_header(from, to, UDP, out.len()), &out);
    // RFC 768: zero says that there is none.
    out[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    Ok(out)
}

fn tcp(from: SocketAddr, to: SocketAddr, (place, seen): (u32, u32), bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 20);
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
    out.extend_from_slice(&place.to_be_bytes());
    out.extend_from_slice(&seen.to_be_bytes());
    out.extend_from_slice(&[0x50, PSH_ACK, 0xff, 0xff, 0, 0, 0, 0]);
    out.extend_from_slice(bytes);
    let sum = checksum(&pseudo_header(from, to, TCP, out.len()), &out);
    out[16..18].copy_from_slice(&sum.to_be_bytes());
    out
}

fn ip(from: SocketAddr, to: SocketAddr, protocol: u8, payload: Vec<u8>) -> Result<Vec<u8>, String> {
    let mut out = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend_from_slice(&length::<u16>(payload.len() + 20)?.to_be_bytes());
            header.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend_from_slice(&from.ip().octets());
            header.extend_from_slice(&to.ip().octets());
            let sum = checksum(&[], &header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend_from_slice(&length::<u16>(payload.len())?.to_be_bytes());
            header.extend_from_slice(&[protocol, 64]);
            header.extend_from_slice(&from.ip().octets());
            header.extend_from_slice(&to.ip().octets());
            header
        }
        _ => return Err(format!("{from} and {to} are of two families")),
    };
    out.extend_from_slice(&payload);
    Ok(out)
}

fn pseudo_header(from: SocketAddr, to: SocketAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(40);
    for address in [from, to] {
        match address {
            SocketAddr::V4(address) => out.extend_from_slice(&address.ip().octets()),
            SocketAddr::V6(address) => out.extend_from_slice(&address.ip().octets()),
        }
    }
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, protocol]);
    out
}

/// RFC 1071. `before` is of even length.
fn checksum(before: &[u8], bytes: &[u8]) -> u16 {
    let words = before.chunks(2).chain(bytes.chunks(2));
    let mut sum: u64 = words
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(from: &str, to: &str, stream: bool, hex: &str) -> LadderPacket {
        LadderPacket {
            unix_ms: 1_795_348_800_123,
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            stream,
            hex: hex.into(),
        }
    }

    /// The packets of a file, read by the rules of the format alone.
    fn packets(file: &[u8]) -> Vec<&[u8]> {
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(20)), (0xa1b2_c3d4, 101));
        let (mut at, mut found) = (24, Vec::new());
        while at < file.len() {
            assert_eq!((word(at), word(at + 4)), (1_795_348_800, 123_000));
            let length = word(at + 8) as usize;
            found.push(&file[at + 16..at + 16 + length]);
            at += 16 + length;
        }
        found
    }

    /// A header whose sum is right adds up to zero with it (RFC 1071).
    fn sums_up(packet: &[u8], protocol: u8) {
        let (header, addresses) = match packet[0] >> 4 {
            4 => (20, &packet[12..20]),
            _ => (40, &packet[8..40]),
        };
        if header == 20 {
            assert_eq!(checksum(&[], &packet[..20]), 0);
        }
        let payload = &packet[header..];
        let mut pseudo = addresses.to_vec();
        pseudo.extend((payload.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        assert_eq!(checksum(&pseudo, payload), 0);
    }

    #[test]
    fn datagrams_of_both_families_are_whole_packets() {
        for (from, to, header) in
            [("192.0.2.1:5060", "192.0.2.9:5070", 20), ("[2001:db8::1]:5060", "[::1]:5070", 40)]
        {
            let file = file(&[packet(from, to, false, "414243")]).unwrap();
            let packets = packets(&file);
            assert_eq!(packets.len(), 1);
            sums_up(packets[0], UDP);
            let udp = &packets[0][header..];
            assert_eq!(udp[..6], [0x13, 0xc4, 0x13, 0xce, 0, 11]);
            assert_eq!(&udp[8..], b"ABC");
        }
    }

    #[test]
    fn a_stream_counts_its_octets_in_each_direction() {
        let (a, b) = ("192.0.2.1:5060", "192.0.2.9:5070");
        let long = "5a".repeat(60_001);
        let file = file(&[packet(a, b, true, &long), packet(b, a, true, "4243")]).unwrap();
        let packets = packets(&file);
        let places: Vec<(u32, u32)> = packets
            .iter()
            .map(|packet| {
                sums_up(packet, TCP);
                let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
                (word(24), word(28))
            })
            .collect();
        assert_eq!(places, [(1, 1), (60_001, 1), (1, 60_002)]);
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        for hex in ["4", "xy", "4é"] {
            assert!(file(&[packet("192.0.2.1:1", "192.0.2.2:2", false, hex)]).is_err());
        }
        assert!(file(&[packet("192.0.2.1:1", "[::1]:2", false, "41")]).is_err());
        let huge = "41".repeat(65_530);
        assert!(file(&[packet("192.0.2.1:1", "192.0.2.2:2", false, &huge)]).is_err());
    }
}
