//! `;name=value` lists after header values (RFC 3261 25.1 `generic-param`).

use super::chars::{self, TOKEN, VALUE, split, trim, trim_start};
use crate::limits::PARAM_MAX_COUNT;

/// The parameters after a header value: empty, or a list that starts with `;`. Well formed when it
/// comes out of a checked view; iterating stops at the first fault otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a>(&'a [u8]);

impl<'a> Params<'a> {
    /// A view over `bytes` without a check.
    #[must_use]
    pub const fn unchecked(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Checks that all of `bytes` is a parameter list of bounded length: no empty parameter, no
    /// empty value, no name twice, quotes closed, nothing left over.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Self::parse_each(bytes, |_, _| Some(()))
    }

    /// As [`Params::parse`], showing each parameter to `see`, which may refuse it.
    #[inline]
    pub(crate) fn parse_each(
        bytes: &'a [u8],
        mut see: impl FnMut(&'a [u8], Option<&'a [u8]>) -> Option<()>,
    ) -> Option<Self> {
        let bytes = trim(bytes);
        let mut rest = bytes;
        let mut count = 0;
        let mut seen = NamesSeen::default();
        while !rest.is_empty() {
            let ((name, value), tail) = next(rest)?;
            // RFC 3261 7.3.1: each name once. Readers differ in which of two they take.
            let names = || {
                let before = Self(split(bytes, bytes.len() - rest.len()).0);
                before.iter().map(|(name, _)| name)
            };
            if seen.maybe(name, names) && names().any(|other| other.eq_ignore_ascii_case(name)) {
                return None;
            }
            see(name, value)?;
            rest = tail;
            count += 1;
            if count > PARAM_MAX_COUNT {
                return None;
            }
        }
        Some(Self(bytes))
    }

    /// As on the wire, with the leading `;`.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Name and value, in order. A value keeps its quotes.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone {
        let mut rest = self.0;
        std::iter::repeat_with(move || {
            let (param, tail) = next(rest)?;
            rest = tail;
            Some(param)
        })
        .take(PARAM_MAX_COUNT)
        .map_while(|param| param)
    }

    /// Value of the first parameter `name` (any case); `Some(None)` when it has no value.
    #[must_use]
    pub fn find(self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Value of the first parameter `name`, if it has one.
    #[must_use]
    pub fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        self.find(name).flatten()
    }

    /// Whether parameter `name` is there, with or without a value.
    #[must_use]
    pub fn has(self, name: &[u8]) -> bool {
        self.find(name).is_some()
    }
}

/// So many names of a list are compared with each other.
const NAMES_FEW: u8 = 6;

/// Which names of a list have been seen: by length and first octet, which is enough to know that
/// most are new. Those of a long list are hashed as well, so that names chosen to look alike cannot
/// make each of them cost a reading of all before it.
#[derive(Default)]
pub(crate) struct NamesSeen {
    filter: u64,
    count: u8,
    hashes: Option<[u64; PARAM_MAX_COUNT]>,
}

impl NamesSeen {
    /// Takes `name`, which stands behind the names of `before`. False: it was not there, in any
    /// case. True: it may have been.
    #[inline]
    pub(crate) fn maybe<'a, I: Iterator<Item = &'a [u8]>>(
        &mut self,
        name: &[u8],
        before: impl FnOnce() -> I,
    ) -> bool {
        let first = name.first().map_or(0, |c| c | 0x20);
        let bit = 1_u64 << ((usize::from(first) ^ name.len().wrapping_mul(5)) & 63);
        let seen = self.filter & bit != 0;
        self.filter |= bit;
        let count = self.count;
        self.count = count.saturating_add(1);
        if self.hashes.is_none() && (!seen || count < NAMES_FEW) {
            return seen;
        }
        self.is_known(name, usize::from(count), before)
    }

    #[cold]
    fn is_known<'a, I: Iterator<Item = &'a [u8]>>(
        &mut self,
        name: &[u8],
        count: usize,
        before: impl FnOnce() -> I,
    ) -> bool {
        let hashes = self.hashes.get_or_insert_with(|| {
            let mut hashes = [0; PARAM_MAX_COUNT];
            hashes.iter_mut().zip(before()).for_each(|(slot, name)| *slot = hash(name));
            hashes
        });
        let hash = hash(name);
        let known = hashes.get(..count).is_none_or(|known| known.contains(&hash));
        if let Some(slot) = hashes.get_mut(count) {
            *slot = hash;
        }
        known
    }
}

/// FNV-1a over the name, case folded.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, c| {
        (hash ^ u64::from(c.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    })
}

type Param<'a> = (&'a [u8], Option<&'a [u8]>);

/// The parameter at the start of `s` and what follows it.
#[inline]
fn next(s: &[u8]) -> Option<(Param<'_>, &[u8])> {
    let s = trim_start(s.strip_prefix(b";")?);
    let (name, rest) = split(s, chars::run(s, TOKEN));
    if name.is_empty() {
        return None;
    }
    let rest = trim_start(rest);
    let Some(rest) = rest.strip_prefix(b"=") else { return Some(((name, None), rest)) };
    let rest = trim_start(rest);
    let len = match rest.first()? {
        b'"' => chars::quoted_len(rest)?,
        _ => chars::span(rest, VALUE),
    };
    let (value, rest) = split(rest, len);
    if value.is_empty() {
        return None;
    }
    Some(((name, Some(value)), trim_start(rest)))
}

/// The content of a quoted string without quotes and escapes, or `value` itself when it is not
/// quoted. An iterator, since unescaping must not allocate.
pub fn unquote(value: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let inner = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
    let quoted = inner.is_some();
    let mut rest = inner.unwrap_or(value).iter().copied();
    std::iter::from_fn(move || match rest.next()? {
        b'\\' if quoted => rest.next(),
        c => Some(c),
    })
}
