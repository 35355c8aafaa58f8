//! Engines between hand-written peers on a virtual clock. Every datagram that leaves an engine lands
//! in the mailbox of the address it was sent to.
#![allow(dead_code, unreachable_pub)] // each test file is a crate that uses a part

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use ravelin_contract::{cdr::Cdr, chain::Entry};
use ravelin_engine::{
    admission::Registry,
    drops::DropReason,
    engine::{Engine, EngineConfig, Received},
    limits::Limits,
    loadout::Loadout,
    port::{Egress, ListenerId, Local, MediaPortId, Meta, ShardId, TxQueue},
    time::{Instant, Now},
};
use ravelin_policy::Snapshot;
use ravelin_wire::sip::{Framing, Message};

/// Two realms, a customer, two carriers, an emergency trunk.
pub const CONFIG: &str = r#"
node: edge-1
deployment: { mode: production }
edge:
  cores: [0, 1]
  listeners:
    - { id: access-udp, realm: access, transport: udp, bind: "127.0.0.10:5060" }
    - { id: access-tcp, realm: access, transport: tcp, bind: "127.0.0.10:5060" }
    - { id: core-udp, realm: core, transport: udp, bind: "127.0.0.20:5060" }
    - { id: core-tcp, realm: core, transport: tcp, bind: "127.0.0.20:5060" }
  media:
    - { realm: access, address: 127.0.0.10, ports: 20000-20399 }
    - { realm: core, address: 127.0.0.20, ports: 30000-30399 }
trunks:
  - id: pbx
    realm: access
    role: customer
    sources: [127.0.1.0/24]
    targets: [{ uri: "sip:127.0.1.1:5060" }]
    limits: { calls: 20 }
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
  - id: psap
    realm: core
    role: emergency
    targets: [{ uri: "sip:127.0.9.9:5060" }]
routes:
  - { id: outbound, from: [pbx], to: "*", trunks: [carrier-a, carrier-b] }
  - { id: inbound, from: [carrier-a, carrier-b], to: "*", trunks: [pbx] }
features:
  karis_law: { enabled: true, emergency_trunk_id: "psap" }
"#;

pub const ACCESS: ListenerId = ListenerId(0);
pub const CORE: ListenerId = ListenerId(2);
pub const CALLER: &str = "127.0.1.1:5060";
pub const CALLEE: &str = "127.0.2.1:5060";
pub const CALLEE_B: &str = "127.0.3.1:5060";
pub const PSAP: &str = "127.0.9.9:5060";

/// A datagram as a peer gets it.
#[derive(Clone, Debug)]
pub struct Got {
    pub at_ms: u64,
    pub bytes: Vec<u8>,
    pub from: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Signalling(ListenerId),
    Media(ShardId, MediaPortId),
}

impl Got {
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }

    pub fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes, Framing::Datagram).unwrap()
    }

    /// `INVITE`, or `180 INVITE`.
    pub fn summary(&self) -> String {
        let message = self.message();
        match message.code() {
            Some(code) => format!("{code} {}", message.cseq().method),
            None => message.method().unwrap().to_string(),
        }
    }
}

pub struct World {
    pub engines: Vec<Engine>,
    pub now: Instant,
    mail: BTreeMap<SocketAddr, VecDeque<Got>>,
    pub drops: Vec<DropReason>,
    pub records: Vec<Entry>,
    /// Datagrams that the first shard asked had to hand to another.
    pub passed_on: usize,
    /// Which shard gets a datagram first.
    pub first_shard: usize,
    tx: TxQueue,
    snapshot: Arc<Snapshot>,
}

const UNIX_MS: u64 = 1_790_000_000_000;

impl World {
    pub fn new(shards: u8) -> Self {
        Self::with(shards, CONFIG, Limits::default())
    }

    pub fn with(shards: u8, config: &str, limits: Limits) -> Self {
        let compiled = ravelin_policy::compile(config, 1);
        let snapshot = Arc::new(compiled.unwrap_or_else(|faults| panic!("{faults:?}")).snapshot);
        let registry = Registry::default();
        let engines = (0..shards)
            .map(|shard| {
                let config = EngineConfig {
                    shard: ShardId(shard),
                    shards,
                    node: "edge-1".to_owned(),
                    limits,
                    seed: [42; 32],
                    started_unix_ms: UNIX_MS,
                };
                let loadout = Arc::new(Loadout::new(Arc::clone(&snapshot), &registry));
                let mut engine = Engine::new(config, loadout);
                for port in 0..engine.media_ports().len() {
                    engine.media_port_opened(MediaPortId(u32::try_from(port).unwrap()));
                }
                engine
            })
            .collect();
        Self {
            engines,
            now: Instant::from_millis(1_000),
            mail: BTreeMap::new(),
            drops: Vec::new(),
            records: Vec::new(),
            passed_on: 0,
            first_shard: 0,
            tx: TxQueue::default(),
            snapshot,
        }
    }

    pub fn clock(&self) -> Now {
        Now { mono: self.now, unix_ms: UNIX_MS + self.now.as_millis() }
    }

    /// A peer sends a datagram to a signalling listener.
    pub fn send(&mut self, from: &str, listener: ListenerId, bytes: &[u8]) -> Received {
        self.deliver(from.parse().unwrap(), Local::Signalling { listener }, bytes)
    }

    fn deliver(&mut self, source: SocketAddr, local: Local, bytes: &[u8]) -> Received {
        let meta = Meta { source, local };
        let mut shard = self.first_shard;
        let mut placed = None;
        for _ in 0..self.engines.len() + 2 {
            let received = match placed {
                None => self.receive_at(shard, meta, bytes),
                Some(tried) => self.place_at(shard, meta, bytes, tried),
            };
            match received {
                Received::Placed { shard: next, tried } => {
                    (shard, placed) = (usize::from(next.0), Some(tried));
                }
                Received::Elsewhere(owner) => {
                    self.passed_on += 1;
                    shard = usize::from(owner.0);
                }
                received => return received,
            }
        }
        panic!("passed on in circles");
    }

    fn receive_at(&mut self, shard: usize, meta: Meta, bytes: &[u8]) -> Received {
        let now = self.clock();
        let received = self.engines[shard].receive(now, meta, bytes, &mut self.tx);
        if let Received::Dropped(reason) = received {
            self.drops.push(reason);
        }
        self.engines[shard].run_identity_inline(now, &mut self.tx);
        self.post(shard);
        received
    }

    fn place_at(&mut self, shard: usize, meta: Meta, bytes: &[u8], tried: u8) -> Received {
        let now = self.clock();
        let engine = &mut self.engines[shard];
        let received = engine.receive_placed(now, meta, bytes, tried, &mut self.tx);
        engine.run_identity_inline(now, &mut self.tx);
        self.post(shard);
        received
    }

    /// A peer sends RTP to the address that SDP told it.
    pub fn send_media(&mut self, from: &str, to: SocketAddr, bytes: &[u8]) -> Received {
        let found = self.engines.iter().enumerate().find_map(|(shard, engine)| {
            let port = engine.media_ports().iter().position(|spec| spec.addr == to)?;
            Some((shard, MediaPortId(u32::try_from(port).unwrap())))
        });
        let (shard, port) = found.unwrap_or_else(|| panic!("{to} is no port of ours"));
        let meta = Meta { source: from.parse().unwrap(), local: Local::Media { port } };
        self.receive_at(shard, meta, bytes)
    }

    fn post(&mut self, shard: usize) {
        let at_ms = self.now.as_millis();
        for tx in self.tx.iter() {
            let (to, from) = match tx.egress {
                Egress::Udp { listener, to } | Egress::Connect { listener, to, .. } => {
                    (to, Origin::Signalling(listener))
                }
                Egress::Flow { or_connect, .. } => {
                    let (listener, to) = or_connect.unwrap();
                    (to, Origin::Signalling(listener))
                }
                Egress::Media { port, to } => {
                    (to, Origin::Media(ShardId(u8::try_from(shard).unwrap()), port))
                }
            };
            let got = Got { at_ms, bytes: tx.bytes.to_vec(), from };
            self.mail.entry(to).or_default().push_back(got);
        }
        self.tx.clear();
        let now = self.clock();
        self.engines[shard].take_records(now, &mut self.records);
    }

    /// The next datagram in a peer's mailbox.
    pub fn take(&mut self, peer: &str) -> Option<Got> {
        self.mail.get_mut(&peer.parse().unwrap())?.pop_front()
    }

    /// The next datagram in a peer's mailbox, which must be this.
    pub fn expect(&mut self, peer: &str, summary: &str) -> Got {
        let got = self.take(peer);
        let got = got.unwrap_or_else(|| panic!("{peer}: nothing came, expected {summary}"));
        assert_eq!(got.summary(), summary, "{peer}: {}", got.text());
        got
    }

    /// Everything in a peer's mailbox, as summaries.
    pub fn all(&mut self, peer: &str) -> Vec<String> {
        std::iter::from_fn(|| self.take(peer)).map(|got| got.summary()).collect()
    }

    pub fn assert_quiet(&mut self) {
        for (peer, mail) in &self.mail {
            let summaries: Vec<_> = mail.iter().map(Got::summary).collect();
            assert!(mail.is_empty(), "{peer} has mail: {summaries:?}");
        }
    }

    /// Forgets all mail.
    pub fn clear_mail(&mut self) {
        self.mail.clear();
    }

    /// Lets time pass, timers included.
    pub fn run(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        loop {
            let next = self.engines.iter().filter_map(Engine::next_deadline).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            for shard in 0..self.engines.len() {
                let now = self.clock();
                self.engines[shard].expire(now, &mut self.tx);
                self.engines[shard].run_identity_inline(now, &mut self.tx);
                self.post(shard);
            }
        }
        self.now = until;
    }

    /// After the longest that anything may wait: every table is empty.
    pub fn assert_all_over(&mut self) {
        self.run(200_000);
        for engine in &self.engines {
            assert_eq!(engine.tables().left_over(), []);
        }
    }

    pub fn cdrs(&self) -> Vec<Cdr> {
        self.records
            .iter()
            .filter_map(|entry| match entry {
                Entry::Cdr(cdr) => Some(cdr.clone()),
                _ => None,
            })
            .collect()
    }

    /// Sum over the shards of something counted.
    pub fn count(&self, what: impl Fn(&ravelin_engine::counters::Counters) -> u64) -> u64 {
        self.engines.iter().map(|engine| what(engine.counters())).sum()
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// SDP of one audio stream at `address`.
pub fn sdp(address: &str, version: u32, extra: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    let (ip, port) = (address.ip(), address.port());
    format!(
        "v=0\r\no=peer 53655765 {version} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         {extra}"
    )
}

/// Where an SDP body says that RTP goes.
pub fn media_address(body: &[u8]) -> SocketAddr {
    let text = std::str::from_utf8(body).unwrap();
    let field = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start} in {text}")).split(' ').collect::<Vec<_>>()
    };
    let (c, m) = (field("c="), field("m=audio"));
    SocketAddr::new(c[2].parse().unwrap(), m[1].parse().unwrap())
}

/// A caller with numbers of its own.
pub struct Caller {
    pub address: String,
    pub media: String,
    pub id: String,
    pub number: String,
    pub cseq: u32,
}

impl Caller {
    pub fn new(id: &str) -> Self {
        Self {
            address: CALLER.to_owned(),
            media: "127.0.1.1:6000".to_owned(),
            id: id.to_owned(),
            number: "+13135550111".to_owned(),
            cseq: 1,
        }
    }

    pub fn invite(&self) -> String {
        self.invite_with("", &sdp(&self.media, 1, ""))
    }

    /// An INVITE with more header lines and any SDP (or none).
    pub fn invite_with(&self, headers: &str, body: &str) -> String {
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "INVITE sip:{number}@127.0.0.10 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {address};branch=z9hG4bK{id}i{cseq}\r\nMax-Forwards: 70\r\n\
             From: \"Alice\" <sip:alice@{address}>;tag=a{id}\r\nTo: <sip:{number}@127.0.0.10>\r\n\
             Call-ID: {id}@{address}\r\nCSeq: {cseq} INVITE\r\n\
             Contact: <sip:alice@{address}>\r\n{headers}{content}Content-Length: {len}\r\n\r\n{body}",
            number = self.number,
            address = self.address,
            id = self.id,
            cseq = self.cseq,
            len = body.len(),
        )
    }

    /// A request inside the dialog that `answer` made, or an ACK or CANCEL of the INVITE.
    pub fn request(&self, method: &str, cseq: u32, answer: &Got) -> String {
        let answer = answer.message();
        let to = std::str::from_utf8(answer.header(ravelin_wire::sip::HeaderName::To).unwrap());
        let target = answer
            .contact()
            .map_or("sip:x@127.0.0.10", |contact| std::str::from_utf8(contact.uri).unwrap());
        self.request_to(method, cseq, target, to.unwrap(), &format!("{}{method}{cseq}", self.id))
    }

    pub fn request_to(
        &self,
        method: &str,
        cseq: u32,
        target: &str,
        to: &str,
        branch: &str,
    ) -> String {
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{branch}\r\n\
             Max-Forwards: 70\r\nFrom: \"Alice\" <sip:alice@{address}>;tag=a{id}\r\nTo: {to}\r\n\
             Call-ID: {id}@{address}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:alice@{address}>\r\nContent-Length: 0\r\n\r\n",
            address = self.address,
            id = self.id,
        )
    }

    pub fn cancel(&self) -> String {
        let to = format!("<sip:{}@127.0.0.10>", self.number);
        let target = format!("sip:{}@127.0.0.10", self.number);
        let branch = format!("{}i{}", self.id, self.cseq);
        self.request_to("CANCEL", self.cseq, &target, &to, &branch)
    }

    /// The ACK of a refusal: same branch as the INVITE.
    pub fn ack_refusal(&self, refusal: &Got) -> String {
        let refusal = refusal.message();
        let to = std::str::from_utf8(refusal.header(ravelin_wire::sip::HeaderName::To).unwrap());
        let target = format!("sip:{}@127.0.0.10", self.number);
        let branch = format!("{}i{}", self.id, self.cseq);
        self.request_to("ACK", self.cseq, &target, to.unwrap(), &branch)
    }
}

/// What a callee answers to a request it got.
pub fn answer(request: &Got, code: u16, tag: &str, body: &str) -> String {
    let message = request.message();
    let mut out = format!("SIP/2.0 {code} X\r\n");
    for header in message.headers() {
        use ravelin_wire::sip::HeaderName as H;
        if !matches!(header.name, H::Via | H::From | H::To | H::CallId | H::CSeq | H::RecordRoute) {
            continue;
        }
        let value = std::str::from_utf8(header.value).unwrap();
        let tagged = header.name == H::To && message.to().tag().is_none() && code > 100;
        let suffix = if tagged { format!(";tag={tag}") } else { String::new() };
        out.push_str(&format!("{}: {value}{suffix}\r\n", header.name));
    }
    let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    out.push_str(&format!(
        "Contact: <sip:bob@callee.invalid:5060>\r\n{content}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    out
}

pub fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 160, 0xde, 0xad, 0xbe, 0xef]);
    packet.extend_from_slice(&[0xff; 160]);
    packet
}
