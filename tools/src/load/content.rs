//! What a generated RTP packet holds, so that whoever receives it can tell which one it is, when it
//! left, and that nothing in it was changed.

use ravelin_io::driver::MEDIA_DATAGRAM_MAX_BYTES;

/// Octets of the RTP header (RFC 3550 5.1).
const RTP_BYTES: usize = 12;
/// Mark, stream, number, time.
const STAMP_BYTES: usize = 24;
const MARK: [u8; 4] = *b"rvld";

/// Least octets of payload: the stamp and some pattern.
pub(crate) const PAYLOAD_MIN_BYTES: u16 = 32;
/// Most octets of payload: what a media port takes, and a frame of 1,500 octets over IPv6 holds.
pub(crate) const PAYLOAD_MAX_BYTES: u16 = 1_400;
const _: () = assert!(PAYLOAD_MAX_BYTES as usize + RTP_BYTES <= MEDIA_DATAGRAM_MAX_BYTES);

/// What a packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) stream: u32,
    /// Number of the packet in its stream, from 0.
    pub(super) number: u64,
    /// When it was made, nanoseconds since 1970.
    pub(super) sent_ns: u64,
}

/// Why a datagram is not one of ours, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not claim to be ours: RTCP, a probe.
    Foreign,
    /// It does, and something in it was changed.
    Corrupt,
}

/// SSRC of a stream. Streams have different ones, as long as there are fewer than 2^32.
pub(super) fn ssrc(stream: u32) -> u32 {
    // An odd factor permutes the numbers.
    stream.wrapping_mul(0x9e37_79b1) ^ 0x5241_564c
}

/// The words of a packet's pattern.
fn pattern(stream: u32, number: u64) -> impl Iterator<Item = [u8; 8]> {
    let mut state = number ^ u64::from(stream) << 40;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).to_le_bytes()
    })
}

/// Writes a packet with `payload` octets behind its RTP header and returns its length. `into` must
/// hold it.
pub(super) fn write(stamp: Stamp, payload: u16, payload_type: u8, into: &mut [u8]) -> usize {
    let length = RTP_BYTES + usize::from(payload);
    let (header, rest) = into[..length].split_at_mut(RTP_BYTES);
    header[0] = 0x80;
    header[1] = payload_type & 0x7f;
    header[2..4].copy_from_slice(&(stamp.number as u16).to_be_bytes());
    header[4..8].copy_from_slice(&timestamp(stamp.number).to_be_bytes());
    header[8..12].copy_from_slice(&ssrc(stamp.stream).to_be_bytes());
    rest[..4].copy_from_slice(&MARK);
    rest[4..8].copy_from_slice(&stamp.stream.to_be_bytes());
    rest[8..16].copy_from_slice(&stamp.number.to_be_bytes());
    rest[16..24].copy_from_slice(&stamp.sent_ns.to_be_bytes());
    for (chunk, word) in rest[STAMP_BYTES..].chunks_mut(8).zip(pattern(stamp.stream, stamp.number))
    {
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    length
}

/// 20 ms of a clock of 8 kHz a packet.
fn timestamp(number: u64) -> u32 {
    (number as u32).wrapping_mul(160)
}

/// Reads a packet back and checks every octet of it. The payload type may have been mapped.
pub(super) fn check(bytes: &[u8], payload: u16) -> Result<Stamp, Fault> {
    let (header, rest) = bytes.split_at_checked(RTP_BYTES).ok_or(Fault::Foreign)?;
    let (stamped, filling) = rest.split_at_checked(STAMP_BYTES).ok_or(Fault::Foreign)?;
    if stamped[..4] != MARK {
        return Err(Fault::Foreign);
    }
    let long = |at: usize| {
        let mut octets = [0; 8];
        octets.copy_from_slice(&stamped[at..at + 8]);
        u64::from_be_bytes(octets)
    };
    let short =
        |octets: &[u8]| octets.iter().fold(0, |sum: u32, octet| sum << 8 | u32::from(*octet));
    let stamp = Stamp { stream: short(&stamped[4..8]), number: long(8), sent_ns: long(16) };
    let sound = header[0] == 0x80
        && header[2..4] == (stamp.number as u16).to_be_bytes()
        && header[4..8] == timestamp(stamp.number).to_be_bytes()
        && header[8..12] == ssrc(stamp.stream).to_be_bytes()
        && rest.len() == usize::from(payload)
        && filling
            .chunks(8)
            .zip(pattern(stamp.stream, stamp.number))
            .all(|(chunk, word)| *chunk == word[..chunk.len()]);
    if sound { Ok(stamp) } else { Err(Fault::Corrupt) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_but_the_payload_type_and_the_time_is_checked() {
        let stamp = Stamp { stream: 7, number: 70_000, sent_ns: 123_456_789_012 };
        let mut packet = [0; 200];
        let length = write(stamp, 160, 8, &mut packet);
        assert_eq!(length, 172);
        assert_eq!(check(&packet[..length], 160), Ok(stamp));
        for at in 0..length {
            let mut bent = packet;
            bent[at] ^= 0x01;
            let found = check(&bent[..length], 160);
            match at {
                1 => assert_eq!(found, Ok(stamp), "payload types are mapped on the way"),
                12..16 => assert_eq!(found, Err(Fault::Foreign), "octet {at}"),
                28..36 => assert_ne!(found, Ok(stamp), "octet {at} is the time"),
                _ => assert_eq!(found, Err(Fault::Corrupt), "octet {at}"),
            }
        }
        assert_eq!(check(&packet[..length - 1], 160), Err(Fault::Corrupt));
        assert_eq!(check(&packet[..20], 160), Err(Fault::Foreign));
    }

    #[test]
    fn streams_have_ssrcs_of_their_own() {
        let all: std::collections::BTreeSet<_> = (0..10_000).map(ssrc).collect();
        assert_eq!(all.len(), 10_000);
    }
}
