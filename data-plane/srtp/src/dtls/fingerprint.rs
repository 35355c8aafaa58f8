//! `a=fingerprint` (RFC 8122 5).

use aws_lc_rs::{constant_time, digest};
use smallvec::SmallVec;

use super::limits::FINGERPRINTS_MAX;

const DIGEST_MAX_BYTES: usize = 64;

/// Hash functions of fingerprints that are checked, the weakest first. MD2 and MD5 are forbidden
/// (RFC 8122 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    const ALL: [Self; 5] = [Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// As SDP has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha224 => "sha-224",
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => &digest::SHA224,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// Hash of a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    hash: Hash,
    /// Zero beyond the length of the hash.
    octets: [u8; DIGEST_MAX_BYTES],
}

impl Fingerprint {
    /// Reads the value of `a=fingerprint`: the name of the hash, a space, and octets in hexadecimal
    /// with colons between. `None`: another hash, or not as many octets as it has.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let space = value.iter().position(|&c| c == b' ')?;
        let (name, digits) = value.split_at_checked(space)?;
        let hash = Hash::ALL
            .into_iter()
            .find(|hash| hash.as_str().as_bytes().eq_ignore_ascii_case(name))?;
        let mut octets = [0; DIGEST_MAX_BYTES];
        let mut count = 0;
        for pair in digits.trim_ascii().split(|&c| c == b':') {
            let [high, low] = *pair else { return None };
            let nibble = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
            *octets.get_mut(count)? = nibble(high)? << 4 | nibble(low)?;
            count += 1;
        }
        (count == hash.algorithm().output_len()).then_some(Self { hash, octets })
    }

    /// Of a certificate in DER.
    #[must_use]
    pub fn of(hash: Hash, certificate: &[u8]) -> Self {
        let digest = digest::digest(hash.algorithm(), certificate);
        let mut octets = [0; DIGEST_MAX_BYTES];
        for (to, from) in octets.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self { hash, octets }
    }

    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    fn matches(&self, certificate: &[u8]) -> bool {
        let theirs = Self::of(self.hash, certificate);
        constant_time::verify_slices_are_equal(&self.octets, &theirs.octets).is_ok()
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.hash.as_str())?;
        for (index, octet) in
            self.octets.iter().take(self.hash.algorithm().output_len()).enumerate()
        {
            write!(f, "{}{octet:02X}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// All `a=fingerprint` lines that hold for one m-line: a set, in whatever order they stand.
#[derive(Clone, Debug, Default)]
pub struct Fingerprints(SmallVec<[Fingerprint; 1]>);

impl PartialEq for Fingerprints {
    /// No line stands twice.
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|one| other.0.contains(one))
    }
}

impl Eq for Fingerprints {}

impl Fingerprints {
    /// Notes one line. False: it says nothing that can be checked, or there are too many.
    pub fn add(&mut self, value: &[u8]) -> bool {
        match Fingerprint::parse(value) {
            Some(fingerprint) if self.0.len() < FINGERPRINTS_MAX => {
                if !self.0.contains(&fingerprint) {
                    self.0.push(fingerprint);
                }
                true
            }
            _ => false,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Fingerprint> {
        self.0.iter()
    }

    /// Nothing is known that a certificate could be checked against.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a certificate is one of those that were named. Of several hash functions the
    /// strongest counts alone: a weaker one adds nothing but a way around it.
    #[must_use]
    pub fn match_certificate(&self, certificate: &[u8]) -> bool {
        let Some(strongest) = self.0.iter().map(Fingerprint::hash).max() else { return false };
        // All are looked at, whichever matches.
        self.0
            .iter()
            .filter(|fingerprint| fingerprint.hash() == strongest)
            .fold(false, |found, fingerprint| found | fingerprint.matches(certificate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_leads_back_for_every_hash() {
        for hash in Hash::ALL {
            let made = Fingerprint::of(hash, b"a certificate");
            let text = made.to_string();
            assert_eq!(Fingerprint::parse(text.as_bytes()), Some(made), "{text}");
            assert_eq!(Fingerprint::parse(text.to_lowercase().as_bytes()), Some(made));
            assert_eq!(Fingerprint::parse(&text.as_bytes()[..text.len() - 3]), None);
            assert_eq!(Fingerprint::parse(format!("{text}:00").as_bytes()), None);
        }
        // SHA-256 of "abc", FIPS 180-2 B.1.
        assert_eq!(
            Fingerprint::of(Hash::Sha256, b"abc").to_string(),
            "sha-256 BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:\
             B4:10:FF:61:F2:00:15:AD"
        );
        for bad in ["", "sha-256", "md5 00:11", "sha-1 zz", "sha-256 ", "sha-256 BA7816", "x y"] {
            assert_eq!(Fingerprint::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_strongest_hash_decides() {
        let line = |hash, of: &[u8]| Fingerprint::of(hash, of).to_string();
        let mut all = Fingerprints::default();
        assert!(!all.match_certificate(b"ours"), "nothing named, nothing matches");
        assert!(all.add(line(Hash::Sha1, b"ours").as_bytes()));
        assert!(all.match_certificate(b"ours") && !all.match_certificate(b"other"));
        // A SHA-256 line of another certificate: the SHA-1 line no longer counts.
        assert!(all.add(line(Hash::Sha256, b"other").as_bytes()));
        assert!(!all.match_certificate(b"ours") && all.match_certificate(b"other"));
        // Two certificates, either may be used.
        assert!(all.add(line(Hash::Sha256, b"ours").as_bytes()));
        assert!(all.match_certificate(b"ours") && all.match_certificate(b"other"));
        assert!(!all.add(b"md5 00"));
        // RFC 8842 3.1: one added, removed or changed is another set; another order is not.
        let set = |marks: &[&[u8]]| {
            let mut set = Fingerprints::default();
            marks.iter().for_each(|of| assert!(set.add(line(Hash::Sha256, of).as_bytes())));
            set
        };
        assert_eq!(set(&[b"a", b"b"]), set(&[b"b", b"a"]));
        assert_eq!(set(&[b"a", b"a"]), set(&[b"a"]));
        assert_ne!(set(&[b"a", b"b"]), set(&[b"a"]));
        assert_ne!(set(&[b"a", b"b"]), set(&[b"a", b"c"]));
        for index in 0..20_u8 {
            all.add(line(Hash::Sha256, &[index]).as_bytes());
        }
        assert_eq!(all.0.len(), FINGERPRINTS_MAX);
    }
}
