use super::*;

const BRANCH: &str = "z9hG4bKpeer1";

fn stream() -> Local {
    let flow = FlowId { shard: ShardId(2), slot: 1, generation: 1 };
    Local::Stream { listener: LISTENER, flow }
}

/// 17.2.1: what was answered last goes out again, nothing before that.
#[test]
fn a_repeated_invite_gets_the_last_provisional_again() {
    let mut side = Side::new(Limits::default());
    let invite = incoming("INVITE", BRANCH);
    let server = side.open(&invite, 1);
    assert!(matches!(side.receive(&invite), ServerEvent::Retransmission));
    assert!(side.take_sent().is_empty());
    for code in [100, 180, 183] {
        let first = side.respond(server, &invite, code);
        assert!(first[0].starts(&format!("SIP/2.0 {code} ")));
        assert!(matches!(side.receive(&invite), ServerEvent::Retransmission));
        let again = side.take_sent();
        assert_eq!((again.len(), &again[0].bytes), (1, &first[0].bytes));
    }
    let (sent, events) = side.run(600_000);
    assert!(sent.is_empty() && events.is_empty());
    assert_eq!(side.layer.answered_with(server), Some(183));
    side.layer.kill_server(server, ctx!(side));
    assert_eq!(side.layer.answered_with(server), None);
    side.assert_empty();
}

/// Timers G and H.
#[test]
fn a_refusal_is_repeated_until_64_t1() {
    let mut side = Side::new(Limits::default());
    let invite = incoming("INVITE", BRANCH);
    let server = side.open(&invite, 5);
    let first = side.respond(server, &invite, 486);
    let (sent, events) = side.run(60_000);
    assert_eq!(
        times(&sent),
        [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]
    );
    assert!(sent.iter().all(|again| again.bytes == first[0].bytes));
    assert_eq!(events, [(32_000, TuEvent::AckTimeout { owner: TuKey(5), server, code: 486 })]);
    assert_eq!((side.counters.ack_timeouts, side.counters.unacknowledged_2xx), (1, 0));
    side.assert_empty();
}

/// Timer I.
#[test]
fn an_ack_ends_the_refusal_and_later_ones_are_absorbed_for_t4() {
    let mut side = Side::new(Limits::default());
    let (invite, ack) = (incoming("INVITE", BRANCH), incoming("ACK", BRANCH));
    let server = side.open(&invite, 1);
    side.respond(server, &invite, 486);
    side.run(700);
    let event = side.receive(&ack);
    assert!(matches!(event, ServerEvent::Ack { invite } if invite == server), "{event:?}");
    assert_eq!(side.layer.buffers(), 0);
    let (sent, _) = side.run(4_999);
    assert!(sent.is_empty());
    assert!(matches!(side.receive(&ack), ServerEvent::Retransmission));
    assert!(matches!(side.receive(&invite), ServerEvent::Retransmission));
    assert!(side.take_sent().is_empty(), "Confirmed says nothing");
    let (_, events) = side.run(1);
    assert!(events.is_empty());
    side.assert_empty();
    assert!(matches!(side.receive(&ack), ServerEvent::AckFor2xx));
}

/// 13.3.1.4: the 2xx goes out at T1, 2*T1 ... T2 until its ACK comes.
#[test]
fn a_2xx_is_repeated_until_its_ack() {
    for local in [Local::Signalling { listener: LISTENER }, stream()] {
        let mut side = Side::new(Limits::default());
        let invite = incoming("INVITE", BRANCH);
        let server = side.open_from(&invite, 1, local);
        let first = side.respond(server, &invite, 200);
        let (sent, _) = side.run(5_000);
        assert_eq!(times(&sent), [500, 1_500, 3_500]);
        assert!(sent.iter().all(|again| again.bytes == first[0].bytes));
        // The ACK of a 2xx has a branch of its own; one with the same is for the dialog as well.
        for branch in ["z9hG4bKother", BRANCH] {
            assert!(matches!(side.receive(&incoming("ACK", branch)), ServerEvent::AckFor2xx));
        }
        side.layer.ack_received(server, ctx!(side));
        assert_eq!(side.layer.buffers(), 0);
        // Accepted: the repeated INVITE is absorbed until timer L.
        side.run(26_999);
        assert!(matches!(side.receive(&invite), ServerEvent::Retransmission));
        let (sent, events) = side.run(1);
        assert!(sent.is_empty() && events.is_empty());
        side.assert_empty();
    }
}

#[test]
fn a_2xx_that_is_never_acknowledged_is_told() {
    let mut side = Side::new(Limits::default());
    let invite = incoming("INVITE", BRANCH);
    let server = side.open(&invite, 8);
    side.respond(server, &invite, 200);
    let (sent, events) = side.run(40_000);
    assert_eq!(
        times(&sent),
        [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]
    );
    assert_eq!(events, [(32_000, TuEvent::AckTimeout { owner: TuKey(8), server, code: 200 })]);
    assert_eq!(side.counters.unacknowledged_2xx, 1);
    side.assert_empty();
}

/// Timer J, and that after a final response nothing more is sent.
#[test]
fn a_repeated_request_gets_its_answer_again_for_64_t1() {
    let mut side = Side::new(Limits::default());
    let bye = incoming("BYE", BRANCH);
    let server = side.open(&bye, 1);
    let first = side.respond(server, &bye, 200);
    assert!(side.respond(server, &bye, 500).is_empty());
    side.run(31_999);
    assert!(matches!(side.receive(&bye), ServerEvent::Retransmission));
    assert_eq!(side.take_sent()[0].bytes, first[0].bytes);
    let (sent, events) = side.run(1);
    assert!(sent.is_empty() && events.is_empty());
    side.assert_empty();
}

/// Timers G, I and J are zero over streams; H is not.
#[test]
fn streams_need_no_memory() {
    let mut side = Side::new(Limits::default());
    let bye = incoming("BYE", BRANCH);
    let server = side.open_from(&bye, 1, stream());
    side.respond(server, &bye, 200);
    side.assert_empty();

    let invite = incoming("INVITE", BRANCH);
    let server = side.open_from(&invite, 1, stream());
    side.respond(server, &invite, 180);
    side.respond(server, &invite, 486);
    let (sent, _) = side.run(31_000);
    assert!(sent.is_empty());
    assert!(matches!(side.receive(&incoming("ACK", BRANCH)), ServerEvent::Ack { .. }));
    side.assert_empty();

    let server = side.open_from(&invite, 1, stream());
    side.respond(server, &invite, 486);
    let (_, events) = side.run(32_000);
    assert!(matches!(events[..], [(_, TuEvent::AckTimeout { code: 486, .. })]));
    side.assert_empty();
}

/// 9.2: the CANCEL names the INVITE by its branch, and has a transaction of its own.
#[test]
fn a_cancel_finds_its_invite() {
    let mut side = Side::new(Limits::default());
    let (invite, cancel) = (incoming("INVITE", BRANCH), incoming("CANCEL", BRANCH));
    let server = side.open(&invite, 77);
    let event = side.receive(&cancel);
    let ServerEvent::Cancel { invite: Some(found), cancel: new } = event else {
        panic!("{event:?}")
    };
    assert_eq!(found, (server, TuKey(77)));
    let own = side.layer.open(new, Method::Cancel, udp(), Room::Reserved, ctx!(side)).unwrap();
    let ok = side.respond(own, &cancel, 200);
    assert!(matches!(side.receive(&cancel), ServerEvent::Retransmission));
    assert_eq!(side.take_sent()[0].bytes, ok[0].bytes);
    side.respond(server, &invite, 487);
    side.receive(&incoming("ACK", BRANCH));
    side.run(32_000);
    side.assert_empty();
    let event = side.receive(&cancel);
    assert!(matches!(event, ServerEvent::Cancel { invite: None, .. }), "{event:?}");
}

/// 17.2.3: branch, sent-by and method.
#[test]
fn what_differs_in_branch_sent_by_or_method_is_another_transaction() {
    let mut side = Side::new(Limits::default());
    let text = incoming("MESSAGE", BRANCH).replace("To: <sip:b@y>", "To: <sip:b@y>;tag=1");
    side.open(&text, 1);
    for other in [
        text.replace(BRANCH, "z9hG4bKpeer2"),
        text.replace("192.0.2.1:5060", "192.0.2.1:5061"),
        text.replace("192.0.2.1:5060", "192.0.2.1"),
        text.replace("192.0.2.1:5060", "192.0.2.2:5060"),
        text.replace("MESSAGE", "OPTIONS"),
    ] {
        let event = side.receive(&other);
        assert!(matches!(event, ServerEvent::New(_)), "{other}");
    }
    // Host names and white space do not tell messages apart, nor do other headers.
    let named = text.replace("192.0.2.1:5060", "Host.Example:5060");
    side.open(&named, 1);
    let same = named.replace("Host.Example:5060", "hOST.eXAMPLE:5060");
    assert!(matches!(side.receive(&same), ServerEvent::Retransmission));
    let same = text.replace("Call-ID: c9", "Call-ID: other");
    assert!(matches!(side.receive(&same), ServerEvent::Retransmission));
}

/// 17.2.3, second half: peers of RFC 2543, whose branch is missing or says nothing.
#[test]
fn old_peers_are_matched_by_everything_else() {
    for branch in ["", ";branch=1"] {
        let mut side = Side::new(Limits::default());
        let old = |method: &str| incoming(method, BRANCH).replace(";branch=z9hG4bKpeer1", branch);
        let invite = old("INVITE");
        let server = side.open(&invite, 1);
        assert!(matches!(side.receive(&invite), ServerEvent::Retransmission));
        let event = side.receive(&old("CANCEL"));
        assert!(matches!(event, ServerEvent::Cancel { invite: Some(_), .. }), "{event:?}");
        side.respond(server, &invite, 486);
        for other in [
            invite.replace("Call-ID: c9", "Call-ID: c8"),
            invite.replace("CSeq: 1 ", "CSeq: 2 "),
            invite.replace("tag=fa", "tag=fb"),
            invite.replace("sip:us ", "sip:them "),
        ] {
            assert!(matches!(side.receive(&other), ServerEvent::New(_)), "{other}");
        }
        assert!(matches!(side.receive(&old("ACK")), ServerEvent::Ack { .. }));
    }
}

/// 8.2.2.2: the same request on another way while the first is under way.
#[test]
fn a_merged_request_is_told() {
    let mut side = Side::new(Limits::default());
    let invite = incoming("INVITE", BRANCH);
    let fork = incoming("INVITE", "z9hG4bKfork");
    let server = side.open(&invite, 1);
    let event = side.receive(&fork);
    let ServerEvent::Merged(new) = event else { panic!("{event:?}") };
    let merged = side.layer.open(new, Method::Invite, udp(), Room::Ordinary, ctx!(side)).unwrap();
    side.respond(merged, &fork, 482);
    side.receive(&incoming("ACK", "z9hG4bKfork"));
    // Refusing the second does not forget the first.
    assert!(matches!(side.receive(&incoming("INVITE", "z9hG4bKfork3")), ServerEvent::Merged(_)));
    // Another CSeq, or a To tag, is another matter.
    let later = fork.replace("CSeq: 1 INVITE", "CSeq: 2 INVITE").replace("z9hG4bKfork", "z9hG4bK4");
    assert!(matches!(side.receive(&later), ServerEvent::New(_)));
    let inside =
        fork.replace("To: <sip:b@y>", "To: <sip:b@y>;tag=1").replace("z9hG4bKfork", "z9hG4bK5");
    assert!(matches!(side.receive(&inside), ServerEvent::New(_)));
    // Once it is answered, a new attempt with the same numbers is a new request.
    side.respond(server, &invite, 503);
    let retry = incoming("INVITE", "z9hG4bKretry");
    assert!(matches!(side.receive(&retry), ServerEvent::New(_)));
    side.receive(&incoming("ACK", BRANCH));
    side.run(32_000);
    side.assert_empty();
}

#[test]
fn the_table_keeps_its_reserve() {
    let limits = Limits { server_transactions: 3, transactions_reserve: 1, ..Limits::default() };
    let mut side = Side::new(limits);
    let mut open = |n: u32, room| {
        let request = incoming("BYE", &format!("z9hG4bK{n}"));
        // Inside a dialog, so that they are not taken for one request on several ways.
        let event = side.receive(&request.replace("<sip:b@y>", "<sip:b@y>;tag=1"));
        let ServerEvent::New(new) = event else { panic!("{event:?}") };
        side.layer.open(new, Method::Bye, udp(), room, ctx!(side)).is_ok()
    };
    assert!(open(1, Room::Ordinary) && open(2, Room::Ordinary));
    assert!(!open(3, Room::Ordinary));
    assert!(open(4, Room::Reserved));
    assert!(!open(5, Room::Reserved));
    assert!(open(6, Room::Emergency));
    assert!(!open(7, Room::Emergency));
    assert_eq!(side.counters.transactions_refused, 3);
}

/// A hostile peer cannot make the engine answer what nobody asked, nor loop.
#[test]
fn an_ack_is_never_answered() {
    let mut side = Side::new(Limits::default());
    assert!(matches!(side.receive(&incoming("ACK", BRANCH)), ServerEvent::AckFor2xx));
    let invite = incoming("INVITE", BRANCH);
    let server = side.open(&invite, 1);
    side.respond(server, &invite, 180);
    assert!(matches!(side.receive(&incoming("ACK", BRANCH)), ServerEvent::AckFor2xx));
    assert!(side.take_sent().is_empty());
    assert_eq!(side.layer.answered_with(server), Some(180));
}
