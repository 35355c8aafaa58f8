//! SipHash-2-4 (Aumasson and Bernstein, 2012) with 64 or 128 bits of output: the keyed function
//! behind nonces that peers cannot foresee and table keys that they cannot make collide.

/// A 128-bit key.
#[derive(Clone, Copy)]
pub struct Key {
    k0: u64,
    k1: u64,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    #[must_use]
    pub const fn new(k0: u64, k1: u64) -> Self {
        Self { k0, k1 }
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let value = u128::from_le_bytes(bytes);
        let mask = u128::from(u64::MAX);
        Self {
            k0: u64::try_from(value & mask).unwrap_or(0),
            k1: u64::try_from(value >> 64).unwrap_or(0),
        }
    }

    /// Of one string of octets.
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.hasher();
        hasher.write(bytes);
        hasher.finish()
    }

    /// 64 bits of output, fed piece by piece.
    #[must_use]
    pub const fn hasher(&self) -> Hasher {
        self.start(0)
    }

    /// 128 bits of output ([`Hasher::finish_128`]), fed piece by piece.
    #[must_use]
    pub const fn hasher_128(&self) -> Hasher {
        self.start(0xee)
    }

    const fn start(&self, variant: u64) -> Hasher {
        Hasher {
            v0: self.k0 ^ 0x736f_6d65_7073_6575,
            v1: self.k1 ^ 0x646f_7261_6e64_6f6d ^ variant,
            v2: self.k0 ^ 0x6c79_6765_6e65_7261,
            v3: self.k1 ^ 0x7465_6462_7974_6573,
            pending: 0,
            pending_bits: 0,
            length: 0,
        }
    }
}

/// A hash under way.
#[derive(Clone)]
pub struct Hasher {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
    /// Octets that do not fill a word yet, little-endian.
    pending: u64,
    pending_bits: u32,
    length: u64,
}

impl Hasher {
    /// Appends octets. Pieces are not separated: use [`Self::write_field`] where they must be.
    pub fn write(&mut self, bytes: &[u8]) {
        self.length = self.length.wrapping_add(bytes.len() as u64);
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            self.append(u64::from_le_bytes(*word), 64);
        }
        let rest = tail.iter().rev().fold(0, |rest, octet| rest << 8 | u64::from(*octet));
        self.append(rest, 8 * u32::try_from(tail.len()).unwrap_or(0));
    }

    /// Appends the low `bits` of `value`, whose other bits are zero.
    #[inline]
    fn append(&mut self, value: u64, bits: u32) {
        let used = self.pending_bits;
        let together = self.pending | value << used;
        if used + bits < 64 {
            self.pending = together;
            self.pending_bits = used + bits;
        } else {
            self.pending = value.checked_shr(64 - used).unwrap_or(0);
            self.pending_bits = used + bits - 64;
            self.word(together);
        }
    }

    /// Appends octets and their number, so that `("ab", "c")` and `("a", "bc")` differ.
    pub fn write_field(&mut self, bytes: &[u8]) {
        self.write(bytes);
        self.write(&(bytes.len() as u64).to_le_bytes());
    }

    /// As [`Self::write_field`], with ASCII letters in lower case.
    pub fn write_field_ignoring_case(&mut self, bytes: &[u8]) {
        self.length = self.length.wrapping_add(bytes.len() as u64);
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            self.append(u64::from_le_bytes(word.map(|octet| octet.to_ascii_lowercase())), 64);
        }
        for octet in tail {
            self.append(u64::from(octet.to_ascii_lowercase()), 8);
        }
        self.write(&(bytes.len() as u64).to_le_bytes());
    }

    /// The 64-bit value of [`Key::hasher`].
    #[must_use]
    pub fn finish(mut self) -> u64 {
        self.end(0xff);
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    /// The 128-bit value of [`Key::hasher_128`].
    #[must_use]
    pub fn finish_128(mut self) -> u128 {
        self.end(0xee);
        let low = self.v0 ^ self.v1 ^ self.v2 ^ self.v3;
        self.v1 ^= 0xdd;
        for _ in 0..4 {
            self.round();
        }
        let high = self.v0 ^ self.v1 ^ self.v2 ^ self.v3;
        u128::from(high) << 64 | u128::from(low)
    }

    fn end(&mut self, mark: u64) {
        let last = self.pending | (self.length & 0xff) << 56;
        self.word(last);
        self.v2 ^= mark;
        for _ in 0..4 {
            self.round();
        }
    }

    fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Key 00..0f, inputs of 0, 1, 2, ... octets 00, 01, ...: the vectors of the reference
    /// implementation (github.com/veorq/SipHash, vectors.h).
    #[test]
    fn published_vectors() {
        let key = Key::from_bytes(std::array::from_fn(|i| i as u8));
        let input: Vec<u8> = (0..64).collect();
        for (length, expected) in [
            (0, 0x726f_db47_dd0e_0e31),
            (1, 0x74f8_39c5_93dc_67fd),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
        ] {
            assert_eq!(key.hash(&input[..length]), expected, "{length} octets");
        }
        for (length, expected) in
            [(0, "a3817f04ba25a8e66df67214c7550293"), (1, "da87c1d86b99af44347659119b22fc45")]
        {
            let mut hasher = key.hasher_128();
            hasher.write(&input[..length]);
            let octets = hasher.finish_128().to_le_bytes();
            let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            assert_eq!(hex, expected, "{length} octets");
        }
    }

    proptest! {
        /// Against the standard library's own SipHash-2-4, in any division into pieces.
        #[test]
        fn equals_the_standard_library(
            k0: u64, k1: u64, bytes in proptest::collection::vec(any::<u8>(), 0..200), cut: usize
        ) {
            #[allow(deprecated)]
            let mut reference = std::hash::SipHasher::new_with_keys(k0, k1);
            std::hash::Hasher::write(&mut reference, &bytes);
            let expected = std::hash::Hasher::finish(&reference);
            let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
            let mut hasher = Key::new(k0, k1).hasher();
            hasher.write(first);
            hasher.write(second);
            prop_assert_eq!(hasher.finish(), expected);
        }
    }
}
