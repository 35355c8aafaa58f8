//! What of an anchor lives through the end of the process, and its return: the same ports, the same
//! generations, the same peers.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use ravelin_srtp::dtls::Identity;
use smallvec::SmallVec;

use super::{Anchor, MediaTable, Place, Stream};
use crate::{
    media::{
        PayloadMap, Remote,
        dtls::Dtls,
        endpoint::{Component, Endpoint, NO_PAIR},
        fast::Told,
        ice::{Ice, address_of, push_address},
        retired::Retired,
        shield::Shield,
    },
    port::MediaPortId,
    time::Instant,
};

/// One end of one stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HalfImage<'a> {
    /// Our RTP address.
    pub local: SocketAddr,
    pub generation: u32,
    pub remote: Remote,
    pub last_packet: Option<Instant>,
    /// What the parts of the media path keep of themselves, see [`Endpoint::save`].
    pub parts: &'a [u8],
}

/// Why an anchor cannot be told of, or cannot come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// This shard does not have the ports any more, or another call holds them.
    Ports,
    /// What a part of the media path keeps is of an unknown kind, or damaged; or it must not be told.
    Parts,
}

/// Where the pairs of a table are: built once for a whole restart.
pub(crate) type Places = HashMap<SocketAddr, u32>;

impl MediaTable {
    /// The pairs by their RTP address.
    pub(crate) fn places(&self) -> Places {
        let even = self.specs.iter().step_by(2);
        even.zip(0..).map(|(spec, pair)| (spec.addr, pair)).collect()
    }

    /// Appends the two ends of each stream of an anchor to `into`, the caller's first. What their
    /// parts keep of themselves goes to `parts`.
    ///
    /// # Errors
    /// [`Lost::Ports`] if an end is not the anchor's any more, [`Lost::Parts`] if it keeps what cannot
    /// be told.
    pub(crate) fn images<'p>(
        &self,
        anchor: &Anchor,
        parts: &'p mut Vec<u8>,
        into: &mut SmallVec<[[HalfImage<'p>; 2]; 1]>,
    ) -> Result<(), Lost> {
        parts.clear();
        let mut ends: SmallVec<[usize; 2]> = SmallVec::new();
        let halves = || anchor.streams.iter().flat_map(|stream| [stream.caller, stream.callee]);
        for half in halves() {
            let endpoint = self.endpoints.get(half.pair as usize).ok_or(Lost::Ports)?;
            if endpoint.generation != half.generation {
                return Err(Lost::Ports);
            }
            if (self.keeps_no_keys && endpoint.has_secrets()) || !endpoint.save(parts) {
                return Err(Lost::Parts);
            }
            ends.push(parts.len());
        }
        let mut rest: &'p [u8] = parts;
        let mut before = 0;
        let mut images: SmallVec<[HalfImage<'p>; 2]> = SmallVec::new();
        for (half, end) in halves().zip(ends) {
            let (own, after) = rest.split_at_checked(end - before).ok_or(Lost::Ports)?;
            (rest, before) = (after, end);
            let endpoint = self.endpoints.get(half.pair as usize).ok_or(Lost::Ports)?;
            images.push(HalfImage {
                local: self.specs.get(half.pair as usize * 2).ok_or(Lost::Ports)?.addr,
                generation: half.generation,
                remote: endpoint.remote,
                last_packet: endpoint.quality.last_packet,
                parts: own,
            });
        }
        let (pairs, _) = images.as_chunks::<2>();
        into.extend(pairs.iter().copied());
        Ok(())
    }

    /// Gives a call of the run before its ports back. All or nothing; to be called before the ports
    /// are opened.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) fn readopt(
        &mut self,
        now: Instant,
        at: [Place; 2],
        streams: &[[HalfImage<'_>; 2]],
        places: &Places,
    ) -> Result<Anchor, Lost> {
        let mut found: SmallVec<[[u32; 2]; 1]> = SmallVec::new();
        for halves in streams {
            let [caller, callee] = halves.each_ref().map(|half| places.get(&half.local).copied());
            let (Some(caller), Some(callee)) = (caller, callee) else { return Err(Lost::Ports) };
            found.push([caller, callee]);
        }
        let mut pairs: SmallVec<[u32; 4]> = found.iter().flatten().copied().collect();
        pairs.sort_unstable();
        let twice = pairs.windows(2).any(|two| two.first() == two.last());
        let taken = pairs
            .iter()
            .any(|pair| self.endpoints.get(*pair as usize).is_none_or(|end| end.other != NO_PAIR));
        if twice || taken {
            return Err(Lost::Ports);
        }
        let mut anchor = Anchor {
            places: at,
            streams: SmallVec::new(),
            left: Vec::new(),
            payload: Vec::new(),
            peerings: SmallVec::new(),
            staged_formats: Vec::new(),
            securities: SmallVec::new(),
            retired: Retired::default(),
        };
        let mut whole = true;
        for (halves, pairs) in streams.iter().zip(&found) {
            let [first, second] = *pairs;
            let [caller, callee] = halves;
            let identity = self.handshakes.identity().cloned();
            for (pair, other, half) in [(first, second, caller), (second, first, callee)] {
                let Some(endpoint) = self.endpoints.get_mut(pair as usize) else { continue };
                endpoint.begin(other);
                endpoint.generation = half.generation;
                endpoint.quality.last_packet = half.last_packet;
                whole &= endpoint.load(now, half.remote, half.parts, identity.as_ref()).is_some();
            }
            let (caller, callee) = (self.half(first), self.half(second));
            anchor.streams.push(Stream { caller, callee, talked: false });
            self.streams += 1;
            for pair in [first, second] {
                self.note_hairpin(pair);
                self.settle(pair);
            }
        }
        if whole {
            return Ok(anchor);
        }
        // Not yet open, the ports are in no pool: they are free when they are.
        for pair in found.iter().flatten() {
            if let Some(endpoint) = self.endpoints.get_mut(*pair as usize) {
                let generation = endpoint.generation;
                *endpoint = Endpoint::unused();
                endpoint.generation = generation;
            }
        }
        self.streams -= anchor.streams.len();
        Err(Lost::Parts)
    }

    /// No record of this shard may hold a key.
    pub(crate) fn keep_no_keys(&mut self) {
        self.keeps_no_keys = true;
    }

    /// The record of the call in place `slot` tells of an anchor; `None`: none does any more.
    pub(crate) fn kept(&mut self, anchor: &Anchor, slot: Option<u32>) {
        for half in anchor.streams.iter().flat_map(|stream| [stream.caller, stream.callee]) {
            let Some(endpoint) = self.end_mut(half) else { continue };
            endpoint.kept_by = slot;
            if let Some(shield) = &mut endpoint.shield {
                shield.kept(slot.is_some());
            }
        }
    }

    /// A packet changed what the record of the stream's call tells.
    pub(in crate::media) fn note_change(&mut self, pair: u32) {
        let endpoint = self.endpoints.get(pair as usize);
        if let Some(slot) = endpoint.and_then(|endpoint| endpoint.kept_by)
            && self.changed.last() != Some(&slot)
        {
            self.changed.push(slot);
        }
    }

    /// Places of calls whose records are behind.
    pub(crate) fn take_changed(&mut self) -> impl Iterator<Item = u32> + '_ {
        self.changed.drain(..)
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether a call holds a port.
    pub(crate) fn is_held(&self, port: MediaPortId) -> bool {
        self.endpoints.get(port.0 as usize / 2).is_some_and(|end| end.other != NO_PAIR)
    }
}

/// Parts of an end that keep something of themselves, each behind its tag and its length. A part that
/// comes to be written otherwise gets another tag; one that is not known is not guessed at.
const GATE: u8 = 1;
const STEADY: u8 = 2;
const SHIELD: u8 = 3;
const ICE: u8 = 4;
const DTLS: u8 = 5;
const PAYLOAD: u8 = 6;
const FORMATS: u8 = 7;

/// Octets of [`STEADY`]: SSRC, and packets, octets and lost packets of the flow in the kernel.
const STEADY_BYTES: usize = 4 + 3 * 8;

/// Appends a part. False: it is longer than a part can be.
fn part(tag: u8, into: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
    into.push(tag);
    let start = into.len();
    into.extend_from_slice(&[0, 0]);
    write(into);
    let length = u16::try_from(into.len().saturating_sub(start + 2));
    let (Ok(length), Some(place)) = (length, into.get_mut(start..start + 2)) else { return false };
    place.copy_from_slice(&length.to_le_bytes());
    true
}

impl Endpoint {
    /// Whether its record holds keys.
    fn has_secrets(&self) -> bool {
        self.shield.is_some() || self.ice.is_some()
    }

    /// Appends what its parts keep of themselves besides what was signalled. False: there is
    /// something that no record can hold, and the call would not be whole after a restart.
    fn save(&self, into: &mut Vec<u8>) -> bool {
        let mut fits = true;
        let source = self.gate.source(Component::Rtp).filter(|at| Some(*at) != self.remote.rtp);
        if let Some(source) = source {
            fits &= part(GATE, into, |into| push_address(source, into));
        }
        if let Some((_, ssrc)) = self.gate.steady() {
            fits &= part(STEADY, into, |into| {
                into.extend(ssrc.to_le_bytes());
                let counted = self.told.as_ref().and_then(|told| told.counted().copied());
                for number in counted.unwrap_or_default().parts() {
                    into.extend(number.to_le_bytes());
                }
            });
        }
        if let Some(shield) = &self.shield {
            fits &= part(SHIELD, into, |into| shield.save(into));
        }
        if let Some(ice) = &self.ice {
            fits &= part(ICE, into, |into| ice.save(into));
        }
        if let Some(dtls) = &self.dtls {
            fits &= part(DTLS, into, |into| dtls.save(into));
        }
        if let Some(map) = &self.payload {
            fits &= part(PAYLOAD, into, |into| map.save(into));
        }
        fits && part(FORMATS, into, |into| self.quality.save_formats(into))
    }

    /// Takes what was signalled, and what [`Self::save`] wrote. `None`: it wrote something else.
    fn load(
        &mut self,
        now: Instant,
        remote: Remote,
        parts: &[u8],
        identity: Option<&Arc<Identity>>,
    ) -> Option<()> {
        let mut rest = parts;
        let (mut moved, mut steady) = (None, None);
        while let Some((&[tag, low, high], after)) = rest.split_first_chunk::<3>() {
            let length = usize::from(u16::from_le_bytes([low, high]));
            let (part, after) = after.split_at_checked(length)?;
            rest = after;
            match tag {
                GATE => moved = Some(address_of(part)?),
                STEADY => steady = Some(read_steady(part)?),
                SHIELD => self.shield = Some(Box::new(Shield::load(part)?)),
                ICE => self.ice = Some(Box::new(Ice::load(now, part)?)),
                // Without a certificate there is no handshake; its keys are the shield's.
                DTLS => {
                    let dtls = identity.map(|identity| Dtls::load(part, identity));
                    self.dtls = dtls.map_or(Some(None), |dtls| dtls.map(Box::new).map(Some))?;
                }
                PAYLOAD => self.payload = Some(Box::new(PayloadMap::load(part)?)),
                FORMATS => self.quality.load_formats(part).then_some(())?,
                _ => return None,
            }
        }
        if !rest.is_empty() {
            return None;
        }
        self.apply(now, remote);
        match &self.ice {
            Some(ice) => {
                for component in [Component::Rtp, Component::Rtcp] {
                    if let Some(nominated) = ice.selected(component) {
                        self.gate.nominated(component, nominated);
                    }
                }
            }
            None => {
                if let Some(source) = moved {
                    self.gate.move_to(source);
                }
            }
        }
        if let Some((ssrc, counted)) = steady {
            self.gate.resume(ssrc);
            self.told = Some(Box::new(Told::of_record(counted)));
        }
        Some(())
    }
}

fn read_steady(part: &[u8]) -> Option<(u32, [u64; 3])> {
    let part: &[u8; STEADY_BYTES] = part.try_into().ok()?;
    let (ssrc, rest) = part.split_first_chunk::<4>()?;
    let mut numbers = [0; 3];
    for (number, octets) in numbers.iter_mut().zip(rest.as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*octets);
    }
    Some((u32::from_le_bytes(*ssrc), numbers))
}
