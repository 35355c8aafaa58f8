//! Handshakes that fail or are not begun, before the answer and after it.

use ravelin_engine::media::Loss;
use ravelin_srtp::dtls::{Role, State};

use super::*;

#[test]
fn a_certificate_of_somebody_else_ends_the_call_as_the_trunk_says() {
    for who in [Who::Caller, Who::Callee] {
        for (setup, role) in ROLES {
            for (action, done, counted) in [
                ("", "bye", [0, 1, 0]),
                (", failure_action: bye", "bye", [0, 1, 0]),
                (", failure_action: alarm", "alarm", [1, 0, 0]),
                (", failure_action: nothing", "", [0, 0, 1]),
            ] {
                let case = format!("{who:?} {setup} {action}");
                let mut talk = talk(who, "+12125551234", action, setup, false, false);
                talk.begin(role.unwrap());
                talk.shake(2_000);
                assert_eq!(talk.failures(Loss::Handshake), counted, "{case}");
                let party = if who == Who::Caller { "caller" } else { "callee" };
                let told = [party, "fingerprint", done, "false"].map(str::to_owned);
                let expected = if done.is_empty() { vec![] } else { vec![told] };
                assert_eq!(talk.events(), expected, "{case}");
                if done == "bye" {
                    talk.hung_up(409);
                } else {
                    assert!(talk.lives(), "{case}");
                }
            }
        }
    }
}

/// Whether we wait for its hello or it leaves ours without an answer.
#[test]
fn a_party_that_never_shakes_hands_ends_the_call_when_its_time_is_over() {
    for who in [Who::Caller, Who::Callee] {
        for (setup, reason) in [("active", "not_begun"), ("passive", "timeout")] {
            let mut talk = talk(who, "+12125551234", "", setup, true, false);
            talk.world.pass(WITHIN_MS - 1_000);
            assert!(talk.lives(), "{who:?} {setup}");
            talk.world.pass(2_000);
            assert!(!talk.lives(), "{who:?} {setup}");
            assert_eq!(talk.events()[0][1..3], [reason, "bye"]);
            talk.hung_up(409);
        }
    }
}

/// EM rule 10.
#[test]
fn an_emergency_call_is_never_ended_by_it_and_may_shake_hands_late() {
    for who in [Who::Caller, Who::Callee] {
        for (setup, role) in ROLES {
            for early in [false, true] {
                let mut talk = talk(who, "911", "", setup, false, early);
                talk.begin(role.unwrap());
                talk.shake(2_000);
                assert!(talk.lives(), "{who:?} {setup}, early: {early}");
                assert_eq!(talk.failures(Loss::Handshake), [1, 0, 0]);
                assert_eq!(talk.events()[0][1..], ["fingerprint", "alarm", "true"]);
                talk.world.pass(100_000);
                assert!(talk.lives(), "{who:?} {setup}, early: {early}");
            }
        }
        let mut talk = talk(who, "911", "", "active", true, false);
        talk.world.pass(WITHIN_MS + 1_000);
        assert_eq!(talk.events().len(), 1);
        assert_eq!(talk.events()[0][1..], ["not_begun", "alarm", "true"]);
        assert!(talk.lives());
        talk.begin(Role::Client);
        talk.shake(2_000);
        assert_eq!(talk.line.state(), State::Done, "{who:?}: late, and good all the same");
        talk.world.pass(10 * WITHIN_MS);
        assert!(talk.lives() && talk.events().len() == 1);
    }
}

#[test]
fn a_handshake_that_is_done_ends_nothing() {
    for who in [Who::Caller, Who::Callee] {
        for (setup, role) in ROLES {
            let mut talk = talk(who, "+12125551234", "", setup, true, false);
            talk.begin(role.unwrap());
            talk.shake(2_000);
            assert_eq!(talk.line.state(), State::Done);
            talk.world.pass(10 * WITHIN_MS);
            assert!(talk.lives(), "{who:?} {setup}");
            assert_eq!(talk.events(), Vec::<[String; 4]>::new());
        }
    }
}

/// Before the answer: CANCEL to the callee, 480 to the caller.
#[test]
fn a_caller_that_is_not_who_it_says_ends_a_call_that_rings() {
    let mut talk = talk(Who::Caller, "+12125551234", "", "active", false, true);
    talk.begin(Role::Client);
    talk.shake(2_000);
    talk.world.expect(CARRIER_A, "CANCEL ");
    let refusal = talk.world.expect(PBX, "SIP/2.0 480");
    assert!(refusal.header("Reason").contains("cause=409"), "{refusal:?}");
    assert_eq!((talk.world.call_cdr().cause, talk.world.call_cdr().status), (409, 480));
}

/// A party that does not shake hands before it answers has its full time from the answer on.
#[test]
fn ringing_for_longer_than_a_handshake_may_take_ends_nothing() {
    for who in [Who::Caller, Who::Callee] {
        for (setup, role) in ROLES {
            for shakes in [true, false] {
                let mut talk = talk(who, "+12125551234", "", setup, true, true);
                talk.world.pass(WITHIN_MS + 10_000);
                assert!(talk.lives(), "{who:?} {setup}");
                let ip = addr(CARRIER_A).ip().to_string();
                let answer = match who {
                    Who::Caller => format!("m=audio 50000 {PLAIN}"),
                    Who::Callee => talk.line.says(setup, true),
                };
                let callee = talk.callee.clone();
                callee.reply(&mut talk.world, "200 OK", &part(&ip, 1, &answer));
                talk.world.expect(CARRIER_A, "ACK ");
                let ok = talk.world.expect(PBX, "SIP/2.0 200");
                talk.caller.learn(&ok);
                talk.caller.ack(&mut talk.world, "");
                talk.world.media.clear();
                if shakes {
                    talk.begin(role.unwrap());
                    talk.shake(4_000);
                    assert_eq!(talk.line.state(), State::Done, "{who:?} {setup}");
                }
                talk.world.pass(WITHIN_MS - 5_000);
                assert!(talk.lives(), "{who:?} {setup}");
                talk.world.pass(7_000);
                assert_eq!(talk.lives(), shakes, "{who:?} {setup}");
            }
        }
    }
}

/// RFC 8842 8: a branch that rings is not who it says. Another one may answer.
#[test]
fn a_branch_that_is_not_who_it_says_leaves_the_others_their_chance() {
    for other_is_good in [true, false] {
        let mut talk = talk(Who::Callee, "+12125551234", "", "active", false, true);
        let other = Callee { tag: "other".to_owned(), ..talk.callee.clone() };
        let mut second = Line::new("127.0.2.1", 50_100);
        let ip = "127.0.2.1";
        let progress = part(ip, 1, &second.says("active", other_is_good));
        other.reply(&mut talk.world, "183 Session Progress", &progress);
        talk.world.expect(PBX, "SIP/2.0 183");
        // The first branch is heard last: its description is in force.
        let first = part(ip, 1, &talk.line.says("active", false));
        talk.callee.reply(&mut talk.world, "183 Session Progress", &first);
        talk.world.expect(PBX, "SIP/2.0 183");
        talk.begin(Role::Client);
        talk.shake(2_000);
        assert!(talk.lives());
        assert_eq!(talk.events()[0][1..3], ["fingerprint", "alarm"]);
        let by = if other_is_good { &other } else { &talk.callee.clone() };
        let answer = if other_is_good { progress } else { first };
        by.reply(&mut talk.world, "200 OK", &answer);
        talk.world.expect(CARRIER_A, "ACK ");
        let ok = talk.world.expect(PBX, "SIP/2.0 200");
        talk.caller.learn(&ok);
        talk.caller.ack(&mut talk.world, "");
        if other_is_good {
            second.begin(Role::Client, &talk.told);
            let ours = talk.ours.clone();
            shake(&mut talk.world, &mut [(&mut second, ours)], 2_000);
            assert_eq!(second.state(), State::Done);
            talk.world.pass(WITHIN_MS);
            assert!(talk.lives());
        } else {
            talk.world.pass(1);
            talk.hung_up(409);
        }
    }
}

/// A browser may name no address at all (RFC 8840 4.1.1).
#[test]
fn a_party_without_an_address_of_its_own_is_watched_as_well() {
    let mut world = world("srtp: dtls, ice: lite", "srtp: off");
    let line = Line::new("127.0.1.1", 9);
    let offer = line.says("actpass", true) + &format!("a=ice-ufrag:{UFRAG}\na=ice-pwd:{PWD}\n");
    let offer = part("127.0.1.1", 1, &offer).replace("c=IN IP4 127.0.1.1", "c=IN IP4 0.0.0.0");
    let uri = "sip:+12125551234@127.0.0.10";
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, uri, &offer);
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "200 OK", &part("127.0.2.1", 1, ANSWER));
    world.expect(CARRIER_A, "ACK ");
    caller.learn(&world.expect(PBX, "SIP/2.0 200"));
    caller.ack(&mut world, "");
    world.pass(WITHIN_MS + 1_000);
    assert_eq!(world.call_cdr().cause, 409);
}
