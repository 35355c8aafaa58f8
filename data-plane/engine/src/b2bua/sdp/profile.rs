//! What an m= line asks for: RTP with or without encryption, datagrams of another protocol, or what
//! is no datagrams at all.

use ravelin_policy::Srtp;
use ravelin_wire::sdp::{self, Media};
use smallvec::SmallVec;

use crate::cause::Cause;

/// How the keys of an RTP stream are agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// RTP/AVP and RTP/AVPF.
    Plain,
    /// Keys in SDP: RTP/SAVP and RTP/SAVPF with a=crypto (RFC 4568).
    Sdes,
    /// UDP/TLS/RTP/SAVP and UDP/TLS/RTP/SAVPF, or RTP/SAVP with a=fingerprint as before RFC 5764.
    Dtls,
}

/// What travels in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// RTP and RTCP; `feedback`: one of the profiles of RFC 4585 and RFC 5124.
    Rtp { protection: Protection, feedback: bool },
    /// Datagrams that mean nothing to us: T.38 over UDPTL, and every other protocol over UDP.
    /// `secure`: it needs the fingerprints of the parties themselves.
    Datagrams { secure: bool },
    /// Not over UDP: MSRP, T.38 and BFCP over TCP, and what is not known.
    Foreign,
}

impl Transport {
    /// Of one stream of a description.
    pub(super) fn of(description: &sdp::Description<'_>, media: &Media<'_>) -> Self {
        if media.is_rtp() {
            let dtls = media.proto.starts_with(b"UDP/TLS/");
            let protection = if !media.proto.windows(4).any(|part| part == b"SAVP") {
                Protection::Plain
            } else if dtls
                || media.attribute(b"crypto").is_none() && fingerprint(description, media)
            {
                Protection::Dtls
            } else {
                Protection::Sdes
            };
            return Self::Rtp { protection, feedback: media.proto.ends_with(b"F") };
        }
        let proto: SmallVec<[u8; 32]> = media.proto.iter().map(u8::to_ascii_uppercase).collect();
        let secure = proto.windows(3).any(|part| part == b"TLS");
        // `UDPTL`, `UDP`, `UDP/...`; `DTLS/SCTP` is over UDP whatever it is called (RFC 8841 4.2).
        if proto.starts_with(b"UDP") || proto.starts_with(b"DTLS/") {
            Self::Datagrams { secure }
        } else {
            Self::Foreign
        }
    }

    pub(super) const fn is_rtp(self) -> bool {
        matches!(self, Self::Rtp { .. })
    }
}

fn fingerprint(description: &sdp::Description<'_>, media: &Media<'_>) -> bool {
    media.attribute(b"fingerprint").is_some()
        || description.attributes().any(|attribute| attribute.name == b"fingerprint")
}

/// The profile that a party is told.
pub(super) const fn profile(protection: Protection, feedback: bool) -> &'static [u8] {
    match (protection, feedback) {
        (Protection::Plain, false) => b"RTP/AVP",
        (Protection::Plain, true) => b"RTP/AVPF",
        (Protection::Sdes, false) => b"RTP/SAVP",
        (Protection::Sdes, true) => b"RTP/SAVPF",
        (Protection::Dtls, false) => b"UDP/TLS/RTP/SAVP",
        (Protection::Dtls, true) => b"UDP/TLS/RTP/SAVPF",
    }
}

/// Whether a leg of this mode takes what its peer offers. What encrypts is never refused to an
/// emergency call, and neither is what does not.
pub(super) fn admit(mode: Srtp, offered: Protection, emergency: bool) -> Result<(), Cause> {
    let wants = match mode {
        Srtp::Off => offered == Protection::Plain,
        Srtp::Pass | Srtp::Accept => offered != Protection::Dtls,
        Srtp::Sdes => offered == Protection::Sdes,
        Srtp::Dtls => offered == Protection::Dtls,
    };
    if wants || emergency {
        Ok(())
    } else if matches!(mode, Srtp::Sdes | Srtp::Dtls) {
        Err(Cause::EncryptionRequired)
    } else {
        Err(Cause::EncryptionRefused)
    }
}

/// What a leg of this mode offers.
pub(super) const fn offers(mode: Srtp) -> Protection {
    match mode {
        Srtp::Pass | Srtp::Off | Srtp::Accept => Protection::Plain,
        Srtp::Sdes => Protection::Sdes,
        Srtp::Dtls => Protection::Dtls,
    }
}

/// Whether an offer to a leg of this mode may name a profile with feedback, where the other leg's
/// did. Carriers' gateways know RTP/AVP and RTP/SAVP and need not know more (RFC 4585 4.1): plain RTP
/// is offered to them with feedback only where it came so and the leg passes on what is offered, keys
/// in SDP only where they came so. A browser's offer has feedback always, whoever is called.
pub(super) fn keeps_feedback(mode: Srtp, ours: Protection, theirs: Option<Protection>) -> bool {
    match ours {
        Protection::Plain => mode == Srtp::Pass && theirs == Some(Protection::Plain),
        Protection::Sdes => theirs == Some(Protection::Sdes),
        Protection::Dtls => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport(line: &str, session: &str) -> Transport {
        let text = format!("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nt=0 0\n{session}{line}\n");
        let parsed = sdp::Description::parse(text.as_bytes()).unwrap();
        Transport::of(&parsed, &parsed.medias()[0])
    }

    #[test]
    fn protocols_are_told_apart() {
        let rtp = |protection, feedback| Transport::Rtp { protection, feedback };
        let plain = Transport::Datagrams { secure: false };
        let secure = Transport::Datagrams { secure: true };
        for (line, expected) in [
            ("m=audio 9 RTP/AVP 0", rtp(Protection::Plain, false)),
            ("m=text 9 RTP/AVP 98", rtp(Protection::Plain, false)),
            ("m=audio 9 RTP/AVPF 0", rtp(Protection::Plain, true)),
            ("m=audio 9 RTP/SAVP 0\na=crypto:1 X inline:y", rtp(Protection::Sdes, false)),
            ("m=audio 9 RTP/SAVP 0", rtp(Protection::Sdes, false)),
            ("m=audio 9 RTP/SAVPF 0\na=fingerprint:sha-256 AA", rtp(Protection::Dtls, true)),
            ("m=audio 9 UDP/TLS/RTP/SAVP 0", rtp(Protection::Dtls, false)),
            ("m=audio 9 UDP/TLS/RTP/SAVPF 0\na=crypto:1 X inline:y", rtp(Protection::Dtls, true)),
            ("m=image 9 udptl t38", plain),
            ("m=image 9 UDPTL t38", plain),
            ("m=image 9 UDP/TLS/UDPTL t38", secure),
            ("m=application 9 UDP/BFCP *", plain),
            ("m=application 9 udp wb", plain),
            ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", secure),
            ("m=application 9 DTLS/SCTP 5000", secure),
            ("m=image 9 tcp t38", Transport::Foreign),
            ("m=message 9 TCP/MSRP *", Transport::Foreign),
            ("m=audio 9 TCP/RTP/AVP 0", Transport::Foreign),
            ("m=application 9 TCP/DTLS/SCTP x", Transport::Foreign),
            ("m=audio 9 RTP/XYZ 0", Transport::Foreign),
        ] {
            assert_eq!(transport(line, ""), expected, "{line}");
        }
        let session = "a=fingerprint:sha-256 AA\n";
        assert_eq!(transport("m=audio 9 RTP/SAVP 0", session), rtp(Protection::Dtls, false));
    }

    #[test]
    fn no_mode_refuses_an_emergency_call() {
        for mode in [Srtp::Pass, Srtp::Off, Srtp::Accept, Srtp::Sdes, Srtp::Dtls] {
            for offered in [Protection::Plain, Protection::Sdes, Protection::Dtls] {
                assert_eq!(admit(mode, offered, true), Ok(()));
            }
            assert_eq!(admit(mode, offers(mode), false), Ok(()), "{mode:?}");
        }
        let plain = |mode| admit(mode, Protection::Plain, false);
        assert_eq!(plain(Srtp::Sdes), Err(Cause::EncryptionRequired));
        assert_eq!(plain(Srtp::Dtls), Err(Cause::EncryptionRequired));
        assert_eq!(admit(Srtp::Off, Protection::Sdes, false), Err(Cause::EncryptionRefused));
    }
}
