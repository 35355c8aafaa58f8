//! What protocol a datagram is of, by its first octets (RFC 7983, RFC 5761).

use crate::{rtcp, rtp, stun};

/// Protocol of a datagram. A guess that costs a few nanoseconds; the parser of the protocol
/// decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing, line ends, or a few zero octets: keeps a NAT binding open (RFC 5626, RFC 6263).
    KeepAlive,
    /// First octet 0 to 3 and the magic cookie.
    Stun,
    /// First octet 16 to 19.
    Zrtp,
    /// First octet 20 to 63.
    Dtls,
    /// TURN channel data, first octet 64 to 79.
    TurnChannel,
    /// First octet 128 to 191, second not of RTCP.
    Rtp,
    /// First octet 128 to 191, second 192 to 223.
    Rtcp,
    /// A word and a space, or `SIP/`: text that may be SIP.
    Sip,
    /// Nothing known.
    Unknown,
}

/// Longest zero-octet keep-alive in use.
const ZERO_KEEP_ALIVE_MAX_BYTES: usize = 4;

/// The protocol that the first octets of `datagram` name.
#[must_use]
pub fn first_byte(datagram: &[u8]) -> Kind {
    let Some(&first) = datagram.first() else { return Kind::KeepAlive };
    match first {
        0 if datagram.len() <= ZERO_KEEP_ALIVE_MAX_BYTES && datagram.iter().all(|&c| c == 0) => {
            Kind::KeepAlive
        }
        0..=3 if stun::has_cookie(datagram) => Kind::Stun,
        b'\r' | b'\n' if datagram.iter().all(|c| matches!(c, b'\r' | b'\n')) => Kind::KeepAlive,
        b'\r' => Kind::Sip,
        16..=19 => Kind::Zrtp,
        0x21..=0x7e if is_sip_text(datagram) => Kind::Sip,
        20..=63 => Kind::Dtls,
        64..=79 => Kind::TurnChannel,
        128..=191 => match datagram.get(1) {
            Some(second) if rtcp::PACKET_TYPES.contains(second) => Kind::Rtcp,
            Some(_) if datagram.len() >= rtp::HEADER_BYTES => Kind::Rtp,
            _ => Kind::Unknown,
        },
        _ => Kind::Unknown,
    }
}

/// Whether a datagram starts like a request line or a status line.
fn is_sip_text(datagram: &[u8]) -> bool {
    let start = datagram.get(..datagram.len().min(crate::limits::METHOD_MAX_BYTES + 1));
    let start = start.unwrap_or_default();
    let word = start.iter().position(|&c| !c.is_ascii_graphic()).unwrap_or(start.len());
    start.get(word) == Some(&b' ')
        || start.first_chunk::<4>().is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_octet_has_one_answer() {
        let mut datagram = [0u8; 20];
        datagram[4..8].copy_from_slice(&stun::MAGIC_COOKIE.to_be_bytes());
        for first in 0..=255u8 {
            datagram[0] = first;
            let expected = match first {
                0..=3 => Kind::Stun,
                16..=19 => Kind::Zrtp,
                20..=63 => Kind::Dtls,
                64..=79 => Kind::TurnChannel,
                128..=191 => Kind::Rtp,
                _ => Kind::Unknown,
            };
            let expected = if first == b'\r' { Kind::Sip } else { expected };
            assert_eq!(first_byte(&datagram), expected, "{first}");
        }
    }

    #[test]
    fn second_octet_tells_rtcp_from_rtp() {
        let mut datagram = [0x80u8; 12];
        for second in 0..=255u8 {
            datagram[1] = second;
            let rtcp = (192..=223).contains(&second);
            assert_eq!(first_byte(&datagram) == Kind::Rtcp, rtcp, "{second}");
        }
        assert_eq!(first_byte(&[0x80]), Kind::Unknown);
        assert_eq!(first_byte(&[0x80, 0]), Kind::Unknown);
    }

    #[test]
    fn text_and_keep_alives() {
        // Methods from A to O share their first octet with TURN channels.
        for text in ["INVITE sip:a@b SIP/2.0", "ACK sip:a", "BYE x", "SIP/2.0 200 OK", "!x y"] {
            assert_eq!(first_byte(text.as_bytes()), Kind::Sip, "{text}");
        }
        assert_eq!(first_byte(b"\r\nINVITE sip:a@b SIP/2.0"), Kind::Sip);
        for quiet in [&b""[..], b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"\0\0\0\0"] {
            assert_eq!(first_byte(quiet), Kind::KeepAlive);
        }
        assert_eq!(first_byte(b"\0\0\0\0\0"), Kind::Unknown);
        // Channel 0x4001, four octets.
        assert_eq!(first_byte(&[0x40, 1, 0, 4, 1, 2, 3, 4]), Kind::TurnChannel);
    }
}
