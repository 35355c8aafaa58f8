//! STUN (RFC 8489): recognition and a checked walk. Nothing is computed with keys here.

use crate::limits::STUN_ATTRIBUTE_MAX_COUNT;

/// Fixed value in octets 4 to 7 of every STUN message.
pub const MAGIC_COOKIE: u32 = 0x2112_a442;
/// Length of the header.
pub const HEADER_BYTES: usize = 20;
/// Attribute type of FINGERPRINT.
pub const FINGERPRINT: u16 = 0x8028;
/// What FINGERPRINT is XORed with (RFC 8489 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Class of a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// Answers with success.
    Success,
    /// Answers with an error.
    Error,
}

/// One STUN message whose lengths are consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Class.
    pub class: Class,
    /// Method; Binding is 1.
    pub method: u16,
    /// Transaction id.
    pub transaction: [u8; 12],
    bytes: &'a [u8],
}

/// Whether `datagram` carries the magic cookie where STUN has it.
#[must_use]
pub(crate) fn has_cookie(datagram: &[u8]) -> bool {
    datagram.get(4..8) == Some(&MAGIC_COOKIE.to_be_bytes()[..])
}

impl<'a> Message<'a> {
    /// Parses one whole datagram. `None`: not STUN as RFC 7983 tells it apart (methods above 255
    /// are not used beside RTP), a length that does not match, or attributes that do not fill it
    /// exactly.
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (header, body) = datagram.split_first_chunk::<HEADER_BYTES>()?;
        let ([t0, t1, l0, l1, _, _, _, _], transaction) = header.split_first_chunk::<8>()?;
        let kind = u16::from_be_bytes([*t0, *t1]);
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if kind >> 10 != 0 || !has_cookie(datagram) || length != body.len() || length % 4 != 0 {
            return None;
        }
        let class = match (kind & 0x0100 != 0, kind & 0x0010 != 0) {
            (false, false) => Class::Request,
            (false, true) => Class::Indication,
            (true, false) => Class::Success,
            (true, true) => Class::Error,
        };
        let method = kind & 0x000f | (kind & 0x00e0) >> 1 | (kind & 0x0200) >> 2;
        let mut rest = body;
        let mut count = 0;
        while !rest.is_empty() {
            (_, rest) = attribute(rest)?;
            count += 1;
            if count > STUN_ATTRIBUTE_MAX_COUNT {
                return None;
            }
        }
        let transaction = *transaction.first_chunk::<12>()?;
        Some(Self { class, method, transaction, bytes: datagram })
    }

    /// Whether this is a Binding request.
    #[must_use]
    pub fn is_binding_request(&self) -> bool {
        self.class == Class::Request && self.method == 1
    }

    /// Type and value of the attributes, in order.
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.bytes.get(HEADER_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (found, tail) = attribute(rest)?;
            rest = tail;
            Some(found)
        })
    }

    /// `None`: there is no FINGERPRINT; else whether it is the last attribute and right.
    #[must_use]
    pub fn fingerprint_ok(&self) -> Option<bool> {
        let (_, value) = self.attributes().find(|(kind, _)| *kind == FINGERPRINT)?;
        let last = self.attributes().last().is_some_and(|(kind, _)| kind == FINGERPRINT);
        let covered = self.bytes.get(..self.bytes.len().checked_sub(8)?)?;
        let expected = crc32(covered) ^ FINGERPRINT_XOR;
        Some(last && value == expected.to_be_bytes())
    }
}

type Attribute<'a> = (u16, &'a [u8]);

/// The attribute at the start of `s`, and what follows its padding.
fn attribute(s: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let ([t0, t1, l0, l1], rest) = s.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    let (padded, tail) = rest.split_at_checked(length.next_multiple_of(4))?;
    Some(((u16::from_be_bytes([*t0, *t1]), padded.get(..length)?), tail))
}

/// CRC-32 of ITU V.42, bit by bit: recognition is rare and short.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 };
    !bytes.iter().fold(u32::MAX, |crc, &b| (0..8).fold(crc ^ u32::from(b), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn refuses_every_cut() {
        let mut bytes = vec![0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];
        bytes.extend_from_slice(&[9; 12]);
        bytes.extend_from_slice(&[0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
        let message = Message::parse(&bytes).unwrap();
        assert!(message.is_binding_request());
        assert_eq!(message.attributes().collect::<Vec<_>>(), [(0x8022, &b"abc"[..])]);
        assert_eq!(message.fingerprint_ok(), None);
        for len in 0..bytes.len() {
            assert_eq!(Message::parse(&bytes[..len]), None);
        }
        bytes[23] = 5; // longer than the message
        assert_eq!(Message::parse(&bytes), None);
    }
}
