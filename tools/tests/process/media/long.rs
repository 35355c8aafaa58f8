//! Media longer than is taken on a media port: not forwarded, and in the record of its stream.

use super::{
    call::Call,
    edge::{Edge, Net, Setup, description, media_of},
    voice::{Voice, rtp, talk},
};

/// Of 127.14.0.0/16.
const PLACE: u8 = 0;
const PORT: u16 = 40_000;
/// Longest datagram that is taken.
const LONGEST: usize = 1_920;

#[test]
fn media_that_is_too_long_is_in_the_record_of_its_stream() {
    let mut edge = Edge::start(Net::loopback(PLACE), &Setup::default());
    let net = edge.net;
    let mut pair = [(net.caller, 0x0a0a_0001), (net.callee, 0x0b0b_0001)]
        .map(|(ip, ssrc)| Voice::new(ip, PORT, ssrc));
    let line = format!("m=audio {PORT} RTP/AVP 0\n");
    let offer = description(net.caller, 1, &line);
    let call = Call::up(&mut edge, 1, &offer, &description(net.callee, 1, &line));
    pair[0].to = media_of(&call.answer, 0);
    pair[1].to = media_of(&call.invite, 0);
    let mut calls = [pair];
    talk(&mut calls, false);
    for octets in [LONGEST + 1, 9_000, 60_000] {
        let [caller, _] = &calls[0];
        let packet = rtp(0, caller.sequence + 1, caller.ssrc, &vec![7; octets - 12]);
        caller.rtp.send_to(&packet, caller.to).expect("sent");
        // What was sent before has been taken when this is heard.
        talk(&mut calls, false);
    }
    for voice in calls.iter().flatten() {
        assert_eq!(voice.foreign, Vec::<Vec<u8>>::new(), "too long, and forwarded");
    }
    call.end(&mut edge);
    let records = edge.stop();
    assert_eq!((records.len(), records[0].streams[0].packets), (1, 4));
    assert_eq!(records[0].streams[0].drops.get("media_too_long"), Some(&3));
    assert_eq!(records[0].media_caller.expect("a count").dropped, 3);
}
