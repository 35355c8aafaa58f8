//! Signals to a run with calls up: SIGTERM, the drain, and what follows it; SIGHUP, and that nothing
//! ends.

use std::{fs, time::Instant};

use ravelin_contract::{cdr::CdrKind, chain::Entry};

use crate::{
    peer::{Peer, connect, header},
    support::{Process, Scratch, address, chain, config, kinds, ravelin},
};

const STOPPED: u16 = 502;

fn start(scratch: &Scratch, place: u8, drain: &str) -> Process {
    let file = scratch.write("ravelin.yml", &config(place));
    let mut command = ravelin();
    command.args(["edge", "--drain-within", drain, "--config"]).arg(&file);
    let mut process = Process::start(command.arg("--data").arg(scratch.data()));
    process.wait_for_line("edge: ready", 1);
    process
}

/// They are there before Ravelin is: that nobody was there for its first OPTIONS would be told while the
/// first INVITE is on its way.
fn peers(place: u8) -> (Peer, Peer) {
    let caller = Peer::new(address(place, 1, 7, 0), address(place, 0, 10, 5060));
    let carrier = Peer::new(address(place, 2, 1, 5060), address(place, 0, 20, 5060));
    (caller, carrier)
}

/// Causes of the calls on record, in order.
fn causes(entries: &[Entry]) -> Vec<u16> {
    let mut causes: Vec<u16> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Cdr(cdr) if cdr.kind == CdrKind::Call => Some(cdr.cause),
            _ => None,
        })
        .collect();
    causes.sort_unstable();
    causes
}

#[test]
fn a_stop_drains_then_ends_every_call_in_order_and_on_record() {
    const PLACE: u8 = 18;
    let scratch = Scratch::new();
    // Longer than a loaded machine takes for what happens meanwhile.
    let (mut caller, mut carrier) = peers(PLACE);
    let mut process = start(&scratch, PLACE, "10s");
    let mut psap = Peer::new(address(PLACE, 9, 1, 5060), address(PLACE, 0, 20, 5060));
    connect(&mut caller, &mut carrier, "answered", "+12125550001");
    caller.invite("ringing", "+12125550002");
    let ringing = carrier.expect("INVITE ", "+12125550002");
    carrier.reply(&ringing, "180 Ringing");
    caller.expect("SIP/2.0 180", "ringing");

    process.signal("TERM");
    process.wait_for_line("taking no new calls", 1);
    caller.invite("late", "+12125550003");
    let refused = caller.expect("SIP/2.0 503", "late@");
    assert!(header(&refused, "Reason").starts_with("ravelin;cause=207"), "{refused}");
    connect(&mut caller, &mut psap, "sos", "911");

    // The drain is over: everybody hears of it.
    for name in ["answered@", "sos@"] {
        let bye = caller.expect("BYE ", name);
        assert!(header(&bye, "Reason").starts_with("ravelin;cause=502"), "{bye}");
        caller.reply(&bye, "200 OK");
    }
    for peer in [&mut carrier, &mut psap] {
        let bye = peer.expect("BYE ", "cause=502");
        peer.reply(&bye, "200 OK");
    }
    let cancel = carrier.expect("CANCEL ", "");
    carrier.reply(&cancel, "200 OK");
    carrier.reply(&ringing, "487 Request Terminated");
    let refused = caller.expect("SIP/2.0 503", "ringing@");
    assert!(header(&refused, "Reason").starts_with("ravelin;cause=502"), "{refused}");
    let status = process.wait();
    assert!(status.success(), "{}", process.log());

    let entries = chain(&scratch.data());
    assert_eq!(causes(&entries), [207, STOPPED, STOPPED, STOPPED]);
    let kinds = kinds(&entries);
    for kind in ["edge.draining", "emergency.cut_off", "emergency.ended", "edge.drained"] {
        assert!(kinds.iter().any(|found| found == kind), "{kind} is missing: {kinds:?}");
    }
    assert_eq!(kinds.last().map(String::as_str), Some("edge.stopped"));
    let cdrs: String = fs::read_dir(scratch.data().join("cdr"))
        .expect("cdr directory")
        .map(|file| fs::read_to_string(file.expect("a file").path()).expect("records"))
        .collect();
    assert!(cdrs.contains("\"cause\":502"), "{cdrs}");
}

#[test]
fn a_second_signal_ends_the_calls_at_once_and_still_in_order() {
    const PLACE: u8 = 19;
    let scratch = Scratch::new();
    let (mut caller, mut carrier) = peers(PLACE);
    let mut process = start(&scratch, PLACE, "24h");
    connect(&mut caller, &mut carrier, "answered", "+12125550001");
    process.signal("TERM");
    process.wait_for_line("taking no new calls", 1);
    // A reload is no second request to stop.
    process.signal("HUP");
    let began = Instant::now();
    process.signal("INT");
    for peer in [&mut caller, &mut carrier] {
        peer.expect("BYE ", "cause=502");
    }
    let status = process.wait();
    assert!(status.success(), "{}", process.log());
    assert!(began.elapsed() < crate::support::PATIENCE);
    assert_eq!(causes(&chain(&scratch.data())), [STOPPED]);
}

/// A reload through `up`: a file with a fault changes nothing, a changed one is put in force, and the
/// call that is up lives through both, its planes too.
#[test]
fn a_hangup_reads_the_file_again_and_ends_no_call() {
    let scratch = Scratch::new();
    let good = config(5).replace("127.4.", "127.13.");
    let file = scratch.write("ravelin.yml", &good);
    let mut command = ravelin();
    command.args(["up", "--drain-within", "24h", "--config"]).arg(&file);
    let mut up = Process::start(command.arg("--data").arg(scratch.data()));
    up.wait_for_line("ravelin: up.", 1);
    let at = |net: u8, host: u8, port: u16| ([127, 13, 50 + net, host], port).into();
    let mut caller = Peer::new(at(1, 7, 0), at(0, 10, 5060));
    let mut carrier = Peer::new(at(2, 1, 5060), at(0, 20, 5060));
    connect(&mut caller, &mut carrier, "long", "+12125550001");

    scratch.write("ravelin.yml", &good.replace("trunks: [pbx-detroit]", "trunks: [nowhere]"));
    up.signal("HUP");
    up.wait_for_line("SIGHUP changes nothing", 1);
    assert!(up.log().contains("routes[1]"), "{}", up.log());
    scratch.write("ravelin.yml", &good);
    up.signal("HUP");
    up.wait_for_line("the config file did not change", 1);
    // The route to the carrier is taken away: new calls feel it.
    scratch.write(
        "ravelin.yml",
        &good.replace("to: \"*\", trunks: [carrier-a", "to: \"+1999*\", trunks: [carrier-a"),
    );
    up.signal("HUP");
    up.wait_for_line("config version 2 is in force", 1);
    caller.invite("after", "+12125550002");
    caller.expect("SIP/2.0 404", "after@");

    // Both parties are still in their call: it is the stop that ends it.
    up.signal("TERM");
    up.wait_for_line("taking no new calls", 1);
    up.signal("TERM");
    for peer in [&mut caller, &mut carrier] {
        peer.expect("BYE ", "cause=502");
    }
    let status = up.wait();
    assert!(status.success(), "{}", up.log());
    assert!(!up.log().contains("starting it again"), "{}", up.log());
}
