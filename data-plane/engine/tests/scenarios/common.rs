//! One engine between hand-made SIP peers on virtual time. Peers say exactly what a test has them
//! say; everything that the engine sends lands in the inbox of the address it was sent to.

mod message;
mod party;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use ravelin_contract::{
    audit::AuditEvent,
    cdr::{Cdr, CdrKind},
    chain::Entry,
};
use ravelin_engine::{
    admission::Registry,
    checkpoint::{Adoption, Change, Kept, NotAdopted},
    engine::{Engine, EngineConfig, Received},
    limits::Limits,
    loadout::Loadout,
    port::{Egress, FlowId, ListenerId, Local, MediaPortId, Meta, ShardId, Tx, TxQueue},
    time::{Instant, Now},
};
use ravelin_wire::sip::{Framing, Message};

pub use self::{message::*, party::*};

pub const PBX: &str = "127.0.1.1:5060";
pub const CARRIER_A: &str = "127.0.2.1:5060";
pub const CARRIER_B: &str = "127.0.3.1:5060";
pub const PSAP_1: &str = "127.0.9.1:5060";
pub const PSAP_2: &str = "127.0.9.2:5060";
pub const PSAP_GLOBAL: &str = "127.0.9.9:5060";
/// Listener indices of [`CONFIG`].
pub const ACCESS: u16 = 0;
pub const ACCESS_TCP: u16 = 1;
pub const CORE: u16 = 2;

pub const START_UNIX_MS: u64 = 1_767_225_600_000;

pub const CONFIG: &str = r#"
node: test-1
deployment: { mode: production }
edge:
  cores: [0]
  listeners:
    - { id: access-udp, realm: access, transport: udp, bind: "127.0.0.10:5060" }
    - { id: access-tcp, realm: access, transport: tcp, bind: "127.0.0.10:5060" }
    - { id: core-udp, realm: core, transport: udp, bind: "127.0.0.20:5060" }
    - { id: core-tcp, realm: core, transport: tcp, bind: "127.0.0.20:5060" }
  media:
    - { realm: access, address: 127.0.0.10, ports: 20000-20063, driver: auto }
    - { realm: core, address: 127.0.0.20, ports: 30000-30063, driver: auto }
trunks:
  - id: pbx
    realm: access
    role: customer
    sources: [127.0.1.0/24]
    targets: [{ uri: "sip:127.0.1.1:5060" }]
    numbers: ["+1313555*"]
    limits: { calls: 5, cps: 100 }
  - id: carrier-a
    realm: core
    role: carrier
    sources: [127.0.2.0/24]
    targets: [{ uri: "sip:127.0.2.1:5060" }]
  - id: carrier-b
    realm: core
    role: carrier
    sources: [127.0.3.0/24]
    targets: [{ uri: "sip:127.0.3.1:5060" }]
  - id: psap-1
    realm: core
    role: emergency
    targets: [{ uri: "sip:127.0.9.1:5060" }]
  - id: psap-2
    realm: core
    role: emergency
    targets: [{ uri: "sip:127.0.9.2:5060" }]
  - id: emergency
    realm: core
    role: emergency
    targets: [{ uri: "sip:127.0.9.9:5060" }]
routes:
  - { id: outbound, from: [pbx], to: "*", trunks: [carrier-a, carrier-b] }
  - { id: inbound, from: [carrier-a, carrier-b], to: "*", trunks: [pbx] }
features:
  karis_law: { enabled: true, emergency_trunk_id: "emergency" }
sites:
  - site_name: "Detroit"
    realm: access
    ip_range_start: "127.0.1.1"
    ip_range_end: "127.0.1.254"
    emergency_trunks: [{ id: psap-1, priority: 1 }, { id: psap-2, priority: 2 }]
    psap_number: "911"
    elin: "+13135551000"
    street_address: "1234 Industrial Blvd"
    city: "Detroit"
    state: "MI"
    postal_code: "48201"
    country: "US"
    building: "Building A"
    floor: "1"
"#;

/// A message that the engine sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub to: SocketAddr,
    pub listener: ListenerId,
    pub text: String,
}

pub struct World {
    pub engine: Engine,
    pub registry: Registry,
    pub now: Now,
    out: TxQueue,
    inbox: VecDeque<Sent>,
    /// RTP and RTCP that the engine sent: address, octets.
    pub media: Vec<(SocketAddr, Vec<u8>)>,
    pub last: Received,
    records: Vec<Entry>,
    /// Messages to these addresses vanish.
    pub dead: Vec<SocketAddr>,
    /// No stream connection to these can be opened.
    pub refusing: Vec<SocketAddr>,
    /// Peers with a stream connection.
    flows: Vec<SocketAddr>,
    branch: u32,
    /// Records of calls, by slot: what outlives a crash.
    pub kept: BTreeMap<u32, Vec<u8>>,
    crashes: u8,
    /// The fast path of the shard's driver, if it has one.
    pub fast: Option<crate::fast::Kernel>,
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    pub fn new() -> Self {
        Self::with(CONFIG, Limits::default())
    }

    pub fn with(config: &str, limits: Limits) -> Self {
        let registry = Registry::default();
        let loadout = loadout(config, 1, &registry);
        Self::from_loadout(registry, loadout, limits)
    }

    pub fn from_loadout(registry: Registry, loadout: Loadout, limits: Limits) -> Self {
        let config = EngineConfig {
            shard: ShardId(0),
            shards: 1,
            node: "test-1".to_owned(),
            limits,
            seed: [42; 32],
            started_unix_ms: START_UNIX_MS,
        };
        let mut engine = Engine::new(config, Arc::new(loadout));
        engine.begin_checkpoints();
        for port in 0..engine.media_ports().len() {
            engine.media_port_opened(MediaPortId(u32::try_from(port).unwrap()));
        }
        Self {
            engine,
            registry,
            now: Now { mono: Instant::from_millis(1_000), unix_ms: START_UNIX_MS },
            out: TxQueue::default(),
            inbox: VecDeque::new(),
            media: Vec::new(),
            last: Received::Taken,
            records: Vec::new(),
            dead: Vec::new(),
            refusing: Vec::new(),
            flows: Vec::new(),
            branch: 0,
            kept: BTreeMap::new(),
            crashes: 0,
            fast: None,
        }
    }

    /// The process ends without a word; another one starts `after_ms` later, with its own seed, and
    /// takes over what was kept.
    pub fn crash(&mut self, after_ms: u64) -> Adoption {
        self.crash_into(CONFIG, 0, 1, None, after_ms)
    }

    /// The same into another config, as another shard.
    pub fn crash_into(
        &mut self,
        config: &str,
        shard: u8,
        shards: u8,
        condemned: Option<NotAdopted>,
        after_ms: u64,
    ) -> Adoption {
        self.crashes += 1;
        self.registry = Registry::default();
        let loadout = loadout(config, 1 + u64::from(self.crashes), &self.registry);
        let of = EngineConfig {
            shard: ShardId(shard),
            shards,
            node: "test-1".to_owned(),
            limits: Limits::default(),
            seed: [42 + self.crashes; 32],
            started_unix_ms: START_UNIX_MS,
        };
        self.engine = Engine::new(of, Arc::new(loadout));
        self.out.clear();
        self.flows.clear();
        self.engine.begin_checkpoints();
        let alive = self.now.mono;
        self.set_clock(Instant::from_millis(self.now.mono.as_millis() + after_ms));
        let records: Vec<_> = std::mem::take(&mut self.kept).into_values().collect();
        let kept: Vec<_> = records.iter().map(|bytes| Kept { bytes, condemned, alive }).collect();
        let now = self.now;
        let adoption = self.with_engine(|engine, out| engine.adopt(now, &kept, out));
        for port in 0..self.engine.media_ports().len() {
            self.engine.media_port_opened(MediaPortId(u32::try_from(port).unwrap()));
        }
        adoption
    }

    /// Hands a message to the engine. Line ends may be `\n`; Content-Length is added.
    pub fn send(&mut self, from: &str, listener: u16, message: &str) {
        let message = finish(message);
        self.send_raw(from, listener, message.as_bytes());
    }

    pub fn send_raw(&mut self, from: &str, listener: u16, bytes: &[u8]) {
        let local = Local::Signalling { listener: ListenerId(listener) };
        let meta = Meta { source: addr(from), local };
        self.last = self.engine.receive(self.now, meta, bytes, &mut self.out);
        self.turn();
    }

    pub fn send_stream(&mut self, from: &str, listener: u16, message: &str) {
        let message = finish(message);
        let flow = FlowId { shard: ShardId(0), slot: 1, generation: 1 };
        let local = Local::Stream { listener: ListenerId(listener), flow };
        let meta = Meta { source: addr(from), local };
        self.last = self.engine.receive(self.now, meta, message.as_bytes(), &mut self.out);
        self.turn();
    }

    pub fn send_media(&mut self, from: &str, to: SocketAddr, bytes: &[u8]) {
        let port = self.engine.media_ports().iter().position(|spec| spec.addr == to).unwrap();
        let port = MediaPortId(u32::try_from(port).unwrap());
        let meta = Meta { source: addr(from), local: Local::Media { port } };
        self.last = self.engine.receive(self.now, meta, bytes, &mut self.out);
        self.turn();
    }

    /// Has the engine do something, as the shard does between two batches.
    pub fn with_engine<T>(&mut self, work: impl FnOnce(&mut Engine, &mut TxQueue) -> T) -> T {
        let done = work(&mut self.engine, &mut self.out);
        self.turn();
        done
    }

    /// The end of a turn of the shard.
    pub fn turn(&mut self) {
        loop {
            self.engine.run_identity_inline(self.now, &mut self.out);
            let kept = &mut self.kept;
            self.engine.checkpoints(self.now, &mut |change| match change {
                Change::Put { slot, bytes, .. } => drop(kept.insert(slot, bytes.to_vec())),
                Change::Remove { slot } => drop(kept.remove(&slot)),
            });
            let out = std::mem::take(&mut self.out);
            for tx in out.iter() {
                self.deliver(tx);
            }
            if self.out.is_empty() {
                break;
            }
        }
        if let Some(fast) = &mut self.fast {
            fast.turn(&mut self.engine);
        }
        self.engine.take_records(self.now, &mut self.records);
    }

    fn deliver(&mut self, tx: Tx<'_>) {
        let (to, listener) = match tx.egress {
            Egress::Udp { listener, to } | Egress::Connect { listener, to, .. } => (to, listener),
            Egress::Flow { or_connect, .. } => {
                let (listener, to) = or_connect.unwrap();
                (to, listener)
            }
            Egress::Media { to, .. } => {
                self.media.push((to, tx.bytes.to_vec()));
                return;
            }
        };
        if !matches!(tx.egress, Egress::Udp { .. }) {
            if self.refusing.contains(&to) {
                return self.engine.send_failed(self.now, tx.token, &mut self.out);
            }
            let flow = self.flow(to);
            self.engine.sent_through(tx.token, flow);
        }
        if self.dead.contains(&to) {
            return;
        }
        let parsed = Message::parse(tx.bytes, Framing::Stream);
        assert!(parsed.is_ok(), "{parsed:?}\n{}", String::from_utf8_lossy(tx.bytes));
        let text = String::from_utf8(tx.bytes.to_vec()).unwrap();
        self.inbox.push_back(Sent { to, listener, text });
    }

    /// The connection to a peer, which all messages to it share.
    fn flow(&mut self, to: SocketAddr) -> FlowId {
        let known = self.flows.iter().position(|remote| *remote == to);
        let place = known.unwrap_or_else(|| {
            self.flows.push(to);
            self.flows.len() - 1
        });
        FlowId { shard: ShardId(0), slot: 1_000 + u32::try_from(place).unwrap(), generation: 1 }
    }

    /// The connection to a peer ends.
    pub fn close(&mut self, to: &str) {
        let (now, flow) = (self.now, self.flow(addr(to)));
        self.with_engine(|engine, out| engine.flow_closed(now, flow, out));
    }

    /// Lets time pass, timer by timer.
    pub fn pass(&mut self, ms: u64) {
        let end = Instant::from_millis(self.now.mono.as_millis() + ms);
        while let Some(due) = self.engine.next_deadline().filter(|due| *due <= end) {
            self.set_clock(due.max(self.now.mono));
            self.engine.expire(self.now, &mut self.out);
            self.turn();
        }
        self.set_clock(end);
    }

    fn set_clock(&mut self, mono: Instant) {
        let since = mono.since(Instant::from_millis(1_000)).as_millis();
        self.now = Now { mono, unix_ms: START_UNIX_MS + u64::try_from(since).unwrap() };
    }

    /// The oldest message that waits at `at`.
    #[track_caller]
    pub fn take(&mut self, at: &str) -> Msg {
        match self.try_take(at) {
            Some(message) => message,
            None => panic!("nothing arrived at {at}; waiting: {:#?}", self.inbox),
        }
    }

    pub fn try_take(&mut self, at: &str) -> Option<Msg> {
        let at = addr(at);
        let index = self.inbox.iter().position(|sent| sent.to == at)?;
        self.inbox.remove(index).map(|sent| Msg(sent.text))
    }

    /// The oldest message at `at`, which must begin so.
    #[track_caller]
    pub fn expect(&mut self, at: &str, start: &str) -> Msg {
        let message = self.take(at);
        assert!(message.0.starts_with(start), "wanted {start}, got\n{}", message.0);
        message
    }

    /// Nothing waits anywhere.
    #[track_caller]
    pub fn quiet(&self) {
        assert!(self.inbox.is_empty(), "unexpected: {:#?}", self.inbox);
    }

    /// What waits at an address, oldest first.
    pub fn inbox_of(&self, at: &str) -> Vec<&str> {
        let at = addr(at);
        self.inbox.iter().filter(|sent| sent.to == at).map(|sent| sent.text.as_str()).collect()
    }

    pub fn forget_inbox_of(&mut self, at: &str) {
        let at = addr(at);
        self.inbox.retain(|sent| sent.to != at);
    }

    pub fn forget_inbox(&mut self) {
        self.inbox.clear();
    }

    pub fn branch(&mut self) -> String {
        self.branch += 1;
        format!("z9hG4bK-t{}", self.branch)
    }

    /// After 64*T1 and what may follow it, nothing is left but ports at rest.
    #[track_caller]
    pub fn all_gone(&mut self) {
        self.pass(75_000);
        assert!(self.kept.is_empty(), "records are left");
        assert_eq!(self.engine.tables().left_over(), [], "{:#?}", self.engine.calls(self.now, 9));
    }

    pub fn cdrs(&self) -> Vec<&Cdr> {
        self.records
            .iter()
            .filter_map(|entry| match entry {
                Entry::Cdr(cdr) => Some(cdr),
                _ => None,
            })
            .collect()
    }

    #[track_caller]
    pub fn call_cdr(&self) -> &Cdr {
        let all: Vec<_> = self.cdrs().into_iter().filter(|cdr| cdr.kind == CdrKind::Call).collect();
        assert_eq!(all.len(), 1, "{all:#?}");
        all[0]
    }

    pub fn attempt_cdrs(&self) -> Vec<&Cdr> {
        self.cdrs().into_iter().filter(|cdr| cdr.kind == CdrKind::Attempt).collect()
    }

    pub fn events(&self) -> Vec<&AuditEvent> {
        self.records
            .iter()
            .filter_map(|entry| match entry {
                Entry::Audit(event) => Some(event),
                _ => None,
            })
            .collect()
    }

    pub fn event_kinds(&self) -> Vec<&str> {
        self.events().into_iter().map(|event| event.kind.as_str()).collect()
    }
}

pub fn loadout(config: &str, version: u64, registry: &Registry) -> Loadout {
    let compiled = ravelin_policy::compile(config, version).unwrap_or_else(|e| panic!("{e:#?}"));
    Loadout::new(Arc::new(compiled.snapshot), registry)
}
