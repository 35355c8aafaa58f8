//! base64 with the standard alphabet (RFC 4648 4), for keys: nothing is kept beside the result.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the encoding of `octets`, padded.
pub(crate) fn encode(octets: &[u8], out: &mut Vec<u8>) {
    for group in octets.chunks(3) {
        let mut bits = [0; 4];
        for (place, octet) in bits.iter_mut().skip(1).zip(group) {
            *place = *octet;
        }
        let bits = u32::from_be_bytes(bits);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit) & 63) as usize;
            let character = ALPHABET.get(value).copied().unwrap_or(b'=');
            out.push(if digit <= group.len() { character } else { b'=' });
        }
    }
}

/// Decodes into `out`; gives how many octets. `None`: a character outside the alphabet, an impossible
/// length, set bits behind the last octet, or no room. Padding may be there or not (RFC 4568 6.1
/// discards it).
pub(crate) fn decode(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let bare = match text {
        [bare @ .., b'=', b'='] if text.len().is_multiple_of(4) => bare,
        [bare @ .., b'='] if text.len().is_multiple_of(4) => bare,
        whole => whole,
    };
    let (mut bits, mut held, mut length) = (0_u32, 0, 0);
    for character in bare {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            *out.get_mut(length)? = u8::try_from(bits >> held & 0xff).ok()?;
            length += 1;
        }
    }
    // One character alone is no octet; what is left over of the last one must be zero.
    (held < 6 && bits & ((1 << held) - 1) == 0).then_some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_standard() {
        // RFC 4648 10.
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = Vec::new();
            encode(plain.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
            let mut back = [0; 8];
            for text in [text, text.trim_end_matches('=')] {
                assert_eq!(decode(text.as_bytes(), &mut back), Some(plain.len()));
                assert_eq!(&back[..plain.len()], plain.as_bytes());
            }
        }
        let mut out = [0; 8];
        for wrong in ["Z", "Zg=", "Zh==", "Zm9=", "Zm9v=", "Zm9v====", "Z=g=", "Zm 9v", "Zg=a", "="]
        {
            assert_eq!(decode(wrong.as_bytes(), &mut out), None, "{wrong}");
        }
        assert_eq!(decode(b"Zm9vYmFy", &mut out[..5]), None);
    }

    proptest! {
        #[test]
        fn every_octet_comes_back(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut text = Vec::new();
            encode(&octets, &mut text);
            let mut back = [0; 60];
            prop_assert_eq!(decode(&text, &mut back), Some(octets.len()));
            prop_assert_eq!(&back[..octets.len()], &octets[..]);
        }
    }
}
