//! A Binding request as ICE's connectivity check (RFC 8445 7.1, 7.3).

use super::{Message, attribute};
use crate::limits::STUN_UNKNOWN_MAX_COUNT;

/// Longest USERNAME (RFC 8489 14.3).
const USERNAME_MAX_BYTES: usize = 508;

/// Which role the sender takes, and its tie-breaker (RFC 8445 7.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// ICE-CONTROLLING.
    Controlling(u64),
    /// ICE-CONTROLLED.
    Controlled(u64),
}

/// Types of attributes that must be understood and are not (RFC 8489 6.3.1): the first few, as many
/// as an answer names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    kinds: [u16; STUN_UNKNOWN_MAX_COUNT],
    count: usize,
}

impl Unknown {
    fn add(&mut self, kind: u16) {
        if !self.as_slice().contains(&kind)
            && let Some(slot) = self.kinds.get_mut(self.count)
        {
            *slot = kind;
            self.count += 1;
        }
    }

    /// The types, in the order of the message.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        self.kinds.get(..self.count).unwrap_or_default()
    }

    /// All was understood.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// An attribute that is known has the wrong length: the request is bad (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub u16);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "STUN attribute {:#06x} is malformed", self.0)
    }
}

impl std::error::Error for Malformed {}

/// What a Binding request of ICE carries, as far as MESSAGE-INTEGRITY covers it. Nothing of it may
/// be believed before that is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Check<'a> {
    /// `ours:theirs`, the two user name fragments.
    pub username: Option<&'a [u8]>,
    /// Priority that a peer-reflexive candidate learnt from this check has.
    pub priority: Option<u32>,
    /// The pair is nominated.
    pub use_candidate: bool,
    /// Role of the sender.
    pub role: Option<Role>,
    /// What must be understood and is not.
    pub unknown: Unknown,
}

impl<'a> Check<'a> {
    /// Reads the attributes of a request. Of one that is repeated the first counts (RFC 8489 14).
    ///
    /// # Errors
    /// [`Malformed`]: an attribute of the wrong length.
    pub fn read(message: &Message<'a>) -> Result<Self, Malformed> {
        let mut check = Self::default();
        for (kind, value) in message.covered_attributes() {
            let malformed = Malformed(kind);
            match kind {
                attribute::USERNAME if check.username.is_none() => {
                    if value.len() > USERNAME_MAX_BYTES {
                        return Err(malformed);
                    }
                    check.username = Some(value);
                }
                attribute::PRIORITY if check.priority.is_none() => {
                    let value = value.try_into().map_err(|_| malformed)?;
                    check.priority = Some(u32::from_be_bytes(value));
                }
                attribute::USE_CANDIDATE => {
                    if !value.is_empty() {
                        return Err(malformed);
                    }
                    check.use_candidate = true;
                }
                attribute::ICE_CONTROLLED | attribute::ICE_CONTROLLING if check.role.is_none() => {
                    let value = u64::from_be_bytes(value.try_into().map_err(|_| malformed)?);
                    check.role = Some(if kind == attribute::ICE_CONTROLLING {
                        Role::Controlling(value)
                    } else {
                        Role::Controlled(value)
                    });
                }
                attribute::USERNAME
                | attribute::PRIORITY
                | attribute::MAPPED_ADDRESS
                | attribute::ERROR_CODE
                | attribute::UNKNOWN_ATTRIBUTES
                | attribute::REALM
                | attribute::NONCE
                | attribute::MESSAGE_INTEGRITY_SHA256
                | attribute::XOR_MAPPED_ADDRESS => {}
                unknown if unknown < attribute::COMPREHENSION_OPTIONAL => check.unknown.add(kind),
                _ => {}
            }
        }
        Ok(check)
    }
}
