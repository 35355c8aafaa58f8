//! One engine between hand-made SIP peers on virtual time. Peers say exactly what a test has them
//! say; everything that the engine sends lands in the inbox of the address it was sent to.

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

/// CRLF line ends, and a Content-Length.
pub fn finish(message: &str) -> String {
    let message = message.replace("\r\n", "\n");
    let (head, body) = message.split_once("\n\n").unwrap_or_else(|| (message.trim_end(), ""));
    let body = body.replace('\n', "\r\n");
    let head = head.replace('\n', "\r\n");
    if head.to_ascii_lowercase().contains("\r\ncontent-length:") {
        return format!("{head}\r\n\r\n{body}");
    }
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A message as a peer sees it.
#[derive(Clone, Debug)]
pub struct Msg(pub String);

impl Msg {
    pub fn parsed(&self) -> Message<'_> {
        Message::parse(self.0.as_bytes(), Framing::Datagram).unwrap()
    }

    /// The whole value of the first header with this name.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.try_header(name).unwrap_or_else(|| panic!("no {name} in\n{}", self.0))
    }

    pub fn try_header(&self, name: &str) -> Option<&str> {
        self.headers(name).into_iter().next()
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        let (head, _) = self.0.split_once("\r\n\r\n").unwrap();
        head.split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    pub fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().1
    }

    pub fn start(&self) -> &str {
        self.0.split_once("\r\n").unwrap().0
    }

    pub fn request_uri(&self) -> &str {
        self.start().split(' ').nth(1).unwrap()
    }

    pub fn contact_uri(&self) -> &str {
        let contact = self.header("Contact");
        contact.split_once('<').unwrap().1.split_once('>').unwrap().0
    }

    pub fn to_tag(&self) -> String {
        let parsed = self.parsed();
        String::from_utf8(parsed.to().tag().unwrap_or_default().to_vec()).unwrap()
    }

    pub fn cseq(&self) -> u32 {
        self.parsed().cseq().number
    }

    /// Port of the m= line with this index.
    pub fn media_port(&self, index: usize) -> u16 {
        let line = self.body().split("\r\n").filter(|line| line.starts_with("m=")).nth(index);
        line.unwrap().split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// A response to this request: Via, From, To, Call-ID, CSeq as they came. `more` are header
    /// lines, and after an empty line the body.
    pub fn reply(&self, status: &str, tag: &str, more: &str) -> String {
        let mut out = format!("SIP/2.0 {status}\n");
        for via in self.headers("Via") {
            out.push_str(&format!("Via: {via}\n"));
        }
        for route in self.headers("Record-Route") {
            out.push_str(&format!("Record-Route: {route}\n"));
        }
        let to = self.header("To");
        let to = if to.contains(";tag=") || tag.is_empty() {
            to.to_owned()
        } else {
            format!("{to};tag={tag}")
        };
        out.push_str(&format!("From: {}\nTo: {to}\n", self.header("From")));
        out.push_str(&format!("Call-ID: {}\n", self.header("Call-ID")));
        out.push_str(&format!("CSeq: {}\n", self.header("CSeq")));
        out.push_str(more);
        out
    }
}

/// A session description of a peer.
pub fn sdp(ip: &str, port: u16) -> String {
    sdp_with(ip, port, 1, "sendrecv")
}

pub fn sdp_with(ip: &str, port: u16, version: u32, direction: &str) -> String {
    format!(
        "v=0\no=peer 77 {version} IN IP4 {ip}\ns=call\nc=IN IP4 {ip}\nt=0 0\n\
         m=audio {port} RTP/AVP 0 8 101\na=rtpmap:101 telephone-event/8000\na={direction}\n"
    )
}

/// Header and body of a session description.
pub fn sdp_part(ip: &str, port: u16) -> String {
    format!("Content-Type: application/sdp\n\n{}", sdp(ip, port))
}

/// The caller's side of a call, as the test plays it.
#[derive(Clone, Debug)]
pub struct Caller {
    pub from: String,
    pub listener: u16,
    pub call_id: String,
    pub invite: String,
    pub remote: String,
    pub to: String,
    pub branch: String,
    pub cseq: u32,
}

impl Caller {
    /// An INVITE from the PBX to a number, with an offer.
    pub fn dial(world: &mut World, number: &str) -> Self {
        let body = sdp_part("127.0.1.1", 40_000);
        Self::invite(world, PBX, ACCESS, &format!("sip:{number}@127.0.0.10"), &body)
    }

    pub fn invite(world: &mut World, from: &str, listener: u16, uri: &str, more: &str) -> Self {
        let branch = world.branch();
        let ip = addr(from).ip();
        let call_id = format!("call-{branch}@{ip}");
        let to = format!("<{uri}>");
        let invite = format!(
            "INVITE {uri} SIP/2.0\nVia: SIP/2.0/UDP {from};branch={branch}\nMax-Forwards: 70\n\
             From: \"Ann\" <sip:+13135550100@{ip}>;tag=caller\nTo: {to}\nCall-ID: {call_id}\n\
             CSeq: 1 INVITE\nContact: <sip:+13135550100@{from}>\n{more}"
        );
        world.send(from, listener, &invite);
        Self {
            from: from.to_owned(),
            listener,
            call_id,
            invite,
            remote: String::new(),
            to,
            branch,
            cseq: 1,
        }
    }

    /// Takes dialog state from a response.
    pub fn learn(&mut self, response: &Msg) {
        self.to = response.header("To").to_owned();
        if let Some(contact) = response.try_header("Contact") {
            self.remote = contact.trim_matches(['<', '>']).to_owned();
        }
    }

    fn head(&self, method: &str, cseq: u32, branch: &str) -> String {
        let ip = addr(&self.from).ip();
        format!(
            "{method} {} SIP/2.0\nVia: SIP/2.0/UDP {};branch={branch}\nMax-Forwards: 70\n\
             From: \"Ann\" <sip:+13135550100@{ip}>;tag=caller\nTo: {}\nCall-ID: {}\n\
             CSeq: {cseq} {method}\n",
            self.remote, self.from, self.to, self.call_id
        )
    }

    pub fn ack(&self, world: &mut World, more: &str) {
        self.ack_of(world, self.cseq, more);
    }

    pub fn ack_of(&self, world: &mut World, cseq: u32, more: &str) {
        let branch = world.branch();
        let message = format!("{}{more}", self.head("ACK", cseq, &branch));
        world.send(&self.from, self.listener, &message);
    }

    /// ACK of a refusal: same branch, same Request-URI.
    pub fn ack_refusal(&self, world: &mut World, response: &Msg) {
        let uri = self.invite.split(' ').nth(1).unwrap();
        let message = format!(
            "ACK {uri} SIP/2.0\nVia: SIP/2.0/UDP {};branch={}\nFrom: {}\nTo: {}\nCall-ID: {}\n\
             CSeq: 1 ACK\nMax-Forwards: 70\n",
            self.from,
            self.branch,
            response.header("From"),
            response.header("To"),
            self.call_id
        );
        world.send(&self.from, self.listener, &message);
    }

    pub fn cancel(&self, world: &mut World) {
        let uri = self.invite.split(' ').nth(1).unwrap();
        let ip = addr(&self.from).ip();
        let to = self.invite.lines().find(|line| line.starts_with("To:")).unwrap();
        let message = format!(
            "CANCEL {uri} SIP/2.0\nVia: SIP/2.0/UDP {};branch={}\nMax-Forwards: 70\n\
             From: \"Ann\" <sip:+13135550100@{ip}>;tag=caller\n{to}\nCall-ID: {}\nCSeq: 1 CANCEL\n",
            self.from, self.branch, self.call_id
        );
        world.send(&self.from, self.listener, &message);
    }

    /// A new request inside the dialog.
    pub fn request(&mut self, world: &mut World, method: &str, more: &str) {
        self.cseq += 1;
        let branch = world.branch();
        let contact = format!("Contact: <sip:+13135550100@{}>\n", self.from);
        let message = format!("{}{contact}{more}", self.head(method, self.cseq, &branch));
        world.send(&self.from, self.listener, &message);
    }
}

/// The callee's side of a call, as the test plays it.
#[derive(Clone, Debug)]
pub struct Callee {
    pub at: String,
    pub tag: String,
    pub invite: Msg,
    pub cseq: u32,
}

impl Callee {
    /// Takes the INVITE that arrived.
    #[track_caller]
    pub fn take(world: &mut World, at: &str) -> Self {
        let invite = world.expect(at, "INVITE ");
        Self {
            at: at.to_owned(),
            tag: format!("callee{at}").replace([':', '.'], "-"),
            invite,
            cseq: 0,
        }
    }

    pub fn reply(&self, world: &mut World, status: &str, more: &str) {
        let contact = format!("Contact: <sip:callee@{}>\n", self.at);
        let message = self.invite.reply(status, &self.tag, &format!("{contact}{more}"));
        world.send(&self.at, CORE, &message);
    }

    pub fn answer(&self, world: &mut World) {
        let ip = addr(&self.at).ip().to_string();
        self.reply(world, "200 OK", &sdp_part(&ip, 50_000));
    }

    /// A new request inside the dialog.
    pub fn request(&mut self, world: &mut World, method: &str, more: &str) {
        self.cseq += 1;
        let branch = world.branch();
        let target = self.invite.contact_uri();
        let message = format!(
            "{method} {target} SIP/2.0\nVia: SIP/2.0/UDP {at};branch={branch}\nMax-Forwards: 70\n\
             From: {to};tag={tag}\nTo: {from}\nCall-ID: {call_id}\nCSeq: {cseq} {method}\n\
             Contact: <sip:callee@{at}>\n{more}",
            at = self.at,
            to = self.invite.header("To"),
            tag = self.tag,
            from = self.invite.header("From"),
            call_id = self.invite.header("Call-ID"),
            cseq = self.cseq,
        );
        let at = self.at.clone();
        world.send(&at, CORE, &message);
    }
}

/// A call from the PBX through carrier-a, answered and acknowledged.
#[track_caller]
pub fn connected(world: &mut World) -> (Caller, Callee) {
    let mut caller = Caller::dial(world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(world, CARRIER_A);
    callee.reply(world, "180 Ringing", "");
    let ringing = world.expect(PBX, "SIP/2.0 180");
    caller.learn(&ringing);
    callee.answer(world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(world, "");
    world.quiet();
    (caller, callee)
}
