use super::*;

/// Timers A and B: doubling without bound, given up after 64*T1 (17.1.1.2).
#[test]
fn an_unanswered_invite_is_sent_seven_times_and_times_out() {
    let mut side = Side::new(Limits::default());
    let (client, invite) = side.request("INVITE", udp(), 11);
    let (sent, events) = side.run(60_000);
    assert_eq!(times(&sent), [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert!(sent.iter().all(|again| again.bytes == invite.bytes && again.egress == udp()));
    assert_eq!(events, [(32_000, TuEvent::Timeout { owner: TuKey(11), client })]);
    assert_eq!(side.counters.request_retransmissions_sent, 6);
    assert_eq!(side.counters.client_timeouts, 1);
    side.assert_empty();
}

/// Timers E and F: doubling up to T2 (17.1.2.2).
#[test]
fn an_unanswered_request_is_repeated_up_to_t2_and_times_out() {
    let mut side = Side::new(Limits::default());
    let (client, _) = side.request("BYE", udp(), 12);
    let (sent, events) = side.run(60_000);
    assert_eq!(
        times(&sent),
        [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]
    );
    assert_eq!(events, [(32_000, TuEvent::Timeout { owner: TuKey(12), client })]);
    side.assert_empty();
}

/// 17.1.2.2: in Proceeding timer E is T2, and F goes on.
#[test]
fn a_provisional_slows_a_request_down_and_does_not_save_it() {
    let mut side = Side::new(Limits::default());
    let (client, options) = side.request("OPTIONS", udp(), 1);
    side.run(100);
    let event = side.receive_response(&answer(&options, 100, ""));
    assert_eq!(event, ClientEvent::Provisional { owner: TuKey(1), client });
    let (sent, events) = side.run(60_000);
    assert_eq!(times(&sent), [500, 4_500, 8_500, 12_500, 16_500, 20_500, 24_500, 28_500]);
    assert_eq!(events, [(32_000, TuEvent::Timeout { owner: TuKey(1), client })]);
    side.assert_empty();
}

/// 17.1.1.2: streams do not need A and E; B and F stay.
#[test]
fn nothing_is_repeated_over_a_stream() {
    for method in ["INVITE", "BYE"] {
        let mut side = Side::new(Limits::default());
        let (client, _) = side.request(method, tcp(), 3);
        let (sent, events) = side.run(60_000);
        assert!(sent.is_empty());
        assert_eq!(events, [(32_000, TuEvent::Timeout { owner: TuKey(3), client })]);
        side.assert_empty();
    }
}

#[test]
fn a_provisional_ends_timers_a_and_b_of_an_invite() {
    let mut side = Side::new(Limits::default());
    let (client, invite) = side.request("INVITE", udp(), 1);
    for code in [100, 180, 183] {
        let event = side.receive_response(&answer(&invite, code, "t"));
        assert_eq!(event, ClientEvent::Provisional { owner: TuKey(1), client });
    }
    let (sent, events) = side.run(600_000);
    assert!(sent.is_empty() && events.is_empty(), "timer C is the TU's");
    assert!(side.layer.client_is_current(client));
    side.layer.kill_client(client, ctx!(side));
    side.assert_empty();
}

/// RFC 6026 7.2: Accepted passes every 2xx up for timer M, and nothing else.
#[test]
fn further_2xx_reach_the_user_for_64_t1() {
    let mut side = Side::new(Limits::default());
    let (client, invite) = side.request("INVITE", udp(), 1);
    let owner = TuKey(1);
    assert_eq!(
        side.receive_response(&answer(&invite, 200, "t1")),
        ClientEvent::Final { owner, client }
    );
    assert_eq!(side.layer.buffers(), 0, "the request is not needed any more");
    for tag in ["t1", "t2"] {
        side.run(10_000);
        assert_eq!(
            side.receive_response(&answer(&invite, 200, tag)),
            ClientEvent::Further2xx { owner, client }
        );
    }
    for code in [180, 486] {
        assert_eq!(side.receive_response(&answer(&invite, code, "t3")), ClientEvent::Absorbed);
    }
    let (sent, events) = side.run(11_999);
    assert!(sent.is_empty() && events.is_empty(), "the layer acknowledges no 2xx");
    assert_eq!(
        side.receive_response(&answer(&invite, 200, "t1")),
        ClientEvent::Further2xx { owner, client }
    );
    side.run(1);
    assert_eq!(side.receive_response(&answer(&invite, 200, "t1")), ClientEvent::Stray);
    side.assert_empty();
}

/// 17.1.1.3 and timer D.
#[test]
fn a_refusal_is_acknowledged_here_each_time_it_comes() {
    let mut side = Side::new(Limits::default());
    let (client, invite) = side.request("INVITE", udp(), 1);
    let busy = answer(&invite, 486, "t1");
    assert_eq!(side.receive_response(&busy), ClientEvent::Final { owner: TuKey(1), client });
    let acks = side.take_sent();
    assert_eq!(acks.len(), 1);
    let branch = invite.text().lines().nth(1).unwrap().to_owned();
    assert_eq!(
        acks[0].text(),
        format!(
            "ACK sip:b@192.0.2.1 SIP/2.0\r\n{branch}\r\nRoute: <sip:p1;lr>\r\n\
             Route: <sip:p2;lr>\r\nFrom: \"A\" <sip:a@x>;tag=f1\r\nTo: <sip:b@y>;tag=t1\r\n\
             Call-ID: c1\r\nCSeq: 7 ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
    );
    side.run(31_000);
    assert_eq!(side.receive_response(&busy), ClientEvent::Absorbed);
    let again = side.take_sent();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].bytes, acks[0].bytes);
    assert_eq!(side.receive_response(&answer(&invite, 200, "t1")), ClientEvent::Absorbed);
    assert!(side.take_sent().is_empty());
    side.run(1_000);
    assert_eq!(side.receive_response(&busy), ClientEvent::Stray);
    side.assert_empty();
}

/// Timers D and K are zero over streams.
#[test]
fn a_stream_transaction_ends_with_its_final_response() {
    let mut side = Side::new(Limits::default());
    let (_, invite) = side.request("INVITE", tcp(), 1);
    side.receive_response(&answer(&invite, 603, "t1"));
    assert!(side.take_sent()[0].starts("ACK "));
    side.assert_empty();
    let (_, bye) = side.request("BYE", tcp(), 1);
    side.receive_response(&answer(&bye, 200, "t1"));
    side.assert_empty();
}

/// Timer K.
#[test]
fn a_final_response_that_comes_again_is_absorbed_for_t4() {
    let mut side = Side::new(Limits::default());
    let (client, bye) = side.request("BYE", udp(), 1);
    let ok = answer(&bye, 200, "t1");
    assert_eq!(side.receive_response(&ok), ClientEvent::Final { owner: TuKey(1), client });
    side.run(4_999);
    assert_eq!(side.receive_response(&ok), ClientEvent::Absorbed);
    let (sent, _) = side.run(1);
    assert!(sent.is_empty());
    assert_eq!(side.receive_response(&ok), ClientEvent::Stray);
    side.assert_empty();
}

/// 17.1.3: branch (with its nonce) and CSeq method.
#[test]
fn only_the_very_transaction_takes_a_response() {
    let mut side = Side::new(Limits::default());
    let (client, bye) = side.request("BYE", udp(), 1);
    let ok = answer(&bye, 200, "t1");
    let forged = ok.replacen("branch=z9hG4bK02", "branch=z9hG4bK03", 1);
    let foreign = ok.replacen("branch=z9hG4bK02", "branch=z9hG4bKab02", 1);
    let mut guessed = ok.clone();
    let nonce = guessed.find("branch=").unwrap() + 7 + 7 + 10;
    let digit = if &guessed[nonce..=nonce] == "0" { "1" } else { "0" };
    guessed.replace_range(nonce..=nonce, digit);
    for wrong in [
        foreign,
        guessed,
        ok.replace("CSeq: 7 BYE", "CSeq: 7 INVITE"),
        ok.replace(" BYE", " CANCEL"),
    ] {
        assert_eq!(side.receive_response(&wrong), ClientEvent::Stray, "{wrong}");
    }
    // The shard was checked before; slot and nonce are what counts here.
    assert_eq!(side.receive_response(&forged), ClientEvent::Final { owner: TuKey(1), client });
}

/// 9.1: a CANCEL waits for a provisional response.
#[test]
fn a_cancel_waits_for_the_first_provisional() {
    let mut side = Side::new(Limits::default());
    let (client, invite) = side.request("INVITE", udp(), 1);
    side.layer.cancel(side.now, client, b"SIP;cause=200", ctx!(side));
    side.layer.cancel(side.now, client, b"SIP;cause=600", ctx!(side));
    assert!(side.take_sent().is_empty());
    side.receive_response(&answer(&invite, 100, ""));
    let sent = side.take_sent();
    assert_eq!(sent.len(), 1);
    let branch = invite.text().lines().nth(1).unwrap().to_owned();
    assert_eq!(
        sent[0].text(),
        format!(
            "CANCEL sip:b@192.0.2.1 SIP/2.0\r\n{branch}\r\nRoute: <sip:p1;lr>\r\n\
             Route: <sip:p2;lr>\r\nFrom: \"A\" <sip:a@x>;tag=f1\r\nTo: <sip:b@y>\r\n\
             Call-ID: c1\r\nCSeq: 7 CANCEL\r\nMax-Forwards: 70\r\nReason: SIP;cause=200\r\n\
             Content-Length: 0\r\n\r\n"
        )
    );
    // The CANCEL is a transaction of its own: repeated, answered, absorbed.
    let (repeated, _) = side.run(600);
    assert_eq!(repeated.len(), 1);
    assert_eq!(repeated[0].bytes, sent[0].bytes);
    assert_eq!(side.receive_response(&answer(&sent[0], 200, "t1")), ClientEvent::Absorbed);
    assert_eq!(side.run(10_000).0.len(), 0);
    let terminated = answer(&invite, 487, "t1");
    assert_eq!(side.receive_response(&terminated), ClientEvent::Final { owner: TuKey(1), client });
    assert!(side.take_sent()[0].starts("ACK "));
    let (_, events) = side.run(32_000);
    assert!(events.is_empty());
    side.assert_empty();
}

#[test]
fn a_cancel_that_comes_too_late_is_not_sent() {
    for code in [200, 486] {
        let mut side = Side::new(Limits::default());
        let (client, invite) = side.request("INVITE", udp(), 1);
        if code == 200 {
            // Wanted before any answer: the 2xx came first.
            side.layer.cancel(side.now, client, b"", ctx!(side));
        }
        side.receive_response(&answer(&invite, code, "t1"));
        side.take_sent();
        side.layer.cancel(side.now, client, b"", ctx!(side));
        let (sent, events) = side.run(32_000);
        assert!(sent.is_empty() && events.is_empty());
        side.assert_empty();
    }
}

/// 9.1: no final response within 64*T1 after the CANCEL: the INVITE counts as cancelled.
#[test]
fn a_cancelled_invite_that_is_never_answered_times_out() {
    let mut side = Side::new(Limits::default());
    let (client, invite) = side.request("INVITE", udp(), 1);
    side.receive_response(&answer(&invite, 180, "t1"));
    side.run(100_000);
    side.layer.cancel(side.now, client, b"", ctx!(side));
    let (sent, events) = side.run(40_000);
    assert!(sent[0].starts("CANCEL "));
    assert_eq!(events, [(132_000, TuEvent::Timeout { owner: TuKey(1), client })]);
    side.assert_empty();
}

/// The 200 to the CANCEL finds its transaction over streams too, whose INVITE ends at once.
#[test]
fn the_answer_to_a_cancel_is_absorbed_after_the_invite_ended() {
    let mut side = Side::new(Limits::default());
    let (client, invite) = side.request("INVITE", tcp(), 1);
    side.receive_response(&answer(&invite, 180, "t1"));
    side.layer.cancel(side.now, client, b"", ctx!(side));
    let cancel = side.take_sent().remove(0);
    assert_eq!(
        side.receive_response(&answer(&invite, 487, "t1")),
        ClientEvent::Final { owner: TuKey(1), client }
    );
    assert_eq!(side.receive_response(&answer(&cancel, 200, "t1")), ClientEvent::Absorbed);
    side.run(32_000);
    side.assert_empty();
}

#[test]
fn a_failed_send_is_told_once() {
    let mut side = Side::new(Limits::default());
    let (client, invite) = side.request("INVITE", tcp(), 4);
    let event = side.layer.send_failed(side.now, client.token(), ctx!(side));
    assert_eq!(event, Some(TuEvent::TransportError { owner: TuKey(4), client }));
    assert_eq!(side.layer.send_failed(side.now, client.token(), ctx!(side)), None);
    assert_eq!(side.receive_response(&answer(&invite, 200, "t")), ClientEvent::Stray);
    // After a response a lost connection is no failed send.
    let (client, invite) = side.request("INVITE", tcp(), 4);
    side.receive_response(&answer(&invite, 180, "t"));
    assert_eq!(side.layer.send_failed(side.now, client.token(), ctx!(side)), None);
    side.layer.kill_client(client, ctx!(side));
    assert_eq!(side.counters.transport_errors, 1);
    side.assert_empty();
}

/// 18.4: an ICMP error ends what waits for a first answer from that address, and nothing else.
#[test]
fn an_unreachable_target_ends_what_waits_for_it() {
    let mut side = Side::new(Limits::default());
    let other = Egress::Udp { listener: LISTENER, to: SocketAddr::from(([192, 0, 2, 2], 5060)) };
    let dead: Vec<_> = (0..5).map(|n| side.request("INVITE", udp(), n).0).collect();
    let (kept, _) = side.request("INVITE", other, 9);
    let (answered, invite) = side.request("INVITE", udp(), 10);
    side.receive_response(&answer(&invite, 100, ""));
    let mut events = Vec::new();
    side.layer.unreachable(LISTENER, peer(), ctx!(side), &mut events);
    events.sort_by_key(|event| match event {
        TuEvent::TransportError { owner, .. } => owner.0,
        _ => u64::MAX,
    });
    let expected: Vec<_> = (0..5)
        .zip(&dead)
        .map(|(n, client)| TuEvent::TransportError { owner: TuKey(n), client: *client })
        .collect();
    assert_eq!(events, expected);
    assert_eq!(side.layer.clients(), 2);
    side.layer.kill_client(kept, ctx!(side));
    side.layer.kill_client(answered, ctx!(side));
    side.assert_empty();
}

/// 18.1.1: too large for UDP goes over TCP; where TCP is refused it goes over UDP all the same, and
/// the next one does so at once.
#[test]
fn large_requests_try_tcp_and_fall_back() {
    let mut side = Side::new(Limits::default());
    let both = Hop { egress: udp(), tcp: Some((ListenerId(1), peer())) };
    let body = "x".repeat(1_300);
    let (small, sent) = side.request_of("INVITE", both, 1, "");
    assert_eq!(sent.egress, udp());
    let (_, sent) = side.request_of("INVITE", hop(udp()), 1, &body);
    assert_eq!(sent.egress, udp(), "no way by TCP is known");

    let (client, sent) = side.request_of("INVITE", both, 2, &body);
    let connect =
        Egress::Connect { listener: ListenerId(1), to: peer(), transport: Transport::Tcp };
    assert_eq!(sent.egress, connect);
    assert!(sent.text().contains("\r\nVia: SIP/2.0/TCP 192.0.2.9:5060;"));
    assert_eq!(side.layer.send_failed(side.now, client.token(), ctx!(side)), None);
    let fallen = side.take_sent();
    assert_eq!(fallen[0].egress, udp());
    assert_eq!(fallen[0].text(), sent.text().replace("SIP/2.0/TCP", "SIP/2.0/UDP"));
    // From here on it is an ordinary UDP transaction.
    let (again, events) = side.run(40_000);
    let again: Vec<_> =
        again.iter().filter(|again| again.bytes == fallen[0].bytes).cloned().collect();
    assert_eq!(times(&again), [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert_eq!(events.len(), 3);
    assert!(!side.layer.client_is_current(small));

    let (_, sent) = side.request_of("INVITE", both, 3, &body);
    assert_eq!(sent.egress, udp(), "the refusal is remembered");
    side.run(61_000);
    let (_, sent) = side.request_of("INVITE", both, 4, &body);
    assert_eq!(sent.egress, connect, "and forgotten after a while");
    assert_eq!((side.counters.tcp_for_size, side.counters.tcp_for_size_failed), (2, 1));
    side.run(40_000);
    side.assert_empty();
}

#[test]
fn a_request_that_cannot_be_written_keeps_its_branch_until_it_is_given_up() {
    let mut side = Side::new(Limits::default());
    let (client, _) = side.layer.reserve_branch(Room::Ordinary, ctx!(side)).unwrap();
    let written = side.layer.request(
        side.now,
        client,
        Method::Invite,
        hop(udp()),
        TuKey(1),
        ctx!(side),
        |out| {
            out.extend_from_slice(b"INVITE ");
            Err("broken")
        },
    );
    assert_eq!(written, Err("broken"));
    assert!(side.take_sent().is_empty());
    assert_eq!(side.layer.clients(), 1);
    side.layer.kill_client(client, ctx!(side));
    side.layer.kill_client(client, ctx!(side));
    side.assert_empty();
}

#[test]
fn the_table_keeps_its_reserve() {
    let limits = Limits { client_transactions: 4, transactions_reserve: 2, ..Limits::default() };
    let mut side = Side::new(limits);
    let mut reserve = |room| side.layer.reserve_branch(room, ctx!(side)).is_ok();
    assert!(reserve(Room::Ordinary) && reserve(Room::Ordinary));
    assert!(!reserve(Room::Ordinary));
    assert!(reserve(Room::Reserved) && reserve(Room::Reserved));
    assert!(!reserve(Room::Reserved));
    assert!(reserve(Room::Emergency) && reserve(Room::Emergency));
    assert!(!reserve(Room::Emergency));
    assert_eq!(side.counters.transactions_refused, 3);
}

#[test]
fn a_loose_branch_belongs_to_nobody() {
    let mut side = Side::new(Limits::default());
    let branch = side.layer.loose_branch();
    let (_, bye) = side.request("BYE", udp(), 1);
    let ok = answer(&bye, 200, "t");
    let at = ok.find("branch=").unwrap() + 7;
    let mut loose = ok.clone();
    loose.replace_range(at..at + branch.len(), std::str::from_utf8(&branch).unwrap());
    assert_eq!(side.receive_response(&loose), ClientEvent::Stray);
}

#[test]
fn probe_owners_are_told_apart() {
    assert_eq!(TuKey::probe(7, 9).as_probe(), Some((7, 9)));
    assert_eq!(TuKey::NONE.as_probe(), None);
    assert_eq!(TuKey(7).as_probe(), None);
}
