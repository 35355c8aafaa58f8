//! What one leg was told about media, and what was offered on it last.

use std::{hash::BuildHasher, net::IpAddr, ops::Range};

use foldhash::fast::FixedState;
use ravelin_policy::{Ice, Snapshot, Srtp, SrtpSuite, TrunkId, TrunkMedia};
use ravelin_srtp::{
    Keying, Keys, MasterKey, Suite,
    dtls::Setup,
    sdes::{self, Crypto},
};
use ravelin_wire::sdp::{Direction, Media, StreamRewrite};
use smallvec::SmallVec;

use super::{formats::Formats, peering::TheirIce, profile::Protection, rescue::Oddities};
use crate::{
    limits::STREAMS_PER_CALL_MAX,
    media::{
        Nat, Remote,
        dtls::{DtlsTerms, TlsId},
        ice::IceLocal,
        peering::Peering,
    },
};

/// Media settings of the trunk that a leg is with; a peer that is none has the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LegMedia<'a>(pub Option<&'a TrunkMedia>);

impl<'a> LegMedia<'a> {
    /// Of the trunk on a leg.
    pub(crate) fn of(snapshot: &'a Snapshot, trunk: Option<TrunkId>) -> Self {
        Self(trunk.and_then(|id| snapshot.trunk(id)).map(|trunk| &trunk.media))
    }

    pub(super) fn srtp(self) -> Srtp {
        self.0.map_or_else(Srtp::default, |media| media.srtp)
    }

    /// Whether we are an ICE-lite agent toward the peer.
    pub(super) fn ice(self) -> bool {
        self.0.is_some_and(|media| media.ice == Ice::Lite)
    }

    /// How packets of the peer are let in, whose signalling comes from `near`.
    pub(super) fn nat(self, near: IpAddr) -> Nat {
        match self.0.map(|media| media.nat) {
            Some(ravelin_policy::Nat::Latch) => Nat::Latch { near },
            Some(ravelin_policy::Nat::Signalled) | None => Nat::Signalled,
        }
    }

    pub(super) fn suites(self) -> SmallVec<[Suite; 4]> {
        let wanted = self.0.map_or(&SrtpSuite::ALL[..], |media| &media.suites);
        wanted.iter().filter_map(|suite| Suite::from_name(suite.as_str().as_bytes())).collect()
    }
}

/// The media side of one leg (RFC 3264): the o= line that we tell its peer, the m-lines offered on it
/// last by either party, and our keys.
#[derive(Debug, Default)]
pub(crate) struct Description {
    pub(super) id: u64,
    version: u64,
    /// Of what we last told, so that the same description keeps its version.
    told: Option<u64>,
    /// By m-line; there are never fewer than were offered.
    pub(super) streams: Vec<Stream>,
    /// We offer no encryption: the peer of an emergency call refused it.
    pub(super) plain: bool,
    /// m-lines of the last offer.
    pub(super) offered: usize,
    /// Those of the peer's last offer that are more than are looked at, refused, each with its end.
    pub(super) excess: Vec<u8>,
    /// Those in front of the audio of its emergency call that are left out of what goes on.
    pub(super) left_out: LeftOut,
}

/// m-lines that only the peer that offered them knows of: to all others its streams are one behind the
/// other without them.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    pub places: Range<usize>,
    /// Refused, each with its end.
    pub answer: Vec<u8>,
}

/// One m-line of a leg.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub offer: Offer,
    /// Our keys, one for each suite: the same in every offer and answer of this leg, so that a
    /// re-offer changes no key (RFC 4568 7.1.4).
    keys: SmallVec<[Keys; 1]>,
    /// `a=tls-id` of the association that our offer speaks of (RFC 8842 5.2); `None`: it had none.
    pub tls_id: Option<TlsId>,
    /// Our credentials in an offer of ours that begins ICE anew.
    pub ice: Option<IceLocal>,
    /// The peer of an emergency call did without the encryption that this leg should have.
    pub plain: bool,
    /// The suite in force when the process before ended, until something is negotiated.
    active: Option<Suite>,
}

/// An m-line as it was offered last, whether by the peer or by us.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// It can be accepted: it had a port, and what it asks for can be done.
    pub usable: bool,
    pub kind: SmallVec<[u8; 16]>,
    pub proto: SmallVec<[u8; 24]>,
    pub formats_text: SmallVec<[u8; 24]>,
    pub formats: Formats,
    /// Its a=mid, in the peer's offers.
    pub mid: Option<SmallVec<[u8; 16]>>,
    pub rtcp_mux: bool,
    pub direction: Direction,
    /// `None`: not RTP.
    pub protection: Option<Protection>,
    /// The line of the peer's offer that we accept.
    pub chosen: Option<Crypto>,
    /// We offered encryption of our own.
    pub encrypts: bool,
    /// The lines of our offer.
    pub lines: SmallVec<[Crypto; 1]>,
    /// Where the peer that offered wants its media, and under which keys.
    pub remote: Remote,
    pub keying: Option<Box<Keying>>,
    /// What the peer said about ICE, and what was agreed with it about ICE and DTLS.
    pub ice: Option<TheirIce>,
    pub peering: Peering,
    /// What we answer to its `a=setup`.
    pub setup: Option<Setup>,
}

impl Offer {
    pub(super) fn of(media: &Media<'_>, proto: &[u8]) -> Self {
        Self {
            kind: SmallVec::from_slice(media.kind_text),
            proto: SmallVec::from_slice(proto),
            formats_text: SmallVec::from_slice(media.formats_text),
            ..Self::default()
        }
    }

    /// The answer that refuses it.
    pub(super) fn refuse(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"m=");
        out.extend_from_slice(&self.kind);
        out.extend_from_slice(b" 0 ");
        out.extend_from_slice(&self.proto);
        out.push(b' ');
        out.extend_from_slice(&self.formats_text);
        out.extend_from_slice(b"\r\n");
        if let Some(mid) = &self.mid {
            out.extend_from_slice(b"a=mid:");
            out.extend_from_slice(mid);
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl Stream {
    fn has_keys(&self) -> bool {
        self.plain || !self.keys.is_empty()
    }

    /// The lines of an offer: the suite in force first, so that nothing changes unless the peer
    /// wants it; each suite keeps its tag.
    pub(super) fn lines(
        &mut self,
        suites: &[Suite],
        random: &mut dyn FnMut(&mut [u8]),
    ) -> SmallVec<[Crypto; 1]> {
        let active = self.offer.chosen.as_ref().map(|line| line.keys.suite()).or(self.active);
        let mut lines: SmallVec<[Crypto; 1]> = SmallVec::new();
        for (tag, suite) in (1..).zip(suites) {
            let keys = match self.keys.iter().find(|keys| keys.suite() == *suite) {
                Some(keys) => keys.clone(),
                None => {
                    let keys = Keys::single(MasterKey::draw(*suite, random));
                    self.keys.push(keys.clone());
                    keys
                }
            };
            let line = Crypto { tag, keys };
            if active == Some(*suite) { lines.insert(0, line) } else { lines.push(line) }
        }
        lines
    }

    /// What our offer says of the association: that of the one in force, so that it goes on, and a
    /// new one if there is none (RFC 8842 5.2, 5.5). A peer that gave none to the one in force gets
    /// none.
    pub(super) fn offer_tls_id(
        &mut self,
        in_force: Option<&DtlsTerms>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<TlsId> {
        self.tls_id = match (in_force, self.tls_id) {
            (Some(terms), _) => terms.own_tls_id,
            (None, Some(offered)) => Some(offered),
            (None, None) => Some(TlsId::draw(random)),
        };
        self.tls_id
    }

    /// Our line in answer to one of the peer.
    pub(super) fn reply(&mut self, chosen: &Crypto, random: &mut dyn FnMut(&mut [u8])) -> Crypto {
        let suite = chosen.keys.suite();
        let known = self.keys.iter().find(|keys| keys.suite() == suite);
        if let Some(known) = known {
            let mut keys = known.clone();
            keys.unencrypted_rtcp = chosen.keys.unencrypted_rtcp;
            return Crypto { tag: chosen.tag, keys };
        }
        let line = sdes::answer(chosen, random);
        self.keys.push(line.keys.clone());
        line
    }
}

impl Description {
    /// `id` is unforeseeable; its upper bits are cut so that every parser can hold it.
    pub(crate) fn new(id: u64) -> Self {
        Self { id: id >> 2, ..Self::default() }
    }

    /// Whether the last offer on this leg asked for encryption on our own account.
    pub(crate) fn encrypts(&self) -> bool {
        self.streams.iter().take(self.offered).any(|stream| stream.offer.encrypts)
    }

    /// From now on we offer plain RTP.
    pub(crate) fn give_up_encryption(&mut self) {
        self.plain = true;
    }

    /// Id, version, and a digest of what was told last: what a record of the call keeps.
    pub(crate) const fn parts(&self) -> (u64, u64, Option<u64>) {
        (self.id, self.version, self.told)
    }

    pub(crate) fn from_parts((id, version, told): (u64, u64, Option<u64>)) -> Self {
        Self { id, version, told, ..Self::default() }
    }

    /// For a call record: our keys of each stream, so that offers and answers go on to name them
    /// (RFC 4568 7.1.4), the suite in force, and where encryption was given up. What an offer under
    /// way asks for is not told of. `oddities` of the party go with it, in the octet that says whether
    /// encryption was given up on the whole leg.
    pub(crate) fn save_keys(&self, oddities: Oddities, out: &mut Vec<u8>) {
        let mut streams = self.streams.iter().take(STREAMS_PER_CALL_MAX);
        let kept = streams.rposition(Stream::has_keys).map_or(0, |last| last + 1);
        let count = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
        out.extend([oddities.bits() << 1 | u8::from(self.plain), count(kept)]);
        for stream in self.streams.iter().take(kept) {
            let active = stream.offer.chosen.as_ref().map(|line| line.keys.suite());
            let active = active.or(stream.active);
            let active = stream.keys.iter().position(|keys| Some(keys.suite()) == active);
            let active = active.map_or(u8::MAX, count);
            out.extend([u8::from(stream.plain), active, count(stream.keys.len())]);
            for keys in &stream.keys {
                keys.save(out);
            }
        }
    }

    /// Takes what [`Self::save_keys`] wrote. `None`: it wrote something else.
    pub(crate) fn load_keys(&mut self, mut from: &[u8]) -> Option<Oddities> {
        let (&[flags, count], rest) = from.split_first_chunk::<2>()?;
        from = rest;
        self.plain = flags & 1 != 0;
        for index in 0..usize::from(count) {
            let (&[plain, active, keys], rest) = from.split_first_chunk::<3>()?;
            from = rest;
            let stream = self.stream(index).filter(|_| index < STREAMS_PER_CALL_MAX)?;
            stream.plain = plain != 0;
            for _ in 0..keys {
                stream.keys.push(Keys::load(&mut from)?);
            }
            stream.active = stream.keys.get(usize::from(active)).map(Keys::suite);
        }
        from.is_empty().then_some(Oddities::from_bits(flags >> 1))
    }

    /// Behind [`Self::load_keys`]: keeps those keys of which `in_force` says so. What others have
    /// protected before the process ended, nobody knows any more: for their suites there will be new
    /// ones (RFC 3711 9.1).
    pub(crate) fn keep_keys(&mut self, in_force: impl Fn(usize, &Keys) -> bool) {
        for (index, stream) in self.streams.iter_mut().enumerate() {
            stream.keys.retain(|keys| in_force(index, keys));
        }
    }

    /// Whether one of our keys is among these: then whoever has them can be neither told from us nor
    /// trusted with them (RFC 4568 7.1.2).
    pub(super) fn repeats_a_key(&self, theirs: &Keys) -> bool {
        let ours = self.streams.iter().flat_map(|stream| &stream.keys);
        ours.into_iter().any(|keys| keys.share_a_key_with(theirs))
    }

    /// The stream of an m-line, made if it is new.
    pub(super) fn stream(&mut self, index: usize) -> Option<&mut Stream> {
        if self.streams.len() <= index {
            self.streams.resize_with(index + 1, Stream::default);
        }
        self.streams.get_mut(index)
    }

    /// The version to write: one more whenever what we tell changes (RFC 3264 8).
    pub(super) fn version_of(
        &mut self,
        input: &[u8],
        streams: &[StreamRewrite<'_>],
        tail: &[u8],
    ) -> u64 {
        let digest = FixedState::with_seed(0).hash_one((input, streams, tail));
        if self.told != Some(digest) {
            self.told = Some(digest);
            self.version += 1;
        }
        self.version
    }
}
