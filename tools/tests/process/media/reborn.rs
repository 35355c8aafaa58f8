//! Interfaces that are deleted and made again while calls are up: the binary, veth, and every packet
//! compared with what was said.

use std::time::{Duration, Instant};

use super::{
    call::Call,
    edge::{Edge, Setup, description, media_of},
    namespaces::Spaces,
    voice::{Voice, talk, talk_within},
};
use crate::support::PATIENCE;

const PORT: u16 = 40_000;
/// Within which packets pass the program in the kernel, if it has the stream.
const TRY: Duration = Duration::from_millis(200);

/// Talks until the call is heard while the whole process stands still.
#[track_caller]
fn talk_below(edge: &Edge, calls: &mut [[Voice; 2]]) {
    let end = Instant::now() + PATIENCE;
    loop {
        let waiting = edge.frozen(|| talk_within(TRY, calls, false));
        // What the program did not have, the process has now.
        talk(calls, true);
        if waiting == 0 {
            return;
        }
        assert!(Instant::now() < end, "still by the sockets");
    }
}

fn made_anew(spaces: &Spaces) {
    let setup = Setup { driver: "xdp", ..Setup::default() };
    let mut edge = Edge::start_in(Some(spaces), Spaces::net(), &setup);
    let net = edge.net;
    let mut pair = [(net.caller, 0x0a0a_0001), (net.callee, 0x0b0b_0001)]
        .map(|(ip, ssrc)| Voice::new(ip, PORT, ssrc));
    let line = format!("m=audio {PORT} RTP/AVP 0\n");
    let offer = description(net.caller, 1, &line);
    let call = Call::up(&mut edge, 1, &offer, &description(net.callee, 1, &line));
    pair[0].to = media_of(&call.answer, 0);
    pair[1].to = media_of(&call.invite, 0);
    let mut calls = [pair];
    talk_below(&edge, &mut calls);
    for wire in 0..2 {
        spaces.cut(wire);
        edge.wait_for_line(&format!("e{wire} is gone; its streams go on over the sockets"), 1);
        spaces.wire(wire).expect("the wire again");
        for _ in 0..20 {
            talk(&mut calls, true);
        }
        edge.wait_for_line(&format!("e{wire} has the program again: native"), 1);
        talk_below(&edge, &mut calls);
    }
    for voice in calls.iter().flatten() {
        assert_eq!(voice.foreign, Vec::<Vec<u8>>::new());
    }
    call.end(&mut edge);
    let records = edge.stop();
    assert_eq!((records.len(), records[0].status), (1, 200));
    let said: u64 = calls[0].iter().map(|voice| u64::from(voice.sequence)).sum();
    let counted: u64 = records[0].streams.iter().map(|stream| stream.packets).sum();
    assert_eq!(counted, said, "{:?}", records[0].streams);
    // Everything was heard, some of it by the sockets, which the program must not miss; but for one that
    // met a rule while it was written.
    let lost: u64 = records[0].streams.iter().map(|stream| stream.lost).sum();
    assert!(lost <= 2, "{:?}", records[0].streams);
}

#[test]
fn a_call_goes_below_the_sockets_again_when_its_interfaces_were_made_anew() {
    let name = "a_call_goes_below_the_sockets_again_when_its_interfaces_were_made_anew";
    match Spaces::new() {
        Ok(spaces) => spaces.at_the_peers(|| made_anew(&spaces)),
        Err(why) => println!("skipped: {name}: {why}"),
    }
}
