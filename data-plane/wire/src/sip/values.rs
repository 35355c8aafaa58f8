//! Comma-separated values (RFC 3261 7.3.1).

use super::chars::{self, quoted_len, split, trim};

/// Elements of one header line, split at commas outside quotes and angle brackets, trimmed; empty
/// elements are passed over.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    rest: &'a [u8],
    list: bool,
}

impl<'a> Values<'a> {
    /// The elements of `line`; one element, the whole, unless `list`.
    pub(crate) const fn new(line: &'a [u8], list: bool) -> Self {
        Self { rest: line, list }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (element, rest) =
                if self.list { first_element(self.rest) } else { (self.rest, &[][..]) };
            self.rest = rest;
            let element = trim(element);
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    }
}

/// The elements of a comma-separated `line`.
#[must_use]
pub const fn split_commas(line: &[u8]) -> Values<'_> {
    Values::new(line, true)
}

/// Everything up to the first separating comma, and what follows it. Quotes do not count inside
/// angle brackets, where they cannot stand in a URI. What is left open runs to the end.
#[inline]
pub(crate) fn first_element(s: &[u8]) -> (&[u8], &[u8]) {
    // Most lines hold one value; a comma is rarer than a quote or bracket.
    if chars::find(s, b',').is_none() {
        return (s, &[]);
    }
    let mut i = 0;
    let mut in_angle = false;
    while let Some(&c) = s.get(i) {
        match c {
            b'"' if !in_angle => {
                let Some(len) = s.get(i..).and_then(quoted_len) else { return (s, &[]) };
                i += len;
                continue;
            }
            b'<' => in_angle = true,
            b'>' => in_angle = false,
            b',' if !in_angle => {
                let (head, tail) = split(s, i);
                return (head, tail.get(1..).unwrap_or_default());
            }
            _ => {}
        }
        i += 1;
    }
    (s, &[])
}

/// As [`Values`], empty elements included: for checking.
pub(crate) fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let current = rest?;
        let (element, tail) = first_element(current);
        // A comma was there when something, the comma at least, was taken off.
        rest = (element.len() < current.len()).then_some(tail);
        Some(trim(element))
    })
}
