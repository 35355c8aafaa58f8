//! The run itself: one queue of events in virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
    sync::Arc,
};

use ravelin_engine::{
    admission::Registry,
    engine::{Engine, EngineConfig, Received},
    limits::Limits,
    loadout::Loadout,
    port::{Egress, ListenerId, Local, MediaPortId, Meta, ShardId, TxQueue},
    time::{Instant, Now},
};
use ravelin_policy::Snapshot;

use super::{
    act::{Effect, Wake},
    crash::Survival,
    judge::Verdict,
    peer::{GIVE_UP_MS, Peer},
    plan::{Moment, Plan},
    rng::Rng,
};

const SHARDS: u8 = 2;
const ACCESS: &str = "127.0.0.10:5060";
const CORE: &str = "127.0.0.20:5060";
const CALLER: &str = "127.0.1.1:5060";
const CARRIERS: [&str; 2] = ["127.0.2.1:5060", "127.0.3.1:5060"];
/// The trunks of the site, then the one of last resort.
const PSAPS: [&str; 3] = ["127.0.9.1:5060", "127.0.9.2:5060", "127.0.9.9:5060"];
/// 2026-01-01T00:00:00Z.
const EPOCH_UNIX_MS: u64 = 1_767_225_600_000;

/// The configuration that every run uses.
const CONFIG: &str = include_str!("world.yml");

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Arrive {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Dial {
        number: u32,
    },
    Wake {
        peer: usize,
        call: u32,
        wake: Wake,
    },
    /// An engine may have a timer due.
    Tick {
        shard: usize,
    },
    /// The next process takes over.
    Restart,
}

/// Engines, peers and the network between them.
pub struct World {
    pub(super) now_ms: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: BTreeMap<usize, Event>,
    next_event: usize,
    rng: Rng,
    pub(super) plan: Plan,
    pub(super) engines: Vec<Engine>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) ticks: Vec<Option<u64>>,
    pub(super) media: BTreeMap<SocketAddr, (usize, MediaPortId)>,
    listeners: BTreeMap<SocketAddr, ListenerId>,
    /// The caller's peer, then the carriers, then the PSAPs.
    pub(super) peers: Vec<Peer>,
    pub(super) tx: TxQueue,
    /// `RAVELIN_SIM_TRACE`: print every datagram.
    pub(super) trace: bool,
    pub(super) survival: Survival,
}

/// Runs `plan` to its end and judges it.
#[must_use]
pub fn run(plan: Plan) -> Verdict {
    let mut world = World::new(plan);
    world.play();
    world.verdict()
}

impl World {
    /// # Panics
    /// If the built-in configuration does not compile.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let compiled = match ravelin_policy::compile(CONFIG, 1) {
            Ok(compiled) => compiled,
            Err(errors) => panic!("world.yml: {errors:?}"),
        };
        let snapshot = Arc::new(compiled.snapshot);
        let mut engines = new_engines(&snapshot, plan.seed, 0);
        let mut media = BTreeMap::new();
        for (index, engine) in engines.iter_mut().enumerate() {
            let ports: Vec<SocketAddr> =
                engine.media_ports().iter().map(|port| port.addr).collect();
            for (id, address) in (0..).zip(ports) {
                let other = media.insert(address, (index, MediaPortId(id)));
                assert!(other.is_none(), "{address} belongs to two shards");
                engine.media_port_opened(MediaPortId(id));
            }
        }
        let listeners = (0..)
            .zip(&snapshot.listeners)
            .map(|(id, listener)| (listener.bind, ListenerId(id)))
            .collect();
        let mut rng = Rng::new(plan.seed ^ 0x5eed);
        let mut peers = vec![Peer::new(address(CALLER), address(ACCESS), Rng::new(rng.next()))];
        for carrier in CARRIERS.into_iter().chain(PSAPS) {
            peers.push(Peer::new(address(carrier), address(CORE), Rng::new(rng.next())));
        }
        let ticks = vec![None; engines.len()];
        let mut world = Self {
            now_ms: 1_000,
            order: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            rng,
            plan,
            engines,
            snapshot,
            ticks,
            media,
            listeners,
            peers,
            tx: TxQueue::default(),
            trace: std::env::var_os("RAVELIN_SIM_TRACE").is_some(),
            survival: Survival::default(),
        };
        for call in world.plan.calls.clone() {
            for (index, acts) in call.carriers.into_iter().enumerate() {
                world.peers[index + 1].expect(call.number, acts);
            }
            for (index, acts) in call.psaps.into_iter().flatten().enumerate() {
                world.peers[index + 1 + CARRIERS.len()].expect(call.number, acts);
            }
            let at = world.now_ms + call.at_ms;
            world.schedule(at, Event::Dial { number: call.number });
        }
        world
    }

    /// Plays until nothing is left to happen, or for three times 64*T1 after the last planned step.
    pub fn play(&mut self) {
        let end_ms = self.now_ms + 4 * 60_000 + 3 * GIVE_UP_MS;
        for shard in 0..self.engines.len() {
            self.arm(shard);
        }
        while let Some(Reverse((at_ms, _, id))) = self.queue.pop() {
            if at_ms > end_ms {
                break;
            }
            let Some(event) = self.events.remove(&id) else { continue };
            self.now_ms = self.now_ms.max(at_ms);
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { from, to, bytes } => self.arrive(from, to, &bytes),
            Event::Dial { number } => {
                let Some(call) = self.plan.calls.iter().find(|call| call.number == number) else {
                    return;
                };
                let (user, acts) = (call.user.clone(), call.caller.clone());
                let effects = self.peers[0].dial(self.now_ms, number, &user, acts);
                self.apply(0, effects);
            }
            Event::Wake { peer, call, wake } => {
                let effects = self.peers[peer].wake(self.now_ms, call, wake);
                self.apply(peer, effects);
            }
            Event::Restart => self.restart(),
            Event::Tick { .. } if self.survival.down => {}
            Event::Tick { shard } => {
                if self.ticks[shard].is_some_and(|at| at <= self.now_ms) {
                    self.ticks[shard] = None;
                    let now = self.now();
                    self.engines[shard].expire(now, &mut self.tx);
                    self.after_turn(shard);
                }
            }
        }
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let ours = self.listeners.contains_key(&to) || self.media.contains_key(&to);
        if ours && self.survival.down {
            return;
        }
        if let Some(listener) = self.listeners.get(&to).copied() {
            // The kernel's hash of the 4-tuple: all datagrams of one peer reach one shard.
            let shard = usize::from(from.port() ^ u16::from(from.is_ipv4())) % self.engines.len();
            let meta = Meta { source: from, local: Local::Signalling { listener } };
            self.hand(shard, meta, bytes);
        } else if let Some((shard, port)) = self.media.get(&to).copied() {
            self.hand(shard, Meta { source: from, local: Local::Media { port } }, bytes);
        } else if let Some(index) = self.peers.iter().position(|peer| peer.address == to) {
            let effects = self.peers[index].receive(self.now_ms, bytes);
            self.apply(index, effects);
        } else if let Some(peer) = self.peers.iter_mut().find(|peer| peer.address.ip() == to.ip()) {
            peer.receive_rtp(to, bytes);
        }
    }

    fn hand(&mut self, shard: usize, meta: Meta, bytes: &[u8]) {
        let now = self.now();
        match self.engines[shard].receive(now, meta, bytes, &mut self.tx) {
            Received::Elsewhere(ShardId(owner)) => {
                let owner = usize::from(owner);
                // What the first shard has to say besides.
                assert_ne!(owner, shard, "a shard passed a datagram to itself");
                let again = self.engines[owner].receive(now, meta, bytes, &mut self.tx);
                assert!(!matches!(again, Received::Elsewhere(_)), "a datagram was passed on twice");
                self.after_turn(owner);
                self.place(again, meta, bytes);
            }
            placed @ Received::Placed { .. } => {
                self.after_turn(shard);
                self.place(placed, meta, bytes);
            }
            Received::Taken | Received::Dropped(_) => self.after_turn(shard),
        }
    }

    /// A new call goes from shard to shard until one has ports for it.
    fn place(&mut self, mut received: Received, meta: Meta, bytes: &[u8]) {
        let now = self.now();
        for _ in 0..self.engines.len() {
            let Received::Placed { shard: ShardId(shard), tried } = received else { return };
            let shard = usize::from(shard);
            received = self.engines[shard].receive_placed(now, meta, bytes, tried, &mut self.tx);
            self.after_turn(shard);
        }
        assert!(!matches!(received, Received::Placed { .. }), "a call went round in circles");
    }

    /// What the shard's loop does at the end of a turn: identity batch, sends, next timer.
    pub(super) fn after_turn(&mut self, shard: usize) {
        let now = self.now();
        self.engines[shard].run_identity_inline(now, &mut self.tx);
        let crash = self.next_crash();
        if crash == Some(Moment::BeforeRecords) {
            return self.crash();
        }
        self.write_records(shard);
        if crash == Some(Moment::BeforeSends) {
            return self.crash();
        }
        let sends: Vec<(Egress, Vec<u8>)> =
            self.tx.iter().map(|tx| (tx.egress, tx.bytes.to_vec())).collect();
        self.tx.clear();
        for (egress, bytes) in sends {
            match egress {
                Egress::Udp { listener, to } => {
                    let from = self
                        .listeners
                        .iter()
                        .find_map(|(address, id)| (*id == listener).then_some(*address));
                    self.carry(from.expect("a listener"), to, bytes);
                }
                Egress::Media { port, to } => {
                    let from = self
                        .media
                        .iter()
                        .find_map(|(address, at)| (*at == (shard, port)).then_some(*address));
                    self.carry(from.expect("a media port"), to, bytes);
                }
                Egress::Flow { .. } | Egress::Connect { .. } => {
                    panic!("the simulated network has no streams")
                }
            }
        }
        let mut records = Vec::new();
        self.engines[shard].take_records(now, &mut records);
        self.arm(shard);
        if crash == Some(Moment::AfterSends) {
            self.crash();
        }
    }

    pub(super) fn arm(&mut self, shard: usize) {
        let Some(deadline) = self.engines[shard].next_deadline() else { return };
        let at_ms = (deadline.0.div_ceil(1_000_000)).max(self.now_ms);
        if self.ticks[shard].is_none_or(|armed| at_ms < armed) {
            self.ticks[shard] = Some(at_ms);
            self.schedule(at_ms, Event::Tick { shard });
        }
    }

    fn apply(&mut self, peer: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { from, to, bytes } => self.carry(from, to, bytes),
                Effect::Wake { call, at_ms, wake } => {
                    self.schedule(at_ms, Event::Wake { peer, call, wake });
                }
            }
        }
    }

    /// The network: loses, repeats and delays.
    fn carry(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let weather = self.plan.weather;
        let copies = if self.rng.chance(weather.loss) {
            0
        } else if self.rng.chance(weather.duplicate) {
            2
        } else {
            1
        };
        if self.trace {
            let text = String::from_utf8_lossy(&bytes);
            let line = text.lines().next().unwrap_or_default();
            let cseq = text.lines().find(|line| line.starts_with("CSeq")).unwrap_or_default();
            eprintln!("{:>8} {from} -> {to} x{copies} {line} {cseq}", self.now_ms);
        }
        for _ in 0..copies {
            let (low, high) = weather.delay_ms;
            let at = self.now_ms + self.rng.between(low, high);
            self.schedule(at, Event::Arrive { from, to, bytes: bytes.clone() });
        }
    }

    pub(super) fn schedule(&mut self, at_ms: u64, event: Event) {
        let id = self.next_event;
        self.next_event += 1;
        self.order += 1;
        self.events.insert(id, event);
        self.queue.push(Reverse((at_ms, self.order, id)));
    }

    pub(super) fn now(&self) -> Now {
        Now { mono: Instant::from_millis(self.now_ms), unix_ms: EPOCH_UNIX_MS + self.now_ms }
    }

    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let (caller, carriers) = self.peers.split_first().expect("peers");
        verdict.parties(&self.plan, caller, carriers, &self.survival.pardon);
        for (shard, engine) in self.engines.iter().enumerate() {
            let left = engine.tables().left_over();
            if !left.is_empty() {
                verdict.fault(format!("shard {shard} still holds {left:?}"));
            }
        }
        verdict
    }
}

/// The engines of one process.
pub(super) fn new_engines(snapshot: &Arc<Snapshot>, seed: u64, start: u8) -> Vec<Engine> {
    let registry = Registry::default();
    let loadout = Arc::new(Loadout::new(Arc::clone(snapshot), &registry));
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&seed.to_be_bytes());
    octets[8] = start;
    (0..SHARDS)
        .map(|shard| {
            let config = EngineConfig {
                shard: ShardId(shard),
                shards: SHARDS,
                node: "sim".into(),
                limits: Limits::default(),
                seed: octets,
                started_unix_ms: EPOCH_UNIX_MS,
            };
            let mut engine = Engine::new(config, Arc::clone(&loadout));
            engine.begin_checkpoints();
            engine
        })
        .collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
