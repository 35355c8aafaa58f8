//! A strict reader for the JSON of PASSporTs: the whole text is checked first (RFC 8259 grammar,
//! UTF-8, no duplicate names at any level, depth and member bounds; ST-26), then read in place
//! without building a tree. Nothing is copied unless a string has escapes.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::limits::{JSON_DEPTH_MAX, JSON_MEMBERS_MAX};

/// A checked JSON value: its text, without blanks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a>(&'a str);

/// Checks a whole text. None if it is not one well-formed JSON value within the bounds.
pub(crate) fn check(text: &[u8]) -> Option<Value<'_>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut cursor = Cursor { text: text.as_bytes(), at: 0 };
    cursor.blanks();
    let start = cursor.at;
    cursor.value(0)?;
    let end = cursor.at;
    cursor.blanks();
    (cursor.at == text.len()).then_some(())?;
    text.get(start..end).map(Value)
}

impl<'a> Value<'a> {
    /// The text as received.
    pub(crate) const fn raw(self) -> &'a str {
        self.0
    }

    /// The members of an object; none if it is not one.
    pub(crate) fn members(self) -> Option<Members<'a>> {
        self.0.starts_with('{').then_some(Members(Items::new(self.0)))
    }

    /// The elements of an array; none if it is not one.
    pub(crate) fn elements(self) -> Option<Elements<'a>> {
        self.0.starts_with('[').then_some(Elements(Items::new(self.0)))
    }

    /// The member of that name.
    pub(crate) fn member(self, name: &str) -> Option<Self> {
        self.members()?.find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The characters of a string, escapes resolved.
    pub(crate) fn string(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        unescape(inner)
    }

    /// A number that is written as an unsigned integer (ST-8: no sign, fraction or exponent).
    pub(crate) fn unsigned(self) -> Option<u64> {
        if self.0.bytes().all(|octet| octet.is_ascii_digit()) { self.0.parse().ok() } else { None }
    }
}

/// Name and value of each member.
pub(crate) struct Members<'a>(Items<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.0.item()?.string()?;
        Some((name, self.0.item()?))
    }
}

pub(crate) struct Elements<'a>(Items<'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.item()
    }
}

/// Walks over the values inside one checked object or array.
struct Items<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Items<'a> {
    const fn new(text: &'a str) -> Self {
        Self { text, at: 1 }
    }

    fn item(&mut self) -> Option<Value<'a>> {
        let mut cursor = Cursor { text: self.text.as_bytes(), at: self.at };
        cursor.blanks();
        if matches!(cursor.peek()?, b',' | b':') {
            cursor.at += 1;
            cursor.blanks();
        }
        if matches!(cursor.peek()?, b'}' | b']') {
            return None;
        }
        let start = cursor.at;
        cursor.skip()?;
        self.at = cursor.at;
        self.text.get(start..cursor.at).map(Value)
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let octet = self.peek()?;
        self.at += 1;
        Some(octet)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.take()? == wanted).then_some(())
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b'"' => self.string().map(|_| ()),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        (depth <= JSON_DEPTH_MAX).then_some(())?;
        let mut names: SmallVec<[Cow<'a, str>; 12]> = SmallVec::new();
        self.expect(b'{')?;
        self.blanks();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.blanks();
            let name = self.string()?;
            if names.len() >= JSON_MEMBERS_MAX || names.contains(&name) {
                return None;
            }
            names.push(name);
            self.blanks();
            self.expect(b':')?;
            self.blanks();
            self.value(depth)?;
            self.blanks();
            match self.take()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        (depth <= JSON_DEPTH_MAX).then_some(())?;
        self.expect(b'[')?;
        self.blanks();
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.blanks();
            self.value(depth)?;
            self.blanks();
            match self.take()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.take()? {
                b'"' => break,
                b'\\' => {
                    self.take()?;
                }
                0..=0x1f => return None,
                _ => {}
            }
        }
        let inner = std::str::from_utf8(self.text.get(start..self.at - 1)?).ok()?;
        unescape(inner)
    }

    fn literal(&mut self, word: &[u8]) -> Option<()> {
        let end = self.at + word.len();
        (self.text.get(self.at..end)? == word).then_some(())?;
        self.at = end;
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|octet| octet.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// Steps over one value of a text that has been checked.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    while let Some(octet) = self.take() {
                        match octet {
                            b'"' => break,
                            b'\\' => self.at += 1,
                            _ => {}
                        }
                    }
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                _ => {
                    while self.peek().is_some_and(|octet| {
                        octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'-' | b'.')
                    }) {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// Resolves the escapes of a string without its quotes. None for an escape that JSON does not have,
/// and for half of a surrogate pair.
fn unescape(inner: &str) -> Option<Cow<'_, str>> {
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            text.push(next);
            continue;
        }
        text.push(match rest.next()? {
            plain @ ('"' | '\\' | '/') => plain,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = hex4(&mut rest)?;
                let code = if (0xd800..0xdc00).contains(&first) {
                    (rest.next()? == '\\' && rest.next()? == 'u').then_some(())?;
                    let second = hex4(&mut rest)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    0x10000 + ((first - 0xd800) << 10) + second
                } else {
                    first
                };
                char::from_u32(code)?
            }
            _ => return None,
        });
    }
    Some(Cow::Owned(text))
}

fn hex4(rest: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |code, _| Some(code << 4 | rest.next()?.to_digit(16)?))
}

/// Appends a JSON string literal: only quote, backslash and control characters are escaped (ST-5).
pub(crate) fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for octet in text.bytes() {
        match octet {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', octet]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                push_hex(octet, out);
            }
            _ => out.push(octet),
        }
    }
    out.push(b'"');
}

/// Appends two lower-case hexadecimal digits.
pub(crate) fn push_hex(octet: u8, out: &mut Vec<u8>) {
    for nibble in [octet >> 4, octet & 15] {
        out.push(*b"0123456789abcdef".get(usize::from(nibble)).unwrap_or(&b'0'));
    }
}

/// Appends decimal digits.
pub(crate) fn push_number(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut rest = number;
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
