//! The fingerprints of a DTLS-SRTP offer as a PASSporT signs them: the `mky` claim (RFC 8225 5.2.2,
//! RFC 8224 4.1; ST-73).

use smallvec::SmallVec;

use crate::json::{Value, push_string};
use crate::limits::MEDIA_KEYS_MAX;

/// The distinct fingerprints of one offer, in the order in which `mky` lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaKeys {
    keys: SmallVec<[Key; 2]>,
    /// There were more than [`MEDIA_KEYS_MAX`]: equal to nothing.
    too_many: bool,
}

/// Hash function, and digest in hexadecimal without colons.
type Key = (Box<str>, Box<str>);

impl MediaKeys {
    /// Of the values of all `a=fingerprint` lines of an SDP body: `sha-256 4A:AD:B9:...`. What has
    /// no such form is kept as it stands, and so is equal to no claim; nor are more than
    /// [`MEDIA_KEYS_MAX`].
    #[must_use]
    pub fn of_sdp<'v>(values: impl Iterator<Item = &'v [u8]>) -> Self {
        let mut keys = Self::default();
        for value in values {
            let text = String::from_utf8_lossy(value);
            let (alg, dig) = text.trim().split_once(' ').unwrap_or((&*text, ""));
            let dig: String = dig.trim().chars().filter(|c| *c != ':').collect();
            keys.push(alg.into(), dig.into());
            if keys.too_many {
                break;
            }
        }
        keys.sort();
        keys
    }

    /// Of a `mky` claim. None if it is not an array of `{"alg","dig"}`, or too long.
    pub(crate) fn of_claim(claim: Value<'_>) -> Option<Self> {
        let mut keys = Self::default();
        for element in claim.elements()? {
            let text = |name| element.member(name).and_then(Value::string);
            keys.push(text("alg")?.into(), text("dig")?.into());
        }
        keys.sort();
        (!keys.is_empty() && !keys.too_many).then_some(keys)
    }

    fn push(&mut self, alg: Box<str>, dig: Box<str>) {
        let key = (alg, dig);
        if self.contains(&key) {
            return;
        }
        if self.keys.len() < MEDIA_KEYS_MAX {
            self.keys.push(key);
        } else {
            self.too_many = true;
        }
    }

    fn sort(&mut self) {
        let text = |(alg, dig): &Key| [alg.as_bytes(), dig.as_bytes()].concat();
        self.keys.sort_by_cached_key(text);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether both are the same set of keys. Case is no difference (RFC 8122 5).
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let all = |one: &Self, other: &Self| one.keys.iter().all(|key| other.contains(key));
        !self.too_many && !other.too_many && all(self, other) && all(other, self)
    }

    fn contains(&self, key: &Key) -> bool {
        self.keys.iter().any(|known| same(known, key))
    }

    /// Appends the value of the claim.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, (alg, dig)) in self.keys.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"{\"alg\":" } else { b",{\"alg\":" });
            push_string(alg, out);
            out.extend_from_slice(b",\"dig\":");
            push_string(dig, out);
            out.push(b'}');
        }
        out.push(b']');
    }
}

fn same(one: &Key, other: &Key) -> bool {
    one.0.eq_ignore_ascii_case(&other.0) && one.1.eq_ignore_ascii_case(&other.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    const FIRST: &[u8] = b"sha-256 4A:AD:B9";
    const SECOND: &[u8] = b"sha-256 02:1A:CC";

    fn claim(text: &str) -> Option<MediaKeys> {
        MediaKeys::of_claim(json::check(text.as_bytes()).unwrap())
    }

    /// The order of the example of RFC 8225 5.2.2.
    #[test]
    fn sorted_and_distinct() {
        let keys = MediaKeys::of_sdp([FIRST, SECOND, FIRST].into_iter());
        let mut out = Vec::new();
        keys.write(&mut out);
        let text = r#"[{"alg":"sha-256","dig":"021ACC"},{"alg":"sha-256","dig":"4AADB9"}]"#;
        assert_eq!(String::from_utf8(out).unwrap(), text);
        assert_eq!(claim(text), Some(keys));
    }

    #[test]
    fn sets_are_compared() {
        let keys = MediaKeys::of_sdp([FIRST].into_iter());
        for (text, equal) in [
            (r#"[{"alg":"sha-256","dig":"4AADB9"}]"#, true),
            (r#"[{"dig":"4aadb9","alg":"SHA-256"}]"#, true),
            (r#"[{"alg":"sha-1","dig":"4AADB9"}]"#, false),
            (r#"[{"alg":"sha-256","dig":"4AADB8"}]"#, false),
            (r#"[{"alg":"sha-256","dig":"4AADB9"},{"alg":"sha-256","dig":"021ACC"}]"#, false),
        ] {
            assert_eq!(claim(text).unwrap().same_as(&keys), equal, "{text}");
        }
        for bad in ["{}", "[]", "[1]", r#"[{"alg":"sha-256"}]"#, r#"[{"alg":1,"dig":"A"}]"#, "null"]
        {
            assert_eq!(claim(bad), None, "{bad}");
        }
    }

    #[test]
    fn bounded() {
        let lines = |count: usize| -> Vec<Vec<u8>> {
            (0..count).map(|n| format!("sha-256 {n:02X}").into_bytes()).collect()
        };
        let of = |lines: &[Vec<u8>]| MediaKeys::of_sdp(lines.iter().map(Vec::as_slice));
        let most = of(&lines(MEDIA_KEYS_MAX));
        assert!(most.same_as(&most));
        let too_many = of(&lines(MEDIA_KEYS_MAX + 1));
        assert!(!too_many.same_as(&too_many) && !too_many.same_as(&most) && !too_many.is_empty());
        assert!(!of(&[b"".to_vec(), b"\xff \xfe".to_vec(), b"x".to_vec()]).is_empty());
    }
}
