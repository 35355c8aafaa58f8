//! ICE (RFC 8839, we are a lite agent) and DTLS (RFC 5763, RFC 8842) in descriptions: what a party
//! says, and what it is told.

use std::net::{IpAddr, SocketAddr};

use ravelin_srtp::dtls::{Fingerprint, Fingerprints, Role, Setup};
use ravelin_wire::sdp::{self, Attribute, Media};

use crate::media::{
    dtls::DtlsTerms,
    ice::{IceLocal, IceRemote, candidate_priority},
};

/// What a party says about ICE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TheirIce {
    /// Nothing, or not what RFC 8839 allows.
    None,
    /// Its default destination is none of its candidates: something between us rewrote its addresses
    /// (RFC 8839 4.2.5).
    Mismatch,
    /// It is a lite agent as well: nobody checks (RFC 8445 6.1.1).
    Lite(IceRemote),
    Full(IceRemote),
}

impl TheirIce {
    pub(super) fn of(parsed: &sdp::Description<'_>, media: &Media<'_>) -> Self {
        let value = |name: &[u8]| find(parsed, media, name).and_then(|attribute| attribute.value);
        let credentials = value(b"ice-ufrag").zip(value(b"ice-pwd"));
        let Some(remote) = credentials.and_then(|(ufrag, pwd)| IceRemote::parse(ufrag, pwd)) else {
            return Self::None;
        };
        if find(parsed, media, b"ice-mismatch").is_some() {
            return Self::None;
        }
        if !is_placeholder(parsed, media) && !default_is_a_candidate(parsed, media) {
            return Self::Mismatch;
        }
        let lite = parsed.attributes().any(|attribute| attribute.name == b"ice-lite");
        if lite { Self::Lite(remote) } else { Self::Full(remote) }
    }

    pub(super) fn remote(&self) -> Option<&IceRemote> {
        match self {
            Self::None | Self::Mismatch => None,
            Self::Lite(remote) | Self::Full(remote) => Some(remote),
        }
    }
}

/// An attribute of a stream: its own, else the session's.
fn find<'a>(
    parsed: &sdp::Description<'a>,
    media: &Media<'a>,
    name: &[u8],
) -> Option<Attribute<'a>> {
    media.attribute(name).or_else(|| parsed.attributes().find(|attribute| attribute.name == name))
}

/// The destination of an agent that has no candidate yet: port 9 of the unspecified address (RFC 8840
/// 4.1.1). It is no hold.
pub(super) fn is_placeholder(parsed: &sdp::Description<'_>, media: &Media<'_>) -> bool {
    media.port == 9
        && parsed.connection_of(media).is_some_and(|connection| connection.is_hold())
        && find(parsed, media, b"ice-ufrag").is_some()
}

/// Whether the address of c= and m= is that of a candidate; without candidates there is nothing to
/// compare.
fn default_is_a_candidate(parsed: &sdp::Description<'_>, media: &Media<'_>) -> bool {
    let Some(address) = parsed.connection_of(media).and_then(|connection| connection.address)
    else {
        return true;
    };
    let candidates = media.attributes().filter(|attribute| attribute.name == b"candidate");
    let mut values = candidates.filter_map(|attribute| attribute.value).peekable();
    values.peek().is_none()
        || values.any(|value| {
            // foundation component transport priority address port ...
            let mut words = value.split(|c| *c == b' ').filter(|word| !word.is_empty()).skip(4);
            let text = |word: Option<&[u8]>| String::from_utf8_lossy(word?).parse::<IpAddr>().ok();
            let ip = text(words.next());
            let port = words.next().map(String::from_utf8_lossy);
            ip == Some(address) && port.is_some_and(|port| port.parse() == Ok(media.port))
        })
}

/// Our credentials and candidates. `rtcp_mux`: RTCP has no port of its own (RFC 8839 4.2.1.2).
pub(super) fn push_ice(local: &IceLocal, at: SocketAddr, rtcp_mux: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"a=ice-ufrag:");
    out.extend_from_slice(&local.ufrag);
    out.extend_from_slice(b"\r\na=ice-pwd:");
    out.extend_from_slice(&local.pwd);
    out.extend_from_slice(b"\r\n");
    let components = if rtcp_mux { 1..=1 } else { 1..=2 };
    for component in components {
        let port = if component == 1 { at.port() } else { at.port() | 1 };
        let priority = candidate_priority(component);
        let line =
            format!("a=candidate:1 {component} UDP {priority} {} {port} typ host\r\n", at.ip());
        out.extend_from_slice(line.as_bytes());
    }
}

/// RFC 8839 4.2.5: the peer's addresses were rewritten, its checks would fail.
pub(super) const MISMATCH: &[u8] = b"a=ice-mismatch\r\n";
/// At session level (RFC 8839 5.3).
pub(super) const LITE: &[u8] = b"a=ice-lite\r\n";

/// What a party says about DTLS; `None`: no certificate that could be checked, or no part in the
/// handshake (`holdconn`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TheirDtls {
    pub setup: Setup,
    fingerprints: Fingerprints,
    tls_id: Option<Box<[u8]>>,
}

impl TheirDtls {
    pub(super) fn of(parsed: &sdp::Description<'_>, media: &Media<'_>) -> Option<Self> {
        let value = |name: &[u8]| find(parsed, media, name).and_then(|attribute| attribute.value);
        // RFC 4145 4: who says nothing is active.
        let setup = value(b"setup").map_or(Some(Setup::Active), Setup::parse)?;
        let mut fingerprints = Fingerprints::default();
        let of_media = media.attribute(b"fingerprint").is_some();
        let of_session = parsed.attributes().filter(|_| !of_media);
        for attribute in media.attributes().chain(of_session) {
            if attribute.name == b"fingerprint"
                && let Some(value) = attribute.value
            {
                fingerprints.add(value);
            }
        }
        let tls_id = value(b"tls-id").map(Box::from);
        (!fingerprints.is_empty() && setup != Setup::HoldConn).then_some(Self {
            setup,
            fingerprints,
            tls_id,
        })
    }

    /// With our part in the handshake. `None`: the parts do not fit.
    pub(super) fn terms(self, role: Option<Role>) -> Option<DtlsTerms> {
        let Self { fingerprints, tls_id, .. } = self;
        Some(DtlsTerms { role: role?, fingerprints, tls_id })
    }

    /// What we answer to it: as long as the association can go on, each keeps its part in it (RFC
    /// 8842 5.3).
    pub(super) fn answer(&self, before: Option<&DtlsTerms>) -> Setup {
        let goes_on = before.filter(|before| {
            before.fingerprints == self.fingerprints && before.tls_id == self.tls_id
        });
        match (self.setup, goes_on.map(|before| before.role)) {
            (Setup::ActPass, Some(Role::Client)) => Setup::Active,
            (theirs, _) => theirs.answer(),
        }
    }
}

/// Our certificate and our part.
pub(super) fn push_dtls(fingerprint: &Fingerprint, setup: Setup, out: &mut Vec<u8>) {
    let lines = format!("a=fingerprint:{fingerprint}\r\na=setup:{}\r\n", setup.as_str());
    out.extend_from_slice(lines.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(lines: &str, work: impl Fn(&sdp::Description<'_>, &Media<'_>) -> T) -> T {
        let text = format!("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nt=0 0\n{lines}\n");
        let parsed = sdp::Description::parse(text.as_bytes()).unwrap();
        work(&parsed, &parsed.medias()[0])
    }

    const OWN: &str = "a=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\n";

    #[test]
    fn ice_is_read_from_both_levels() {
        let c = "c=IN IP4 192.0.2.1\n";
        let of = |lines: &str| read(lines, TheirIce::of);
        let remote = IceRemote::parse(b"abcd", b"0123456789012345678901").unwrap();
        let host = "a=candidate:1 1 UDP 5 192.0.2.1 9000 typ host";
        let full = TheirIce::Full(remote.clone());
        assert_eq!(of(&format!("{c}{OWN}m=audio 9000 RTP/AVP 0\n{host}")), full);
        assert_eq!(of(&format!("{c}m=audio 9000 RTP/AVP 0\n{OWN}{host}")), full);
        assert_eq!(of(&format!("{c}m=audio 9000 RTP/AVP 0\n{OWN}")), full, "no candidate yet");
        assert_eq!(of(&format!("c=IN IP4 0.0.0.0\nm=audio 9 RTP/AVP 0\n{OWN}{host}")), full);
        let lite = format!("{c}a=ice-lite\nm=audio 9000 RTP/AVP 0\n{OWN}{host}");
        assert_eq!(of(&lite), TheirIce::Lite(remote));
        let other = format!("c=IN IP4 192.0.2.9\nm=audio 9000 RTP/AVP 0\n{OWN}{host}");
        assert_eq!(of(&other), TheirIce::Mismatch);
        for none in ["", "a=ice-ufrag:abcd", "a=ice-ufrag:abcd\na=ice-pwd:short"] {
            assert_eq!(of(&format!("{c}m=audio 9000 RTP/AVP 0\n{none}")), TheirIce::None);
        }
        let refused = format!("{c}m=audio 9000 RTP/AVP 0\n{OWN}a=ice-mismatch");
        assert_eq!(of(&refused), TheirIce::None);
    }

    #[test]
    fn a_placeholder_is_no_hold() {
        let of = |lines: &str| read(lines, is_placeholder);
        assert!(of(&format!("c=IN IP4 0.0.0.0\nm=audio 9 RTP/AVP 0\n{OWN}")));
        assert!(!of("c=IN IP4 0.0.0.0\nm=audio 9 RTP/AVP 0"));
        assert!(!of(&format!("c=IN IP4 0.0.0.0\nm=audio 9000 RTP/AVP 0\n{OWN}")));
        assert!(!of(&format!("c=IN IP4 192.0.2.1\nm=audio 9 RTP/AVP 0\n{OWN}")));
    }

    #[test]
    fn our_part_stays_as_long_as_the_association() {
        let digest = vec!["AB"; 32].join(":");
        let of =
            |lines: &str| read(&format!("m=audio 9 UDP/TLS/RTP/SAVP 0\n{lines}"), TheirDtls::of);
        let line = format!("a=fingerprint:sha-256 {digest}\n");
        let theirs = of(&format!("{line}a=setup:actpass")).unwrap();
        assert_eq!(theirs.answer(None), Setup::Passive);
        let client = theirs.clone().terms(Some(Role::Client)).unwrap();
        assert_eq!(theirs.answer(Some(&client)), Setup::Active);
        let other = of(&format!("{line}a=setup:actpass\na=tls-id:x")).unwrap();
        assert_eq!(other.answer(Some(&client)), Setup::Passive, "a new association");
        assert_eq!(of(&line).unwrap().setup, Setup::Active, "RFC 4145 4");
        assert_eq!(of("a=setup:actpass"), None);
        assert_eq!(of(&format!("{line}a=setup:holdconn")), None);
        assert_eq!(of("a=fingerprint:md4 AB\na=setup:active"), None);
    }
}
