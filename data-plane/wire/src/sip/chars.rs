//! Character classes of RFC 3261 25.1 and a small cursor over header values.

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

/// As [`run`], with `%HH` escapes between.
#[inline]
pub(crate) fn run_escaped(s: &[u8], class: u8) -> usize {
    let n = run(s, class);
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
