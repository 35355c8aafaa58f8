//! STUN (RFC 8489): messages read and written, as ICE (RFC 8445) uses them. Nothing is computed with
//! keys here: [`Message::integrity`] and [`Writer::integrity`] tell which octets are to be
//! authenticated.

mod binding;
mod write;

pub use binding::{Check, Malformed, Role, Unknown};
pub use write::{ErrorCode, Writer};

use crate::limits::STUN_ATTRIBUTE_MAX_COUNT;

/// Attribute types (RFC 8489 18.3, RFC 8445 20.1) that this module reads or writes.
pub mod attribute {
    /// Address of the sender in the clear (14.1).
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    /// `ours:theirs` (14.3).
    pub const USERNAME: u16 = 0x0006;
    /// HMAC-SHA1 of the message (14.5).
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    /// Of an error answer (14.8).
    pub const ERROR_CODE: u16 = 0x0009;
    /// Types that a 420 names (14.9).
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    /// Of long-term credentials (14.9).
    pub const REALM: u16 = 0x0014;
    /// Of long-term credentials (14.10).
    pub const NONCE: u16 = 0x0015;
    /// HMAC-SHA256 of the message (14.6); ICE does not use it.
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    /// Address of the sender (14.2).
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// Of a peer-reflexive candidate (RFC 8445 16.1).
    pub const PRIORITY: u16 = 0x0024;
    /// Nominates the pair (RFC 8445 16.1).
    pub const USE_CANDIDATE: u16 = 0x0025;
    /// Text for a reader (14.14).
    pub const SOFTWARE: u16 = 0x8022;
    /// CRC-32 of the message (14.7).
    pub const FINGERPRINT: u16 = super::FINGERPRINT;
    /// Role and tie-breaker (RFC 8445 16.1).
    pub const ICE_CONTROLLED: u16 = 0x8029;
    /// Role and tie-breaker (RFC 8445 16.1).
    pub const ICE_CONTROLLING: u16 = 0x802a;
    /// From here on, one that is not known is skipped; below, it refuses the message.
    pub const COMPREHENSION_OPTIONAL: u16 = 0x8000;
}

/// Octets of the value of MESSAGE-INTEGRITY: HMAC-SHA1.
pub const INTEGRITY_BYTES: usize = 20;

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

    /// The whole message.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
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

    /// The first attribute of this type; others of it are ignored (RFC 8489 14).
    #[must_use]
    pub fn first(&self, wanted: u16) -> Option<&'a [u8]> {
        self.attributes().find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    /// Type and value of the attributes that MESSAGE-INTEGRITY covers; without it, of all. What
    /// follows it is not authenticated and never looked at (RFC 8489 14.5).
    pub fn covered_attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        self.attributes().take_while(|(kind, _)| *kind != attribute::MESSAGE_INTEGRITY)
    }

    /// What MESSAGE-INTEGRITY says, and the octets that it is of. `None`: there is none, or it is
    /// not of its length.
    #[must_use]
    pub fn integrity(&self) -> Option<Integrity<'a>> {
        let mut rest = self.bytes.get(HEADER_BYTES..)?;
        let mut offset = HEADER_BYTES;
        while let Some(((kind, value), tail)) = attribute(rest) {
            if kind == attribute::MESSAGE_INTEGRITY {
                let tag: &[u8; INTEGRITY_BYTES] = value.try_into().ok()?;
                let [t0, t1] = *self.bytes.first_chunk::<2>()?;
                // The length counts up to and with MESSAGE-INTEGRITY (RFC 8489 14.5).
                let length = offset.checked_add(4 + INTEGRITY_BYTES)?.checked_sub(HEADER_BYTES)?;
                let [l0, l1] = u16::try_from(length).ok()?.to_be_bytes();
                let covered = self.bytes.get(4..offset)?;
                return Some(Integrity { head: [t0, t1, l0, l1], covered, tag });
            }
            offset = offset.checked_add(rest.len().checked_sub(tail.len())?)?;
            rest = tail;
        }
        None
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

/// What MESSAGE-INTEGRITY covers: the HMAC of `head` and then `covered` must be `tag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integrity<'a> {
    /// The first four octets of the message, with the length that the sender had put there.
    pub head: [u8; 4],
    /// What follows them, up to MESSAGE-INTEGRITY.
    pub covered: &'a [u8],
    /// What the sender says that the HMAC is.
    pub tag: &'a [u8; INTEGRITY_BYTES],
}

type Attribute<'a> = (u16, &'a [u8]);

/// The attribute at the start of `s`, and what follows its padding.
fn attribute(s: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let ([t0, t1, l0, l1], rest) = s.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    let (padded, tail) = rest.split_at_checked(length.next_multiple_of(4))?;
    Some(((u16::from_be_bytes([*t0, *t1]), padded.get(..length)?), tail))
}

/// CRC-32 of ITU V.42.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &b| {
        let [low, ..] = (crc ^ u32::from(b)).to_le_bytes();
        // As many entries as values of an octet: the compiler drops the check.
        crc >> 8 ^ CRC_TABLE.get(usize::from(low)).copied().unwrap_or(0)
    })
}

const CRC_TABLE: [u32; 256] = crc_table();

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation)] // runs in the compiler
const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    fn written(write: impl FnOnce(Writer<'_>) -> Writer<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let length = write(Writer::binding(&mut out, Class::Request, [7; 12])).finish();
        assert_eq!(length, out.len());
        out
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = written(|w| {
            w.attribute(attribute::USERNAME, b"abcd:wxyz1")
                .attribute(attribute::PRIORITY, &0x6e00_01ff_u32.to_be_bytes())
                .attribute(attribute::USE_CANDIDATE, b"")
                .attribute(attribute::ICE_CONTROLLING, &77_u64.to_be_bytes())
                .attribute(0x7ffe, b"?")
                .attribute(0x7ffe, b"again")
                .attribute(0xfffe, b"optional")
                .integrity(|covered| {
                    // As the RFC wants it: the length counts MESSAGE-INTEGRITY already.
                    let length = u16::from_be_bytes([covered[2], covered[3]]);
                    assert_eq!(usize::from(length) + 20, covered.len() + 24);
                    [9; INTEGRITY_BYTES]
                })
        });
        let message = Message::parse(&bytes).unwrap();
        assert!(message.is_binding_request());
        assert_eq!(message.fingerprint_ok(), Some(true));
        let check = Check::read(&message).unwrap();
        assert_eq!(check.username, Some(&b"abcd:wxyz1"[..]));
        assert_eq!((check.priority, check.use_candidate), (Some(0x6e00_01ff), true));
        assert_eq!(check.role, Some(Role::Controlling(77)));
        assert_eq!(check.unknown.as_slice(), [0x7ffe]);
        let integrity = message.integrity().unwrap();
        assert_eq!(integrity.tag, &[9; 20]);
        assert_eq!(integrity.covered, &bytes[4..bytes.len() - 32]);
        let length = u16::from_be_bytes([integrity.head[2], integrity.head[3]]);
        assert_eq!(usize::from(length) + 20, bytes.len() - 8);
    }

    #[test]
    fn what_follows_the_integrity_is_not_believed() {
        let bytes = written(|w| {
            w.integrity(|_| [1; INTEGRITY_BYTES])
                .attribute(attribute::USE_CANDIDATE, b"")
                .attribute(attribute::PRIORITY, &[1; 4])
                .attribute(0x7ffe, b"")
        });
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(Check::read(&message), Ok(Check::default()));
        assert!(message.integrity().is_some());
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for (kind, right) in [
            (attribute::PRIORITY, 4),
            (attribute::USE_CANDIDATE, 0),
            (attribute::ICE_CONTROLLED, 8),
            (attribute::ICE_CONTROLLING, 8),
        ] {
            for length in 0..13 {
                let bytes = written(|w| w.attribute(kind, &[0; 13][..length]));
                let read = Check::read(&Message::parse(&bytes).unwrap()).map(|_| ());
                let expected = if length == right { Ok(()) } else { Err(Malformed(kind)) };
                assert_eq!(read, expected, "{kind:#x} of {length}");
            }
        }
        for (length, ok) in [(508, true), (509, false)] {
            let bytes = written(|w| w.attribute(attribute::USERNAME, &vec![b'a'; length]));
            assert_eq!(Check::read(&Message::parse(&bytes).unwrap()).is_ok(), ok);
        }
        for length in [0, 19, 21, 32] {
            let bytes = written(|w| w.attribute(attribute::MESSAGE_INTEGRITY, &[0; 32][..length]));
            assert_eq!(Message::parse(&bytes).unwrap().integrity(), None, "{length}");
        }
    }

    #[test]
    fn attributes_are_bounded_in_number() {
        use crate::limits::STUN_ATTRIBUTE_MAX_COUNT;
        // The last one is the fingerprint.
        let with = |count: usize| {
            written(|w| (1..count).fold(w, |w, _| w.attribute(attribute::USE_CANDIDATE, b"")))
        };
        let most = with(STUN_ATTRIBUTE_MAX_COUNT);
        let message = Message::parse(&most).unwrap();
        assert_eq!(message.attributes().count(), STUN_ATTRIBUTE_MAX_COUNT);
        assert_eq!(Message::parse(&with(STUN_ATTRIBUTE_MAX_COUNT + 1)), None);
    }

    #[test]
    fn a_user_name_is_bounded() {
        // RFC 8489 14.3: fewer than 509 octets.
        for (length, sound) in [(508, true), (509, false)] {
            let bytes = written(|w| w.attribute(attribute::USERNAME, &vec![b'u'; length]));
            let check = Check::read(&Message::parse(&bytes).unwrap());
            let expected =
                if sound { Ok(Some(length)) } else { Err(Malformed(attribute::USERNAME)) };
            assert_eq!(check.map(|check| check.username.map(<[u8]>::len)), expected);
        }
    }

    #[test]
    fn unknown_attributes_are_bounded() {
        let bytes = written(|w| (0x100..0x130).fold(w, |w, kind| w.attribute(kind, b"")));
        let check = Check::read(&Message::parse(&bytes).unwrap()).unwrap();
        assert_eq!(check.unknown.as_slice().len(), crate::limits::STUN_UNKNOWN_MAX_COUNT);
        let answer = written(|w| {
            w.error_code(ErrorCode::UnknownAttribute).unknown_attributes(check.unknown.as_slice())
        });
        let answer = Message::parse(&answer).unwrap();
        assert_eq!(answer.first(attribute::ERROR_CODE), Some(&[0, 0, 4, 20][..]));
        assert_eq!(answer.first(attribute::UNKNOWN_ATTRIBUTES).map(<[u8]>::len), Some(16));
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
