//! The engine in memory with peers at both ends: one whole call from INVITE to the answer to BYE.
//! No socket, no copy but the engine's own; the peers' side is not in the measured time.

use std::{
    hint::black_box,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use ravelin_contract::chain::Entry;
use ravelin_engine::{
    admission::Registry,
    engine::{Engine, EngineConfig},
    limits::Limits,
    loadout::Loadout,
    port::{Egress, ListenerId, Local, MediaPortId, Meta, ShardId, TxQueue},
    time::{Instant, Now},
};
use ravelin_wire::sip::{Framing, HeaderName, Message};

const CONFIG: &str = r#"
node: bench
edge:
  cores: [0]
  listeners:
    - { id: access-udp, realm: access, transport: udp, bind: "127.0.0.10:5060" }
    - { id: core-udp, realm: core, transport: udp, bind: "127.0.0.20:5060" }
  media:
    - { realm: access, address: 127.0.0.10, ports: 10000-59999 }
    - { realm: core, address: 127.0.0.20, ports: 10000-59999 }
trunks:
  - id: pbx
    realm: access
    role: customer
    sources: [127.0.1.0/24]
    targets: [{ uri: "sip:127.0.1.1:5060" }]
  - id: carrier
    realm: core
    role: carrier
    sources: [127.0.2.0/24]
    targets: [{ uri: "sip:127.0.2.1:5060" }]
routes:
  - { id: outbound, from: [pbx], to: "*", trunks: [carrier] }
"#;

/// The listener toward the caller.
pub const ACCESS: ListenerId = ListenerId(0);
/// The listener toward the callee.
pub const CORE: ListenerId = ListenerId(1);
/// The caller.
pub const CALLER: &str = "127.0.1.1:5060";
/// The callee.
pub const CALLEE: &str = "127.0.2.1:5060";

/// An engine, its peers and its clock.
pub struct Rig {
    /// The engine.
    pub engine: Engine,
    /// What it sent for the last message.
    pub tx: TxQueue,
    records: Vec<Entry>,
    now_ms: u64,
    call: u64,
}

/// A description of one stream at `address:port`.
#[must_use]
pub fn sdp(address: &str, port: u16) -> String {
    format!(
        "v=0\r\no=user1 53655765 2353687637 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\n\
         t=0 0\r\nm=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )
}

impl Rig {
    /// A new engine.
    ///
    /// # Panics
    /// If the settings above are not valid.
    #[must_use]
    #[allow(clippy::new_without_default)] // it is made once, and says so
    pub fn new() -> Self {
        let snapshot = ravelin_policy::compile(CONFIG, 1).expect("valid").snapshot;
        let loadout = Loadout::new(Arc::new(snapshot), &Registry::default());
        let config = EngineConfig {
            shard: ShardId(0),
            shards: 1,
            node: "bench".to_owned(),
            limits: Limits { media_quarantine: Duration::from_secs(1), ..Limits::default() },
            seed: [7; 32],
            started_unix_ms: 0,
        };
        let mut engine = Engine::new(config, Arc::new(loadout));
        for port in 0..engine.media_ports().len() {
            engine.media_port_opened(MediaPortId(u32::try_from(port).expect("few")));
        }
        Self { engine, tx: TxQueue::default(), records: Vec::new(), now_ms: 1_000, call: 0 }
    }

    /// Its time.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: Instant::from_millis(self.now_ms), unix_ms: 1_790_000_000_000 + self.now_ms }
    }

    /// Feeds one datagram; adds the engine's time to `spent`.
    ///
    /// # Panics
    /// If `from` is no address.
    pub fn feed(&mut self, from: &str, listener: ListenerId, bytes: &[u8], spent: &mut Duration) {
        let meta =
            Meta { source: from.parse().expect("address"), local: Local::Signalling { listener } };
        let now = self.now();
        self.tx.clear();
        let start = Clock::now();
        receive(&mut self.engine, now, meta, black_box(bytes), &mut self.tx);
        *spent += start.elapsed();
    }

    /// What was sent to `to` last, of method or code `start`.
    ///
    /// # Panics
    /// If nothing was.
    #[must_use]
    pub fn sent(&self, to: &str, start: &str) -> Vec<u8> {
        let to: SocketAddr = to.parse().expect("address");
        self.tx
            .iter()
            .find(|tx| {
                tx.bytes.starts_with(start.as_bytes())
                    && matches!(tx.egress, Egress::Udp { to: sent, .. } if sent == to)
            })
            .unwrap_or_else(|| panic!("no {start} to {to}"))
            .bytes
            .to_vec()
    }

    /// The messages of SIPp's default scenarios: 6 in, 7 out. Time and records of the call.
    ///
    /// # Panics
    /// If the engine does not do its part.
    pub fn call(&mut self) -> (Duration, u32) {
        self.call += 1;
        let call = self.call;
        let mut spent = Duration::ZERO;
        let body = sdp("127.0.1.1", 6000);
        let caller = |method: &str, cseq: u32, uri: &str, to: &str, body: &str| {
            let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
            let branch = if method == "INVITE" { 0 } else { cseq * 10 + 5 };
            format!(
                "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bK-{call}-{branch}\r\n\
                 From: sipp <sip:sipp@{CALLER}>;tag=3131SIPpTag00{call}\r\nTo: {to}\r\n\
                 Call-ID: {call}-3131@127.0.1.1\r\nCSeq: {cseq} {method}\r\n\
                 Contact: sip:sipp@{CALLER}\r\nMax-Forwards: 70\r\nSubject: Performance Test\r\n\
                 {content}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let to = "service <sip:service@127.0.0.10:5060>";
        let invite = caller("INVITE", 1, "sip:service@127.0.0.10:5060", to, &body);
        self.feed(CALLER, ACCESS, invite.as_bytes(), &mut spent);
        let invite = self.sent(CALLEE, "INVITE ");
        self.feed(CALLEE, CORE, answer(&invite, 180, "").as_bytes(), &mut spent);
        let ok = answer(&invite, 200, &sdp("127.0.2.1", 7000));
        self.feed(CALLEE, CORE, ok.as_bytes(), &mut spent);
        let ok = self.sent(CALLER, "SIP/2.0 200 ");
        let ok = Message::parse(&ok, Framing::Datagram).expect("valid");
        let to = std::str::from_utf8(ok.header(HeaderName::To).expect("there")).expect("text");
        let uri = std::str::from_utf8(ok.contact().expect("there").uri).expect("text");
        let ack = caller("ACK", 1, uri, to, "");
        self.feed(CALLER, ACCESS, ack.as_bytes(), &mut spent);
        let bye = caller("BYE", 2, uri, to, "");
        self.feed(CALLER, ACCESS, bye.as_bytes(), &mut spent);
        let bye = self.sent(CALLEE, "BYE ");
        self.feed(CALLEE, CORE, answer(&bye, 200, "").as_bytes(), &mut spent);
        // 1,000 calls/s: the timers of the calls of 32 s ago.
        self.now_ms += 1;
        let now = self.now();
        let start = Clock::now();
        end_turn(&mut self.engine, now, &mut self.tx, &mut self.records);
        spent += start.elapsed();
        let records = u32::try_from(self.records.len()).expect("few");
        self.records.clear();
        (spent, records)
    }
}

/// The engine's part of a message. A function of its own, so that instructions can be counted in it
/// alone.
#[inline(never)]
fn receive(engine: &mut Engine, now: Now, meta: Meta, bytes: &[u8], tx: &mut TxQueue) {
    black_box(engine.receive(now, meta, bytes, tx));
}

/// The engine's part of the end of a turn.
#[inline(never)]
fn end_turn(engine: &mut Engine, now: Now, tx: &mut TxQueue, records: &mut Vec<Entry>) {
    engine.expire(now, tx);
    engine.take_records(now, records);
}

/// An answer to `request`.
///
/// # Panics
/// If `request` is no message.
#[must_use]
pub fn answer(request: &[u8], code: u16, body: &str) -> String {
    let message = Message::parse(request, Framing::Datagram).expect("valid");
    let value = |name| std::str::from_utf8(message.header(name).expect("there")).expect("text");
    let tag = if message.to().tag().is_none() { ";tag=3132SIPpTag01" } else { "" };
    let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "SIP/2.0 {code} OK\r\nVia: {}\r\nFrom: {}\r\nTo: {}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
         Contact: <sip:127.0.2.1:5060;transport=UDP>\r\n{content}Content-Length: {}\r\n\r\n{body}",
        value(HeaderName::Via),
        value(HeaderName::From),
        value(HeaderName::To),
        value(HeaderName::CallId),
        value(HeaderName::CSeq),
        body.len()
    )
}
