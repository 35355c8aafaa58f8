//! A 911 call whose description nobody can read, with the binary as it runs.

use std::time::{Duration, Instant};

use ravelin_contract::chain::Entry;

use super::{
    edge::{description, media_of},
    voice::{drained, rtp, socket},
};
use crate::{
    peer::{Peer, header},
    support::{Process, Scratch, chain, config, ravelin},
};

const PATIENCE: Duration = Duration::from_secs(60);
const PLAIN: &str = "m=audio 40000 RTP/AVP 0\r\n";

/// The PSAP is offered what every PSAP takes, the caller is found where its signalling comes from,
/// both hear one another, and what was done is on record. The same from an ordinary call gets 488.
#[test]
fn a_911_call_that_nobody_can_read_is_heard() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(21).replace("127.4.", "127.13."));
    let mut command = ravelin();
    command.args(["edge", "--drain-within", "24h", "--config"]).arg(&file);
    let mut process = Process::start(command.arg("--data").arg(scratch.data()));
    process.wait_for_line("edge: ready", 1);
    let at = |net: u8, host: u8, port: u16| ([127, 13, 210 + net, host], port).into();
    let mut caller = Peer::new(at(1, 7, 0), at(0, 10, 5060));
    let mut psap = Peer::new(at(9, 1, 5060), at(0, 20, 5060));
    let junk = "v=0\r\nnot a description\r\n";

    caller.offer("plain", "+12125550001", junk);
    let refused = caller.expect("SIP/2.0 488", "plain@");
    assert!(header(&refused, "Warning").starts_with("399 "), "{refused}");
    assert!(header(&refused, "Reason").starts_with("ravelin;cause=114;"), "{refused}");
    caller.ack_refusal("plain", "+12125550001", &refused);

    caller.offer("help", "911", junk);
    let invite = psap.expect("INVITE ", "m=audio ");
    let ip = psap.address().ip();
    psap.answer(&invite, "200 OK", &description(ip, 1, PLAIN));
    psap.expect("ACK ", &header(&invite, "Call-ID"));
    let answer = caller.expect("SIP/2.0 200", "help@");
    caller.ack("help", &answer);

    // From a port that nobody has told.
    let (phone, desk) = (socket(caller.address().ip(), 0), socket(ip, 40_000));
    let (ours, theirs) = (media_of(&answer, 0), media_of(&invite, 0));
    let end = Instant::now() + PATIENCE;
    let (mut heard, mut sequence) = ([0; 2], 0);
    while heard.contains(&0) {
        assert!(Instant::now() < end, "{heard:?}");
        sequence += 1;
        phone.send_to(&rtp(0, sequence, 7, b"from the caller"), ours).expect("sent");
        desk.send_to(&rtp(0, sequence, 9, b"from the PSAP"), theirs).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
        let count = |packets: Vec<Vec<u8>>, what: &[u8]| {
            packets.iter().filter(|packet| packet.ends_with(what)).count()
        };
        heard[0] += count(drained(&phone), b"from the PSAP");
        heard[1] += count(drained(&desk), b"from the caller");
    }

    process.signal("TERM");
    process.wait_for_line("taking no new calls", 1);
    process.signal("TERM");
    process.wait();
    let entries = chain(&scratch.data());
    let done = ["mended", "no_address", "substituted"];
    assert!(entries.iter().any(|entry| matches!(entry, Entry::Cdr(cdr)
        if cdr.emergency && cdr.sdp_caller == done)));
    assert!(entries.iter().any(|entry| matches!(entry, Entry::Audit(event)
        if event.kind == "emergency.description" && event.fields["done"] == serde_json::json!(done))));
}
