//! What of an anchor lives through the end of the process, and its return: the same ports, the same
//! generations, the same peers.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use smallvec::SmallVec;

use super::{Anchor, MediaTable, Place, Stream};
use crate::{
    media::{
        PayloadMap, Remote,
        endpoint::{Component, Endpoint, NO_PAIR},
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

/// This shard does not have the ports any more, or another call holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortsGone;

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
    /// [`PortsGone`] if an end is not the anchor's any more or keeps what cannot be told.
    pub(crate) fn images<'p>(
        &self,
        anchor: &Anchor,
        parts: &'p mut Vec<u8>,
        into: &mut SmallVec<[[HalfImage<'p>; 2]; 1]>,
    ) -> Result<(), PortsGone> {
        parts.clear();
        let mut ends: SmallVec<[usize; 2]> = SmallVec::new();
        let halves = || anchor.streams.iter().flat_map(|stream| [stream.caller, stream.callee]);
        for half in halves() {
            let endpoint = self.endpoints.get(half.pair as usize).ok_or(PortsGone)?;
            if endpoint.generation != half.generation || !endpoint.save(parts) {
                return Err(PortsGone);
            }
            ends.push(parts.len());
        }
        let mut rest: &'p [u8] = parts;
        let mut before = 0;
        let mut images: SmallVec<[HalfImage<'p>; 2]> = SmallVec::new();
        for (half, end) in halves().zip(ends) {
            let (own, after) = rest.split_at_checked(end - before).ok_or(PortsGone)?;
            (rest, before) = (after, end);
            let endpoint = self.endpoints.get(half.pair as usize).ok_or(PortsGone)?;
            images.push(HalfImage {
                local: self.specs.get(half.pair as usize * 2).ok_or(PortsGone)?.addr,
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
    /// [`PortsGone`].
    pub(crate) fn readopt(
        &mut self,
        now: Instant,
        at: [Place; 2],
        streams: &[[HalfImage<'_>; 2]],
        places: &Places,
    ) -> Result<Anchor, PortsGone> {
        let mut found: SmallVec<[[u32; 2]; 1]> = SmallVec::new();
        for halves in streams {
            let [caller, callee] = halves.each_ref().map(|half| places.get(&half.local).copied());
            let (Some(caller), Some(callee)) = (caller, callee) else { return Err(PortsGone) };
            found.push([caller, callee]);
        }
        let mut pairs: SmallVec<[u32; 4]> = found.iter().flatten().copied().collect();
        pairs.sort_unstable();
        let twice = pairs.windows(2).any(|two| two.first() == two.last());
        let taken = pairs
            .iter()
            .any(|pair| self.endpoints.get(*pair as usize).is_none_or(|end| end.other != NO_PAIR));
        if twice || taken {
            return Err(PortsGone);
        }
        let mut anchor = Anchor {
            places: at,
            streams: SmallVec::new(),
            payload: Vec::new(),
            peerings: SmallVec::new(),
            staged_formats: Vec::new(),
            securities: SmallVec::new(),
        };
        for (halves, pairs) in streams.iter().zip(found) {
            let [first, second] = pairs;
            let [caller, callee] = halves;
            for (pair, other, half) in [(first, second, caller), (second, first, callee)] {
                let Some(endpoint) = self.endpoints.get_mut(pair as usize) else { continue };
                endpoint.begin(other);
                endpoint.generation = half.generation;
                endpoint.apply(now, half.remote);
                endpoint.quality.last_packet = half.last_packet;
                endpoint.load(half.parts);
            }
            let (caller, callee) = (self.half(first), self.half(second));
            anchor.streams.push(Stream { caller, callee, talked: false });
            self.streams += 1;
        }
        Ok(anchor)
    }

    /// Whether a call holds a port.
    pub(crate) fn is_held(&self, port: MediaPortId) -> bool {
        self.endpoints.get(port.0 as usize / 2).is_some_and(|end| end.other != NO_PAIR)
    }
}

/// Parts of an end that keep something of themselves, each with its length behind its tag.
const GATE: u8 = 1;
const PAYLOAD: u8 = 6;

impl Endpoint {
    /// Appends what its parts keep of themselves besides what was signalled. False: there is
    /// something that no record can hold, and the call would not be whole after a restart.
    fn save(&self, into: &mut Vec<u8>) -> bool {
        if self.shield.is_some() || self.ice.is_some() || self.dtls.is_some() {
            return false;
        }
        let source = self.gate.source(Component::Rtp).filter(|at| Some(*at) != self.remote.rtp);
        if let Some(source) = source {
            let (ip, port) = (source.ip(), source.port());
            into.extend_from_slice(&[GATE, 18]);
            into.extend_from_slice(&as_v6(ip).octets());
            into.extend_from_slice(&port.to_le_bytes());
        }
        if let Some(map) = &self.payload {
            let start = into.len();
            into.extend_from_slice(&[PAYLOAD, 0]);
            map.save(into);
            let length = into.len().saturating_sub(start + 2);
            match (into.get_mut(start + 1), u8::try_from(length)) {
                (Some(place), Ok(length)) => *place = length,
                _ => return false,
            }
        }
        true
    }

    /// Takes what [`Self::save`] wrote. A part that it does not know, it leaves out.
    fn load(&mut self, parts: &[u8]) {
        let mut rest = parts;
        while let Some((&[tag, length], after)) = rest.split_first_chunk::<2>() {
            let Some((part, after)) = after.split_at_checked(usize::from(length)) else { return };
            rest = after;
            match tag {
                GATE => {
                    if let Some((ip, port)) = part.split_first_chunk::<16>()
                        && let Ok(port) = <[u8; 2]>::try_from(port)
                    {
                        let ip = IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical();
                        self.gate.move_to(SocketAddr::new(ip, u16::from_le_bytes(port)));
                    }
                }
                PAYLOAD => self.payload = PayloadMap::load(part).map(Box::new),
                _ => {}
            }
        }
    }
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
