//! Everything of a shard that is not a call: tables, timers, counters, settings. A call's handler
//! borrows its call and this, nothing else.

use std::sync::Arc;

use crate::{
    b2bua::{cdr::Uncounted, compose::ListenerText},
    counters::Counters,
    emergency::{Starved, sources::Sources},
    engine::EngineConfig,
    identity::Jobs,
    ids::Seed,
    limits::Limits,
    loadout::Loadout,
    media::MediaTable,
    port::{ListenerId, ShardId, TxQueue},
    records::Records,
    scores::Scores,
    sip::{stateless::Stateless, transaction::Layer},
    time::{Instant, Now},
    timer::Wheel,
};

/// One turn: when it is, and where what is to be sent goes.
pub(crate) struct Turn<'a> {
    pub now: Now,
    pub out: &'a mut TxQueue,
}

/// What a transaction operation works on.
macro_rules! ctx {
    ($core:expr, $turn:expr) => {
        &mut $crate::sip::transaction::Ctx {
            wheel: &mut $core.wheel,
            tx: $turn.out,
            counters: &mut $core.counters,
        }
    };
}
pub(crate) use ctx;

pub(crate) struct Core {
    pub shard: ShardId,
    pub node: String,
    pub limits: Limits,
    pub layer: Layer,
    pub wheel: Wheel,
    pub counters: Counters,
    pub stateless: Stateless,
    pub media: MediaTable,
    /// What was handed over; given back when the next one comes.
    pub shared: Arc<Loadout>,
    /// The shard's own copy of it, for new calls and for what must act at once. A call keeps the one
    /// it began with.
    pub loadout: Arc<Loadout>,
    /// Copies that calls may still hold.
    pub retired: Vec<Arc<Loadout>>,
    pub listeners: Vec<ListenerText>,
    pub records: Records,
    /// Calls whose records wait for the last counts of the fast path.
    pub uncounted: Vec<Uncounted>,
    pub jobs: Jobs,
    pub pool: Pool,
    /// Where keys of SRTP come from.
    pub keys: ravelin_srtp::random::Source,
    /// Emergency calls that found no room, to be given some at the end of what is being done.
    pub starved: Vec<Starved>,
    /// Who sent emergency calls of late.
    pub sources: Sources,
    /// Octets that captures of calls hold.
    pub captured: usize,
    /// How good the streams of ended calls were.
    pub scores: Scores,
    /// No new ordinary calls.
    pub draining: bool,
    /// No new calls at all: the process ends.
    pub stopping: bool,
}

impl Core {
    pub(crate) fn new(config: &EngineConfig, loadout: Arc<Loadout>, media: MediaTable) -> Self {
        let seed = Seed(config.seed);
        let listeners = ListenerText::all(&loadout.snapshot);
        Self {
            shard: config.shard,
            node: config.node.clone(),
            limits: config.limits,
            layer: Layer::new(config.limits, &seed, config.shard),
            wheel: Wheel::new(Instant::default()),
            counters: Counters::default(),
            stateless: Stateless::new(&config.limits, &seed),
            media,
            loadout: Arc::new(loadout.private()),
            shared: loadout,
            retired: Vec::new(),
            listeners,
            records: Records::default(),
            uncounted: Vec::new(),
            jobs: Jobs::default(),
            pool: Pool::default(),
            keys: ravelin_srtp::random::Source::new(
                &config.seed,
                &[b"srtp keys".as_slice(), &[config.shard.0]].concat(),
            ),
            starved: Vec::new(),
            sources: Sources::default(),
            captured: 0,
            scores: Scores::default(),
            draining: false,
            stopping: false,
        }
    }

    pub(crate) fn listener(&self, id: ListenerId) -> Option<&ListenerText> {
        self.listeners.get(usize::from(id.0))
    }

    /// 16 octets that a peer cannot foresee.
    pub(crate) fn random_16(&mut self) -> [u8; 16] {
        let generator = self.layer.identifiers();
        let mut octets = [0; 16];
        let (first, second) = octets.split_at_mut(8);
        first.copy_from_slice(&generator.nonce().to_le_bytes());
        second.copy_from_slice(&generator.nonce().to_le_bytes());
        octets
    }
}

/// Buffers that calls borrow for a while, so that a shard in steady state allocates none.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<Vec<u8>>,
}

/// Free buffers kept; more go back to the allocator.
const POOL_MAX: usize = 4_096;
/// Buffers that have grown beyond this are not kept.
const POOL_BUFFER_MAX_BYTES: usize = 8_192;

impl Pool {
    /// An empty buffer.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// A buffer that holds `bytes`.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.take();
        buffer.extend_from_slice(bytes);
        buffer
    }

    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() != 0
            && buffer.capacity() <= POOL_BUFFER_MAX_BYTES
            && self.free.len() < POOL_MAX
        {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}
