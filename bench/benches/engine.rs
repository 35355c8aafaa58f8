//! The engine in memory: one whole call from INVITE to the answer to BYE, and one relayed packet.
//! No socket, no copy but the engine's own; the peers' side is not in the measured time.

use std::{
    hint::black_box,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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

const ACCESS: ListenerId = ListenerId(0);
const CORE: ListenerId = ListenerId(1);
const CALLER: &str = "127.0.1.1:5060";
const CALLEE: &str = "127.0.2.1:5060";

struct Rig {
    engine: Engine,
    tx: TxQueue,
    records: Vec<Entry>,
    now_ms: u64,
    call: u64,
}

fn sdp(address: &str, port: u16) -> String {
    format!(
        "v=0\r\no=user1 53655765 2353687637 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\n\
         t=0 0\r\nm=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )
}

impl Rig {
    fn new() -> Self {
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

    fn now(&self) -> Now {
        Now { mono: Instant::from_millis(self.now_ms), unix_ms: 1_790_000_000_000 + self.now_ms }
    }

    /// Feeds one datagram; adds the engine's time to `spent`.
    fn feed(&mut self, from: &str, listener: ListenerId, bytes: &[u8], spent: &mut Duration) {
        let meta =
            Meta { source: from.parse().expect("address"), local: Local::Signalling { listener } };
        let now = self.now();
        self.tx.clear();
        let start = Clock::now();
        black_box(self.engine.receive(now, meta, black_box(bytes), &mut self.tx));
        *spent += start.elapsed();
    }

    /// What was sent to `to` last, of method or code `start`.
    fn sent(&self, to: &str, start: &str) -> Vec<u8> {
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

    /// The messages of SIPp's default scenarios: 6 in, 7 out.
    fn call(&mut self) -> (Duration, u32) {
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
        self.engine.expire(now, &mut self.tx);
        self.engine.take_records(now, &mut self.records);
        spent += start.elapsed();
        let records = u32::try_from(self.records.len()).expect("few");
        self.records.clear();
        (spent, records)
    }
}

fn answer(request: &[u8], code: u16, body: &str) -> String {
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

fn whole_call(c: &mut Criterion) {
    let mut rig = Rig::new();
    // Tables reach their working size after 64*T1.
    for _ in 0..40_000 {
        rig.call();
    }
    c.bench_function("engine/whole_call", |b| {
        b.iter_custom(|calls| (0..calls).map(|_| rig.call().0).sum());
    });
}

fn relay(c: &mut Criterion) {
    let mut rig = Rig::new();
    let mut ports = Vec::new();
    let mut spent = Duration::ZERO;
    for call in 0..500_u16 {
        let body = sdp("127.0.1.1", 10_000 + call * 2);
        let invite = format!(
            "INVITE sip:service@127.0.0.10 SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bK-{call}\r\n\
             From: <sip:a@{CALLER}>;tag={call}\r\nTo: <sip:service@127.0.0.10>\r\n\
             Call-ID: relay-{call}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{CALLER}>\r\n\
             Max-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        rig.feed(CALLER, ACCESS, invite.as_bytes(), &mut spent);
        let invite = rig.sent(CALLEE, "INVITE ");
        let ok = answer(&invite, 200, &sdp("127.0.2.1", 10_000 + call * 2));
        rig.feed(CALLEE, CORE, ok.as_bytes(), &mut spent);
        let ok = rig.sent(CALLER, "SIP/2.0 200 ");
        let ok = Message::parse(&ok, Framing::Datagram).expect("valid");
        let text = std::str::from_utf8(ok.body()).expect("text");
        let port = text.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
        let port: u16 = port.expect("there").parse().expect("number");
        let local = SocketAddr::from(([127, 0, 0, 10], port));
        let id = rig.engine.media_ports().iter().position(|spec| spec.addr == local);
        let id = MediaPortId(u32::try_from(id.expect("ours")).expect("few"));
        ports.push((id, SocketAddr::from(([127, 0, 1, 1], 10_000 + call * 2))));
    }
    let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
    packet.resize(172, 0xff);
    let mut group = c.benchmark_group("engine/relay");
    group.throughput(Throughput::Elements(1));
    for streams in [1, 500] {
        group.bench_function(format!("{streams}_streams"), |b| {
            let now = rig.now();
            let mut next = 0;
            b.iter(|| {
                let (port, source) = ports[next];
                next = (next + 1) % streams;
                if rig.tx.len() == 64 {
                    rig.tx.clear();
                }
                let meta = Meta { source, local: Local::Media { port } };
                rig.engine.receive(now, meta, black_box(&packet), &mut rig.tx)
            });
        });
    }
    group.finish();
    assert!(rig.engine.counters().rtp_packets > 0);
}

criterion_group!(benches, whole_call, relay);
criterion_main!(benches);
