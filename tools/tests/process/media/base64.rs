//! RFC 4648 4, for keys in SDP.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn encode(octets: &[u8]) -> String {
    let mut text = String::new();
    for three in octets.chunks(3) {
        let word = three.iter().fold(0, |word, octet| word << 8 | u32::from(*octet));
        let word = word << (8 * (3 - three.len()));
        for letter in 0..4 {
            let at = usize::try_from(word >> (18 - 6 * letter) & 63).expect("six bits");
            text.push(if letter > three.len() { '=' } else { char::from(LETTERS[at]) });
        }
    }
    text
}

pub(super) fn decode(text: &str) -> Vec<u8> {
    let (mut octets, mut word, mut bits) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = LETTERS.iter().position(|known| *known == letter).expect("base64");
        word = word << 6 | u32::try_from(value).expect("six bits");
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            octets.push((word >> bits & 0xff).try_into().expect("an octet"));
        }
    }
    octets
}
