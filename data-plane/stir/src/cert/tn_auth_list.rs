//! The TNAuthList certificate extension (RFC 8226 9; ST-38, ST-39): which numbers a certificate may
//! sign for. Arithmetic on ranges is on up to fifteen digits in 128 bits: it neither wraps nor
//! allocates per number.

use super::der;
use crate::limits::TN_AUTH_ENTRIES_MAX;
use crate::tn::Tn;

/// 1.3.6.1.5.5.7.1.26
pub const OID: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 26];

/// One entry of a TNAuthList.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TnEntry {
    /// Service provider code. Its numbers are in a database, not in the certificate.
    Spc(Box<str>),
    /// `start` and the `count - 1` numbers after it, all of the same length.
    Range {
        start: Tn,
        count: u64,
    },
    One(Tn),
    /// A range that is none: a start with `#` or `*`, or an end beyond the numbers of its length.
    /// Covers nothing.
    InvalidRange,
}

/// A parsed TNAuthList. Entries are additive (RFC 9060 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TnAuthList {
    entries: Vec<TnEntry>,
}

/// Whether a list covers a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// By a number or range of the list.
    ByNumber,
    /// The list has a service provider code; which numbers belong to it is not known here.
    BySpc,
    No,
}

impl TnAuthList {
    /// Reads the value of the extension. None for anything but the DER of the RFC.
    #[must_use]
    pub fn from_der(octets: &[u8]) -> Option<Self> {
        let mut reader = der::Reader::new(der::single(octets, der::SEQUENCE)?);
        let mut entries = Vec::new();
        while !reader.is_empty() {
            let (tag, content) = reader.element()?;
            if entries.len() >= TN_AUTH_ENTRIES_MAX {
                return None;
            }
            entries.push(match tag {
                0xa0 => spc(der::single(content, der::IA5_STRING)?)?,
                0xa1 => range(der::single(content, der::SEQUENCE)?)?,
                0xa2 => TnEntry::One(Tn::exact(der::single(content, der::IA5_STRING)?).ok()?),
                _ => return None,
            });
        }
        (!entries.is_empty()).then_some(Self { entries })
    }

    /// A list of these entries, for whoever issues certificates. None if it would not read back.
    #[must_use]
    pub fn new(entries: Vec<TnEntry>) -> Option<Self> {
        let list = Self { entries };
        (Self::from_der(&list.to_der()).as_ref() == Some(&list)).then_some(list)
    }

    /// The DER value of the extension.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        let mut content = Vec::new();
        for entry in &self.entries {
            let (tag, inner) = match entry {
                TnEntry::Spc(code) => (0, der::element(der::IA5_STRING, code.as_bytes())),
                TnEntry::Range { start, count } => {
                    let mut range = der::element(der::IA5_STRING, start.as_bytes());
                    let mut octets = vec![0u8];
                    octets.extend(count.to_be_bytes().into_iter().skip_while(|octet| *octet == 0));
                    let sign_needed = octets.get(1).is_some_and(|octet| octet & 0x80 != 0);
                    let integer =
                        if sign_needed { &octets } else { octets.get(1..).unwrap_or(&[]) };
                    der::push(der::INTEGER, integer, &mut range);
                    (1, der::element(der::SEQUENCE, &range))
                }
                TnEntry::One(tn) => (2, der::element(der::IA5_STRING, tn.as_bytes())),
                TnEntry::InvalidRange => continue,
            };
            der::push(der::context(tag), &inner, &mut content);
        }
        der::element(der::SEQUENCE, &content)
    }

    #[must_use]
    pub fn entries(&self) -> &[TnEntry] {
        &self.entries
    }

    /// The first service provider code.
    #[must_use]
    pub fn spc(&self) -> Option<&str> {
        self.entries.iter().find_map(|entry| match entry {
            TnEntry::Spc(code) => Some(code.as_ref()),
            _ => None,
        })
    }

    /// Whether the certificate may sign for `tn`.
    #[must_use]
    pub fn covers(&self, tn: &Tn) -> Coverage {
        let by_number = self.entries.iter().any(|entry| match entry {
            TnEntry::One(one) => one == tn,
            TnEntry::Range { start, count } => {
                let length = start.as_bytes().len() == tn.as_bytes().len();
                length
                    && number(start).zip(number(tn)).is_some_and(|(start, tn)| {
                        tn.checked_sub(start).is_some_and(|offset| offset < u128::from(*count))
                    })
            }
            TnEntry::Spc(_) | TnEntry::InvalidRange => false,
        });
        match (by_number, self.spc()) {
            (true, _) => Coverage::ByNumber,
            (false, Some(_)) => Coverage::BySpc,
            (false, None) => Coverage::No,
        }
    }

    /// Whether everything that `child` may sign for is within this list (RFC 9060 4). Codes must be
    /// here by name; numbers under a parent with a code are taken on trust in the issuance.
    #[must_use]
    pub fn encompasses(&self, child: &Self) -> bool {
        let has_spc = self.spc().is_some();
        child.entries.iter().all(|entry| match entry {
            TnEntry::Spc(code) => self
                .entries
                .iter()
                .any(|own| matches!(own, TnEntry::Spc(known) if known.eq_ignore_ascii_case(code))),
            TnEntry::One(tn) => self.covers(tn) != Coverage::No,
            TnEntry::Range { start, count } => has_spc || self.covers_range(start, *count),
            TnEntry::InvalidRange => true,
        })
    }

    /// Whether one of the entries covers the whole range.
    fn covers_range(&self, start: &Tn, count: u64) -> bool {
        let Some(first) = number(start) else { return false };
        let last = first + u128::from(count) - 1;
        self.entries.iter().any(|entry| match entry {
            TnEntry::Range { start: own, count } => {
                own.as_bytes().len() == start.as_bytes().len()
                    && number(own).is_some_and(|own| {
                        own <= first && last < own.saturating_add(u128::from(*count))
                    })
            }
            _ => false,
        })
    }
}

fn spc(code: &[u8]) -> Option<TnEntry> {
    let code = std::str::from_utf8(code).ok()?;
    let fine = !code.is_empty() && code.bytes().all(|octet| octet.is_ascii_graphic());
    fine.then(|| TnEntry::Spc(code.into()))
}

fn range(content: &[u8]) -> Option<TnEntry> {
    let mut reader = der::Reader::new(content);
    let start = Tn::exact(reader.expect(der::IA5_STRING)?).ok()?;
    let count = reader.expect(der::INTEGER)?;
    reader.is_empty().then_some(())?;
    // DER: minimal; the type: positive, two or more.
    match count {
        [] => return None,
        [first, ..] if first & 0x80 != 0 => return None,
        [0, second, ..] if second & 0x80 == 0 => return None,
        [0 | 1] => return None,
        _ => {}
    }
    let significant = count.strip_prefix(&[0]).unwrap_or(count);
    let count = (significant.len() <= 8)
        .then(|| significant.iter().fold(0u64, |count, octet| count << 8 | u64::from(*octet)));
    let (Some(first), Some(count)) = (number(&start), count) else {
        return Some(TnEntry::InvalidRange);
    };
    let end = 10u128.pow(u32::try_from(start.as_bytes().len()).ok()?);
    // RFC 8226 9 with ST-39: the range stays within the numbers of its length.
    if first + u128::from(count) >= end {
        return Some(TnEntry::InvalidRange);
    }
    Some(TnEntry::Range { start, count })
}

/// The number as a number; none with `#` or `*`.
fn number(tn: &Tn) -> Option<u128> {
    tn.is_digits().then(|| {
        tn.as_bytes().iter().fold(0, |number, digit| number * 10 + u128::from(digit - b'0'))
    })
}

#[cfg(test)]
#[path = "tn_auth_list_tests.rs"]
mod tests;
