//! Why a packet was not opened or sealed.

/// Nothing was learnt from the packet, and nothing of it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Shorter than its header, tag and MKI, or of another version.
    Malformed,
    /// The tag does not verify.
    Authentication,
    /// The index was used before (RFC 3711 3.3.2), or is too old to tell. When sealing: a second
    /// packet under that index would give the first one away.
    Replay,
    /// No master key has this MKI.
    MasterKey,
    /// The master key has protected as many packets as it may (RFC 3711 9.2, RFC 4568 6.1).
    Spent,
    /// A new SSRC beyond [`crate::limits::SOURCES_MAX`].
    Sources,
    /// The caller's buffer is too small.
    Room,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not an SRTP or SRTCP packet",
            Self::Authentication => "the authentication tag does not verify",
            Self::Replay => "the packet index was used before or is too old",
            Self::MasterKey => "no master key has this MKI",
            Self::Spent => "the master key is spent",
            Self::Sources => "too many sources",
            Self::Room => "the buffer is too small",
        })
    }
}

impl std::error::Error for Refusal {}
