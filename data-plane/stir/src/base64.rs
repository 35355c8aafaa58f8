//! base64url without padding as RFC 7515 wants it (ST-6), and the PEM alphabet of RFC 7468.

const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Decoding table: value, or 64 for what is not in the alphabet. Evaluated by the compiler, where
/// an index out of range would be a compile error.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler only")]
const fn table(plus: u8, slash: u8) -> [u8; 256] {
    let mut table = [64u8; 256];
    let mut value = 0u8;
    while value < 64 {
        let octet = match value {
            0..=25 => b'A' + value,
            26..=51 => b'a' + (value - 26),
            52..=61 => b'0' + (value - 52),
            62 => plus,
            _ => slash,
        };
        table[octet as usize] = value;
        value += 1;
    }
    table
}

static DECODE_URL: [u8; 256] = table(b'-', b'_');
static DECODE_STANDARD: [u8; 256] = table(b'+', b'/');

/// Appends the encoding of `bytes`.
pub(crate) fn encode_url(bytes: &[u8], out: &mut Vec<u8>) {
    let digit = |value: u32| *URL.get((value & 63) as usize).unwrap_or(&b'A');
    let mut chunks = bytes.chunks_exact(3);
    for chunk in &mut chunks {
        let group = chunk.iter().fold(0, |group, octet| group << 8 | u32::from(*octet));
        out.extend_from_slice(&[
            digit(group >> 18),
            digit(group >> 12),
            digit(group >> 6),
            digit(group),
        ]);
    }
    match *chunks.remainder() {
        [one] => {
            let group = u32::from(one) << 16;
            out.extend_from_slice(&[digit(group >> 18), digit(group >> 12)]);
        }
        [one, two] => {
            let group = u32::from(one) << 16 | u32::from(two) << 8;
            out.extend_from_slice(&[digit(group >> 18), digit(group >> 12), digit(group >> 6)]);
        }
        _ => {}
    }
}

/// Appends the decoding of `text`. None, with `out` in an unspecified longer state, if there is a
/// character outside the alphabet, an impossible length, or set bits behind the last octet.
pub(crate) fn decode_url(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    decode(text, &DECODE_URL, out)
}

/// As [`decode_url`] for the standard alphabet, with padding already removed.
pub(crate) fn decode_standard(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    decode(text, &DECODE_STANDARD, out)
}

fn decode(text: &[u8], table: &[u8; 256], out: &mut Vec<u8>) -> Option<()> {
    let value = |octet: &u8| table.get(usize::from(*octet)).copied().filter(|value| *value < 64);
    let mut chunks = text.chunks_exact(4);
    for chunk in &mut chunks {
        let mut group = 0u32;
        for octet in chunk {
            group = group << 6 | u32::from(value(octet)?);
        }
        let [_, one, two, three] = group.to_be_bytes();
        out.extend_from_slice(&[one, two, three]);
    }
    match chunks.remainder() {
        [] => Some(()),
        [a, b] => {
            let (a, b) = (value(a)?, value(b)?);
            out.push(a << 2 | b >> 4);
            (b & 0x0f == 0).then_some(())
        }
        [a, b, c] => {
            let (a, b, c) = (value(a)?, value(b)?, value(c)?);
            out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2]);
            (c & 0x03 == 0).then_some(())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode_url(text, &mut out).map(|()| out)
    }

    /// ST-6, RFC 4648 10 with the URL alphabet.
    #[test]
    fn known_answers() {
        for (plain, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            let mut out = Vec::new();
            encode_url(plain.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
            assert_eq!(decoded(text.as_bytes()).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(decoded(b"-_-_"), Some(vec![0xfb, 0xff, 0xbf]));
        for bad in ["Zg==", "Zh", "Zm9", "Z", "Zm9vY", "+/+/", "Zm 9v", "Zm9v\n"] {
            assert_eq!(decoded(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        /// Exactly one text decodes to given octets.
        #[test]
        fn canonical(text in "[A-Za-z0-9_=+/-]{0,40}") {
            if let Some(octets) = decoded(text.as_bytes()) {
                let mut again = Vec::new();
                encode_url(&octets, &mut again);
                prop_assert_eq!(again, text.into_bytes());
            }
        }
    }
}
