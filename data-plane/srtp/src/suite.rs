//! The crypto suites.

/// A cipher, an authentication and their lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// RFC 3711, RFC 4568 6.2.1.
    AesCm128HmacSha1_80,
    /// RFC 3711, RFC 4568 6.2.2: 32 bits of tag on SRTP, 80 on SRTCP.
    AesCm128HmacSha1_32,
    /// RFC 6188.
    AesCm256HmacSha1_80,
    /// RFC 7714.
    AeadAes128Gcm,
    /// RFC 7714.
    AeadAes256Gcm,
}

impl Suite {
    /// All of them, the strongest first.
    pub const ALL: &'static [Self] = &[
        Self::AeadAes256Gcm,
        Self::AeadAes128Gcm,
        Self::AesCm256HmacSha1_80,
        Self::AesCm128HmacSha1_80,
        Self::AesCm128HmacSha1_32,
    ];

    /// The name in `a=crypto` (RFC 4568 6.2, RFC 6188 5, RFC 7714 14.2).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// By its name, whatever the case of its letters. `None`: not one of ours.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|suite| suite.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Its SRTP protection profile in DTLS (RFC 5764 4.1.2, RFC 7714 14.2), if it has one.
    #[must_use]
    pub const fn dtls_profile(self) -> Option<u16> {
        match self {
            Self::AesCm128HmacSha1_80 => Some(0x0001),
            Self::AesCm128HmacSha1_32 => Some(0x0002),
            Self::AesCm256HmacSha1_80 => None,
            Self::AeadAes128Gcm => Some(0x0007),
            Self::AeadAes256Gcm => Some(0x0008),
        }
    }

    /// By its SRTP protection profile in DTLS.
    #[must_use]
    pub fn from_dtls_profile(profile: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|suite| suite.dtls_profile() == Some(profile))
    }

    /// Octets of the master key, and of the session encryption key.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 | Self::AeadAes128Gcm => 16,
            Self::AesCm256HmacSha1_80 | Self::AeadAes256Gcm => 32,
        }
    }

    /// Octets of the master salt, and of the session salt.
    #[must_use]
    pub const fn salt_bytes(self) -> usize {
        if self.is_aead() { 12 } else { 14 }
    }

    /// Octets of master key and salt together.
    #[must_use]
    pub const fn keying_bytes(self) -> usize {
        self.key_bytes() + self.salt_bytes()
    }

    /// Whether one algorithm both encrypts and authenticates.
    #[must_use]
    pub const fn is_aead(self) -> bool {
        matches!(self, Self::AeadAes128Gcm | Self::AeadAes256Gcm)
    }

    /// Octets of the tag of an SRTP packet.
    #[must_use]
    pub const fn rtp_tag_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm256HmacSha1_80 => 10,
            Self::AesCm128HmacSha1_32 => 4,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
        }
    }

    /// Octets of the tag of an SRTCP packet.
    #[must_use]
    pub const fn rtcp_tag_bytes(self) -> usize {
        if self.is_aead() { 16 } else { 10 }
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_profiles_lead_back() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_name(suite.name().as_bytes()), Some(*suite));
            assert_eq!(Suite::from_name(suite.name().to_lowercase().as_bytes()), Some(*suite));
            if let Some(profile) = suite.dtls_profile() {
                assert_eq!(Suite::from_dtls_profile(profile), Some(*suite));
            }
        }
        for other in [&b"F8_128_HMAC_SHA1_80"[..], b"", b"AES_CM_128_HMAC_SHA1_8"] {
            assert_eq!(Suite::from_name(other), None);
        }
        for other in [0, 3, 5, 6, 9, 0xffff] {
            assert_eq!(Suite::from_dtls_profile(other), None);
        }
    }

    /// RFC 4568 6.2, RFC 6188 5, RFC 7714 12.
    #[test]
    fn lengths_are_those_of_the_standards() {
        let of =
            |suite: Suite| (suite.keying_bytes(), suite.rtp_tag_bytes(), suite.rtcp_tag_bytes());
        assert_eq!(of(Suite::AesCm128HmacSha1_80), (30, 10, 10));
        assert_eq!(of(Suite::AesCm128HmacSha1_32), (30, 4, 10));
        assert_eq!(of(Suite::AesCm256HmacSha1_80), (46, 10, 10));
        assert_eq!(of(Suite::AeadAes128Gcm), (28, 16, 16));
        assert_eq!(of(Suite::AeadAes256Gcm), (44, 16, 16));
    }
}
