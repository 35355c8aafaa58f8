//! Media: RTP and RTCP relayed between the two legs of a call on ports of the owner shard.
//!
//! [`MediaTable`] holds one entry per port pair (even RTP, odd RTCP), indexed by
//! [`MediaPortId`]: a packet finds its stream without hashing. A call owns an [`Anchor`]: for each
//! media stream one pair towards the caller and one towards the callee. A packet is forwarded when
//! it comes from exactly the address that its sender signalled in SDP; it leaves from the other
//! leg's port to the address that the other party signalled. Nothing else moves a packet: no
//! learning from packets, so a sprayer redirects and injects nothing (lessons.md 1.3, 2.20, 2.21).

mod anchor;
mod pool;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use ravelin_policy::{MediaRange, RealmId};
use ravelin_wire::{demux, rtcp, rtp};

use crate::{
    counters::Counters,
    drops::DropReason,
    ids::{Generator, Seed},
    limits::Limits,
    port::{Egress, MediaPortId, ShardId, Token, TxQueue},
    time::Instant,
};

pub use anchor::{Anchor, Place, PortsExhausted, Side};
use pool::Pool;

/// A port that the driver opens when the shard starts. Its index is its [`MediaPortId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaPortSpec {
    pub addr: SocketAddr,
}

/// What a party signalled for one stream, and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it sends RTP from and receives it; `None` while not known, or for a refused stream.
    pub rtp: Option<SocketAddr>,
    /// The same for RTCP: `a=rtcp`, else the port after RTP's. `None`: no RTCP.
    pub rtcp: Option<SocketAddr>,
    /// Its packets go to the other party (its direction is sendrecv or sendonly).
    pub sends: bool,
    /// It gets the other party's packets (sendrecv or recvonly).
    pub receives: bool,
    /// SRTP: contents cannot be checked, headers still are.
    pub encrypted: bool,
}

impl Remote {
    /// Nothing is known, nothing passes.
    pub const NONE: Self =
        Self { rtp: None, rtcp: None, sends: false, receives: false, encrypted: false };
}

impl Default for Remote {
    fn default() -> Self {
        Self::NONE
    }
}

/// Packets that came from one party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCount {
    /// RTP packets forwarded.
    pub packets: u64,
    /// Octets of these, RTP headers included.
    pub bytes: u64,
    /// RTCP packets forwarded.
    pub rtcp_packets: u64,
    /// Packets from the signalled address that were not forwarded.
    pub dropped: u64,
}

/// One port pair.
#[derive(Clone, Debug)]
struct Endpoint {
    /// The pair of the same stream towards the other party; [`NO_PAIR`] while unused.
    other: u32,
    /// Which use of the pair this is: an [`Anchor`] of an earlier one changes nothing.
    generation: u32,
    remote: Remote,
    count: StreamCount,
    /// Last packet from the signalled address.
    last_packet: Option<Instant>,
}

const NO_PAIR: u32 = u32::MAX;

/// The media ports and streams of one shard.
#[derive(Debug)]
pub struct MediaTable {
    specs: Vec<MediaPortSpec>,
    /// `specs[2 * n]` and `specs[2 * n + 1]` are pair `n`.
    endpoints: Vec<Endpoint>,
    /// Which of the two ports of a pair the driver has opened: bits 0 and 1.
    opened: Vec<u8>,
    pools: Vec<Pool>,
    draws: Generator,
    limits: Limits,
    /// Streams that anchors hold: two pairs each.
    streams: usize,
}

impl MediaTable {
    /// Divides the ports of `ranges` between `shards` and takes the part of `shard`. No port can be
    /// used before [`Self::port_opened`].
    #[must_use]
    pub fn new(
        ranges: &[MediaRange],
        shard: ShardId,
        shards: u8,
        limits: Limits,
        seed: &Seed,
    ) -> Self {
        let mut table = Self {
            specs: Vec::new(),
            endpoints: Vec::new(),
            opened: Vec::new(),
            pools: Vec::new(),
            draws: Generator::for_purpose(seed, b"media ports", shard),
            limits,
            streams: 0,
        };
        let ports = |range: &MediaRange| {
            pool::ports_of_shard(range.first_port, range.last_port, shard, shards)
        };
        let wanted: usize = ranges.iter().map(|range| ports(range).count()).sum();
        let bound = limits.media_pairs as usize;
        for range in ranges {
            let first = table.endpoints.len();
            let all = ports(range).count();
            // What may be opened is shared out; no realm goes without.
            let share = if wanted > bound { (all * bound / wanted).max(1) } else { all };
            for port in ports(range).take(share) {
                table.specs.push(MediaPortSpec { addr: SocketAddr::new(range.address, port) });
                table.specs.push(MediaPortSpec { addr: SocketAddr::new(range.address, port | 1) });
                table.opened.push(0);
                table.endpoints.push(Endpoint {
                    other: NO_PAIR,
                    generation: 0,
                    remote: Remote::NONE,
                    count: StreamCount::default(),
                    last_packet: None,
                });
            }
            table.pools.push(Pool::new(range, first..table.endpoints.len()));
        }
        table
    }

    /// What the driver opens at start; the index is the [`MediaPortId`].
    #[must_use]
    pub fn specs(&self) -> &[MediaPortSpec] {
        &self.specs
    }

    /// The driver has opened a port. A pair can be drawn once both its ports are open.
    pub fn port_opened(&mut self, port: MediaPortId) {
        let pair = port.0 / 2;
        let Some(opened) = self.opened.get_mut(pair as usize) else { return };
        let before = *opened;
        *opened |= 1 << (port.0 % 2);
        if *opened == 3
            && before != 3
            && let Some(pool) = self.pool_of_pair(pair)
        {
            pool.add(pair);
        }
    }

    fn pool_of_pair(&mut self, pair: u32) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.contains(pair))
    }

    /// Relays one datagram that arrived on a media port.
    ///
    /// # Errors
    /// Why it was not forwarded; counted.
    pub fn relay(
        &mut self,
        now: Instant,
        port: MediaPortId,
        source: SocketAddr,
        bytes: &[u8],
        tx: &mut TxQueue,
        counters: &mut Counters,
    ) -> Result<(), DropReason> {
        let forwarded = self.forward(now, port, source, bytes, tx);
        match forwarded {
            Ok(Packet::Rtp) => {
                counters.rtp_packets += 1;
                counters.rtp_bytes += bytes.len() as u64;
            }
            Ok(Packet::Rtcp) => counters.rtcp_packets += 1,
            Err(reason) => {
                counters.drop(reason);
                return Err(reason);
            }
        }
        Ok(())
    }

    fn forward(
        &mut self,
        now: Instant,
        port: MediaPortId,
        source: SocketAddr,
        bytes: &[u8],
        tx: &mut TxQueue,
    ) -> Result<Packet, DropReason> {
        let pair = port.0 / 2;
        let odd = port.0 % 2;
        let endpoint = self.endpoints.get_mut(pair as usize).ok_or(DropReason::MediaPortIdle)?;
        let other = endpoint.other;
        if other == NO_PAIR {
            return Err(DropReason::MediaPortIdle);
        }
        let remote = &endpoint.remote;
        let packet = classify(bytes, odd == 1, remote.encrypted)?;
        let expected = if odd == 0 { remote.rtp } else { remote.rtcp };
        match expected {
            None => return Err(DropReason::MediaNoPeer),
            Some(expected) if expected != source => return Err(DropReason::MediaSource),
            Some(_) => {}
        }
        // RTCP goes on while the media is on hold (RFC 3264 5.1).
        let may_send = remote.sends || packet == Packet::Rtcp;
        endpoint.last_packet = Some(now);
        let to = self.endpoints.get(other as usize).and_then(|peer| {
            let may_receive = peer.remote.receives || packet == Packet::Rtcp;
            let to = if odd == 0 { peer.remote.rtp } else { peer.remote.rtcp };
            to.filter(|_| may_send && may_receive)
        });
        let Some(endpoint) = self.endpoints.get_mut(pair as usize) else {
            return Err(DropReason::MediaPortIdle);
        };
        let Some(to) = to else {
            endpoint.count.dropped += 1;
            return Err(DropReason::MediaNoPeer);
        };
        match packet {
            Packet::Rtp => {
                endpoint.count.packets += 1;
                endpoint.count.bytes += bytes.len() as u64;
            }
            Packet::Rtcp => endpoint.count.rtcp_packets += 1,
        }
        let port = MediaPortId(other * 2 + odd);
        tx.push(Egress::Media { port, to }, Token::default(), bytes);
        Ok(packet)
    }

    /// Streams that anchors hold.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// Ports (two for each pair) that anchors hold.
    #[must_use]
    pub fn ports_in_use(&self) -> usize {
        self.streams * 4
    }

    /// Ports that rest after use.
    #[must_use]
    pub fn ports_quarantined(&self) -> usize {
        self.pools.iter().map(|pool| pool.quarantined() * 2).sum()
    }

    /// Pairs that were drawn before the end of their rest since the start.
    #[must_use]
    pub fn ports_reused_early(&self) -> u64 {
        self.pools.iter().map(Pool::reused_early).sum()
    }

    /// Ports that can be drawn.
    #[must_use]
    pub fn ports_free(&self) -> usize {
        self.pools.iter().map(|pool| pool.free() * 2).sum()
    }

    /// Port pairs of `realm` that an emergency call may take now, those at rest included.
    #[must_use]
    pub fn drawable(&self, realm: RealmId) -> usize {
        let pools = self.pools.iter().filter(|pool| pool.realm() == realm);
        pools.map(|pool| pool.free() + pool.quarantined()).sum()
    }

    /// Whether this shard has any port for `realm`.
    #[must_use]
    pub fn serves(&self, realm: RealmId) -> bool {
        self.pools.iter().any(|pool| pool.realm() == realm)
    }

    /// Lets ports whose rest is over be drawn again. Called in each turn, and before each draw.
    pub fn sweep(&mut self, now: Instant) {
        for pool in &mut self.pools {
            pool.sweep(now);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packet {
    Rtp,
    Rtcp,
}

/// What a packet is, if it may be on this port: RTP, and RTCP for peers that agreed to multiplex
/// (RFC 5761), on the even one, RTCP on the odd one. Its lengths must agree with each other.
fn classify(bytes: &[u8], odd: bool, encrypted: bool) -> Result<Packet, DropReason> {
    match demux::first_byte(bytes) {
        demux::Kind::Rtp if odd => Err(DropReason::MediaMalformed),
        demux::Kind::Rtp => rtp::Header::parse_encrypted(bytes)
            .map(|_| Packet::Rtp)
            .ok_or(DropReason::MediaMalformed),
        demux::Kind::Rtcp => {
            let sound = if encrypted {
                bytes.len() >= rtcp::DATAGRAM_MIN_BYTES
            } else {
                rtcp::Compound::parse(bytes).is_some()
            };
            if sound { Ok(Packet::Rtcp) } else { Err(DropReason::MediaMalformed) }
        }
        demux::Kind::KeepAlive => Err(DropReason::KeepAlive),
        demux::Kind::Unknown if bytes.len() < rtp::HEADER_BYTES => Err(DropReason::MediaMalformed),
        _ => Err(DropReason::MediaUnsupported),
    }
}
