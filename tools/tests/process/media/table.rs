//! What two parties may agree on besides one audio stream each, offer by offer: what each of them
//! reads, and where their packets arrive.

use std::time::{Duration, Instant};

use super::{
    call::Call,
    edge::{Edge, Net, Setup, description, media_of},
    voice::{Voice, drained, rtp, sender_report},
};
use crate::support::PATIENCE;

/// RTP port of a party's first stream, and of its second.
const PORTS: [u16; 2] = [40_000, 40_010];
const SILENCE: Duration = Duration::from_millis(150);

/// A party's sockets of one stream, and Ravelin's ports towards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Rtp,
    Rtcp,
}

use Port::{Rtcp, Rtp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    Caller,
    Callee,
}

use Party::{Callee, Caller};

/// A packet of a party.
struct Said {
    from: Party,
    stream: usize,
    /// From which of its sockets, which is also where it sends to.
    by: Port,
    packet: Vec<u8>,
    /// Where it arrives, and what of it.
    arrives: Option<(Port, Vec<u8>)>,
}

fn passes(from: Party, stream: usize, by: Port, at: Port, packet: Vec<u8>) -> Said {
    Said { from, stream, by, arrives: Some((at, packet.clone())), packet }
}

fn stops(from: Party, stream: usize, by: Port, packet: Vec<u8>) -> Said {
    Said { from, stream, by, packet, arrives: None }
}

fn voice(number: u16) -> Vec<u8> {
    rtp(0, number, 7, b"voice")
}

fn both(stream: usize, packet: &[u8]) -> [Said; 2] {
    [Caller, Callee].map(|from| passes(from, stream, Rtp, Rtp, packet.to_vec()))
}

/// Offer and answer, what of them the other side reads and what not, and then media.
struct Row {
    name: &'static str,
    offer: &'static str,
    answer: &'static str,
    callee: [&'static [&'static str]; 2],
    caller: [&'static [&'static str]; 2],
    said: Vec<Said>,
}

const PLAIN: &str = "m=audio 40000 RTP/AVP 0\n";

fn rows() -> Vec<Row> {
    let report = || sender_report(7, 1);
    let digit = |payload_type| rtp(payload_type, 3, 7, &[5, 0x0a, 3, 0x20]);
    let mut rows = vec![
        Row {
            name: "RTCP has a port of its own",
            offer: PLAIN,
            answer: PLAIN,
            callee: [&[" RTP/AVP 0\r\n"], &["rtcp-mux"]],
            caller: [&[" RTP/AVP 0\r\n"], &["rtcp-mux"]],
            said: vec![
                passes(Caller, 0, Rtcp, Rtcp, report()),
                passes(Callee, 0, Rtcp, Rtcp, report()),
                // RTCP from the RTP port is nobody's who did not agree to it.
                stops(Caller, 0, Rtcp, vec![0x80, 200, 0, 0]),
            ],
        },
        Row {
            name: "RTCP on the port of RTP, both",
            offer: "m=audio 40000 RTP/AVP 0\na=rtcp-mux\n",
            answer: "m=audio 40000 RTP/AVP 0\na=rtcp-mux\n",
            callee: [&["a=rtcp-mux\r\n"], &[]],
            caller: [&["a=rtcp-mux\r\n"], &[]],
            said: vec![
                passes(Caller, 0, Rtp, Rtp, report()),
                passes(Callee, 0, Rtp, Rtp, report()),
            ],
        },
        Row {
            name: "RTCP on the port of RTP, the caller alone",
            offer: "m=audio 40000 RTP/AVP 0\na=rtcp-mux\n",
            answer: PLAIN,
            callee: [&[], &[]],
            caller: [&["a=rtcp-mux\r\n"], &[]],
            said: vec![
                passes(Caller, 0, Rtp, Rtcp, report()),
                passes(Callee, 0, Rtcp, Rtp, report()),
            ],
        },
        Row {
            name: "a bundle is refused stream by stream",
            offer: "a=group:BUNDLE 0 1\nm=audio 40000 RTP/AVP 0\na=mid:0\na=rtcp-mux\n\
                    m=audio 40010 RTP/AVP 0\na=mid:1\na=rtcp-mux\n",
            answer: "m=audio 40000 RTP/AVP 0\na=rtcp-mux\nm=audio 40010 RTP/AVP 0\na=rtcp-mux\n",
            callee: [&[], &["BUNDLE"]],
            caller: [&[], &["BUNDLE"]],
            said: both(0, &voice(1)).into_iter().chain(both(1, &voice(2))).collect(),
        },
        Row {
            name: "streams that are not wanted keep their places",
            offer: "m=video 0 RTP/AVP 96\nm=audio 40010 RTP/AVP 0\nm=audio 0 TCP/MSRP *\n",
            answer: "m=video 0 RTP/AVP 96\nm=audio 40010 RTP/AVP 0\nm=audio 0 TCP/MSRP *\n",
            callee: [&["m=video 0 "], &[]],
            caller: [&["m=video 0 "], &[]],
            said: both(1, &voice(1)).into(),
        },
        Row {
            name: "a stream that the callee refuses",
            offer: "m=audio 40000 RTP/AVP 0\nm=video 40010 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
            answer: "m=audio 40000 RTP/AVP 0\nm=video 0 RTP/AVP 96\n",
            callee: [&["m=video "], &["m=video 0 "]],
            caller: [&["m=video 0 "], &[]],
            said: both(0, &voice(1)).into(),
        },
        Row {
            name: "digits get the payload type of who receives them",
            offer: "m=audio 40000 RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000\n",
            answer: "m=audio 40000 RTP/AVP 0 96\na=rtpmap:96 telephone-event/8000\n",
            callee: [&["a=rtpmap:101 telephone-event/8000"], &[]],
            caller: [&["a=rtpmap:101 telephone-event/8000"], &["rtpmap:96"]],
            said: vec![
                Said {
                    from: Callee,
                    stream: 0,
                    by: Rtp,
                    packet: digit(101),
                    arrives: Some((Rtp, digit(101))),
                },
                Said {
                    from: Caller,
                    stream: 0,
                    by: Rtp,
                    packet: digit(101),
                    arrives: Some((Rtp, digit(96))),
                },
            ],
        },
        Row {
            name: "comfort noise",
            offer: "m=audio 40000 RTP/AVP 0 13\n",
            answer: "m=audio 40000 RTP/AVP 0 13\n",
            callee: [&[" RTP/AVP 0 13\r\n"], &[]],
            caller: [&[" RTP/AVP 0 13\r\n"], &[]],
            said: both(0, &rtp(13, 5, 7, &[60])).into(),
        },
        Row {
            name: "real-time text",
            offer: "m=audio 40000 RTP/AVP 0\nm=text 40010 RTP/AVP 100 98\na=rtpmap:98 t140/1000\n\
                    a=rtpmap:100 red/1000\na=fmtp:100 98/98/98\n",
            answer: "m=audio 40000 RTP/AVP 0\nm=text 40010 RTP/AVP 100 98\na=rtpmap:98 t140/1000\n\
                     a=rtpmap:100 red/1000\na=fmtp:100 98/98/98\n",
            callee: [&["a=fmtp:100 98/98/98"], &[]],
            caller: [&["a=fmtp:100 98/98/98"], &[]],
            said: both(1, &rtp(98, 1, 9, "caf\u{e9} \u{2028}".as_bytes())).into(),
        },
        Row {
            name: "fax over UDPTL beside audio",
            offer: "m=audio 40000 RTP/AVP 0\nm=image 40010 udptl t38\na=T38FaxVersion:0\n\
                    a=T38FaxRateManagement:transferredTCF\n",
            answer: "m=audio 40000 RTP/AVP 0\nm=image 40010 udptl t38\na=T38FaxVersion:0\n\
                     a=T38FaxRateManagement:transferredTCF\n",
            callee: [&["a=T38FaxRateManagement:transferredTCF"], &[]],
            caller: [&["a=T38FaxRateManagement:transferredTCF"], &[]],
            // UDPTL begins with a sequence number: any first octet, those of RTP, STUN and DTLS too.
            said: [[0, 1, 1, 6], [0x80, 0, 1, 6], [22, 254, 1, 6]]
                .iter()
                .flat_map(|packet| both(1, packet))
                .collect(),
        },
    ];
    for (name, direction, caller_speaks, callee_speaks) in [
        ("the caller sends alone", "a=sendonly\n", true, false),
        ("the caller listens alone", "a=recvonly\n", false, true),
        ("nobody sends", "a=inactive\n", false, false),
    ] {
        let offer: &'static str = match direction {
            "a=sendonly\n" => "m=audio 40000 RTP/AVP 0\na=sendonly\n",
            "a=recvonly\n" => "m=audio 40000 RTP/AVP 0\na=recvonly\n",
            _ => "m=audio 40000 RTP/AVP 0\na=inactive\n",
        };
        let answer: &'static str = match direction {
            "a=sendonly\n" => "m=audio 40000 RTP/AVP 0\na=recvonly\n",
            "a=recvonly\n" => "m=audio 40000 RTP/AVP 0\na=sendonly\n",
            _ => "m=audio 40000 RTP/AVP 0\na=inactive\n",
        };
        let way = |from, speaks| {
            if speaks { passes(from, 0, Rtp, Rtp, voice(1)) } else { stops(from, 0, Rtp, voice(1)) }
        };
        rows.push(Row {
            name,
            offer,
            answer,
            callee: [&[], &[]],
            caller: [&[], &[]],
            said: vec![
                way(Caller, caller_speaks),
                way(Callee, callee_speaks),
                passes(Caller, 0, Rtcp, Rtcp, report()),
                passes(Callee, 0, Rtcp, Rtcp, report()),
            ],
        });
    }
    rows
}

fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").expect("a body").1
}

#[track_caller]
fn reads(row: &Row, message: &str, [wanted, unwanted]: [&[&str]; 2]) {
    let body = body(message);
    for part in wanted {
        assert!(body.contains(part), "{}: no {part}: {body}", row.name);
    }
    for part in unwanted {
        assert!(!body.contains(part), "{}: {part}: {body}", row.name);
    }
}

/// The sockets of both parties, by stream.
struct Parties([[Voice; 2]; 2]);

impl Parties {
    fn new(net: &Net) -> Self {
        Self(net.parties().map(|ip| PORTS.map(|port| Voice::new(ip, port, 7))))
    }

    /// Learns Ravelin's ports of the streams that have any.
    fn learn(&mut self, call: &Call) {
        for (party, told) in self.0.iter_mut().zip([&call.answer, &call.invite]) {
            let streams = body(told).lines().filter(|line| line.starts_with("m=")).count();
            for (stream, voice) in party.iter_mut().enumerate().take(streams) {
                voice.to = media_of(told, stream);
            }
        }
    }

    #[track_caller]
    fn say(&self, name: &str, said: &Said) {
        let from = usize::from(said.from == Callee);
        let [own, other] = [from, 1 - from].map(|side| &self.0[side][said.stream]);
        match said.by {
            Rtp => own.rtp.send_to(&said.packet, own.to).expect("sent"),
            Rtcp => own.rtcp.send_to(&said.packet, own.rtcp_to()).expect("sent"),
        };
        let Some((at, wanted)) = &said.arrives else {
            std::thread::sleep(SILENCE);
            for voice in self.0.iter().flatten() {
                assert!(drained(&voice.rtp).is_empty(), "{name}: {said:?}");
                assert!(drained(&voice.rtcp).is_empty(), "{name}: {said:?}");
            }
            return;
        };
        let end = Instant::now() + PATIENCE;
        let socket = if *at == Rtp { &other.rtp } else { &other.rtcp };
        loop {
            if let Some(packet) = drained(socket).pop() {
                assert_eq!(packet, *wanted, "{name}: {said:?}");
                return;
            }
            assert!(Instant::now() < end, "{name}: nothing arrives of {said:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, stream, by, packet, .. } = self;
        write!(f, "{from:?}, stream {stream}, {by:?}: {packet:x?}")
    }
}

#[test]
fn whatever_two_parties_agree_on_arrives_where_they_said() {
    let mut edge = Edge::start(Net::loopback(14), &Setup::default());
    let mut parties = Parties::new(&edge.net);
    let [near, far] = edge.net.parties();
    for (number, row) in rows().into_iter().enumerate() {
        let (offer, answer) = (description(near, 1, row.offer), description(far, 1, row.answer));
        let call = Call::up(&mut edge, number, &offer, &answer);
        reads(&row, &call.invite, row.callee);
        reads(&row, &call.answer, row.caller);
        parties.learn(&call);
        for said in &row.said {
            parties.say(row.name, said);
        }
        call.end(&mut edge);
    }
    edge.stop();
}

/// A hold in each of its spellings stops what it says and keeps the call, however long it lasts and
/// however short `rtp_timeout` is; without it the same silence ends the call.
#[test]
fn a_hold_in_every_spelling_stops_media_and_suspends_the_timeout() {
    // Longer than a loaded machine keeps this test from the next re-INVITE.
    let media = ["{ rtp_timeout: 6s, rtp_timeout_action: bye }"; 2];
    let mut edge = Edge::start(Net::loopback(15), &Setup { media, ..Setup::default() });
    let mut parties = Parties::new(&edge.net);
    let [near, far] = edge.net.parties();
    let (offer, answer) = (description(near, 1, PLAIN), description(far, 1, PLAIN));
    let mut call = Call::up(&mut edge, 1, &offer, &answer);
    parties.learn(&call);
    let zero = |ip, version| {
        description(ip, version, PLAIN).replace(&format!("c=IN IP4 {ip}"), "c=IN IP4 0.0.0.0")
    };
    let mut version = 1;
    for spelling in ["sendonly", "inactive", "0.0.0.0"] {
        version += 1;
        let held =
            |ip, direction: &str| description(ip, version, &format!("{PLAIN}a={direction}\n"));
        let (offer, answer) = match spelling {
            "sendonly" => (held(near, "sendonly"), held(far, "recvonly")),
            "inactive" => (held(near, "inactive"), held(far, "inactive")),
            _ => (zero(near, version), description(far, version, PLAIN)),
        };
        call.again(&mut edge, &offer, &answer);
        parties.learn(&call);
        // Longer than the timeout, in silence but for music where there may be some.
        let end = Instant::now() + Duration::from_secs(8);
        let mut number = 0;
        while Instant::now() < end {
            number += 1;
            if spelling == "sendonly" {
                parties.say(spelling, &passes(Caller, 0, Rtp, Rtp, voice(number)));
            }
            parties.say(spelling, &stops(Callee, 0, Rtp, voice(number)));
        }
        version += 1;
        call.again(
            &mut edge,
            &description(near, version, PLAIN),
            &description(far, version, PLAIN),
        );
        parties.learn(&call);
        for said in both(0, &voice(9_000)) {
            parties.say(spelling, &said);
        }
    }
    // Not on hold any more: silence ends it.
    for party in [&mut edge.caller, &mut edge.callee] {
        let bye = party.expect("BYE ", "ravelin;cause=408");
        party.reply(&bye, "200 OK");
    }
    let records = edge.stop();
    assert_eq!(records[0].cause, 408, "{records:?}");
}
