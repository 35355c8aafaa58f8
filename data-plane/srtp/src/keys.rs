//! Master keys. Wiped when dropped, compared in constant time, absent from `Debug`.

use aws_lc_rs::constant_time;
use smallvec::SmallVec;
use zeroize::Zeroize;

use crate::{limits::MKI_MAX_BYTES, suite::Suite};

const KEYING_MAX_BYTES: usize = 46;

/// A master key and its salt, of one suite.
#[derive(Clone)]
pub struct MasterKey {
    suite: Suite,
    /// Key, then salt; zero beyond.
    octets: [u8; KEYING_MAX_BYTES],
}

impl MasterKey {
    /// Takes key and salt, the key first. `None`: not as many octets as the suite has
    /// ([`Suite::keying_bytes`]).
    #[must_use]
    pub fn new(suite: Suite, key_and_salt: &[u8]) -> Option<Self> {
        if key_and_salt.len() != suite.keying_bytes() {
            return None;
        }
        let mut octets = [0; KEYING_MAX_BYTES];
        octets.get_mut(..key_and_salt.len())?.copy_from_slice(key_and_salt);
        Some(Self { suite, octets })
    }

    /// As [`Self::new`], of two parts, as DTLS exports them (RFC 5764 4.2).
    #[must_use]
    pub fn of_parts(suite: Suite, key: &[u8], salt: &[u8]) -> Option<Self> {
        if key.len() != suite.key_bytes() || salt.len() != suite.salt_bytes() {
            return None;
        }
        let mut octets = [0; KEYING_MAX_BYTES];
        octets.get_mut(..key.len())?.copy_from_slice(key);
        octets.get_mut(key.len()..key.len() + salt.len())?.copy_from_slice(salt);
        Some(Self { suite, octets })
    }

    /// A key of unforeseeable octets.
    #[must_use]
    pub fn draw(suite: Suite, random: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut octets = [0; KEYING_MAX_BYTES];
        if let Some(used) = octets.get_mut(..suite.keying_bytes()) {
            random(used);
        }
        Self { suite, octets }
    }

    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Key and salt, to be written into SDP or a call record, and nowhere else.
    #[must_use]
    pub fn key_and_salt(&self) -> &[u8] {
        self.octets.get(..self.suite.keying_bytes()).unwrap_or_default()
    }

    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        self.key_and_salt().split_at_checked(self.suite.key_bytes()).unwrap_or_default()
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.suite == other.suite
            && constant_time::verify_slices_are_equal(&self.octets, &other.octets).is_ok()
    }
}

impl Eq for MasterKey {}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKey({}, ..)", self.suite)
    }
}

/// Master key identifier: which of several master keys a packet is under (RFC 3711 3.1, RFC 4568
/// 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mki {
    value: u64,
    bytes: u8,
}

impl Mki {
    /// `value` as `bytes` octets on the wire (1 to 128). `None`: it does not fit.
    #[must_use]
    pub fn new(value: u64, bytes: usize) -> Option<Self> {
        let fits = bytes >= 8 || value >> (8 * bytes) == 0;
        let bytes = u8::try_from(bytes).ok().filter(|_| (1..=MKI_MAX_BYTES).contains(&bytes))?;
        fits.then_some(Self { value, bytes })
    }

    #[must_use]
    pub fn value(self) -> u64 {
        self.value
    }

    /// Octets on the wire.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::from(self.bytes)
    }

    /// Writes it into a place of exactly [`Self::bytes`] octets.
    pub(crate) fn write(self, into: &mut [u8]) {
        let digits = self.value.to_be_bytes();
        let mut digits = digits.iter().rev();
        for octet in into.iter_mut().rev() {
            *octet = digits.next().copied().unwrap_or(0);
        }
    }

    /// Whether `octets` are this MKI.
    pub(crate) fn is(self, octets: &[u8]) -> bool {
        let (high, low) = octets.split_at(octets.len().saturating_sub(8));
        octets.len() == self.bytes()
            && high.iter().all(|octet| *octet == 0)
            && low.iter().fold(0, |value, octet| value << 8 | u64::from(*octet)) == self.value
    }
}

/// A master key with what was agreed about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    pub key: MasterKey,
    /// All masters of one [`Keys`] have one, of the same length, or there is one master.
    pub mki: Option<Mki>,
    /// Packets that may be protected with it, SRTP and SRTCP apart. `None`: 2^48 and 2^31.
    pub lifetime: Option<u64>,
}

/// What protects one direction of one m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    suite: Suite,
    masters: SmallVec<[Master; 1]>,
    /// SRTCP is authenticated but not encrypted (RFC 4568 6.3.2).
    pub unencrypted_rtcp: bool,
}

impl Keys {
    /// One master key without MKI, for its whole lifetime.
    #[must_use]
    pub fn single(key: MasterKey) -> Self {
        let suite = key.suite();
        let master = Master { key, mki: None, lifetime: None };
        Self { suite, masters: SmallVec::from_iter([master]), unencrypted_rtcp: false }
    }

    /// Several master keys. `None` if there is none, if their suites differ, or if MKIs are missing,
    /// equal, or of different lengths (RFC 4568 6.1).
    #[must_use]
    pub fn several(masters: impl IntoIterator<Item = Master>) -> Option<Self> {
        let masters: SmallVec<[Master; 1]> = masters.into_iter().collect();
        let (first, others) = masters.split_first()?;
        let length = first.mki.map(Mki::bytes);
        let sound = |master: &Master| {
            master.key.suite() == first.key.suite() && master.mki.map(Mki::bytes) == length
        };
        let told_apart = |at: usize, master: &Master| {
            masters.iter().take(at).all(|earlier| earlier.mki != master.mki)
        };
        let whole = others.is_empty()
            || (length.is_some()
                && others.iter().all(sound)
                && masters.iter().enumerate().all(|(at, master)| told_apart(at, master)));
        let suite = first.key.suite();
        whole.then_some(Self { suite, masters, unencrypted_rtcp: false })
    }

    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Whether a master key of these is one of `other` too: what one of them has protected, the other
    /// must not protect again, whatever else was agreed about it (RFC 3711 9.1).
    #[must_use]
    pub fn share_a_key_with(&self, other: &Self) -> bool {
        let theirs = |master: &Master| other.masters.iter().any(|one| one.key == master.key);
        self.masters.iter().any(theirs)
    }

    /// At least one; the first is the one to begin with.
    #[must_use]
    pub fn masters(&self) -> &[Master] {
        &self.masters
    }
}

/// Both directions of one m-line with one party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keying {
    /// What we send to that party is under these.
    pub ours: Keys,
    /// What it sends is under these.
    pub theirs: Keys,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(octet: u8) -> MasterKey {
        MasterKey::new(Suite::AesCm128HmacSha1_80, &[octet; 30]).unwrap()
    }

    #[test]
    fn a_key_has_the_length_of_its_suite_and_is_not_shown() {
        for suite in Suite::ALL {
            for len in 0..64 {
                let made = MasterKey::new(*suite, &vec![7; len]);
                assert_eq!(made.is_some(), len == suite.keying_bytes(), "{suite} {len}");
            }
            assert!(MasterKey::of_parts(*suite, &vec![1; suite.key_bytes()], &[2; 13]).is_none());
        }
        let keys = Keys::single(key(0xab));
        let keying = Keying { ours: keys.clone(), theirs: keys };
        let shown = format!("{keying:?}");
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
        let whole = MasterKey::of_parts(Suite::AeadAes128Gcm, &[1; 16], &[2; 12]).unwrap();
        assert_eq!(whole.parts(), (&[1; 16][..], &[2; 12][..]));
        assert_eq!(key(1), key(1));
        assert_ne!(key(1), key(2));
    }

    #[test]
    fn an_mki_has_its_length() {
        assert!(Mki::new(256, 1).is_none());
        assert!(Mki::new(1, 0).is_none());
        assert!(Mki::new(1, 129).is_none());
        for (value, bytes) in [(255, 1), (1066, 4), (u64::MAX, 8), (u64::MAX, 128), (0, 1)] {
            let mki = Mki::new(value, bytes).unwrap();
            let mut wire = vec![0xaa; bytes];
            mki.write(&mut wire);
            assert!(mki.is(&wire));
            wire[0] ^= 0x80;
            assert!(!mki.is(&wire));
            assert!(!mki.is(&wire[1..]));
        }
        let mut wire = [0; 4];
        Mki::new(1066, 4).unwrap().write(&mut wire);
        assert_eq!(wire, [0, 0, 4, 42]);
    }

    #[test]
    fn several_masters_need_identifiers() {
        let master = |octet: u8, mki: Option<Mki>| Master { key: key(octet), mki, lifetime: None };
        let mki = |value| Mki::new(value, 2);
        assert!(Keys::several([]).is_none());
        assert!(Keys::several([master(1, None)]).is_some());
        assert!(Keys::several([master(1, None), master(2, None)]).is_none());
        assert!(Keys::several([master(1, mki(1)), master(2, None)]).is_none());
        assert!(Keys::several([master(1, mki(1)), master(2, mki(1))]).is_none());
        assert!(Keys::several([master(1, mki(1)), master(2, Mki::new(2, 3))]).is_none());
        assert!(Keys::several([master(1, mki(1)), master(2, mki(2))]).is_some());
    }
}
