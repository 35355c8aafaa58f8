//! Media: RTP and RTCP relayed between the two legs of a call on ports of the owner shard.
//!
//! [`MediaTable`] holds one entry per port pair (even RTP, odd RTCP), indexed by
//! [`MediaPortId`]: a packet finds its stream without hashing. A call owns an [`Anchor`]: for each
//! media stream one pair towards the caller and one towards the callee. `relay.rs` is the way of a
//! packet:
//!
//! ```text
//! port in use? -> first octet (RFC 7983) -> STUN: ice, DTLS: dtls, RTP and RTCP:
//! gate.check -> shield.open -> header -> gate.learn -> quality -> direction and hold
//!            -> payload -> the other side's shield.seal -> TxQueue
//! ```
//!
//! A packet is forwarded when it comes from the address of its sender; it leaves from the other
//! leg's port to the address of the other party. The gate says which addresses these are; no packet
//! of anybody else redirects or injects anything (lessons.md 1.3, 2.20, 2.21).

mod ahead;
mod anchor;
mod closed;
mod cycle;
pub mod dtls;
mod endpoint;
mod fast;
mod gate;
mod hairpin;
pub mod ice;
mod latch;
mod loss;
mod notice;
mod opening;
mod payload;
pub mod peering;
mod permutation;
mod pool;
pub(crate) mod quality;
mod relay;
mod retired;
mod shield;
#[cfg(test)]
mod tests;
mod watch;

use std::net::SocketAddr;

use ravelin_policy::{MediaRange, RealmId};
use ravelin_srtp::integrity::IntegrityKey;

use crate::{
    ids::{Generator, Seed},
    limits::{Limits, STREAMS_PER_CALL_MAX},
    port::{MediaPortId, ShardId},
    time::Instant,
    timer::Wheel,
};

pub use anchor::{Anchor, Place, PortsExhausted, Side};
pub(crate) use anchor::{HalfImage, Lost, Places};
use closed::Sprayers;
use dtls::Handshakes;
use endpoint::Endpoint;
pub use endpoint::Remote;
use fast::Fast;
pub use gate::Nat;
use hairpin::Own;
pub use loss::Loss;
use notice::Notices;
pub use notice::Totals;
pub(crate) use notice::{Notice, Noticed};
pub(crate) use payload::PayloadMap;
use pool::{Draw, Pool};
pub use shield::Security;
pub(crate) use watch::Score;

/// A port that the driver opens when the shard starts. Its index is its [`MediaPortId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaPortSpec {
    pub addr: SocketAddr,
    /// How what leaves from here is marked (RFC 2474), 0-63.
    pub dscp: Option<u8>,
}

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
    sprayers: Sprayers,
    own: Own,
    fast: Fast,
    /// Last [`Self::sweep`].
    swept: Instant,
    limits: Limits,
    /// Streams that anchors hold: two pairs each.
    streams: usize,
    /// Pairs of sides that anchors have left and may come back to.
    left: usize,
    /// What ICE credentials are derived with.
    ice_key: IntegrityKey,
    handshakes: Handshakes,
    /// Of ICE and DTLS.
    timers: Wheel,
    /// Places of calls whose records are behind what packets have changed.
    changed: Vec<u32>,
    /// No key may be in a record.
    keeps_no_keys: bool,
    notices: Notices,
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
            sprayers: Sprayers::new(seed, shard),
            own: Own::new(ranges),
            fast: Fast::default(),
            swept: Instant::default(),
            limits,
            streams: 0,
            left: 0,
            ice_key: IntegrityKey::new(&[&seed.0[..], b"ice", &[shard.0]].concat()),
            handshakes: Handshakes::default(),
            timers: Wheel::new(Instant::default()),
            changed: Vec::new(),
            keeps_no_keys: false,
            notices: Notices::default(),
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
                for port in [port, port | 1] {
                    let addr = SocketAddr::new(range.address, port);
                    table.specs.push(MediaPortSpec { addr, dscp: range.dscp });
                }
                table.opened.push(0);
                table.endpoints.push(Endpoint::unused());
            }
            let pairs = first..table.endpoints.len();
            table.pools.push(Pool::new(range, pairs, &mut table.draws));
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
        if *opened != 3 || before == 3 {
            return;
        }
        // A call of the run before may hold it already.
        let taken =
            self.endpoints.get(pair as usize).is_some_and(|end| end.other != endpoint::NO_PAIR);
        if let Some(pool) = self.pool_of_pair(pair) {
            if taken { pool.add_taken() } else { pool.add(pair) }
        }
    }

    fn pool_of_pair(&mut self, pair: u32) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.contains(pair))
    }

    /// Streams that anchors hold.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// Ports (two for each pair) that anchors hold.
    #[must_use]
    pub fn ports_in_use(&self) -> usize {
        self.streams * 4 + self.left * 2
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

    /// Sources remembered for sending to closed ports, beyond what may be chance.
    #[must_use]
    pub fn sprayers(&self) -> usize {
        self.sprayers.count(self.swept)
    }

    /// Such sources, and those of fewer ports, that were forgotten before their time.
    #[must_use]
    pub fn sprayers_displaced(&self) -> u64 {
        self.sprayers.displaced()
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

    /// Pairs of `realm` that calls can draw now one after the other, ordinary or emergency calls.
    #[must_use]
    pub fn available(&self, now: Instant, realm: RealmId, emergency: bool) -> usize {
        let by = Draw::new(now, &self.limits, emergency);
        let pools = self.pools.iter().filter(|pool| pool.realm() == realm);
        pools.map(|pool| pool.available(by)).sum()
    }

    /// Whether a pool has so few pairs that the next call may find none.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let reserve = |pool: &Pool| pool.reserve(self.limits.media_reserve_percent);
        self.pools.iter().any(|pool| pool.free() < reserve(pool) + 2 * STREAMS_PER_CALL_MAX)
    }

    /// Ports that ordinary calls leave to emergency calls.
    #[must_use]
    pub fn ports_reserved(&self) -> usize {
        let percent = self.limits.media_reserve_percent;
        self.pools.iter().map(|pool| 2 * pool.reserve(percent)).sum()
    }

    /// Whether this shard has any port for `realm`.
    #[must_use]
    pub fn serves(&self, realm: RealmId) -> bool {
        self.pools.iter().any(|pool| pool.realm() == realm)
    }

    /// Whether this shard has any port for `realm` of one version of IP.
    pub(crate) fn serves_by(&self, realm: RealmId, v6: bool) -> bool {
        self.pools.iter().any(|pool| pool.realm() == realm && pool.is_v6() == v6)
    }

    /// Lets ports whose rest is over be drawn again. Called in each turn, and before each draw.
    pub fn sweep(&mut self, now: Instant) {
        self.swept = now;
        for pool in &mut self.pools {
            pool.sweep(now);
        }
    }
}
