use ravelin_policy::Snapshot;
use ravelin_wire::sip::Framing;

use super::*;
use crate::{
    admission::{Registry, TargetState},
    counters::Counters,
    ids::Seed,
    limits::Limits,
    port::{ShardId, TxQueue},
    sip::{
        reply,
        transaction::{ClientEvent, TuEvent},
    },
    timer::Wheel,
};

fn snapshot(version: u64, trunks: &str) -> Arc<Snapshot> {
    let document = format!(
        r#"
node: n1
edge:
  listeners:
    - {{ id: core-udp, realm: core, transport: udp, bind: "127.0.0.20:5060" }}
    - {{ id: core-tcp, realm: core, transport: tcp, bind: "127.0.0.20:5061" }}
  media:
    - {{ realm: core, address: 127.0.0.20, ports: 30000-30099 }}
trunks:
{trunks}
"#
    );
    let compiled = ravelin_policy::compile(&document, version);
    Arc::new(compiled.unwrap_or_else(|faults| panic!("{faults:?}")).snapshot)
}

const CARRIER: &str = r#"
  - id: carrier
    realm: core
    role: carrier
    sources: [127.0.2.0/24]
    targets: [{ uri: "sip:127.0.2.1:5060" }, { uri: "sip:127.0.2.2:5070;transport=tcp" }]
    options: { interval: 10s, failures: 3 }
  - id: quiet
    realm: core
    role: carrier
    sources: [127.0.3.0/24]
    targets: [{ uri: "sip:127.0.3.1:5060" }]
"#;

/// When, where and what.
type Sent = (u64, Egress, Vec<u8>);

struct Rig {
    prober: Prober,
    layer: Layer,
    wheel: Wheel,
    tx: TxQueue,
    counters: Counters,
    registry: Registry,
    loadout: Loadout,
    now: Instant,
}

macro_rules! ctx {
    ($rig:expr) => {
        &mut Ctx { wheel: &mut $rig.wheel, tx: &mut $rig.tx, counters: &mut $rig.counters }
    };
}

impl Rig {
    fn new() -> Self {
        let registry = Registry::default();
        let loadout = Loadout::new(snapshot(1, CARRIER), &registry);
        let mut rig = Self {
            prober: Prober::default(),
            layer: Layer::new(Limits::default(), &Seed([1; 32]), ShardId(0)),
            wheel: Wheel::new(Instant(0)),
            tx: TxQueue::default(),
            counters: Counters::default(),
            registry,
            loadout,
            now: Instant(0),
        };
        // The first probe leaves at 1 ms.
        let start = Instant::from_millis(1);
        rig.prober.install(start, &rig.loadout, &mut rig.layer, ctx!(rig));
        rig
    }

    fn install(&mut self, trunks: &str) {
        self.loadout = Loadout::new(snapshot(2, trunks), &self.registry);
        self.prober.install(self.now, &self.loadout, &mut self.layer, ctx!(self));
    }

    /// Lets time pass; gives the probes that were sent (time, egress, message) and the changes.
    fn run(&mut self, ms: u64) -> (Vec<Sent>, Vec<(u64, Change)>) {
        let until = self.now + Duration::from_millis(ms);
        let (mut sent, mut changes) = (Vec::new(), Vec::new());
        while let Some(next) = self.wheel.next_deadline().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            while let Some(timer) = self.wheel.pop_expired(self.now) {
                let change = match timer {
                    Timer::Probe { target, generation } => self.prober.fire(
                        self.now,
                        (target, generation),
                        &mut self.layer,
                        ctx!(self),
                    ),
                    _ => match self.layer.fire(self.now, timer, ctx!(self)) {
                        Some(TuEvent::Timeout { owner, .. }) => self.prober.failed(owner),
                        Some(other) => panic!("{other:?}"),
                        None => None,
                    },
                };
                let at = self.now.as_millis();
                changes.extend(change.map(|change| (at, change)));
                sent.extend(self.tx.iter().map(|tx| (at, tx.egress, tx.bytes.to_vec())));
                self.tx.clear();
            }
        }
        self.now = until;
        (sent, changes)
    }

    fn answer(
        &mut self,
        probe: &[u8],
        code: u16,
        header: Option<(HeaderName, &[u8])>,
    ) -> Option<Change> {
        let message = Message::parse(probe, Framing::Datagram).unwrap();
        let mut out = Vec::new();
        let source = "127.0.2.1:5060".parse().unwrap();
        let mut writer = reply::begin(&message, source, code, b"x", b"t", &mut out);
        if let Some((name, value)) = header {
            writer.header(name, value);
        }
        writer.finish().unwrap();
        let response = Message::parse(&out, Framing::Datagram).unwrap();
        match self.layer.receive_response(self.now, &response, ctx!(self)) {
            ClientEvent::Final { owner, .. } => self.prober.answered(self.now, owner, &response),
            other => panic!("{other:?}"),
        }
    }

    fn health(&self, target: usize) -> &TargetHealth {
        &self.loadout.gauges[0].targets()[target]
    }
}

fn is_udp(egress: Egress) -> bool {
    matches!(egress, Egress::Udp { listener: ListenerId(0), to } if to.to_string() == "127.0.2.1:5060")
}

#[test]
fn targets_are_probed_at_the_interval_from_their_listener() {
    let mut rig = Rig::new();
    assert_eq!(rig.prober.len(), 2, "a trunk without options is not probed");
    let mut cseqs = Vec::new();
    for round in 0..3_u64 {
        let (sent, changes) = rig.run(1);
        assert!(changes.is_empty());
        let (at, egress, probe) = &sent[0];
        assert_eq!(*at, round * 10_000 + 1);
        assert!(is_udp(*egress));
        let message = Message::parse(probe, Framing::Datagram).unwrap();
        assert_eq!(message.method(), Some(Method::Options));
        assert_eq!(message.request_uri(), Some(&b"sip:127.0.2.1:5060"[..]));
        assert_eq!(message.top_via().host, b"127.0.0.20");
        cseqs.push(message.cseq().number);
        assert_eq!(rig.answer(probe, 200, None), None);
        assert_eq!(rig.health(0).state(), TargetState::Up);
        let (sent, _) = rig.run(9_999);
        // The other target has TCP, and its own pace; it never answers here.
        assert!(sent.iter().all(|(_, egress, probe)| {
            matches!(egress, Egress::Connect { listener: ListenerId(1), .. })
                && probe.windows(12).any(|window| window == b"SIP/2.0/TCP ")
        }));
        assert_eq!(sent.len(), 1);
    }
    assert_eq!(cseqs, [1, 2, 3]);
}

/// Three unanswered probes take a target down, one answer brings it back.
#[test]
fn a_silent_target_goes_down_and_comes_back() {
    let mut rig = Rig::new();
    let (_, changes) = rig.run(35_000);
    let down = |at, target| (at, Change { trunk: TrunkId(0), target, up: false });
    assert_eq!(changes, [down(30_001, 0), down(30_021, 1)]);
    assert!(!rig.loadout.gauges[0].is_usable(0, rig.now));
    assert_eq!(rig.health(0).failures(), 3);
    let (sent, changes) = rig.run(4_000);
    assert!(changes.is_empty(), "it goes down once");
    let probe = sent.iter().find(|(_, egress, _)| is_udp(*egress)).unwrap();
    // Any final response is a sign of life.
    assert_eq!(
        rig.answer(&probe.2, 404, None),
        Some(Change { trunk: TrunkId(0), target: 0, up: true })
    );
    assert!(rig.loadout.gauges[0].is_usable(0, rig.now));
}

/// SIPp's built-in callee answers calls and no OPTIONS: it must not lose its calls for that.
#[test]
fn a_target_that_answers_calls_is_up_and_is_not_asked() {
    let mut rig = Rig::new();
    rig.run(32_000);
    assert_eq!(rig.health(0).state(), TargetState::Down);
    rig.health(0).heard(rig.now);
    let (_, changes) = rig.run(8_100);
    let up = Change { trunk: TrunkId(0), target: 0, up: true };
    assert_eq!(changes.into_iter().map(|(_, change)| change).collect::<Vec<_>>(), [up]);
    rig.health(0).heard(rig.now);
    let (sent, _) = rig.run(9_000);
    assert!(sent.iter().all(|(_, egress, _)| !is_udp(*egress)), "it was asked all the same");
    // Without calls it is asked again, and goes down again.
    let (sent, changes) = rig.run(45_000);
    assert!(sent.iter().filter(|(_, egress, _)| is_udp(*egress)).count() >= 3);
    assert!(changes.iter().any(|(_, change)| change.target == 0 && !change.up));
}

#[test]
fn a_503_is_no_sign_of_health_and_its_retry_after_holds() {
    let mut rig = Rig::new();
    let mut change = None;
    for _ in 0..3 {
        assert_eq!(change, None);
        let (sent, _) = rig.run(1);
        change = rig.answer(&sent[0].2, 503, None);
        rig.run(9_999);
    }
    assert_eq!(change, Some(Change { trunk: TrunkId(0), target: 0, up: false }));

    let mut rig = Rig::new();
    let (sent, _) = rig.run(1);
    assert_eq!(rig.answer(&sent[0].2, 503, Some((HeaderName::RetryAfter, b"7 (soon)"))), None);
    let after = |seconds| rig.now + Duration::from_secs(seconds);
    let gauge = &rig.loadout.gauges[0];
    assert!(!gauge.is_usable(0, after(6)) && gauge.is_usable(0, after(7)));
    assert_eq!(rig.health(0).state(), TargetState::Unprobed);
}

#[test]
fn a_connection_that_cannot_be_made_is_a_failure() {
    let mut rig = Rig::new();
    let mut changes = Vec::new();
    for _ in 0..3 {
        let (sent, _) = rig.run(10);
        assert!(is_udp(sent[0].1));
        let (listener, to) = (ListenerId(0), "127.0.2.1:5060".parse().unwrap());
        let mut events = Vec::new();
        rig.layer.unreachable(listener, to, ctx!(rig), &mut events);
        let [TuEvent::TransportError { owner, .. }] = events[..] else { panic!("{events:?}") };
        changes.push(rig.prober.failed(owner));
        rig.run(9_990);
    }
    assert_eq!(changes, [None, None, Some(Change { trunk: TrunkId(0), target: 0, up: false })]);
}

/// A push every 50 ms must not keep probes from ever being sent, nor lose what is known.
#[test]
fn config_pushes_do_not_disturb_probing() {
    let mut rig = Rig::new();
    let mut sent = 0;
    for _ in 0..1_000 {
        sent += rig.run(50).0.iter().filter(|(_, egress, _)| is_udp(*egress)).count();
        rig.install(CARRIER);
    }
    // 5 rounds in 50 s; UDP repeats each probe at 0.5, 1.5, 3.5 and 7.5 s.
    assert_eq!(sent, 25);
    assert_eq!(rig.health(0).state(), TargetState::Down);
    // A target that is gone is probed no more and leaves nothing behind.
    rig.install(&CARRIER.replace(", { uri: \"sip:127.0.2.2:5070;transport=tcp\" }", ""));
    assert_eq!(rig.prober.len(), 1);
    rig.install(&CARRIER.replace("    options: { interval: 10s, failures: 3 }\n", ""));
    assert!(rig.prober.is_empty());
    rig.run(40_000);
    assert_eq!((rig.layer.clients(), rig.wheel.len()), (0, 0));
    assert_eq!(rig.health(0).state(), TargetState::Unprobed, "nothing is known without probes");
}
