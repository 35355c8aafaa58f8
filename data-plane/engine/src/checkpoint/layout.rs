//! The octets of a record: a fixed header, then fields in a fixed order, little-endian, each with one
//! encoding only. Nothing is read that the checksum has not vouched for.
//!
//! ```text
//! 0   magic "RvCR"      4   layout u16      6  shard u8     7  zero
//! 8   slot u32          12  length u32      16 sequence u64
//! 24  monotonic ns u64  32  unix ms u64     40 checksum u64 48 body
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::Refused;
use crate::{
    ids::siphash,
    time::{Instant, Now},
};

const MAGIC: [u8; 4] = *b"RvCR";
/// Version of the layout. Any change of what follows gets another number: a record of another
/// version is refused by name, never guessed at.
pub const LAYOUT: u16 = 2;
/// Octets before the body.
pub const HEADER_BYTES: usize = 48;
/// Where the checksum stands.
const CHECKSUM_AT: usize = 40;
/// Longest record: one page, so that a write of it is not torn by the end of the process.
pub const RECORD_BYTES_MAX: usize = 4_096;

/// No secret: the checksum is against torn writes and bad memory, not against people, who could
/// write a right one.
const KEY: siphash::Key = siphash::Key::new(0x5261_7665_6c69_6e20, 0x7265_636f_7264_2031);

/// What stands in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub shard: u8,
    pub slot: u32,
    pub sequence: u64,
    pub written: Now,
}

/// Hash of a body: part of the checksum, and how an unchanged record is known.
pub(super) fn body_hash(body: &[u8]) -> u64 {
    KEY.hash(body)
}

fn checksum(head: &[u8], body_hash: u64) -> u64 {
    let mut hasher = KEY.hasher();
    hasher.write(head);
    hasher.write(&body_hash.to_le_bytes());
    hasher.finish()
}

/// Fills in the header of a record whose body stands in `record` behind [`HEADER_BYTES`] octets.
pub(super) fn seal(record: &mut [u8], header: Header, body_hash: u64) {
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    let mut head = Vec::with_capacity(HEADER_BYTES);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&LAYOUT.to_le_bytes());
    head.extend_from_slice(&[header.shard, 0]);
    head.extend_from_slice(&header.slot.to_le_bytes());
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&header.sequence.to_le_bytes());
    head.extend_from_slice(&header.written.mono.0.to_le_bytes());
    head.extend_from_slice(&header.written.unix_ms.to_le_bytes());
    let sum = checksum(&head, body_hash);
    head.extend_from_slice(&sum.to_le_bytes());
    if let Some(place) = record.get_mut(..HEADER_BYTES) {
        place.copy_from_slice(&head);
    }
}

/// Reads a record as far as the layout goes: header and body, both vouched for by the checksum.
/// `bytes` may be longer than the record.
pub(super) fn open(bytes: &[u8]) -> Result<(Header, &[u8]), Refused> {
    let (head, _) = bytes.split_at_checked(HEADER_BYTES).ok_or(Refused::Truncated)?;
    let mut reader = Reader::new(head);
    if reader.array::<4>()? != MAGIC {
        return Err(Refused::NoRecord);
    }
    let layout = reader.u16()?;
    if layout != LAYOUT {
        return Err(Refused::Layout(layout));
    }
    let (shard, zero) = (reader.u8()?, reader.u8()?);
    let slot = reader.u32()?;
    let length = usize::try_from(reader.u32()?).map_err(|_| Refused::Truncated)?;
    let sequence = reader.u64()?;
    let written = Now { mono: Instant(reader.u64()?), unix_ms: reader.u64()? };
    let sum = reader.u64()?;
    if length > RECORD_BYTES_MAX {
        return Err(Refused::Checksum);
    }
    let body = bytes.get(HEADER_BYTES..length).ok_or(Refused::Truncated)?;
    let covered = head.get(..CHECKSUM_AT).unwrap_or_default();
    if sum != checksum(covered, body_hash(body)) || zero != 0 {
        return Err(Refused::Checksum);
    }
    Ok((Header { shard, slot, sequence, written }, body))
}

/// Appends fields.
#[derive(Debug)]
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Length and octets. What is longer than a record makes the record too long anyway.
    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        self.0.extend_from_slice(value);
    }

    pub(super) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn instant(&mut self, at: Instant) {
        self.u64(at.0);
    }

    pub(super) fn address(&mut self, address: SocketAddr) {
        match address {
            SocketAddr::V4(v4) => {
                self.u8(4);
                self.0.extend_from_slice(&v4.ip().octets());
            }
            SocketAddr::V6(v6) => {
                self.u8(6);
                self.0.extend_from_slice(&v6.ip().octets());
                self.u32(v6.scope_id());
            }
        }
        self.u16(address.port());
    }
}

/// Takes fields off the front.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Refused::Content)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Refused::Content)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refused> {
        self.array::<1>().map(|[value]| value)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Refused> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Refused::Content),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, Refused> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refused> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Refused> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Refused> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Refused> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Refused::Content)
    }

    pub(super) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<Option<T>, Refused> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn instant(&mut self) -> Result<Instant, Refused> {
        self.u64().map(Instant)
    }

    pub(super) fn address(&mut self) -> Result<SocketAddr, Refused> {
        match self.u8()? {
            4 => {
                let ip = Ipv4Addr::from(self.array::<4>()?);
                Ok(SocketAddr::new(IpAddr::V4(ip), self.u16()?))
            }
            6 => {
                let ip = Ipv6Addr::from(self.array::<16>()?);
                let scope = self.u32()?;
                Ok(SocketAddr::V6(SocketAddrV6::new(ip, self.u16()?, 0, scope)))
            }
            _ => Err(Refused::Content),
        }
    }
}
