//! ICE (RFC 8839, we are a lite agent) and DTLS (RFC 5763, RFC 8842) in descriptions: what a party
//! says, and what it is told.

use std::net::{IpAddr, SocketAddr};

use ravelin_srtp::dtls::{Fingerprint, Fingerprints, Role, Setup};
use ravelin_wire::sdp::{self, Attribute, Media};

use crate::media::{
    dtls::{DtlsTerms, TlsId},
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
/// compare. One with a host name counts for none (RFC 8839 5.1), nor does one for TCP or RTCP.
fn default_is_a_candidate(parsed: &sdp::Description<'_>, media: &Media<'_>) -> bool {
    let Some(address) = parsed.connection_of(media).and_then(|connection| connection.address)
    else {
        return true;
    };
    let candidates = media.attributes().filter(|attribute| attribute.name == b"candidate");
    let mut known = candidates
        .filter_map(|attribute| attribute.value)
        .filter_map(candidate_for_media)
        .peekable();
    known.peek().is_none() || known.any(|candidate| candidate == (address, media.port))
}

/// Where a candidate for RTP over UDP is: foundation component transport priority address port ...
/// (RFC 8839 5.1).
fn candidate_for_media(value: &[u8]) -> Option<(IpAddr, u16)> {
    let mut words = value.split(|c| *c == b' ').filter(|word| !word.is_empty());
    let mut word = || words.next().and_then(|word| std::str::from_utf8(word).ok());
    let (_foundation, component, transport) = (word()?, word()?, word()?);
    let (_priority, address, port) = (word()?, word()?, word()?);
    let for_media = component.parse() == Ok(1_u8) && transport.eq_ignore_ascii_case("UDP");
    address.parse().ok().zip(port.parse().ok()).filter(|_| for_media)
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
/// At session level (RFC 8839 5.3); and that we keep to RFC 8445 (RFC 8839 4.2.1.5).
pub(super) const LITE: &[u8] = b"a=ice-lite\r\na=ice-options:ice2\r\n";

/// Whose turn a description is: some words mean another thing in an answer when they are not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Described {
    Offer,
    Answer,
}

/// What a party says about DTLS; `None`: no certificate that could be checked, or no part in the
/// handshake (`holdconn`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TheirDtls {
    pub setup: Setup,
    fingerprints: Fingerprints,
    tls_id: Option<Box<[u8]>>,
}

impl TheirDtls {
    pub(super) fn of(
        parsed: &sdp::Description<'_>,
        media: &Media<'_>,
        described: Described,
    ) -> Option<Self> {
        let value = |name: &[u8]| find(parsed, media, name).and_then(|attribute| attribute.value);
        // RFC 4145 4: who says nothing is active in an offer, passive in an answer.
        let unsaid = match described {
            Described::Offer => Setup::Active,
            Described::Answer => Setup::Passive,
        };
        let setup = value(b"setup").map_or(Some(unsaid), Setup::parse)?;
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
    pub(super) fn terms(self, role: Option<Role>, own: Option<TlsId>) -> Option<DtlsTerms> {
        let Self { fingerprints, tls_id, .. } = self;
        let own_tls_id = own.filter(|_| tls_id.is_some());
        Some(DtlsTerms { role: role?, fingerprints, tls_id, own_tls_id })
    }

    /// The association in force, if what this party says lets it go on.
    fn goes_on<'t>(&self, in_force: Option<&'t DtlsTerms>) -> Option<&'t DtlsTerms> {
        in_force
            .filter(|terms| terms.fingerprints == self.fingerprints && terms.tls_id == self.tls_id)
    }

    /// What we answer to it: as long as the association can go on, each keeps its part in it (RFC
    /// 8842 5.3), and it its `tls-id`. A new one gets a new one, if the offer has one.
    ///
    /// A new association with a party that leaves the choice to us is begun by the party. RFC 5763 5
    /// recommends otherwise, to save the time until it has our answer; RFC 8842 5.3 allows both. We
    /// could say hello only to an address that we know, and of a party with ICE or behind a NAT we
    /// know none before it speaks: as a lite agent we learn it from its nomination, and without ICE
    /// it is its hello that opens the way.
    pub(super) fn answer(
        &self,
        in_force: Option<&DtlsTerms>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> (Setup, Option<TlsId>) {
        let goes_on = self.goes_on(in_force);
        let setup = match (self.setup, goes_on.map(|terms| terms.role)) {
            (Setup::ActPass, Some(Role::Client)) => Setup::Active,
            (theirs, _) => theirs.answer(),
        };
        let own = match goes_on {
            Some(terms) => terms.own_tls_id,
            None => self.tls_id.as_ref().map(|_| TlsId::draw(random)),
        };
        (setup, own)
    }
}

/// Our certificate, our part, and which association we speak of.
pub(super) fn push_dtls(
    fingerprint: &Fingerprint,
    setup: Setup,
    tls_id: Option<TlsId>,
    out: &mut Vec<u8>,
) {
    let lines = format!("a=fingerprint:{fingerprint}\r\na=setup:{}\r\n", setup.as_str());
    out.extend_from_slice(lines.as_bytes());
    if let Some(id) = tls_id {
        out.extend_from_slice(b"a=tls-id:");
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
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
        let named = "a=candidate:1 1 udp 5 4f2a.local 9000 typ host";
        let line = format!("{c}m=audio 9000 RTP/AVP 0\n{OWN}");
        assert_eq!(of(&format!("{line}{named}")), full, "RFC 8839 5.1: it is ignored");
        assert_eq!(of(&format!("{line}{named}\n{host}")), full);
        let elsewhere = "a=candidate:1 1 UDP 5 192.0.2.9 9000 typ host\n";
        for other in ["1 TCP 5", "2 UDP 5"] {
            let wrong = format!("a=candidate:2 {other} 192.0.2.1 9000 typ host");
            assert_eq!(of(&format!("{line}{elsewhere}{wrong}")), TheirIce::Mismatch, "{other}");
        }
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
        let said = |lines: &str, described| {
            let of = |parsed: &sdp::Description<'_>, media: &Media<'_>| {
                TheirDtls::of(parsed, media, described)
            };
            read(&format!("m=audio 9 UDP/TLS/RTP/SAVP 0\n{lines}"), of)
        };
        let of = |lines: &str| said(lines, Described::Offer);
        let random = &mut |octets: &mut [u8]| octets.fill(7);
        let line = format!("a=fingerprint:sha-256 {digest}\n");
        let theirs = of(&format!("{line}a=setup:actpass")).unwrap();
        assert_eq!(theirs.answer(None, random), (Setup::Passive, None), "no tls-id for no tls-id");
        let client = theirs.clone().terms(Some(Role::Client), None).unwrap();
        assert_eq!(theirs.answer(Some(&client), random), (Setup::Active, None));
        let other = of(&format!("{line}a=setup:actpass\na=tls-id:x")).unwrap();
        let (setup, own) = other.answer(Some(&client), random);
        assert_eq!((setup, own.is_some()), (Setup::Passive, true), "a new association");
        let terms = other.clone().terms(Some(Role::Server), own).unwrap();
        let (_, again) = other.answer(Some(&terms), &mut |octets| octets.fill(8));
        assert_eq!(again, own, "the same association");
        assert_eq!(of(&line).unwrap().setup, Setup::Active, "RFC 4145 4");
        assert_eq!(said(&line, Described::Answer).unwrap().setup, Setup::Passive, "RFC 4145 4");
        assert_eq!(of("a=setup:actpass"), None);
        assert_eq!(of(&format!("{line}a=setup:holdconn")), None);
        assert_eq!(of("a=fingerprint:md4 AB\na=setup:active"), None);
    }
}
