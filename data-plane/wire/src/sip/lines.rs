//! The header section cut into lines: the one place that decides where a header begins and ends.
//! [`super::message`] and [`super::stream`] share it, so that framing and parsing cannot disagree.

use super::chars::{self, TOKEN, is_lws, split, trim};
use super::error::ErrorKind;
use super::name::HeaderName;
use crate::limits::{HEADER_LINE_MAX_BYTES, HEADER_MAX_COUNT, HEADER_NAME_MAX_BYTES};

/// Where one header line is in the message. 16 bits are enough for
/// [`crate::limits::MESSAGE_MAX_BYTES`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) name: HeaderName,
    name_len: u8,
    name_start: u16,
    value_start: u16,
    value_end: u16,
}

impl Entry {
    /// Not in use. All zero, which is the quickest to fill an index with.
    const EMPTY: Self =
        Self { name: HeaderName::Accept, name_len: 0, name_start: 0, value_start: 0, value_end: 0 };

    /// The name as written.
    pub(crate) fn raw_name<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        let start = usize::from(self.name_start);
        message.get(start..start + usize::from(self.name_len)).unwrap_or_default()
    }

    /// The value, trimmed, folds still in it.
    #[inline]
    pub(crate) fn value<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        message.get(usize::from(self.value_start)..usize::from(self.value_end)).unwrap_or_default()
    }

    /// As [`Self::fill`], for the line `at..end` (its CRLF not included) of which [`scan_plain`] has
    /// seen that it holds nothing but visible ASCII and blanks. `None`: in doubt.
    #[inline]
    fn fill_plain(&mut self, message: &[u8], at: usize, end: usize) -> Option<()> {
        let rest = message.get(at..)?;
        let name_len = chars::find(rest, b':')?;
        let Some(name) = HeaderName::at_start(rest, name_len) else {
            // Not a known name: whether it is one at all is for the other to say.
            return self.fill(message.get(at..end + 2)?, at).ok();
        };
        let value_at = at + name_len + 1;
        // Fails when the colon is not of this line.
        let value = message.get(value_at..end)?;
        // The only white space here is the blank.
        let mut value = value.strip_prefix(b" ").unwrap_or(value);
        while let [b' ', rest @ ..] = value {
            value = rest;
        }
        let value_start = end - value.len();
        while let [rest @ .., b' '] = value {
            value = rest;
        }
        self.name = name;
        self.name_len = u8::try_from(name_len).ok()?;
        self.name_start = u16::try_from(at).ok()?;
        self.value_start = u16::try_from(value_start).ok()?;
        self.value_end = u16::try_from(value_start + value.len()).ok()?;
        Some(())
    }

    /// Takes name, colon and value of one logical line that starts at offset `at`. White space
    /// before the colon is legal (RFC 3261 7.3.1, RFC 4475 3.1.1.1); what we write has none.
    #[inline]
    fn fill(&mut self, line: &[u8], at: usize) -> Result<(), ErrorKind> {
        let name_len = chars::run(line, TOKEN);
        let (name, rest) = split(line, name_len);
        if name.is_empty() {
            return Err(ErrorKind::HeaderName);
        }
        if name_len > HEADER_NAME_MAX_BYTES {
            return Err(ErrorKind::HeaderNameTooLong);
        }
        let value = match rest {
            // The usual form first.
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => {
                let blanks = rest.iter().position(|c| !matches!(c, b' ' | b'\t'));
                let rest = split(rest, blanks.unwrap_or(rest.len())).1;
                rest.strip_prefix(b":").ok_or(ErrorKind::HeaderName)?
            }
        };
        let value = chars::trim_start(value);
        let value_start = at + line.len() - value.len();
        let value = trim(value);
        let offset = |n: usize| u16::try_from(n).map_err(|_| ErrorKind::TooLarge);
        self.name = HeaderName::of(name);
        self.name_len = u8::try_from(name_len).map_err(|_| ErrorKind::HeaderNameTooLong)?;
        self.name_start = offset(at)?;
        self.value_start = offset(value_start)?;
        self.value_end = offset(value_start + value.len())?;
        Ok(())
    }
}

/// All header lines of one message, on the stack.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    entries: [Entry; HEADER_MAX_COUNT],
    count: usize,
}

impl Index {
    pub(crate) const EMPTY: Self = Self { entries: [Entry::EMPTY; HEADER_MAX_COUNT], count: 0 };

    #[inline]
    pub(crate) fn entries(&self) -> &[Entry] {
        self.entries.get(..self.count).unwrap_or_default()
    }

    /// Entry number `at`.
    #[inline]
    pub(crate) fn entry(&self, at: usize) -> Option<Entry> {
        self.entries().get(at).copied()
    }

    /// The next unused entry. Filled in place: handed over by value it would be written in pieces
    /// and read back whole, which stalls.
    #[inline]
    fn next_slot(&mut self) -> Result<&mut Entry, ErrorKind> {
        let slot = self.entries.get_mut(self.count).ok_or(ErrorKind::TooManyHeaders)?;
        self.count += 1;
        Ok(slot)
    }
}

/// The start line of `message` without its CRLF, and the offset of the line after it.
pub(crate) fn start_line(message: &[u8]) -> Result<(&[u8], usize), ErrorKind> {
    let Some(lf) = memchr::memchr(b'\n', message) else {
        return Err(ErrorKind::HeadersUnterminated);
    };
    let line = message.get(..lf).unwrap_or_default();
    let line = line.strip_suffix(b"\r").ok_or(ErrorKind::BareLineEnd)?;
    Ok((line, lf + 1))
}

/// Cuts everything from `start` (the line after the start line) to the empty line into `index`;
/// returns the offset of the body. Checks the octets of the whole head, start line included.
/// `message` is at most [`crate::limits::MESSAGE_MAX_BYTES`] long.
pub(crate) fn scan(message: &[u8], start: usize, index: &mut Index) -> Result<usize, ErrorKind> {
    if let Some(body_at) = scan_plain(message, start, index) {
        return Ok(body_at);
    }
    index.count = 0;
    scan_any(message, start, index)
}

/// As [`scan_any`], for the usual head: every line ends in CRLF, none is folded, and apart from the
/// line ends there is only visible ASCII and blanks. One pass finds the line ends and that there is
/// nothing else. `None`: something is unusual or wrong; the other says what.
fn scan_plain(message: &[u8], start: usize, index: &mut Index) -> Option<usize> {
    let mut specials = Specials::new(message);
    let first_end = specials.line_end(message)?;
    if first_end + 2 != start || message.get(start) == Some(&b' ') {
        return None;
    }
    let mut at = start;
    loop {
        let end = specials.line_end(message)?;
        let next = end + 2;
        if end == at {
            return Some(next);
        }
        // A fold begins with a blank, or with a tab, which is no line end.
        if next - at > HEADER_LINE_MAX_BYTES || message.get(next) == Some(&b' ') {
            return None;
        }
        index.next_slot().ok()?.fill_plain(message, at, end)?;
        at = next;
    }
}

/// Where the octets of a message stand that are neither visible ASCII nor blanks.
struct Specials<'a> {
    blocks: std::slice::Iter<'a, [u8; 64]>,
    /// What is left behind the last whole block.
    tail: &'a [u8],
    /// Of the current block, those not handed out yet.
    bits: u64,
    base: usize,
    next_base: usize,
}

impl<'a> Specials<'a> {
    #[inline]
    fn new(message: &'a [u8]) -> Self {
        let (blocks, tail) = message.as_chunks::<64>();
        Self { blocks: blocks.iter(), tail, bits: 0, base: 0, next_base: 0 }
    }

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.bits == 0 {
            self.bits = match self.blocks.next() {
                Some(block) => chars::special_bits(block),
                None => self.last_block()?,
            };
            self.base = self.next_base;
            self.next_base += 64;
        }
        let at = self.base + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        Some(at)
    }

    fn last_block(&mut self) -> Option<u64> {
        let tail = std::mem::take(&mut self.tail);
        let mut block = [b' '; 64];
        block.get_mut(..tail.len())?.copy_from_slice(tail);
        (!tail.is_empty()).then(|| chars::special_bits(&block))
    }

    /// Offset of the next special octet, when CR is there and LF follows.
    #[inline]
    fn line_end(&mut self, message: &[u8]) -> Option<usize> {
        let at = self.next()?;
        let end = message.get(at..)?.first_chunk::<2>()?;
        (self.next()? == at + 1 && end == b"\r\n").then_some(at)
    }
}

fn scan_any(message: &[u8], start: usize, index: &mut Index) -> Result<usize, ErrorKind> {
    let mut at = start;
    let mut line_ends = 1; // the start line's
    if matches!(message.get(at), Some(b' ' | b'\t')) {
        return Err(ErrorKind::StartLine);
    }
    loop {
        let rest = message.get(at..).unwrap_or_default();
        if rest.starts_with(b"\r\n") {
            at += 2;
            line_ends += 1;
            break;
        }
        if rest.is_empty() {
            return Err(ErrorKind::HeadersUnterminated);
        }
        let (line_len, ends) = logical_line(rest)?;
        line_ends += ends;
        let line = split(rest, line_len).0;
        index.next_slot()?.fill(line, at)?;
        at += line_len;
    }
    check_octets(message, start, at, line_ends, index)?;
    Ok(at)
}

/// Length of the header line at the start of `rest` with its folds and line ends, and how many line
/// ends those are (RFC 3261 7.3.1).
#[inline]
fn logical_line(rest: &[u8]) -> Result<(usize, usize), ErrorKind> {
    let mut len = 0;
    let mut ends = 0;
    loop {
        let tail = rest.get(len..).unwrap_or_default();
        let Some(lf) = memchr::memchr(b'\n', tail) else {
            return Err(if rest.len() > HEADER_LINE_MAX_BYTES {
                ErrorKind::HeaderTooLong
            } else {
                ErrorKind::HeadersUnterminated
            });
        };
        if lf == 0 || tail.get(lf - 1) != Some(&b'\r') {
            return Err(ErrorKind::BareLineEnd);
        }
        len += lf + 1;
        ends += 1;
        if len > HEADER_LINE_MAX_BYTES {
            return Err(ErrorKind::HeaderTooLong);
        }
        match rest.get(len) {
            Some(b' ' | b'\t') => {}
            Some(_) => return Ok((len, ends)),
            None => return Err(ErrorKind::HeadersUnterminated),
        }
    }
}

/// Refuses bare CR, control characters and what is not UTF-8.
fn check_octets(
    message: &[u8],
    start: usize,
    end: usize,
    line_ends: usize,
    index: &Index,
) -> Result<(), ErrorKind> {
    let head = message.get(..end).unwrap_or_default();
    // The line ends already seen are two special octets each. Usually there are no others.
    if special_octets(head) == line_ends * 2 {
        return Ok(());
    }
    if std::str::from_utf8(head).is_err() {
        return Err(ErrorKind::NotUtf8);
    }
    let start_line = message.get(..start.saturating_sub(2)).unwrap_or_default();
    check_plain(start_line)?;
    let mut escaped = 0;
    for entry in index.entries() {
        let value = entry.value(message);
        check_value(value, entry.name.is_address())?;
        escaped += value.iter().filter(|&&c| is_escaped_control(c)).count();
    }
    // What is left lies between the parts: a stray CR before a line end or after a colon.
    let controls = head.iter().filter(|&&c| c.is_ascii_control() && c != b'\t').count();
    if controls == line_ends * 2 + escaped { Ok(()) } else { Err(ErrorKind::BareLineEnd) }
}

/// How many octets are control characters, HT and DEL among them, or not ASCII.
fn special_octets(head: &[u8]) -> usize {
    // One more, as a signed number, is below 0x21 for exactly these.
    let special = |c: &u8| u8::from(c.wrapping_add(1).cast_signed() < 0x21);
    // A counter of one octet for blocks of fixed length is what the compiler turns into vector
    // code.
    let (blocks, rest) = head.as_chunks::<64>();
    let count = |block: &[u8]| block.iter().map(special).fold(0u8, u8::wrapping_add);
    let total: usize = blocks.iter().map(|block| usize::from(count(block))).sum();
    total + usize::from(count(rest))
}

const fn is_escaped_control(c: u8) -> bool {
    c.is_ascii_control() && !is_lws(c)
}

fn check_plain(s: &[u8]) -> Result<(), ErrorKind> {
    match s.iter().find(|c| c.is_ascii_control() && **c != b'\t') {
        None => Ok(()),
        Some(b'\r' | b'\n') => Err(ErrorKind::BareLineEnd),
        Some(_) => Err(ErrorKind::ControlCharacter),
    }
}

/// Folds are the only line ends; other control characters are escapes in the quoted strings of an
/// address header, or not at all.
fn check_value(value: &[u8], quotes: bool) -> Result<(), ErrorKind> {
    let mut i = 0;
    while let Some(&c) = value.get(i) {
        match c {
            b'\r' => {
                let fold = value.get(i + 1) == Some(&b'\n')
                    && matches!(value.get(i + 2), Some(b' ' | b'\t'));
                if !fold {
                    return Err(ErrorKind::BareLineEnd);
                }
                i += 2;
            }
            b'\n' => return Err(ErrorKind::BareLineEnd),
            b'"' if quotes => {
                let string = value.get(i..).unwrap_or_default();
                // An open quote is for the header's own parser to refuse.
                let Some(len) = chars::quoted_len(string) else {
                    return check_value(string.get(1..).unwrap_or_default(), false);
                };
                check_quoted(split(string, len).0)?;
                i += len - 1;
            }
            c if is_escaped_control(c) => return Err(ErrorKind::ControlCharacter),
            _ => {}
        }
        i += 1;
    }
    Ok(())
}

/// A closed quoted string: [`chars::quoted_len`] has seen to the controls, the folds are left.
fn check_quoted(s: &[u8]) -> Result<(), ErrorKind> {
    for (i, &c) in s.iter().enumerate() {
        let ok = match c {
            b'\r' => s.get(i + 1) == Some(&b'\n'),
            b'\n' => {
                i > 0
                    && s.get(i - 1) == Some(&b'\r')
                    && s.get(i + 1).is_some_and(|c| *c == b' ' || *c == b'\t')
            }
            _ => true,
        };
        if !ok {
            return Err(ErrorKind::BareLineEnd);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Read = Option<(usize, Vec<(HeaderName, u8, u16, Option<(u16, u16)>)>)>;

    fn read(index: &Index, body_at: usize) -> Read {
        // Where an empty value stands says nothing.
        let value =
            |e: &Entry| (e.value_start != e.value_end).then_some((e.value_start, e.value_end));
        let line = |e: &Entry| (e.name, e.name_len, e.name_start, value(e));
        Some((body_at, index.entries().iter().map(line).collect()))
    }

    fn both(message: &[u8]) -> (Read, Read) {
        let Ok((_, start)) = start_line(message) else { return (None, None) };
        let (mut plain, mut any) = (Index::EMPTY, Index::EMPTY);
        let plain = scan_plain(message, start, &mut plain).and_then(|at| read(&plain, at));
        let any = scan_any(message, start, &mut any).ok().and_then(|at| read(&any, at));
        (plain, any)
    }

    fn agree(message: &[u8]) {
        if let (Some(plain), any) = both(message) {
            assert_eq!(Some(plain), any, "{}", message.escape_ascii());
        }
    }

    const USUAL: &[u8] = b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
        P-Asserted-Identity:  <sip:1@h> \r\nv:SIP/2.0/UDP g\r\nX-Own: a:b\r\nSubject:\r\n\
        Subscription-State : x\r\nContent-Length: 3\r\n\r\na\tb";

    #[test]
    fn the_usual_head_is_read_in_one_pass() {
        let (plain, any) = both(USUAL);
        assert_eq!(plain.as_ref().map(|(at, lines)| (*at, lines.len())), Some((178, 7)));
        assert_eq!(plain, any);
    }

    #[test]
    fn a_changed_octet_is_never_read_in_two_ways() {
        for at in 0..USUAL.len() {
            for c in 0..=u8::MAX {
                let mut message = USUAL.to_vec();
                message[at] = c;
                agree(&message);
            }
            let mut shorter = USUAL.to_vec();
            shorter.remove(at);
            agree(&shorter);
            agree(&USUAL[..at]);
        }
    }

    proptest! {
        #[test]
        fn no_head_is_read_in_two_ways(
            head in r"[a-zA-Z:\- \t\r\n]{0,40}(\r\n[A-Za-z\-]{0,24}[ \t]?:[ \t]{0,2}[ -~\t\r\n]{0,90}){0,6}(\r\n){0,2}",
            body in any::<[u8; 5]>(),
        ) {
            agree(&[head.as_bytes(), &body].concat());
        }

        #[test]
        fn known_names_are_found_in_any_case(
            at in 0..HeaderName::ALL.len(), upper: u32, behind in "[ -~]{32}",
        ) {
            let name = HeaderName::ALL[at];
            let text: Vec<u8> = name.as_str().bytes().enumerate().map(|(i, c)| {
                if upper >> (i % 32) & 1 == 1 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
            }).collect();
            let len = text.len();
            let line = [&text[..], b":", behind.as_bytes()].concat();
            prop_assert_eq!(HeaderName::at_start(&line, len), Some(name));
            prop_assert_eq!(HeaderName::at_start(&line[..len], len), Some(name));
        }

        #[test]
        fn another_name_is_not_known(name in "[ -~]{1,24}") {
            let line = format!("{name}: x{:40}", "");
            let known = HeaderName::at_start(line.as_bytes(), name.len());
            prop_assert_eq!(known.unwrap_or_default(), HeaderName::of(name.as_bytes()));
        }
    }
}
