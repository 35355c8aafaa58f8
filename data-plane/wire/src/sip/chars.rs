//! Character classes of RFC 3261 25.1 and a small cursor over header values.
//!
//! Words of a few octets are read one by one through a table ([`run`]); what is longer is looked at
//! in blocks of sixteen ([`span`], [`find`]), which has no branch for each octet.

use wide::u8x16;

/// RFC 3261 `token`.
pub(crate) const TOKEN: u8 = 1;
/// What may stand unescaped in the user part of a SIP URI. `#` is not in the grammar; dial strings
/// bring it and no parser reads it as anything else.
pub(crate) const USER: u8 = 2;
/// Password of a SIP URI.
pub(crate) const PASSWORD: u8 = 4;
/// URI parameter name or value.
pub(crate) const PARAM: u8 = 8;
/// Header name or value inside a URI.
pub(crate) const HNV: u8 = 16;
/// Host name; `_` is not in the grammar but is in use.
pub(crate) const HOST: u8 = 32;
/// Header parameter value outside quotes. Wider than `token` or `host`: tags with `=` or `/` exist.
/// Nothing here delimits anything, in this grammar or (hence no `?`) in that of a bare URI.
pub(crate) const VALUE: u8 = 64;
/// Opaque part of a URI of another scheme.
pub(crate) const OPAQUE: u8 = 128;

const TABLE: [u8; 256] = table();

#[allow(clippy::indexing_slicing)] // runs in the compiler
const fn mark(mut table: [u8; 256], set: &[u8], class: u8) -> [u8; 256] {
    let mut i = 0;
    while i < set.len() {
        table[set[i] as usize] |= class;
        i += 1;
    }
    table
}

#[allow(clippy::indexing_slicing)] // runs in the compiler
const fn table() -> [u8; 256] {
    let mut t = [0; 256];
    let mut c = 0;
    while c < 128u8 {
        if c.is_ascii_alphanumeric() {
            t[c as usize] = TOKEN | USER | PASSWORD | PARAM | HNV | HOST | VALUE | OPAQUE;
        } else if c.is_ascii_graphic() {
            if !matches!(c, b'"' | b',' | b';' | b'<' | b'>' | b'?' | b'\\') {
                t[c as usize] |= VALUE;
            }
            if !matches!(c, b'"' | b'<' | b'>') {
                t[c as usize] |= OPAQUE;
            }
        }
        c += 1;
    }
    let t = mark(t, b"-.!%*_+`'~", TOKEN);
    let t = mark(t, b"-_.!~*'()&=+$,;?/#", USER);
    let t = mark(t, b"-_.!~*'()&=+$,", PASSWORD);
    let t = mark(t, b"-_.!~*'()[]/:&+$", PARAM);
    let t = mark(t, b"-_.!~*'()[]/?:+$", HNV);
    mark(t, b"-._", HOST)
}

/// The classes of `c`.
#[inline]
fn classes(c: u8) -> u8 {
    // There are as many entries as values of `c`, so the compiler drops the check.
    TABLE.get(usize::from(c)).copied().unwrap_or(0)
}

/// Whether `c` is of `class`.
#[inline]
pub(crate) fn is(c: u8, class: u8) -> bool {
    classes(c) & class != 0
}

/// Length of the leading run of `class`. Runs are short: words, not lines.
#[inline]
pub(crate) fn run(s: &[u8], class: u8) -> usize {
    let (fours, rest) = s.as_chunks::<4>();
    let mut n = 0;
    for &[a, b, c, d] in fours {
        if !is(a, class) {
            return n;
        }
        if !is(b, class) {
            return n + 1;
        }
        if !is(c, class) {
            return n + 2;
        }
        if !is(d, class) {
            return n + 3;
        }
        n += 4;
    }
    n + rest.iter().position(|&c| !is(c, class)).unwrap_or(rest.len())
}

/// 0xff where an octet is from `first` to `last`.
#[inline]
fn within(v: u8x16, first: u8, last: u8) -> u8x16 {
    let above = v - u8x16::splat(first);
    above.min(u8x16::splat(last.wrapping_sub(first))).simd_eq(above)
}

/// 0xff where an octet is of `class`, which is [`USER`], [`HOST`], [`VALUE`] or [`OPAQUE`]. The same
/// sets as in the table; a test compares them.
#[inline]
fn member(v: u8x16, class: u8) -> u8x16 {
    let is = |c: u8| v.simd_eq(u8x16::splat(c));
    match class {
        USER => {
            within(v, b'#', b'$')
                | within(v, b'&', b'9')
                | within(v, b'A', b'Z')
                | within(v, b'a', b'z')
                | is(b'!')
                | is(b';')
                | is(b'=')
                | is(b'?')
                | is(b'_')
                | is(b'~')
        }
        HOST => {
            within(v, b'-', b'.')
                | within(v, b'0', b'9')
                | within(v, b'A', b'Z')
                | within(v, b'a', b'z')
                | is(b'_')
        }
        VALUE => {
            within(v, b'#', b'+')
                | within(v, b'-', b':')
                | within(v, b'@', b'[')
                | within(v, b']', b'~')
                | is(b'!')
                | is(b'=')
        }
        _ => within(v, b'#', b';') | within(v, b'?', b'~') | is(b'!') | is(b'='),
    }
}

/// As [`run`], for runs that are often longer than a word. `class` is one that [`member`] knows.
#[inline]
pub(crate) fn span(s: &[u8], class: u8) -> usize {
    let (n, rest) = blocks_while(s, |v| member(v, class));
    match rest {
        Some(rest) => n + run(rest, class),
        None => n,
    }
}

/// Takes blocks off `s` while all of their octets are `wanted`: how many octets, and what is left
/// when it is too short for a block. `None` there: the run has ended before.
#[inline]
fn blocks_while(s: &[u8], wanted: impl Fn(u8x16) -> u8x16) -> (usize, Option<&[u8]>) {
    let mut n = 0;
    let mut rest = s;
    while let Some((block, tail)) = rest.split_first_chunk::<16>() {
        let outside = !wanted(u8x16::new(*block)).to_bitmask() & 0xffff;
        if outside != 0 {
            return (n + outside.trailing_zeros() as usize, None);
        }
        n += block.len();
        rest = tail;
    }
    (n, Some(rest))
}

/// Where `wanted` stands first. For what is near: `memchr` is quicker from some lines on.
#[inline]
pub(crate) fn find(s: &[u8], wanted: u8) -> Option<usize> {
    let (n, rest) = blocks_while(s, |v| !v.simd_eq(u8x16::splat(wanted)));
    match rest {
        Some(rest) => rest.iter().position(|&c| c == wanted).map(|at| n + at),
        None => Some(n),
    }
}

/// Length of the leading run without control characters, HT apart.
#[inline]
pub(crate) fn text_len(s: &[u8]) -> usize {
    let (n, rest) = blocks_while(s, |v| {
        let control = !v.max(u8x16::splat(b' ')).simd_eq(v) | v.simd_eq(u8x16::splat(0x7f));
        !control | v.simd_eq(u8x16::splat(b'\t'))
    });
    let control = |c: &u8| c.is_ascii_control() && *c != b'\t';
    match rest {
        Some(rest) => n + rest.iter().position(control).unwrap_or(rest.len()),
        None => n,
    }
}

/// Length of the leading run without CR, LF and NUL.
#[inline]
pub(crate) fn line_len(s: &[u8]) -> usize {
    let (n, rest) = blocks_while(s, |v| {
        let is = |c: u8| v.simd_eq(u8x16::splat(c));
        !(is(b'\n') | is(b'\r') | is(0))
    });
    let ends = |c: &u8| matches!(c, b'\r' | b'\n' | 0);
    match rest {
        Some(rest) => n + rest.iter().position(ends).unwrap_or(rest.len()),
        None => n,
    }
}

/// Whether `value` holds no CR, LF or NUL: written into a header it stays one line.
#[must_use]
pub fn is_one_line(value: &[u8]) -> bool {
    line_len(value) == value.len()
}

/// One bit for each octet of `block` that is a control character, HT and DEL among them, or not
/// ASCII.
#[inline]
pub(crate) fn special_bits(block: &[u8; 64]) -> u64 {
    let (parts, _) = block.as_chunks::<16>();
    parts.iter().rev().fold(0, |bits, part| {
        let plain = within(u8x16::new(*part), b' ', b'~').to_bitmask();
        bits << 16 | u64::from(!plain & 0xffff)
    })
}

/// The name of a host at the start of `s`, its length, when there is no doubt about it: labels that
/// are not empty and have no hyphen at an edge, the last octet a letter, shorter than 32 octets.
/// `None`: to be looked at more closely.
#[inline]
pub(crate) fn plain_host_len(s: &[u8]) -> Option<usize> {
    let bits = |v: u8x16| {
        let of = |octets: u8x16| octets.to_bitmask() & 0xffff;
        let (dots, hyphens) = (v.simd_eq(u8x16::splat(b'.')), v.simd_eq(u8x16::splat(b'-')));
        (of(member(v, HOST)), of(dots), of(hyphens))
    };
    let block = |s: &[u8]| {
        let whole = s.first_chunk::<16>().copied();
        u8x16::new(whole.unwrap_or_else(|| {
            let mut filled = [0; 16];
            filled.iter_mut().zip(s).for_each(|(to, from)| *to = *from);
            filled
        }))
    };
    let (mut host, mut dots, mut hyphens) = bits(block(s));
    if host == 0xffff {
        let (more, more_dots, more_hyphens) = bits(block(s.get(16..)?));
        host |= more << 16;
        dots |= more_dots << 16;
        hyphens |= more_hyphens << 16;
    }
    let len = host.trailing_ones();
    let inside = 1_u32.checked_shl(len)?.wrapping_sub(1);
    let (dots, hyphens) = (dots & inside, hyphens & inside);
    let label_starts = dots << 1 | 1;
    let bad = label_starts & (dots | hyphens) | hyphens << 1 & dots;
    let len = len as usize;
    let last = *s.get(len.checked_sub(1)?)?;
    (bad == 0 && last.is_ascii_alphabetic()).then_some(len)
}

/// As [`run`], with `%HH` escapes between.
#[inline]
pub(crate) fn run_escaped(s: &[u8], class: u8) -> usize {
    let n = run(s, class);
    if s.get(n) == Some(&b'%') { run_on(s, n, class) } else { n }
}

/// As [`span`], with `%HH` escapes between.
#[inline]
pub(crate) fn span_escaped(s: &[u8], class: u8) -> usize {
    let n = span(s, class);
    if s.get(n) == Some(&b'%') { run_on(s, n, class) } else { n }
}

/// The rest of [`run_escaped`] from a `%` at `n` on.
#[cold]
fn run_on(s: &[u8], n: usize, class: u8) -> usize {
    let mut n = n;
    while let Some([b'%', a, b]) = s.get(n..).and_then(|rest| rest.first_chunk::<3>()) {
        if !a.is_ascii_hexdigit() || !b.is_ascii_hexdigit() {
            break;
        }
        n += 3;
        n += run(s.get(n..).unwrap_or_default(), class);
    }
    n
}

/// Whether all of a non-empty `s` is of `class`.
#[inline]
pub(crate) fn all(s: &[u8], class: u8) -> bool {
    !s.is_empty() && run(s, class) == s.len()
}

/// As [`all`], with `%HH` escapes allowed; may be empty.
#[inline]
pub(crate) fn all_escaped(s: &[u8], class: u8) -> bool {
    run_escaped(s, class) == s.len()
}

/// Whether `c` is part of linear white space. CR and LF reach a value only as part of a fold.
#[inline]
pub(crate) const fn is_lws(c: u8) -> bool {
    // Most octets end at the first comparison.
    c <= b' ' && matches!(c, b' ' | b'\t' | b'\r' | b'\n')
}

/// Without leading white space.
#[inline]
pub(crate) fn trim_start(s: &[u8]) -> &[u8] {
    let mut s = s;
    while let [c, rest @ ..] = s {
        if !is_lws(*c) {
            break;
        }
        s = rest;
    }
    s
}

/// Without white space at either end.
#[inline]
pub(crate) fn trim(s: &[u8]) -> &[u8] {
    let mut s = trim_start(s);
    while let [rest @ .., c] = s {
        if !is_lws(*c) {
            break;
        }
        s = rest;
    }
    s
}

/// Splits at `at`; everything in the head when there is less.
#[inline]
pub(crate) fn split(s: &[u8], at: usize) -> (&[u8], &[u8]) {
    s.split_at_checked(at).unwrap_or((s, &[]))
}

/// Length of the quoted string at the start of `s`, quotes included. `None` if it does not end, or
/// holds a control character that is not escaped (RFC 3261 25.1 `quoted-string`).
pub(crate) fn quoted_len(s: &[u8]) -> Option<usize> {
    let mut i = 1;
    loop {
        match *s.get(i)? {
            b'"' => return i.checked_add(1),
            b'\\' => {
                let escaped = *s.get(i.checked_add(1)?)?;
                if matches!(escaped, b'\r' | b'\n') || escaped >= 0x80 {
                    return None;
                }
                i = i.checked_add(2)?;
            }
            c if c >= b' ' && c != 0x7f || is_lws(c) => i = i.checked_add(1)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every octet in every place of a block: blocks, table and plain definition agree.
    #[test]
    fn blocks_and_table_hold_the_same_sets() {
        for c in 0..=u8::MAX {
            for at in [0, 1, 15, 16, 31, 40, 47] {
                let mut s = [b'a'; 48];
                s[at] = c;
                for class in [USER, HOST, VALUE, OPAQUE] {
                    let expected = if is(c, class) { 48 } else { at };
                    assert_eq!(span(&s, class), expected, "{c:#x} at {at}, class {class}");
                    assert_eq!(run(&s, class), expected, "{c:#x} at {at}, class {class}");
                }
                let text = if c.is_ascii_control() && c != b'\t' { at } else { 48 };
                assert_eq!(text_len(&s), text, "{c:#x} at {at}");
                let line = if matches!(c, b'\r' | b'\n' | 0) { at } else { 48 };
                assert_eq!(line_len(&s), line, "{c:#x} at {at}");
                let found = if c == b'a' { Some(0) } else { Some(at) };
                assert_eq!(find(&s, c), found, "{c:#x} at {at}");
                assert_eq!(find(&[b'b'; 48], c), (c == b'b').then_some(0));
            }
            for at in 0..64 {
                let mut block = [b'a'; 64];
                block[at] = c;
                let special = !(b' '..=b'~').contains(&c);
                assert_eq!(special_bits(&block), u64::from(special) << at, "{c:#x} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_plain_host_is_a_name(s in "[a-z0-9.@:_-]{0,40}") {
            let s = s.as_bytes();
            if let Some(len) = plain_host_len(s) {
                let host = &s[..len];
                prop_assert_eq!(len, run(s, HOST));
                let labels: Vec<&[u8]> = host.split(|&c| c == b'.').collect();
                for label in labels {
                    prop_assert!(!label.is_empty());
                    prop_assert!(!label.starts_with(b"-") && !label.ends_with(b"-"));
                }
                prop_assert!(host.last().unwrap().is_ascii_alphabetic());
            }
        }
    }
}
