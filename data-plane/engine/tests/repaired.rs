//! EM-55: an emergency call whose messages break the grammar, where that can be mended.

mod support;

use ravelin_engine::engine::Received;

use support::{ACCESS, CALLEE, CALLER, CORE, Caller, Got, PSAP, World, answer, sdp};

const FAULTS: &str = "Date: Fri, 01 Jan 2010 16:00:00 EST\r\nMax-Forwards: 70\r\nExpires: 60\r\n\
    Expires: 61\r\nOrganization: Caf\u{1}\r\n";

/// `text` with more header lines before its Contact.
fn with(text: &str, lines: &str) -> Vec<u8> {
    text.replacen("Contact: ", &format!("{lines}Contact: "), 1).into_bytes()
}

fn up(world: &mut World, caller: &Caller) -> Got {
    assert_eq!(world.send(CALLER, ACCESS, &with(&caller.invite(), FAULTS)), Received::Taken);
    world.expect(CALLER, "100 INVITE");
    let invite = world.expect(PSAP, "INVITE");
    let text = invite.text();
    for gone in ["Date: Fri", "Expires: 61", "\u{1}"] {
        assert!(!text.contains(gone), "{text}");
    }
    let ok = answer(&invite, 200, "p1", &sdp("127.0.9.1:7000", 1, ""));
    world.send(PSAP, CORE, ok.as_bytes());
    world.expect(PSAP, "ACK");
    world.expect(CALLER, "200 INVITE")
}

/// On two shards: a broken request inside the dialog finds the shard of its call.
#[test]
fn a_broken_emergency_call_is_mended_from_invite_to_bye() {
    let mut world = World::new(2);
    for n in 0..8 {
        let mut caller = Caller::new(&format!("sos{n}"));
        caller.number = "911".to_owned();
        let ok = up(&mut world, &caller);
        world.send(CALLER, ACCESS, &with(&caller.request("ACK", caller.cseq, &ok), FAULTS));
        world.send(CALLER, ACCESS, &with(&caller.request("BYE", caller.cseq + 1, &ok), FAULTS));
        world.expect(CALLER, "200 BYE");
        let bye = world.expect(PSAP, "BYE");
        world.send(PSAP, CORE, answer(&bye, 200, "p1", "").as_bytes());
    }
    assert_eq!(world.count(|counters| counters.emergency_repaired), 3 * 8);
    world.assert_all_over();
}

#[test]
fn a_caller_who_hangs_up_early_is_understood() {
    let mut world = World::new(2);
    let mut caller = Caller::new("sos");
    caller.number = "911".to_owned();
    world.send(CALLER, ACCESS, &with(&caller.invite(), FAULTS));
    world.expect(CALLER, "100 INVITE");
    let invite = world.expect(PSAP, "INVITE");
    world.send(PSAP, CORE, answer(&invite, 180, "p1", "").as_bytes());
    world.expect(CALLER, "180 INVITE");
    world.send(CALLER, ACCESS, &with(&caller.cancel(), FAULTS));
    world.expect(CALLER, "200 CANCEL");
    let refusal = world.expect(CALLER, "487 INVITE");
    world.send(CALLER, ACCESS, &with(&caller.ack_refusal(&refusal), FAULTS));
    let cancel = world.expect(PSAP, "CANCEL");
    world.send(PSAP, CORE, answer(&cancel, 200, "p1", "").as_bytes());
    world.send(PSAP, CORE, answer(&invite, 487, "p1", "").as_bytes());
    world.expect(PSAP, "ACK");
    world.assert_all_over();
}

/// Nobody else's faults are mended, nor those that could mean another call.
#[test]
fn other_faults_are_answered() {
    let mut world = World::new(1);
    let ordinary = Caller::new("c1");
    world.send(CALLER, ACCESS, &with(&ordinary.invite(), FAULTS));
    world.expect(CALLER, "400 INVITE");
    let mut emergency = Caller::new("c2");
    emergency.number = "911".to_owned();
    world.send(CALLER, ACCESS, &with(&emergency.invite(), "From: <sip:other@b>;tag=9\r\n"));
    world.expect(CALLER, "400 INVITE");
    assert_eq!(world.count(|counters| counters.emergency_repaired), 0);
    assert!(world.take(CALLEE).is_none() && world.take(PSAP).is_none());
    world.assert_all_over();
}
