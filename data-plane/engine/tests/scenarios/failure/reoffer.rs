//! What later offers and answers do to a failure: other keys, holds, several lines.

use ravelin_srtp::dtls::{Role, State};

use super::*;

/// A new association is agreed on in a call that has one: its failure ends the call, under the old keys
/// though media could go on.
#[test]
fn a_handshake_that_fails_after_a_reinvite_ends_the_call() {
    for honest in [true, false] {
        let mut talk = talk(Who::Caller, "+12125551234", "", "active", true, false);
        talk.begin(Role::Client);
        talk.shake(2_000);
        assert_eq!(talk.line.state(), State::Done);
        talk.line = Line::new("127.0.1.1", 40_000);
        talk.again(2, &talk.line.says("active", honest), ANSWER);
        talk.begin(Role::Client);
        talk.shake(2_000);
        if honest {
            assert_eq!(talk.line.state(), State::Done);
            talk.world.pass(2 * WITHIN_MS);
            assert!(talk.lives());
        } else {
            talk.hung_up(409);
        }
    }
}

/// What an open offer may yet mend ends nothing before it is answered.
#[test]
fn an_open_offer_is_waited_for() {
    for mends in [true, false] {
        let mut talk = talk(Who::Caller, "+12125551234", "", "active", true, false);
        talk.world.pass(WITHIN_MS - 2_000);
        let fresh = Line::new("127.0.1.1", 40_002);
        let offer = if mends { fresh.says("active", true) } else { talk.line.says("active", true) };
        let invite = talk.reinvite(2, &offer);
        talk.world.pass(10_000);
        assert!(talk.lives());
        assert_eq!(talk.events()[0][1..3], ["not_begun", "alarm"]);
        // While it is open one retransmission or another came.
        talk.world.forget_inbox();
        if mends {
            talk.accept(&invite, 2, ANSWER);
            talk.line = fresh;
            talk.begin(Role::Client);
            talk.shake(2_000);
            assert_eq!(talk.line.state(), State::Done);
            talk.world.pass(2 * WITHIN_MS);
            assert!(talk.lives());
        } else {
            talk.world.send(CARRIER_A, CORE, &invite.reply("488 No", "", ""));
            talk.world.expect(CARRIER_A, "ACK ");
            let refusal = talk.world.expect(PBX, "SIP/2.0 488");
            talk.caller.ack_refusal(&mut talk.world, &refusal);
            talk.world.pass(2_000);
            // The refusal again: its ACK has the branch of the first INVITE.
            while talk.world.inbox_of(PBX).first().is_some_and(|text| !text.starts_with("BYE")) {
                talk.world.take(PBX);
            }
            talk.hung_up(409);
        }
    }
}

/// One failed line among living ones ends nothing; the last one does, and what is refused or on hold
/// and dead counts for neither.
#[test]
fn the_call_ends_with_its_last_line() {
    for case in ["one bad", "both bad", "bad and plain refused", "bad and held"] {
        let mut world = world("srtp: dtls", "srtp: off");
        let (mut first, mut second) =
            (Line::new("127.0.1.1", 40_000), Line::new("127.0.1.1", 40_100));
        let second_good = case != "both bad";
        let mut lines = second.says("active", second_good);
        let mut answer = "m=audio 50100 RTP/AVP 0\n";
        match case {
            "bad and plain refused" => answer = "m=audio 0 RTP/AVP 0\n",
            "bad and held" => lines += "a=inactive\n",
            _ => {}
        }
        let offer = part("127.0.1.1", 1, &(first.says("active", false) + &lines));
        let uri = "sip:+12125551234@127.0.0.10";
        let mut caller = Caller::invite(&mut world, PBX, ACCESS, uri, &offer);
        world.expect(PBX, "SIP/2.0 100");
        let callee = Callee::take(&mut world, CARRIER_A);
        let held = if case == "bad and held" { "a=inactive\n" } else { "" };
        let answer = part("127.0.2.1", 1, &format!("{ANSWER}{answer}{held}"));
        callee.reply(&mut world, "200 OK", &answer);
        world.expect(CARRIER_A, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        caller.learn(&ok);
        caller.ack(&mut world, "");
        let ours = [0, 1].map(|index| format!("127.0.0.10:{}", ok.media_port(index)));
        first.begin(Role::Client, &ok);
        shake(&mut world, &mut [(&mut first, ours[0].clone())], 1_000);
        let lives = |world: &World| world.cdrs().is_empty();
        assert_eq!(lives(&world), case != "bad and plain refused", "{case}");
        let kinds = world.event_kinds();
        assert_eq!(kinds, ["media.dtls_failed"], "{case}");
        if !lives(&world) {
            continue;
        }
        second.begin(Role::Client, &ok);
        shake(&mut world, &mut [(&mut second, ours[1].clone())], 1_000);
        world.pass(2 * WITHIN_MS);
        assert_eq!(lives(&world), second_good, "{case}");
    }
}

/// While it is on hold a line that failed ends nothing; when the hold ends, it does.
#[test]
fn a_hold_puts_it_off() {
    let mut talk = talk(Who::Caller, "+12125551234", "", "active", true, false);
    talk.begin(Role::Client);
    talk.shake(2_000);
    talk.line = Line::new("127.0.1.1", 40_000);
    let held = talk.line.says("active", false) + "a=inactive\n";
    talk.again(2, &held, &format!("{ANSWER}a=inactive\n"));
    talk.begin(Role::Client);
    talk.shake(2_000);
    talk.world.pass(2 * WITHIN_MS);
    assert!(talk.lives());
    assert_eq!(talk.events()[0][1..3], ["fingerprint", "alarm"]);
    talk.again(3, &talk.line.says("active", false), ANSWER);
    talk.world.pass(1);
    talk.hung_up(409);
}

/// RFC 8842 4: a party with another address begins anew, unless its `tls-id` says that the association
/// goes on.
#[test]
fn a_party_that_moves_keeps_the_association_that_it_names() {
    for (id, goes_on) in [("a=tls-id:abc3de65cddef001be82\n", true), ("", false)] {
        let mut talk = talk(Who::Caller, "+12125551234", "", "passive", true, false);
        let named = talk.line.says("passive", true) + id;
        talk.again(2, &named, ANSWER);
        talk.begin(Role::Server);
        talk.shake(2_000);
        assert_eq!(talk.line.state(), State::Done);
        talk.world.media.clear();
        talk.again(3, &named.replace("m=audio 40000", "m=audio 40010"), ANSWER);
        talk.world.pass(100);
        let hello = talk
            .world
            .media
            .iter()
            .any(|(to, bytes)| *to == addr("127.0.1.1:40010") && bytes.first() == Some(&22));
        assert_eq!(hello, !goes_on, "{id}");
    }
}
