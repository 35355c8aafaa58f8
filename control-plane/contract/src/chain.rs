//! Hash-chained records: the envelope in which audit events and CDRs leave a node.
//!
//! A record is one JSON line `{"seq":..,"prev":"..","hash":"..","entry":{..}}`. `hash` is SHA-256 over the 32
//! octets of `prev`, `seq` as eight octets big-endian, and the octets of `entry` exactly as
//! written. Who changes, removes, repeats or reorders a line breaks the chain at that line.
//! A node has one chain, numbered from 1; `prev` of record 1 is 32 zero octets.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{audit::AuditEvent, cdr::Cdr};

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// What a record carries.
#[allow(clippy::large_enum_variant, reason = "made once per record and sealed at once, never kept")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Entry {
    Audit(AuditEvent),
    Cdr(Cdr),
    /// The node knows that entries are missing: how many (if known) and why.
    Gap {
        lost: Option<u64>,
        reason: String,
        unix_ms: u64,
    },
}

/// One line of the chain.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    pub seq: u64,
    pub prev: String,
    pub hash: String,
    pub entry: Box<RawValue>,
}

impl Clone for Record {
    fn clone(&self) -> Self {
        Self {
            seq: self.seq,
            prev: self.prev.clone(),
            hash: self.hash.clone(),
            entry: self.entry.clone(),
        }
    }
}

/// Why a record does not continue the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// The number is not the one that follows.
    Sequence { expected: u64, found: u64 },
    /// `prev` is not the hash of the record before.
    Broken { seq: u64 },
    /// `hash` does not fit the content.
    Altered { seq: u64 },
    /// Not a record.
    Malformed { line: u64, reason: String },
}

impl std::fmt::Display for ChainError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sequence { expected, found } => {
                write!(f, "record {expected} expected, record {found} found")
            }
            Self::Broken { seq } => {
                write!(f, "record {seq} does not follow the record before it")
            }
            Self::Altered { seq } => write!(f, "record {seq} was altered: its hash does not fit"),
            Self::Malformed { line, reason } => write!(f, "line {line} is not a record: {reason}"),
        }
    }
}

impl std::error::Error for ChainError {}

/// The end of a chain: what the next record must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub seq: u64,
    pub hash: Hash,
}

impl Head {
    /// Before the first record.
    pub const START: Self = Self { seq: 0, hash: [0; 32] };

    /// Seals `entry` as the next record and moves the head.
    ///
    /// # Errors
    /// Only if the entry cannot be written as JSON.
    pub fn seal(&mut self, entry: &Entry) -> Result<Record, serde_json::Error> {
        let text = serde_json::value::to_raw_value(entry)?;
        let seq = self.seq + 1;
        let hash = link_hash(&self.hash, seq, text.get().as_bytes());
        let record = Record { seq, prev: to_hex(&self.hash), hash: to_hex(&hash), entry: text };
        *self = Self { seq, hash };
        Ok(record)
    }

    /// Checks that `record` is the next one and moves the head.
    ///
    /// # Errors
    /// [`ChainError`] says how the chain breaks; the head then stays where it was.
    pub fn accept(&mut self, record: &Record) -> Result<(), ChainError> {
        let seq = record.seq;
        if seq != self.seq + 1 {
            return Err(ChainError::Sequence { expected: self.seq + 1, found: seq });
        }
        if record.prev != to_hex(&self.hash) {
            return Err(ChainError::Broken { seq });
        }
        let hash = link_hash(&self.hash, seq, record.entry.get().as_bytes());
        if record.hash != to_hex(&hash) {
            return Err(ChainError::Altered { seq });
        }
        *self = Self { seq, hash };
        Ok(())
    }
}

fn link_hash(prev: &Hash, seq: u64, entry: &[u8]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(prev);
    context.update(&seq.to_be_bytes());
    context.update(entry);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Lower-case hexadecimal.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads 64 hexadecimal digits; `None` if `text` is anything else.
#[must_use]
pub fn hash_from_hex(text: &str) -> Option<Hash> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (octet, pair) in hash.iter_mut().zip(bytes.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *octet = u8::try_from(high * 16 + low).ok()?;
    }
    Some(hash)
}
