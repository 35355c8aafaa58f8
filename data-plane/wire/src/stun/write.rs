//! STUN messages written.

use std::net::{IpAddr, SocketAddr};

use super::{
    Class, FINGERPRINT, FINGERPRINT_XOR, HEADER_BYTES, INTEGRITY_BYTES, MAGIC_COOKIE, attribute,
    crc32,
};

/// Errors that a STUN server of ours answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 400 Bad Request (RFC 8489 9.1.3).
    BadRequest,
    /// 401 Unauthenticated (RFC 8489 9.1.3).
    Unauthenticated,
    /// 420 Unknown Attribute (RFC 8489 6.3.1).
    UnknownAttribute,
    /// 487 Role Conflict (RFC 8445 7.3.1.1).
    RoleConflict,
}

impl ErrorCode {
    /// The three digits.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::UnknownAttribute => 420,
            Self::RoleConflict => 487,
        }
    }
}

/// Appends one message to a buffer. The attributes come in the order of the calls;
/// [`Self::integrity`] after all others, [`Self::finish`] last.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    transaction: [u8; 12],
}

impl<'b> Writer<'b> {
    /// Begins a Binding message.
    #[must_use]
    pub fn binding(out: &'b mut Vec<u8>, class: Class, transaction: [u8; 12]) -> Self {
        let kind: u16 = match class {
            Class::Request => 0x0001,
            Class::Indication => 0x0011,
            Class::Success => 0x0101,
            Class::Error => 0x0111,
        };
        let start = out.len();
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(&transaction);
        Self { out, start, transaction }
    }

    /// Any attribute. Values beyond 65,532 octets do not fit and are left out.
    #[must_use]
    pub fn attribute(self, kind: u16, value: &[u8]) -> Self {
        if let Ok(length) = u16::try_from(value.len())
            && length <= u16::MAX - 3
        {
            self.out.extend_from_slice(&kind.to_be_bytes());
            self.out.extend_from_slice(&length.to_be_bytes());
            self.out.extend_from_slice(value);
            let padding = value.len().next_multiple_of(4) - value.len();
            self.out.extend_from_slice([0; 3].get(..padding).unwrap_or_default());
        }
        self
    }

    /// XOR-MAPPED-ADDRESS (RFC 8489 14.2).
    #[must_use]
    pub fn xor_mapped_address(self, address: SocketAddr) -> Self {
        let [c0, c1, c2, c3] = MAGIC_COOKIE.to_be_bytes();
        let [p0, p1] = address.port().to_be_bytes();
        let mut value = [0; 20];
        let (head, body) = value.split_at_mut(4);
        let (family, used) = match address.ip() {
            IpAddr::V4(ip) => {
                for ((to, from), key) in body.iter_mut().zip(ip.octets()).zip([c0, c1, c2, c3]) {
                    *to = from ^ key;
                }
                (1, 8)
            }
            IpAddr::V6(ip) => {
                let key = [c0, c1, c2, c3].into_iter().chain(self.transaction);
                for ((to, from), key) in body.iter_mut().zip(ip.octets()).zip(key) {
                    *to = from ^ key;
                }
                (2, 20)
            }
        };
        head.copy_from_slice(&[0, family, p0 ^ c0, p1 ^ c1]);
        self.attribute(attribute::XOR_MAPPED_ADDRESS, value.get(..used).unwrap_or_default())
    }

    /// ERROR-CODE, without a phrase: an answer to somebody unknown is no longer than it must be.
    #[must_use]
    pub fn error_code(self, code: ErrorCode) -> Self {
        let number = code.number();
        let [_, class] = (number / 100).to_be_bytes();
        let [_, rest] = (number % 100).to_be_bytes();
        self.attribute(attribute::ERROR_CODE, &[0, 0, class, rest])
    }

    /// UNKNOWN-ATTRIBUTES.
    #[must_use]
    pub fn unknown_attributes(self, kinds: &[u16]) -> Self {
        let mut value = [0; 2 * crate::limits::STUN_UNKNOWN_MAX_COUNT];
        let mut used = 0;
        for (slot, kind) in value.chunks_exact_mut(2).zip(kinds) {
            slot.copy_from_slice(&kind.to_be_bytes());
            used += 2;
        }
        self.attribute(attribute::UNKNOWN_ATTRIBUTES, value.get(..used).unwrap_or_default())
    }

    /// MESSAGE-INTEGRITY: `hmac` gets the octets to authenticate and returns their HMAC-SHA1.
    #[must_use]
    pub fn integrity(mut self, hmac: impl FnOnce(&[u8]) -> [u8; INTEGRITY_BYTES]) -> Self {
        self.set_length(4 + INTEGRITY_BYTES);
        let tag = hmac(self.out.get(self.start..).unwrap_or_default());
        self.attribute(attribute::MESSAGE_INTEGRITY, &tag)
    }

    /// Adds FINGERPRINT and ends the message. Returns its length.
    pub fn finish(mut self) -> usize {
        self.set_length(8);
        let crc = crc32(self.out.get(self.start..).unwrap_or_default()) ^ FINGERPRINT_XOR;
        let done = self.attribute(FINGERPRINT, &crc.to_be_bytes());
        done.out.len() - done.start
    }

    /// Writes the length that the message has with `more` octets to come.
    fn set_length(&mut self, more: usize) {
        let length = (self.out.len() - self.start + more).saturating_sub(HEADER_BYTES);
        let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        let at = self.start + 2;
        if let Some(field) = self.out.get_mut(at..at + 2) {
            field.copy_from_slice(&length);
        }
    }
}
