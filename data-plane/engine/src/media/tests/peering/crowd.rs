//! More DTLS handshakes at once than a shard takes.

use ravelin_srtp::dtls::{Association, Fingerprints, Identity, Role, State};

use super::*;
use crate::{
    identity::CallKey,
    limits::{DTLS_BUSY_RETRY, DTLS_HANDSHAKES_MAX, DTLS_STEPS_PER_TURN},
    media::dtls::DtlsTerms,
};

/// Calls of one shard whose callers never shake hands to the end.
struct Crowd {
    rig: Rig,
    expected: Fingerprints,
    calls: u32,
}

impl Crowd {
    fn new() -> Self {
        let origin = std::time::Instant::now();
        let pairs = u16::try_from(DTLS_HANDSHAKES_MAX + 40).unwrap();
        let mut rig = Rig::new(table(2 * pairs, Limits::default()));
        rig.now = Instant::from_millis(10_000);
        let identity = std::sync::Arc::new(Identity::generate(origin).unwrap());
        let mut expected = Fingerprints::default();
        assert!(expected.add(identity.fingerprint().unwrap().to_string().as_bytes()));
        rig.table.set_dtls_identity(identity);
        Self { rig, expected, calls: 0 }
    }

    /// A call that is answered now; towards its caller we are `role`.
    fn call(&mut self, role: Role, emergency: bool) -> Anchor {
        let mut anchor = self.rig.allocate(self.rig.now).unwrap();
        let fingerprints = self.expected.clone();
        let dtls = Some(DtlsTerms { role, fingerprints, tls_id: None, own_tls_id: None });
        let caller = Remote { rtcp_mux: true, ..remote(addr(SIGNALLED)) };
        anchor.stage(Side::Caller, 0, caller);
        anchor.stage(Side::Callee, 0, remote(addr(FAR)));
        anchor.stage_peering(Side::Caller, 0, Peering { ice: None, dtls });
        anchor.stage_security(Side::Caller, 0, Security::Awaiting);
        let key = CallKey { slot: self.calls, generation: 1 };
        self.calls += 1;
        self.rig.table.own(&anchor, key, emergency);
        self.rig.table.commit(self.rig.now, &mut anchor);
        anchor
    }

    /// A turn after which whoever found no room has tried again.
    fn turn(&mut self) {
        self.turn_after(DTLS_BUSY_RETRY);
    }

    fn turn_after(&mut self, time: Duration) {
        self.rig.now = self.rig.now + time;
        self.rig.tx.clear();
        self.rig.table.expire(self.rig.now, &mut self.rig.tx);
    }

    fn state(&self, anchor: &Anchor) -> State {
        self.rig.table.dtls_state(anchor, Side::Caller, 0).unwrap()
    }

    /// A client's hello that has our cookie, at the port of `anchor`.
    fn greeted(&mut self, anchor: &Anchor) -> Result<(), DropReason> {
        let theirs = Identity::generate(std::time::Instant::now()).unwrap();
        let theirs = std::sync::Arc::new(theirs);
        let mut client = Association::new(theirs, Role::Client, self.expected.clone());
        let mut hellos = Vec::new();
        client.start(self.rig.now.0, &mut |hello| hellos.push(hello.to_vec()));
        let port = self.rig.port(anchor, Side::Caller, 0);
        let Rig { table, tx, counters, now } = &mut self.rig;
        while let Some(hello) = hellos.pop() {
            tx.clear();
            table.relay(*now, port, addr(SIGNALLED), &hello, tx, counters)?;
            if table.dtls_state(anchor, Side::Caller, 0) != Some(State::Idle) {
                return Ok(());
            }
            for request in tx.iter() {
                let mut send = |hello: &[u8]| hellos.push(hello.to_vec());
                let _ = client.receive(now.0, request.bytes, &mut send);
            }
        }
        panic!("no cookie was asked for")
    }
}

/// Whoever begins them: beyond the limit one waits until another has ended, and an emergency call
/// does not wait (EM-55).
#[test]
fn handshakes_at_once_are_bounded_and_those_of_emergency_calls_begin() {
    let mut crowd = Crowd::new();
    let mut calls = Vec::new();
    for _ in 0..DTLS_HANDSHAKES_MAX {
        calls.push(crowd.call(Role::Client, false));
        // None of them is over before the last has begun.
        crowd.turn_after(Duration::from_millis(5));
    }
    assert_eq!(crowd.rig.table.dtls_handshakes(), DTLS_HANDSHAKES_MAX);
    let waiting = [Role::Client, Role::Server].map(|role| crowd.call(role, false));
    crowd.turn();
    assert_eq!(waiting.each_ref().map(|call| crowd.state(call)), [State::Idle; 2]);
    assert_eq!(crowd.greeted(&waiting[1]), Err(DropReason::DtlsBusy));

    let emergency = [Role::Client, Role::Server].map(|role| crowd.call(role, true));
    crowd.turn();
    assert_eq!(crowd.greeted(&emergency[1]), Ok(()));
    assert_eq!(emergency.each_ref().map(|call| crowd.state(call)), [State::Handshake; 2]);
    assert_eq!(crowd.rig.table.dtls_handshakes(), DTLS_HANDSHAKES_MAX + 2);

    // Their room is not room for others.
    crowd.turn();
    assert_eq!(crowd.state(&waiting[0]), State::Idle);
    crowd.rig.table.release(crowd.rig.now, calls.pop().unwrap());
    crowd.turn();
    assert_eq!(crowd.state(&waiting[0]), State::Handshake);
    assert_eq!(crowd.greeted(&waiting[1]), Err(DropReason::DtlsBusy));
    crowd.rig.table.release(crowd.rig.now, calls.pop().unwrap());
    assert_eq!(crowd.greeted(&waiting[1]), Ok(()));
    for anchor in calls.into_iter().chain(waiting).chain(emergency) {
        crowd.rig.table.release(crowd.rig.now, anchor);
    }
    assert_eq!(crowd.rig.table.dtls_handshakes(), 0);
}

/// Emergency calls have their own part of a turn, which is bounded too.
#[test]
fn a_turn_spent_on_others_leaves_emergency_calls_theirs() {
    let mut crowd = Crowd::new();
    let (ordinary, emergency) = (crowd.call(Role::Server, false), crowd.call(Role::Server, true));
    crowd.turn();
    crowd.rig.table.exhaust_handshakes();
    assert_eq!(crowd.greeted(&ordinary), Err(DropReason::DtlsBusy));
    assert_eq!(crowd.greeted(&emergency), Ok(()));
    let more: Vec<_> = (0..DTLS_STEPS_PER_TURN).map(|_| crowd.call(Role::Server, true)).collect();
    let results: Vec<_> = more.iter().map(|call| crowd.greeted(call)).collect();
    let (last, first) = results.split_last().unwrap();
    assert!(first.iter().all(Result::is_ok), "{first:?}");
    assert_eq!(*last, Err(DropReason::DtlsBusy));
    for anchor in more.into_iter().chain([ordinary, emergency]) {
        crowd.rig.table.release(crowd.rig.now, anchor);
    }
}
