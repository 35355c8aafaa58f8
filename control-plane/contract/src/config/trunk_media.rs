//! How media travels on the legs of one trunk.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DurationText;

/// Media of the calls with one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrunkMedia {
    /// Where this peer's packets may come from. Default `signalled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<Nat>,
    /// Encryption on this leg. Default `pass`. An emergency call is never refused for it: where a
    /// call would be, it goes on without encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srtp: Option<Srtp>,
    /// What may encrypt, the most wanted first. Default: all, in the order `AEAD_AES_256_GCM`,
    /// `AEAD_AES_128_GCM`, `AES_CM_128_HMAC_SHA1_80`, `AES_CM_128_HMAC_SHA1_32`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub srtp_suites: Vec<SrtpSuite>,
    /// ICE on this leg. Default `off`: attributes of ICE are left out of what this peer is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ice: Option<Ice>,
    /// Time without a packet in a direction that should have some, 1s-24h. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_timeout: Option<DurationText>,
    /// What happens then. Default `alarm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_timeout_action: Option<MediaAction>,
    /// What happens when nothing can pass between this peer and us any more: its DTLS handshake
    /// failed or was not begun, or it no longer consents to be sent media (ICE). Default `bye`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_action: Option<MediaAction>,
}

/// See [`TrunkMedia::nat`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nat {
    /// Only from the address and port that its SDP names.
    #[default]
    Signalled,
    /// The peer may be behind a NAT: the address is learnt from its first packets.
    Latch,
}

/// See [`TrunkMedia::srtp`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Srtp {
    /// What is offered passes as it is; keys are between the parties. On a leg where we have to
    /// speak for ourselves because the other one does not pass, plain RTP.
    #[default]
    Pass,
    /// This leg speaks RTP/AVP only. An offer that only knows encryption is refused with 488.
    Off,
    /// Takes what the peer offers, plain or SDES; offers plain RTP.
    Accept,
    /// Offers RTP/SAVP with keys in SDP (SDES, RFC 4568), and refuses plain RTP with 488.
    Sdes,
    /// Offers UDP/TLS/RTP/SAVPF (DTLS-SRTP, RFC 5763, RFC 5764), and refuses plain RTP with 488.
    Dtls,
}

/// A crypto suite of RFC 4568 6.2 or RFC 7714 14.2; with DTLS the protection profile of the same
/// transforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SrtpSuite {
    #[serde(rename = "AES_CM_128_HMAC_SHA1_80")]
    AesCm128HmacSha1_80,
    #[serde(rename = "AES_CM_128_HMAC_SHA1_32")]
    AesCm128HmacSha1_32,
    #[serde(rename = "AEAD_AES_128_GCM")]
    AeadAes128Gcm,
    #[serde(rename = "AEAD_AES_256_GCM")]
    AeadAes256Gcm,
}

impl SrtpSuite {
    /// Every suite, in the order in which they are wanted unless the document says otherwise.
    pub const ALL: [Self; 4] = [
        Self::AeadAes256Gcm,
        Self::AeadAes128Gcm,
        Self::AesCm128HmacSha1_80,
        Self::AesCm128HmacSha1_32,
    ];

    /// As registered with IANA, in SDP and in the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }
}

/// See [`TrunkMedia::ice`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ice {
    #[default]
    Off,
    /// We are an ICE-lite agent (RFC 8445 2.5) toward a peer that offers or answers ICE.
    Lite,
}

/// See [`TrunkMedia::rtp_timeout_action`] and [`TrunkMedia::failure_action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaAction {
    /// Counted, told once per call and direction, in the call record.
    Alarm,
    /// The call is ended. An emergency call never is: it gets the alarm.
    Bye,
    /// Counted only.
    Nothing,
}
