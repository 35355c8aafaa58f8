//! Two layers with a bad network between them: both sides agree, and nothing is left over.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A deterministic stream of small numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientOutcome {
    Code(u16),
    Timeout,
}

struct World {
    caller: Side,
    callee: Side,
    /// By arrival time and number: to whom, and what.
    wire: BTreeMap<(u64, u64), (bool, Vec<u8>)>,
    number: u64,
    dice: Dice,
    loss_percent: u64,
    outcome: Option<ClientOutcome>,
    acknowledged: bool,
    unacknowledged: bool,
    asked: u32,
    cancelled: bool,
}

impl World {
    fn new(seed: u64, loss_percent: u64) -> Self {
        Self {
            caller: Side::new(Limits::default()),
            callee: Side::new(Limits::default()),
            wire: BTreeMap::new(),
            number: 0,
            dice: Dice(seed),
            loss_percent,
            outcome: None,
            acknowledged: false,
            unacknowledged: false,
            asked: 0,
            cancelled: false,
        }
    }

    /// Puts what a side sent on the wire: lost, once or twice, each with a delay of its own.
    fn carry(&mut self, to_callee: bool) {
        let side = if to_callee { &mut self.caller } else { &mut self.callee };
        for sent in side.take_sent() {
            if self.dice.below(100) < self.loss_percent {
                continue;
            }
            for _ in 0..1 + u64::from(self.dice.below(10) == 0) {
                let at = sent.at + 1 + self.dice.below(300);
                self.number += 1;
                self.wire.insert((at, self.number), (to_callee, sent.bytes.clone()));
            }
        }
    }

    fn run(&mut self, method: &str, code: u16) {
        let (client, request) = self.caller.request(method, udp(), 1);
        // `request` takes what it sent; it goes on the wire like everything else.
        self.caller.tx.push(udp(), Token::default(), &request.bytes);
        self.carry(true);
        let mut server = None;
        loop {
            let wire = self.wire.keys().next().map(|key| Instant::from_millis(key.0));
            let timers = [self.caller.wheel.next_deadline(), self.callee.wheel.next_deadline()];
            let Some(next) = timers.into_iter().chain([wire]).flatten().min() else {
                if self.outcome.is_some() || std::mem::replace(&mut self.cancelled, true) {
                    break;
                }
                // A provisional response came and nothing after it: the TU's timer C ends that.
                let caller = &mut self.caller;
                caller.layer.cancel(caller.now, client, b"", ctx!(caller));
                self.carry(true);
                continue;
            };
            for side in [&mut self.caller, &mut self.callee] {
                side.now = side.now.max(next);
            }
            while let Some(entry) = self.wire.first_entry() {
                if entry.key().0 > next.as_millis() {
                    break;
                }
                let (to_callee, bytes) = entry.remove();
                let text = String::from_utf8(bytes).unwrap();
                if to_callee {
                    self.at_callee(&text, code, &mut server);
                } else {
                    self.at_caller(&text, &request);
                }
            }
            self.fire();
        }
    }

    fn at_callee(&mut self, text: &str, code: u16, server: &mut Option<ServerKey>) {
        let side = &mut self.callee;
        let message = Message::parse(text.as_bytes(), Framing::Datagram).unwrap();
        match side.layer.receive_request(side.now, &message, ctx!(side)) {
            ServerEvent::New(new) => {
                self.asked += 1;
                let method = message.method().unwrap();
                let key = side.layer.open(new, method, udp(), Room::Ordinary, ctx!(side)).unwrap();
                *server = Some(key);
                let early = if self.dice.below(2) == 0 { Some(180) } else { None };
                for code in early.into_iter().chain([code]) {
                    let sent = self.callee.respond(key, text, code);
                    for sent in sent {
                        self.callee.tx.push(udp(), Token::default(), &sent.bytes);
                    }
                }
            }
            ServerEvent::AckFor2xx => {
                self.acknowledged = true;
                if let Some(server) = server {
                    self.callee.layer.ack_received(*server, ctx!(self.callee));
                }
            }
            ServerEvent::Ack { .. } => self.acknowledged = true,
            ServerEvent::Retransmission | ServerEvent::Cancel { invite: None, .. } => {}
            other => panic!("{other:?}"),
        }
        self.carry(false);
    }

    fn at_caller(&mut self, text: &str, request: &Sent) {
        let code = Message::parse(text.as_bytes(), Framing::Datagram).unwrap().code().unwrap();
        match self.caller.receive_response(text) {
            ClientEvent::Final { .. } => {
                assert_eq!(self.outcome, None, "one outcome");
                self.outcome = Some(ClientOutcome::Code(code));
                self.acknowledge(request, code);
            }
            ClientEvent::Further2xx { .. } => self.acknowledge(request, code),
            ClientEvent::Provisional { .. } | ClientEvent::Absorbed | ClientEvent::Stray => {}
        }
        self.carry(true);
    }

    /// The TU's ACK for a 2xx.
    fn acknowledge(&mut self, request: &Sent, code: u16) {
        if request.starts("INVITE ") && code < 300 {
            let branch = self.caller.layer.loose_branch();
            let text = request.text().replace("INVITE", "ACK");
            let at = text.find("branch=").unwrap() + 7;
            let mut ack = text.into_bytes();
            ack[at..at + branch.len()].copy_from_slice(&branch);
            self.caller.tx.push(udp(), Token::default(), &ack);
        }
    }

    fn fire(&mut self) {
        while let Some(timer) = self.caller.wheel.pop_expired(self.caller.now) {
            match self.caller.layer.fire(self.caller.now, timer, ctx!(self.caller)) {
                Some(TuEvent::Timeout { .. }) => {
                    assert_eq!(self.outcome, None, "one outcome");
                    self.outcome = Some(ClientOutcome::Timeout);
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            self.carry(true);
        }
        while let Some(timer) = self.callee.wheel.pop_expired(self.callee.now) {
            match self.callee.layer.fire(self.callee.now, timer, ctx!(self.callee)) {
                Some(TuEvent::AckTimeout { .. }) => self.unacknowledged = true,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            self.carry(false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Over a network that loses, repeats, delays and reorders, every request has exactly one
    /// outcome at the caller, reaches the callee's TU at most once, and every table is empty at the
    /// end. Under moderate loss the outcome is the callee's answer.
    #[test]
    fn every_request_has_one_outcome_and_nothing_is_left(
        seed: u64,
        loss in prop_oneof![Just(0_u64), Just(5), Just(30), Just(90), Just(100)],
        method in prop_oneof![Just("INVITE"), Just("BYE"), Just("OPTIONS")],
        code in prop_oneof![Just(200_u16), Just(486)],
    ) {
        let mut world = World::new(seed, loss);
        world.run(method, code);
        prop_assert!(!world.cancelled || method == "INVITE" && loss >= 30);
        prop_assert!(world.asked <= 1);
        prop_assert!(world.outcome.is_some());
        if loss <= 5 {
            prop_assert_eq!(world.outcome, Some(ClientOutcome::Code(code)));
            if method == "INVITE" {
                prop_assert!(world.acknowledged && !world.unacknowledged);
            }
        }
        if loss == 0 && method == "INVITE" {
            prop_assert_eq!(world.caller.counters.client_timeouts, 0);
        }
        world.caller.assert_empty();
        world.callee.assert_empty();
        prop_assert_eq!(world.callee.counters.drops(DropReason::StrayAck), 0);
    }
}
