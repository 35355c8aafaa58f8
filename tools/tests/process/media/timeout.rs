//! A party that falls silent while its packets went past the process: the program in the kernel has
//! counted them, and the watch over silence knows it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use ravelin_contract::cdr::Party;

use super::{
    call::Call,
    edge::{Edge, Setup, description, media_of},
    namespaces::Spaces,
    voice::{Voice, talk, talk_within},
};
use crate::support::PATIENCE;

const PORT: u16 = 40_000;
/// What a trunk of this test allows; on the fast path 2.5 s more.
const ALLOWED: Duration = Duration::from_secs(4);
const MEDIA: &str = "{ rtp_timeout: 4s, rtp_timeout_action: bye }";
const TRY: Duration = Duration::from_millis(200);
const PACKET: Duration = Duration::from_millis(20);

/// Both talk without a pause that anybody could take for silence, for longer than silence may last.
fn talk_on(parties: &mut [[Voice; 2]]) {
    let (end, mut began, mut last) = (Instant::now() + PATIENCE, Instant::now(), Instant::now());
    while began.elapsed() < ALLOWED * 2 {
        talk(parties, false);
        if last.elapsed() > ALLOWED / 2 {
            // The machine held everybody up.
            began = Instant::now();
        }
        last = Instant::now();
        assert!(last < end, "no machine to talk on");
        std::thread::sleep(PACKET);
    }
}

fn falls_silent(spaces: &Spaces) {
    let setup = Setup { driver: "xdp", media: [MEDIA; 2], ..Setup::default() };
    let mut edge = Edge::start_in(Some(spaces), Spaces::net(), &setup);
    let streams = format!("m=audio {PORT} RTP/AVP 0\n");
    let [offer, answer] = edge.net.parties().map(|ip| description(ip, 1, &streams));
    let call = Call::up(&mut edge, 1, &offer, &answer);
    let [near, far] = edge.net.parties();
    let (mut caller, mut callee) = (Voice::new(near, PORT, 7), Voice::new(far, PORT, 8));
    (caller.to, callee.to) = (media_of(&call.answer, 0), media_of(&call.invite, 0));
    let mut parties = [[caller, callee]];
    let long = Instant::now() + 3 * PATIENCE;
    loop {
        let end = Instant::now() + PATIENCE;
        while edge.frozen(|| talk_within(TRY, &mut parties, false)) != 0 {
            talk(&mut parties, false);
            assert!(Instant::now() < end, "it is not taken over");
        }
        talk_on(&mut parties);
        // An interface whose other end is late on a loaded machine is left to the sockets for a while.
        if edge.frozen(|| talk_within(TRY * 10, &mut parties, false)) == 0 {
            break;
        }
        assert!(Instant::now() < long, "the fast path loses the call time and again");
        talk(&mut parties, false);
    }

    let [[mut caller, callee]] = parties;
    let over = AtomicBool::new(false);
    let caller = std::thread::scope(|scope| {
        let over = &over;
        let talker = scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                caller.say();
                std::thread::sleep(PACKET);
            }
            caller
        });
        for party in [&mut edge.caller, &mut edge.callee] {
            let bye = party.expect("BYE ", "ravelin;cause=408");
            party.reply(&bye, "200 OK");
        }
        over.store(true, Ordering::Relaxed);
        talker.join().expect("a talker")
    });
    let records = edge.stop();
    let [of_caller, of_callee] = &records[0].streams[..] else { panic!("{records:?}") };
    assert_eq!(records[0].cause, 408);
    assert_eq!((of_caller.from, of_caller.timeouts), (Party::Caller, 0));
    assert_eq!((of_callee.from, of_callee.timeouts), (Party::Callee, 1));
    assert_eq!((of_callee.packets, of_callee.lost), (u64::from(callee.sequence), 0));
    // What it said after the end is nobody's.
    assert!(of_caller.packets <= u64::from(caller.sequence));
}

#[test]
fn a_party_on_the_fast_path_is_heard_and_its_silence_too() {
    match Spaces::new() {
        Ok(spaces) => spaces.at_the_peers(|| falls_silent(&spaces)),
        Err(why) => {
            println!("skipped: a_party_on_the_fast_path_is_heard_and_its_silence_too: {why}");
        }
    }
}
