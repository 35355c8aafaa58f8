//! What only shows from inside: a fault of ours ends one call and nothing else (design 8).

use std::sync::Arc;

use ravelin_contract::chain::Entry;

use super::{Engine, EngineConfig};
use crate::{
    admission::Registry,
    b2bua::call::Phase,
    limits::Limits,
    loadout::Loadout,
    port::{ListenerId, Local, Meta, ShardId, TxQueue},
    time::{Instant, Now},
};

const CONFIG: &str = r#"
node: t
edge:
  cores: [0]
  listeners:
    - { id: a, realm: access, transport: udp, bind: "127.0.0.10:5060" }
    - { id: c, realm: core, transport: udp, bind: "127.0.0.20:5060" }
  media:
    - { realm: access, address: 127.0.0.10, ports: 20000-20063 }
    - { realm: core, address: 127.0.0.20, ports: 30000-30063 }
trunks:
  - { id: pbx, realm: access, role: customer, sources: [127.0.1.0/24], targets: [{ uri: "sip:127.0.1.1:5060" }] }
  - { id: out, realm: core, role: carrier, sources: [127.0.2.0/24], targets: [{ uri: "sip:127.0.2.1:5060" }] }
routes:
  - { id: r, from: [pbx], to: "*", trunks: [out] }
"#;

struct Rig {
    engine: Engine,
    out: TxQueue,
    now: Now,
}

impl Rig {
    fn new() -> Self {
        let compiled = ravelin_policy::compile(CONFIG, 1).unwrap_or_else(|e| panic!("{e:#?}"));
        let loadout = Loadout::new(Arc::new(compiled.snapshot), &Registry::default());
        let config = EngineConfig {
            shard: ShardId(0),
            shards: 1,
            node: "t".to_owned(),
            limits: Limits::default(),
            seed: [1; 32],
            started_unix_ms: 0,
        };
        let now = Now { mono: Instant::from_millis(5), unix_ms: 1_767_225_600_000 };
        Self { engine: Engine::new(config, Arc::new(loadout)), out: TxQueue::default(), now }
    }

    fn receive(&mut self, from: &str, listener: u16, text: &str) {
        let local = Local::Signalling { listener: ListenerId(listener) };
        let meta = Meta { source: from.parse().unwrap(), local };
        let text = text.replace('\n', "\r\n");
        self.engine.receive(self.now, meta, text.as_bytes(), &mut self.out);
    }

    fn invite(&mut self, name: &str) {
        self.receive(
            "127.0.1.1:5060",
            0,
            &format!(
                "INVITE sip:1@127.0.0.10 SIP/2.0\nVia: SIP/2.0/UDP 127.0.1.1;branch=z9hG4bK{name}\n\
                 From: <sip:a@127.0.1.1>;tag={name}\nTo: <sip:1@127.0.0.10>\nCall-ID: {name}\n\
                 CSeq: 1 INVITE\nMax-Forwards: 70\nContact: <sip:a@127.0.1.1>\n\
                 Content-Length: 0\n\n"
            ),
        );
    }

    fn sent(&mut self) -> Vec<String> {
        let texts = self
            .out
            .iter()
            .map(|tx| String::from_utf8_lossy(tx.bytes).lines().next().unwrap_or("").to_owned())
            .collect();
        self.out.clear();
        texts
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now.mono.as_millis() + ms;
        while let Some(due) = self.engine.next_deadline().filter(|due| due.as_millis() <= end) {
            self.now.mono = due.max(self.now.mono);
            self.engine.expire(self.now, &mut self.out);
        }
        self.now.mono = Instant::from_millis(end);
    }
}

/// Silences the message of the panic that the test makes.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let done = work();
    std::panic::set_hook(before);
    done
}

#[test]
fn a_fault_ends_one_call_with_an_answer_and_a_record() {
    for phase in [Phase::Routing, Phase::Answered] {
        let mut rig = Rig::new();
        rig.invite("one");
        rig.invite("two");
        if phase == Phase::Answered {
            let text = rig
                .out
                .iter()
                .map(|tx| String::from_utf8_lossy(tx.bytes).into_owned())
                .find(|text| text.starts_with("INVITE"))
                .unwrap();
            let keep: String = text
                .split("\r\n")
                .filter(|line| {
                    ["Via", "From", "To", "Call-ID", "CSeq"]
                        .iter()
                        .any(|name| line.starts_with(&format!("{name}:")))
                })
                .map(|line| {
                    if line.starts_with("To:") {
                        format!("{line};tag=x\n")
                    } else {
                        format!("{line}\n")
                    }
                })
                .collect();
            rig.receive(
                "127.0.2.1:5060",
                1,
                &format!("SIP/2.0 200 OK\n{keep}Contact: <sip:b@127.0.2.1>\nContent-Length: 0\n\n"),
            );
        }
        rig.sent();
        let key = rig.engine.calls.iter().next().map(|(_, call)| call.key).unwrap();
        assert_eq!(rig.engine.calls.get(0).unwrap().phase, phase);
        let Rig { engine, out, now } = &mut rig;
        quietly(|| {
            engine.contain(*now, out, |engine, turn| {
                engine.with_call(turn, key, |_, _, _| -> () { panic!("a bug") });
            });
        });
        assert_eq!(rig.engine.counters().faults_contained, 1);
        let sent = rig.sent();
        if phase == Phase::Answered {
            // The caller has not acknowledged its 200 yet; the callee is hung up.
            assert!(sent.iter().any(|line| line.starts_with("BYE sip:b@127.0.2.1")), "{sent:?}");
        } else {
            assert!(sent.contains(&"SIP/2.0 500 Server Internal Error".to_owned()), "{sent:?}");
        }
        // The other call and the shard go on.
        assert_eq!(rig.engine.calls.len(), 1);
        rig.invite("three");
        assert!(rig.sent().iter().any(|line| line.starts_with("INVITE")));
        let mut records = Vec::new();
        rig.engine.take_records(rig.now, &mut records);
        assert!(records.iter().any(|entry| matches!(entry, Entry::Cdr(cdr) if cdr.cause == 501)));
        rig.pass(300_000);
        rig.pass(100_000);
        assert_eq!(rig.engine.tables().left_over(), []);
    }
}
