//! An offer, or its answer, on its way from one leg to the other (RFC 3264): what each leg's trunk
//! says about encryption is done here, stream by stream.

mod answer;

use std::net::{IpAddr, SocketAddr};

use ravelin_policy::Srtp;
use ravelin_srtp::{Keying, dtls::Setup, sdes};
use ravelin_wire::sdp::{self, Direction, Media, StreamRewrite};
use smallvec::SmallVec;

use super::{
    Crossing,
    formats::Formats,
    leg::{Description, LegMedia, Offer},
    peering::{self, Described, TheirDtls, TheirIce},
    profile::{self, Protection, Transport},
    rescue::{Oddities, Oddity},
};
use crate::{
    cause::Cause,
    media::{Anchor, MediaTable, Nat, Remote, Security, Side, ice::IceTerms, peering::Peering},
};

/// What the receiving party is told about one stream.
#[derive(Debug, Default)]
pub(super) struct Told {
    port: u16,
    rtcp_port: Option<u16>,
    proto: Option<SmallVec<[u8; 24]>>,
    rtcp_mux: Option<bool>,
    payloads: Option<Box<[u8; 128]>>,
    mid: Option<SmallVec<[u8; 16]>>,
    kind: Option<SmallVec<[u8; 16]>>,
    direction: Option<Direction>,
    lines: Vec<u8>,
    /// Our ICE credentials are among the lines.
    ice: bool,
}

impl Told {
    pub(super) fn rewrite(&self) -> StreamRewrite<'_> {
        StreamRewrite {
            port: self.port,
            rtcp_port: self.rtcp_port,
            kind: self.kind.as_deref(),
            direction: self.direction,
            proto: self.proto.as_deref(),
            rtcp_mux: self.rtcp_mux,
            payloads: self.payloads.as_deref(),
            mid: self.mid.as_deref(),
            lines: &self.lines,
        }
    }
}

/// What came of a description.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub told: SmallVec<[Told; 2]>,
    /// Streams that an answer lacks.
    pub tail: Vec<u8>,
    /// Every stream in it sends and receives (EM-60).
    pub both_ways: bool,
}

/// The legs of an exchange and what each of them has to keep to.
pub(super) struct Exchange<'a> {
    pub from: Side,
    pub sender: &'a mut Description,
    pub receiver: &'a mut Description,
    pub sender_media: LegMedia<'a>,
    pub receiver_media: LegMedia<'a>,
    pub emergency: bool,
    /// It begins the call.
    pub first: bool,
    /// The offer that a re-INVITE without one asked for.
    pub asked_for: bool,
    /// What was done to the description so that it can pass.
    pub oddities: Oddities,
    /// Where the signalling of the sender comes from.
    pub near: IpAddr,
    /// How the sender's packets are let in.
    pub nat: Nat,
    pub media: &'a mut MediaTable,
    pub anchor: &'a mut Anchor,
    pub random: &'a mut dyn FnMut(&mut [u8]),
}

impl Exchange<'_> {
    /// Keys pass from party to party, and so does everything else about encryption.
    pub(super) fn end_to_end(&self) -> bool {
        self.sender_media.srtp() == Srtp::Pass && self.receiver_media.srtp() == Srtp::Pass
    }

    /// The offer that begins an emergency call: it goes on whatever it says.
    pub(super) fn rescued(&self) -> bool {
        self.emergency && self.first && self.from == Side::Caller
    }

    /// The sender offers: notes what, and makes our offer to the receiver.
    ///
    /// # Errors
    /// Why there is nothing in it that can be offered.
    pub(super) fn offer(&mut self, parsed: &sdp::Description<'_>) -> Result<Outcome, Cause> {
        let medias = parsed.medias();
        let mut outcome = Outcome { both_ways: true, ..Outcome::default() };
        let mut why = Cause::NotAcceptable;
        for (index, media) in medias.iter().enumerate() {
            let transport = Transport::of(parsed, media);
            let mut theirs = Offer::of(media, media.proto);
            theirs.formats = Formats::of(media);
            theirs.mid = media
                .attribute(b"mid")
                .and_then(|attribute| attribute.value)
                .map(SmallVec::from_slice);
            theirs.rtcp_mux = transport.is_rtp() && media.rtcp_mux();
            // A stream of several ports is a hierarchy of encodings (RFC 8866 5.14), not relayed.
            let asked = media.port != 0 && media.port_count == 1;
            theirs.usable = asked;
            theirs.direction = parsed.direction_of(media);
            match self.admit(parsed, index, media, transport) {
                Ok((protection, chosen)) => {
                    theirs.protection = protection;
                    theirs.chosen = chosen;
                }
                // A PSAP that cannot be heard in secret is heard in the clear (EM-49).
                Err(Cause::NoCommonEncryption) if self.rescued() && asked => {
                    let feedback = media.proto.ends_with(b"F");
                    theirs.protection = Some(Protection::Plain);
                    let plain = profile::profile(Protection::Plain, feedback);
                    theirs.proto = SmallVec::from_slice(plain);
                    self.oddities.note(Oddity::Unencrypted);
                }
                Err(cause) => {
                    theirs.usable = false;
                    if asked && cause != Cause::NotAcceptable {
                        why = cause;
                    }
                }
            }
            let mut told = self.make_offer(index, media, transport, &theirs);
            let direction = theirs.direction;
            if self.rescued() && theirs.usable && !both_ways(parsed, media, direction) {
                told.direction = Some(Direction::SendRecv);
                self.oddities.note(Oddity::Held);
            }
            outcome.both_ways &= !theirs.usable || both_ways(parsed, media, direction);
            if let (Some(chosen), Some(stream)) = (&theirs.chosen, self.sender.stream(index)) {
                let ours = stream.reply(chosen, self.random).keys;
                theirs.keying = Some(Box::new(Keying { ours, theirs: chosen.keys.clone() }));
            }
            if theirs.usable {
                self.note_destination(parsed, index, media);
            }
            let remote = match theirs.usable {
                true => self.remote(parsed, index, media, transport, theirs.rtcp_mux),
                false => Remote::NONE,
            };
            self.offered_peering(parsed, media, index, &mut theirs);
            self.anchor.stage(self.from, index, remote);
            self.anchor.stage_peering(self.from, index, theirs.peering.clone());
            theirs.remote = remote;
            self.anchor.stage_security(self.from, index, security(&theirs.peering, &theirs.keying));
            if let Some(stream) = self.sender.stream(index) {
                stream.offer = theirs;
            }
            outcome.told.push(told);
        }
        // What an offer no longer speaks of is over (against RFC 3264 8, but so it is meant).
        for index in medias.len()..self.anchor.streams() {
            self.anchor.stage(self.from, index, Remote::NONE);
        }
        self.sender.offered = medias.len();
        self.receiver.offered = medias.len();
        let asked = medias.iter().any(|media| media.port != 0);
        if asked && outcome.told.iter().all(|told| told.port == 0) {
            return Err(why);
        }
        Ok(outcome)
    }

    /// Whether the sender's trunk lets it offer this, and the line of keys that we accept.
    fn admit(
        &self,
        parsed: &sdp::Description<'_>,
        index: usize,
        media: &Media<'_>,
        transport: Transport,
    ) -> Result<(Option<Protection>, Option<sdes::Crypto>), Cause> {
        self.destination(parsed, index, media)?;
        match transport {
            Transport::Foreign => Err(Cause::NotAcceptable),
            // The fingerprints of the parties do not pass.
            Transport::Datagrams { secure } if secure && !self.end_to_end() => {
                Err(Cause::NotAcceptable)
            }
            Transport::Datagrams { .. } => Ok((None, None)),
            Transport::Rtp { protection, .. } if self.end_to_end() => Ok((Some(protection), None)),
            Transport::Rtp { protection, .. } => {
                profile::admit(self.sender_media.srtp(), protection, self.emergency)?;
                match protection {
                    Protection::Plain => Ok((Some(protection), None)),
                    Protection::Sdes => {
                        let suites = match self.emergency {
                            true => LegMedia(None).suites(),
                            false => self.sender_media.suites(),
                        };
                        let values = crypto_lines(media);
                        let chosen =
                            sdes::choose(values, &suites).map_err(|_| Cause::NoCommonEncryption)?;
                        if self.sender.repeats_a_key(&chosen.keys) {
                            return Err(Cause::NoCommonEncryption);
                        }
                        Ok((Some(protection), Some(chosen)))
                    }
                    Protection::Dtls if self.media.dtls_fingerprint().is_none() => {
                        Err(Cause::NoCommonEncryption)
                    }
                    Protection::Dtls => TheirDtls::of(parsed, media, Described::Offer)
                        .map(|_| (Some(protection), None))
                        .ok_or(Cause::NoCommonEncryption),
                }
            }
        }
    }

    /// Our m-line to the receiver.
    fn make_offer(
        &mut self,
        index: usize,
        media: &Media<'_>,
        transport: Transport,
        theirs: &Offer,
    ) -> Told {
        let mut told = Told::default();
        let end_to_end = self.end_to_end();
        let mode = self.receiver_media.srtp();
        let suites = self.receiver_media.suites();
        let given_up = self.receiver.plain;
        let to = self.from.other();
        let local = self.media.local(self.anchor, to, index);
        let Some(stream) = self.receiver.stream(index) else { return told };
        let mut ours = Offer::of(media, media.proto);
        ours.usable = theirs.usable && local.is_some();
        ours.rtcp_mux = theirs.rtcp_mux;
        ours.protection = theirs.protection;
        if let (Transport::Rtp { feedback, .. }, false) = (transport, end_to_end) {
            let plain = self.emergency && (stream.plain || given_up);
            let protection = if plain { Protection::Plain } else { profile::offers(mode) };
            ours.protection = Some(protection);
            ours.encrypts = ours.usable && protection != Protection::Plain;
            let feedback = feedback && profile::keeps_feedback(mode, protection, theirs.protection);
            ours.proto = SmallVec::from_slice(profile::profile(protection, feedback));
            told.proto = Some(ours.proto.clone());
            if protection == Protection::Sdes && ours.usable {
                ours.lines = stream.lines(&suites, self.random);
                ours.lines.iter().for_each(|line| push_crypto(line, &mut told.lines));
            }
            if protection == Protection::Dtls && ours.usable {
                match self.media.dtls_fingerprint() {
                    Some(own) => {
                        let in_force = self.media.dtls_terms(self.anchor, to, index);
                        let id = stream.offer_tls_id(in_force, self.random);
                        peering::push_dtls(own, Setup::ActPass, id, &mut told.lines);
                    }
                    None => ours.usable = false,
                }
                ours.rtcp_mux = true;
            }
        }
        if self.receiver_media.ice() && ours.usable && transport.is_rtp() {
            ours.rtcp_mux = true;
            // Who asks for an offer may have another agent in mind to answer it: ICE begins anew
            // (RFC 8839 7.5).
            let anew =
                self.asked_for.then(|| self.media.ice_anew(self.anchor, to, index, self.random));
            stream.ice = anew.flatten();
            let in_force = || self.media.ice_local(self.anchor, to, index, None);
            let credentials = stream.ice.or_else(in_force);
            if let Some((credentials, at)) = credentials.zip(local) {
                told.ice = true;
                // RTCP has its own port if the peer does not multiplex.
                peering::push_ice(&credentials, at, false, &mut told.lines);
            }
        }
        if ours.usable {
            let port = local.map_or(0, |local| local.port());
            told.port = port;
            told.rtcp_port = (media.rtcp().is_some() || !ours.rtcp_mux)
                .then_some(port | 1)
                .filter(|_| transport.is_rtp());
            // The RTCP of a party that can only multiplex is our affair.
            let differs = ours.rtcp_mux != media.rtcp_mux();
            told.rtcp_mux = (transport.is_rtp()
                && (differs || media.attribute(b"rtcp-mux-only").is_some()))
            .then_some(ours.rtcp_mux);
        }
        stream.offer = ours;
        told
    }

    /// ICE and DTLS of an offer: what is agreed by our answer to it.
    fn offered_peering(
        &mut self,
        parsed: &sdp::Description<'_>,
        media: &Media<'_>,
        index: usize,
        theirs: &mut Offer,
    ) {
        if !theirs.usable || theirs.protection.is_none() {
            return;
        }
        if self.sender_media.ice() {
            let ice = TheirIce::of(parsed, media);
            if let TheirIce::Full(remote) = &ice {
                let local = self.media.ice_local(self.anchor, self.from, index, Some(remote));
                theirs.peering.ice =
                    local.map(|local| IceTerms { local, remote: Some(remote.clone()) });
            }
            theirs.ice = Some(ice);
        }
        if theirs.protection == Some(Protection::Dtls)
            && !self.end_to_end()
            && let Some(dtls) = TheirDtls::of(parsed, media, Described::Offer)
        {
            // What is in force, not what an offer since then has asked for: it may have been refused.
            let in_force = self.media.dtls_terms(self.anchor, self.from, index);
            let (ours, own) = dtls.answer(in_force, self.random);
            let role = ours.role(dtls.setup);
            theirs.setup = Some(ours);
            theirs.peering.dtls = dtls.terms(role, own);
        }
    }

    /// Lines of ours at session level. An answer speaks of ICE only where the offer does (RFC 8839
    /// 4.2.2).
    pub(super) fn session_lines(&self, told: &[Told]) -> &'static [u8] {
        if told.iter().any(|told| told.ice) { peering::LITE } else { b"" }
    }

    /// Where the media of a stream is to go.
    ///
    /// # Errors
    /// That nothing can be sent there.
    fn destination(
        &self,
        parsed: &sdp::Description<'_>,
        index: usize,
        media: &Media<'_>,
    ) -> Result<Destination, Cause> {
        let Some(connection) = parsed.connection_of(media).filter(|_| media.port != 0) else {
            return Ok(Destination::Unsaid);
        };
        // ICE finds an agent whose default destination says nothing.
        let by_ice = || {
            let theirs = self.sender_media.ice().then(|| TheirIce::of(parsed, media));
            matches!(theirs, Some(TheirIce::Full(_)))
        };
        match connection.address.map(|address| address.to_canonical()) {
            Some(address) if address.is_unspecified() => {
                let found = self.sender_media.ice() && peering::is_placeholder(parsed, media);
                let lost = self.rescued() && !found;
                return Ok(if lost { Destination::Lost } else { Destination::Unsaid });
            }
            Some(address) if self.reaches(index, address) => return Ok(Destination::At(address)),
            _ if by_ice() => return Ok(Destination::Unsaid),
            _ => {}
        }
        if self.emergency { Ok(Destination::Lost) } else { Err(Cause::MediaAddress) }
    }

    /// Whether datagrams from our port of stream `index` to an address arrive at one host.
    fn reaches(&self, index: usize, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        let one_host = !address.is_unspecified() && !address.is_multicast() && !broadcast;
        let port = self.media.bound(self.anchor, self.from, index);
        one_host
            && port.is_none_or(|port| {
                let local = port.ip().is_loopback();
                // What listens on this machine alone is nothing for a party.
                port.is_ipv4() == address.is_ipv4() && (local || !address.is_loopback())
            })
    }

    /// Notes that the media of a party of an emergency call must be looked for.
    fn note_destination(&mut self, parsed: &sdp::Description<'_>, index: usize, media: &Media<'_>) {
        if self.destination(parsed, index, media) == Ok(Destination::Lost) {
            self.oddities.note(Oddity::NoAddress);
        }
    }

    /// Where the sender wants its media, and what it does itself.
    fn remote(
        &self,
        parsed: &sdp::Description<'_>,
        index: usize,
        media: &Media<'_>,
        transport: Transport,
        rtcp_mux: bool,
    ) -> Remote {
        let direction = parsed.direction_of(media);
        let named = parsed.connection_of(media).and_then(|connection| connection.address);
        // RFC 3264 8.4, the way of RFC 2543: nothing goes there, and nothing comes from there.
        let held = named.is_some_and(|address| address.is_unspecified());
        let held = held && !peering::is_placeholder(parsed, media) && !self.rescued();
        let to = self.destination(parsed, index, media).unwrap_or(Destination::Unsaid);
        let address = match to {
            Destination::At(address) => Some(address),
            Destination::Lost => Some(self.near),
            Destination::Unsaid => None,
        };
        let lost = to == Destination::Lost;
        let guessed = lost || self.oddities.iter().any(|odd| odd == Oddity::NoAddress);
        let nat = if guessed { Nat::Latch { near: self.near } } else { self.nat };
        let rtcp_address = media
            .rtcp()
            .and_then(|rtcp| rtcp.connection)
            .map_or(address, |connection| connection.address)
            .filter(|address| self.reaches(index, *address));
        let rtcp_port = match media.rtcp() {
            // No datagram goes to port zero.
            Some(rtcp) => Some(rtcp.port).filter(|port| *port != 0),
            None => media.port.checked_add(1),
        };
        Remote {
            rtp: address.map(|ip| SocketAddr::new(ip, media.port)),
            rtcp: rtcp_address
                .zip(rtcp_port)
                .filter(|_| transport.is_rtp() && !rtcp_mux)
                .map(|(ip, port)| SocketAddr::new(ip, port)),
            rtcp_mux,
            sends: direction.sends() && !held,
            receives: direction.receives() && !held,
            encrypted: self.end_to_end() && media.is_secure(),
            datagrams: !transport.is_rtp(),
            nat,
        }
    }
}

/// Where the media of a stream is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    At(IpAddr),
    /// Nowhere for now (RFC 3264 8.4, the way of RFC 2543), or where ICE says.
    Unsaid,
    /// In an emergency call, it is said in no way that helps: the party is looked for where its
    /// signalling comes from.
    Lost,
}

fn security(peering: &Peering, keying: &Option<Box<Keying>>) -> Security {
    match keying {
        Some(keying) => Security::Keyed(keying.clone()),
        None if peering.dtls.is_some() => Security::Awaiting,
        None => Security::None,
    }
}

fn both_ways(parsed: &sdp::Description<'_>, media: &Media<'_>, direction: Direction) -> bool {
    let held = parsed.connection_of(media).is_some_and(|connection| connection.is_hold())
        && !peering::is_placeholder(parsed, media);
    direction == Direction::SendRecv && !held
}

fn crypto_lines<'a>(media: &Media<'a>) -> impl Iterator<Item = &'a [u8]> {
    media
        .attributes()
        .filter(|attribute| attribute.name == b"crypto")
        .filter_map(|attribute| attribute.value)
}

fn push_crypto(line: &sdes::Crypto, out: &mut Vec<u8>) {
    out.extend_from_slice(b"a=crypto:");
    line.write(out);
    out.extend_from_slice(b"\r\n");
}

impl<'a> Exchange<'a> {
    /// The exchange that a crossing is.
    pub(super) fn of(
        crossing: &'a mut Crossing<'_>,
        media: &'a mut MediaTable,
        random: &'a mut dyn FnMut(&mut [u8]),
    ) -> Result<Self, Cause> {
        let [caller, callee] = crossing.media;
        let [near_caller, near_callee] = crossing.near;
        let (sender_media, receiver_media, near) = match crossing.from {
            Side::Caller => (caller, callee, near_caller),
            Side::Callee => (callee, caller, near_callee),
        };
        Ok(Self {
            from: crossing.from,
            sender: &mut *crossing.sender,
            receiver: &mut *crossing.receiver,
            sender_media,
            receiver_media,
            emergency: crossing.passage.is_some(),
            first: crossing.first,
            asked_for: crossing.asked_for,
            oddities: Oddities::default(),
            near,
            nat: sender_media.nat(near),
            media,
            anchor: crossing.anchor.as_mut().ok_or(Cause::Internal)?,
            random,
        })
    }
}
