//! The process ends without a word and another takes its calls over (design 8).

use ravelin_contract::cdr::Party;
use ravelin_engine::{
    checkpoint::NotAdopted, drops::DropReason, engine::Received, port::MediaPortId,
};

use crate::common::*;

/// An RTP packet.
fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 160, 0, 0, 0, 7]);
    packet.extend_from_slice(&[0x55; 160]);
    packet
}

const CALLER_RTP: &str = "127.0.1.1:40000";
const CALLEE_RTP: &str = "127.0.2.1:50000";

/// Our media addresses towards caller and callee of a call made by [`connected`].
struct Ports {
    caller: std::net::SocketAddr,
    callee: std::net::SocketAddr,
}

/// A connected call, and where its parties send their media.
fn connected_with_media(world: &mut World) -> (Caller, Callee, Ports) {
    let mut caller = Caller::dial(world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(world, CARRIER_A);
    callee.answer(world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(world, "");
    let ports = Ports {
        caller: addr(&format!("127.0.0.10:{}", ok.media_port(0))),
        callee: addr(&format!("127.0.0.20:{}", callee.invite.media_port(0))),
    };
    (caller, callee, ports)
}

fn exchange_media(world: &mut World, ports: &Ports, sequence: u16) {
    world.media.clear();
    world.send_media(CALLER_RTP, ports.caller, &rtp(sequence));
    world.send_media(CALLEE_RTP, ports.callee, &rtp(sequence));
    let to: Vec<_> = world.media.iter().map(|(to, _)| *to).collect();
    assert_eq!(to, [addr(CALLEE_RTP), addr(CALLER_RTP)]);
}

fn offer(port: u16) -> String {
    sdp_part("127.0.1.1", port)
}

#[test]
fn a_confirmed_call_goes_on_as_if_nothing_had_happened() {
    let mut world = World::new();
    let (mut caller, mut callee, ports) = connected_with_media(&mut world);
    exchange_media(&mut world, &ports, 1);
    world.pass(6_000);
    exchange_media(&mut world, &ports, 2);
    world.pass(6_000);
    let id = world.engine.calls(world.now, 1)[0].id.clone();
    let adoption = world.crash(300);
    assert_eq!((adoption.adopted, adoption.finishing), (1, 0), "{adoption:?}");
    assert!(adoption.ended.is_empty() && adoption.unreadable.is_empty());
    world.quiet();
    assert_eq!(world.engine.calls(world.now, 1)[0].id, id);
    let tables = world.engine.tables();
    assert_eq!((tables.permits, tables.ports_in_use), (3, 4));
    let seen = |world: &World| world.engine.calls(world.now, 1)[0].packets_from_caller;
    let before = seen(&world);
    assert!(before >= 1, "those that the last record before the crash counted");
    exchange_media(&mut world, &ports, 3);
    assert_eq!(seen(&world), before + 1);

    // Both parties may change the call, one after the other.
    caller.request(&mut world, "INVITE", &offer(40_002));
    world.expect(PBX, "SIP/2.0 100");
    let reinvite = world.expect(CARRIER_A, "INVITE ");
    assert_eq!(reinvite.header("Call-ID"), callee.invite.header("Call-ID"));
    assert!(reinvite.cseq() > callee.invite.cseq());
    assert_eq!(u32::from(reinvite.media_port(0)), u32::from(ports.callee.port()));
    let answer = reinvite.reply("200 OK", "", &sdp_part("127.0.2.1", 50_000));
    world.send(CARRIER_A, CORE, &answer);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert_eq!(u32::from(ok.media_port(0)), u32::from(ports.caller.port()));
    caller.ack(&mut world, "");
    callee.request(&mut world, "INVITE", &sdp_part("127.0.2.1", 50_000));
    world.expect(CARRIER_A, "SIP/2.0 100");
    let reinvite = world.expect(PBX, "INVITE ");
    assert_eq!(reinvite.header("Call-ID"), caller.call_id);
    world.send(PBX, ACCESS, &reinvite.reply("200 OK", "", &offer(40_002)));
    world.expect(PBX, "ACK ");
    world.expect(CARRIER_A, "SIP/2.0 200");
    callee.cseq -= 1;
    callee.request(&mut world, "ACK", "");

    world.pass(1_000);
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(CARRIER_A, "BYE ");
    assert!(bye.cseq() > reinvite.cseq().min(1));
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    let cdr = world.call_cdr();
    assert_eq!((cdr.call.as_str(), cdr.adopted, cdr.snapshot), (id.as_str(), 1, 1));
    assert_eq!((cdr.start_unix_ms, cdr.duration_ms), (START_UNIX_MS, 13_300));
    assert_eq!(
        (cdr.inbound_trunk.as_deref(), cdr.outbound_trunk.as_deref()),
        (Some("pbx"), Some("carrier-a"))
    );
    assert_eq!((cdr.route.as_deref(), cdr.ended_by), (Some("outbound"), Party::Caller));
    // Those that the last record before the crash counted, and those after it.
    let packets = cdr.media_caller.unwrap().packets;
    assert!((2..=3).contains(&packets), "{packets}");
    assert_eq!(world.attempt_cdrs().len(), 1);
    // Its ports are free again after their rest.
    world.pass(75_000);
    world.send_media(CALLER_RTP, ports.caller, &rtp(9));
    assert_eq!(world.last, Received::Dropped(DropReason::MediaPortIdle));
    world.all_gone();
}

#[test]
fn crash_after_crash_is_survived_and_counted() {
    let mut world = World::new();
    let (mut caller, _, ports) = connected_with_media(&mut world);
    for crash in 1..=10 {
        assert_eq!(world.crash(200).adopted, 1);
        exchange_media(&mut world, &ports, crash);
    }
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    assert_eq!(world.call_cdr().adopted, 10);
    world.all_gone();
}

#[test]
fn a_port_of_a_call_that_was_taken_over_is_not_drawn_for_another() {
    let mut world = World::new();
    let (_, _, ports) = connected_with_media(&mut world);
    world.crash(100);
    let held: Vec<_> = (0..)
        .zip(world.engine.media_ports())
        .filter(|(id, _)| world.engine.is_media_port_held(MediaPortId(*id)))
        .map(|(_, spec)| spec.addr)
        .collect();
    assert_eq!(held.len(), 4);
    assert!(held.contains(&ports.caller) && held.contains(&ports.callee));
    // More calls than the ranges have ports.
    for number in 0..4 {
        Caller::dial(&mut world, &format!("+1212555{number:04}"));
        let callee = Callee::take(&mut world, CARRIER_A);
        assert_ne!(callee.invite.media_port(0), ports.callee.port());
    }
    assert_eq!(world.engine.tables().permits, 15);
    // The fifth call of the trunk besides the one taken over is one too many.
    Caller::dial(&mut world, "+12125559999");
    assert!(world.inbox_of(PBX).last().unwrap().starts_with("SIP/2.0 503"));
}

#[test]
fn what_was_being_set_up_vanishes_and_its_parties_are_told_so_when_they_ask() {
    let mut world = World::new();
    let ringing = Caller::dial(&mut world, "+12125550001");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "180 Ringing", "");
    world.forget_inbox();
    assert!(world.crash(100).is_empty());
    ringing.cancel(&mut world);
    assert!(world.expect(PBX, "SIP/2.0 481").header("CSeq").ends_with("CANCEL"));
    callee.answer(&mut world);
    assert_eq!(world.last, Received::Dropped(DropReason::StrayResponse));
    world.quiet();
    assert_eq!(world.engine.tables().left_over(), []);
}

#[test]
fn a_2xx_that_is_repeated_because_our_ack_was_lost_gets_its_ack() {
    let mut world = World::new();
    let (_, callee) = connected(&mut world);
    world.crash(100);
    callee.answer(&mut world);
    let ack = world.expect(CARRIER_A, "ACK ");
    assert_eq!(ack.cseq(), callee.invite.cseq());
    world.quiet();
    // Another branch of a fork is hung up.
    let other = Callee { tag: "other".into(), ..callee };
    other.answer(&mut world);
    assert_eq!(world.last, Received::Dropped(DropReason::StrayResponse));
}

#[test]
fn a_caller_that_never_acknowledges_is_given_up_after_64_t1() {
    let mut world = World::new();
    Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    world.forget_inbox();
    assert_eq!(world.crash(100).adopted, 1);
    world.pass(31_000);
    world.quiet();
    world.pass(2_000);
    for (at, listener) in [(PBX, ACCESS), (CARRIER_A, CORE)] {
        let bye = world.expect(at, "BYE ");
        world.forget_inbox_of(at);
        world.send(at, listener, &bye.reply("200 OK", "", ""));
    }
    assert_eq!(world.call_cdr().cause, 404);
    world.all_gone();
}

#[test]
fn a_bye_that_nobody_confirmed_is_said_again_and_the_record_stays_one() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let first = world.expect(CARRIER_A, "BYE ");
    let adoption = world.crash(100);
    assert_eq!((adoption.adopted, adoption.finishing), (0, 1));
    let again = world.expect(CARRIER_A, "BYE ");
    assert_eq!(again.header("Call-ID"), first.header("Call-ID"));
    assert_eq!(again.cseq(), first.cseq() + 1);
    world.quiet();
    world.send(CARRIER_A, CORE, &again.reply("481 Gone", "", ""));
    world.call_cdr();
    world.all_gone();
}

#[test]
fn a_request_that_was_under_way_is_asked_again() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    caller.request(&mut world, "INVITE", &offer(40_002));
    world.expect(PBX, "SIP/2.0 100");
    let first = world.expect(CARRIER_A, "INVITE ");
    world.crash(100);
    // Its sender saw our 100 and would wait for ever.
    let refusal = world.expect(PBX, "SIP/2.0 491");
    assert_eq!(refusal.cseq(), caller.cseq);
    world.quiet();
    caller.ack_of(&mut world, caller.cseq, "");
    // The answer to the lost one is acknowledged and changes nothing.
    world.send(CARRIER_A, CORE, &first.reply("200 OK", "", &sdp_part("127.0.2.1", 50_000)));
    assert_eq!(world.expect(CARRIER_A, "ACK ").cseq(), first.cseq());
    caller.request(&mut world, "INVITE", &offer(40_002));
    world.expect(PBX, "SIP/2.0 100");
    let second = world.expect(CARRIER_A, "INVITE ");
    assert!(second.cseq() > first.cseq());
    assert_eq!(second.header("Call-ID"), callee.invite.header("Call-ID"));
}

#[test]
fn an_emergency_call_keeps_its_rights() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "911");
    let psap = Callee::take(&mut world, PSAP_1);
    psap.answer(&mut world);
    world.forget_inbox();
    let adoption = world.crash(500);
    assert_eq!((adoption.adopted, adoption.emergency), (1, 1));
    // Neither a missing ACK nor any length of time ends it (EM-61).
    world.pass(13 * 3_600_000);
    world.quiet();
    let call = &world.engine.calls(world.now, 1)[0];
    assert_eq!((call.class.as_str(), call.site.as_deref()), ("emergency", Some("Detroit")));
    // Hold is still refused to its caller (EM-60).
    let ok_to = format!("{};tag={}", caller.to, tag_of(&world));
    caller.to = ok_to;
    caller.remote = "sip:911@127.0.0.10".into();
    let hold = format!(
        "Content-Type: application/sdp\n\n{}",
        sdp_with("127.0.1.1", 40_000, 2, "sendonly")
    );
    caller.request(&mut world, "INVITE", &hold);
    world.expect(PBX, "SIP/2.0 488");
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(PSAP_1, "BYE ");
    world.send(PSAP_1, CORE, &bye.reply("200 OK", "", ""));
    let kinds = world.event_kinds();
    assert_eq!(kinds.iter().filter(|kind| **kind == "emergency.ended").count(), 1, "{kinds:?}");
    assert!(kinds.contains(&"emergency.unacknowledged"));
    let cdr = world.call_cdr();
    assert!(cdr.emergency && cdr.adopted == 1);
    world.all_gone();
}

/// Our tag towards the caller of the only call.
fn tag_of(world: &World) -> String {
    let record = world.kept.values().next().unwrap();
    let text = String::from_utf8_lossy(record);
    // `From: <sip:911@127.0.0.10>;tag=...` of the leg towards the caller.
    let at = text.find("sip:911@127.0.0.10>;tag=").unwrap();
    text[at + 24..at + 50].to_owned()
}

#[test]
fn a_call_over_tcp_is_reached_where_its_contact_says() {
    let mut world = World::new();
    let invite = format!(
        "INVITE sip:+12125551234@127.0.0.10 SIP/2.0\nVia: SIP/2.0/TCP {PBX};branch=z9hG4bK-s\n\
         Max-Forwards: 70\nFrom: <sip:+13135550100@127.0.1.1>;tag=caller\n\
         To: <sip:+12125551234@127.0.0.10>\nCall-ID: stream@127.0.1.1\nCSeq: 1 INVITE\n\
         Contact: <sip:a@127.0.1.1:5070;transport=tcp>\n{}",
        offer(40_000)
    );
    world.send_stream(PBX, ACCESS_TCP, &invite);
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    world.forget_inbox();
    assert_eq!(world.crash(100).adopted, 1);
    let mut callee = callee;
    callee.request(&mut world, "BYE", "");
    world.expect(CARRIER_A, "SIP/2.0 200");
    // The ACK of the caller is still awaited: then the BYE goes out.
    world.pass(40_000);
    let bye = world.expect("127.0.1.1:5070", "BYE ");
    assert!(bye.header("Via").contains("/TCP "));
}

fn ends_with(config: &str, shards: u8, why: NotAdopted) -> World {
    let mut world = World::new();
    connected(&mut world);
    world.pass(5_000);
    let condemned = (why == NotAdopted::Rebooted).then_some(why);
    let adoption = world.crash_into(config, 0, shards, condemned, 1_000);
    assert_eq!(adoption.adopted, 0);
    assert_eq!(adoption.ended.get(why.label()), Some(&1), "{adoption:?}");
    let tables = world.engine.tables();
    assert_eq!((tables.permits, tables.ports_in_use, tables.media_streams), (0, 0, 0));
    let cdr = world.call_cdr();
    assert_eq!((cdr.cause, cdr.adopted, cdr.ended_by), (503, 1, Party::Ravelin));
    world
}

fn bye_to(world: &mut World, at: &str, listener: u16) {
    let bye = world.expect(at, "BYE ");
    assert!(bye.header("Reason").contains("cause=503"));
    world.send(at, listener, &bye.reply("200 OK", "", ""));
}

#[test]
fn a_call_that_cannot_go_on_ends_with_a_bye_to_both_and_its_records() {
    let ports = CONFIG.replace("30000-30063", "30064-30127");
    let mut world = ends_with(&ports, 1, NotAdopted::Ports);
    bye_to(&mut world, PBX, ACCESS);
    bye_to(&mut world, CARRIER_A, CORE);
    assert_eq!(world.call_cdr().duration_ms, 6_000);
    world.all_gone();

    let mut world = ends_with(CONFIG, 1, NotAdopted::Rebooted);
    bye_to(&mut world, PBX, ACCESS);
    bye_to(&mut world, CARRIER_A, CORE);
    // Until the process was last known to be alive.
    assert_eq!(world.call_cdr().duration_ms, 5_000);
    world.all_gone();

    let renamed = CONFIG.replace("id: core-udp", "id: core-other");
    let mut world = ends_with(&renamed, 1, NotAdopted::Listener);
    bye_to(&mut world, PBX, ACCESS);
    world.quiet();
    world.all_gone();
}

#[test]
fn calls_of_another_number_of_shards_end_in_order() {
    let mut world = World::new();
    connected(&mut world);
    let adoption = world.crash_into(CONFIG, 1, 2, None, 100);
    assert_eq!(adoption.ended.get("shards_changed"), Some(&1), "{adoption:?}");
    bye_to(&mut world, PBX, ACCESS);
    bye_to(&mut world, CARRIER_A, CORE);
    world.all_gone();
}

#[test]
fn a_trunk_that_left_the_config_keeps_its_calls_and_its_name_in_their_records() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    let without = CONFIG.replace("carrier-a", "carrier-x").replace("127.0.2.", "127.0.6.");
    assert_eq!(world.crash_into(&without, 0, 1, None, 100).adopted, 1);
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    bye_without_reason(&mut world);
    assert_eq!(world.call_cdr().outbound_trunk.as_deref(), Some("carrier-a"));
    world.all_gone();
}

fn bye_without_reason(world: &mut World) {
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
}

#[test]
fn a_call_with_an_answer_in_the_ack_counts_once_it_is_there() {
    let mut world = World::new();
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", "");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    assert!(world.kept.is_empty(), "the offer of the 2xx has no answer yet");
    world.expect(PBX, "SIP/2.0 100");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, &offer(40_000));
    assert_eq!(world.kept.len(), 1);
    assert_eq!(world.crash(10).adopted, 1);
}

#[test]
fn a_call_too_large_for_a_record_is_counted_and_goes_on_without() {
    let mut world = World::new();
    let long = format!("<sip:{}@127.0.2.1;lr>", "p".repeat(240));
    let routes: String = (0..16).map(|_| format!("Record-Route: {long}\n")).collect();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "200 OK", &format!("{routes}{}", sdp_part("127.0.2.1", 50_000)));
    world.expect(PBX, "SIP/2.0 100");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    assert!(world.kept.is_empty());
    assert_eq!(world.engine.counters().checkpoints_too_long, 1);
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
}
