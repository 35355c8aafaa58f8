//! A range of media ports and as many calls, whatever shards they fall to (EM-64, design 4).

use super::{
    call::Call,
    edge::{Edge, Net, Setup, description, media_of},
    voice::{Voice, talk},
};
use crate::peer::header;

/// On two shards and more no reserve is taken of so few.
const PAIRS: u16 = 12;
const PARTY_PORT: u16 = 40_000;

fn audio(edge: &Edge, side: usize, number: u16) -> String {
    let port = PARTY_PORT + 2 * number;
    description(edge.net.parties()[side], 1, &format!("m=audio {port} RTP/AVP 0\n"))
}

#[test]
fn a_range_serves_calls_up_to_its_last_pair() {
    let setup = Setup { pairs: PAIRS, ..Setup::default() };
    let mut edge = Edge::start(Net::loopback(17), &setup);
    let [near, far] = edge.net.parties();
    let (mut calls, mut voices) = (Vec::new(), Vec::new());
    for number in 0..PAIRS {
        let (offer, answer) = (audio(&edge, 0, number), audio(&edge, 1, number));
        let call = Call::up(&mut edge, usize::from(number), &offer, &answer);
        let port = PARTY_PORT + 2 * number;
        let mut pair = [
            Voice::new(near, port, 0x100 + u32::from(number)),
            Voice::new(far, port, 0x200 + u32::from(number)),
        ];
        pair[0].to = media_of(&call.answer, 0);
        pair[1].to = media_of(&call.invite, 0);
        voices.push(pair);
        calls.push(call);
    }
    talk(&mut voices, true);

    // One more is refused, and told why.
    let (name, user) = ("more", "+12139999999");
    edge.caller.offer(name, user, &audio(&edge, 0, PAIRS));
    let refusal = edge.caller.expect("SIP/2.0 503", "more@");
    assert_eq!(header(&refusal, "Reason"), "ravelin;cause=303;text=\"No media port free\"");
    edge.caller.ack_refusal(name, user, &refusal);
    talk(&mut voices, true);
    for call in calls {
        call.end(&mut edge);
    }
    let records = edge.stop();
    let answered = records.iter().filter(|record| record.status == 200).count();
    assert_eq!((answered, records.len()), (usize::from(PAIRS), usize::from(PAIRS) + 1));
}
