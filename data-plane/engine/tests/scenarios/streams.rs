//! Offer and answer, stream by stream: what each party is told and where its packets go, foretold
//! from the RFCs.

use super::common::*;

/// What stands above the streams of every description here.
fn described(ip: &str, version: u32, streams: &str) -> String {
    let family = if ip.contains(':') { "IP6" } else { "IP4" };
    format!("v=0\no=x 1 {version} IN {family} {ip}\ns=-\nc=IN {family} {ip}\nt=0 0\n{streams}")
}

fn part(ip: &str, version: u32, streams: &str) -> String {
    format!("Content-Type: application/sdp\n\n{}", described(ip, version, streams))
}

/// The streams of a body, ports and addresses of ours left out.
fn streams(message: &Msg) -> String {
    let body = message.body();
    let from = body.find("m=").unwrap();
    let session: Vec<&str> = body[..from].lines().filter(|line| line.starts_with("a=")).collect();
    let mut out: String = session.iter().map(|line| format!("{line}\n")).collect();
    for line in body[from..].lines() {
        let mut words: Vec<&str> = line.split(' ').collect();
        if line.starts_with("m=") && words[1] != "0" {
            words[1] = "P";
        }
        out += &(words.join(" ") + "\n");
    }
    out
}

fn local(message: &Msg, index: usize) -> std::net::SocketAddr {
    let body = message.body();
    let address = body.lines().find_map(|line| line.strip_prefix("c=IN IP4 ")).unwrap();
    addr(&format!("{address}:{}", message.media_port(index)))
}

/// A call and what its parties were told.
struct Talk {
    world: World,
    caller: Caller,
    callee: Callee,
    /// What the callee got, and what the caller got.
    offer: Msg,
    answer: Msg,
}

fn dial(world: &mut World, offer: &str) -> Caller {
    let uri = "sip:+12125551234@127.0.0.10";
    Caller::invite(world, PBX, ACCESS, uri, &part("127.0.1.1", 1, offer))
}

/// The caller offers, the callee answers.
#[track_caller]
fn talk(mut world: World, offer: &str, answer: &str) -> Talk {
    let mut caller = dial(&mut world, offer);
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    let offer = callee.invite.clone();
    let contact = "Contact: <sip:callee@127.0.2.1:5060>\n";
    let body = part("127.0.2.1", 1, answer);
    let ok = offer.reply("200 OK", &callee.tag, &format!("{contact}{body}"));
    world.send(CARRIER_A, CORE, &ok);
    world.expect(CARRIER_A, "ACK ");
    let answer = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&answer);
    caller.ack(&mut world, "");
    world.quiet();
    Talk { world, caller, callee, offer, answer }
}

impl Talk {
    /// The caller re-invites, the callee answers.
    #[track_caller]
    fn again(&mut self, version: u32, offer: &str, answer: &str) -> (Msg, Msg) {
        let world = &mut self.world;
        self.caller.request(world, "INVITE", &part("127.0.1.1", version, offer));
        world.expect(PBX, "SIP/2.0 100");
        let invite = world.expect(CARRIER_A, "INVITE ");
        let body = part("127.0.2.1", version, answer);
        world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", &body));
        world.expect(CARRIER_A, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        self.caller.ack(world, "");
        world.quiet();
        (invite, ok)
    }

    /// The caller re-invites, the callee refuses.
    #[track_caller]
    fn refused(&mut self, version: u32, offer: &str) -> Msg {
        let world = &mut self.world;
        self.caller.request(world, "INVITE", &part("127.0.1.1", version, offer));
        let invite = world.expect(CARRIER_A, "INVITE ");
        world.send(CARRIER_A, CORE, &invite.reply("488 Not Acceptable Here", "", ""));
        world.expect(CARRIER_A, "ACK ");
        world.expect(PBX, "SIP/2.0 100");
        world.expect(PBX, "SIP/2.0 488");
        invite
    }

    /// What comes out for a datagram of the caller, and of the callee.
    fn up(
        &mut self,
        from: &str,
        stream: usize,
        odd: bool,
        bytes: &[u8],
    ) -> Option<(String, Vec<u8>)> {
        let to = local(&self.answer, stream);
        self.through(from, to, odd, bytes)
    }

    fn down(
        &mut self,
        from: &str,
        stream: usize,
        odd: bool,
        bytes: &[u8],
    ) -> Option<(String, Vec<u8>)> {
        let to = local(&self.offer, stream);
        self.through(from, to, odd, bytes)
    }

    fn through(
        &mut self,
        from: &str,
        to: std::net::SocketAddr,
        odd: bool,
        bytes: &[u8],
    ) -> Option<(String, Vec<u8>)> {
        let to = std::net::SocketAddr::new(to.ip(), to.port() + u16::from(odd));
        self.world.media.clear();
        self.world.send_media(from, to, bytes);
        assert!(self.world.media.len() <= 1);
        self.world.media.pop().map(|(to, bytes)| (to.to_string(), bytes))
    }

    #[track_caller]
    fn end(mut self) {
        self.caller.request(&mut self.world, "BYE", "");
        self.world.expect(PBX, "SIP/2.0 200");
        let bye = self.world.expect(CARRIER_A, "BYE ");
        self.world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
        self.world.all_gone();
    }
}

fn rtp(payload_type: u8) -> Vec<u8> {
    vec![0x80, payload_type, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55]
}

/// A receiver report without blocks.
const RTCP: [u8; 8] = [0x80, 201, 0, 1, 1, 2, 3, 4];

/// RFC 3264 5-6, RFC 3262... one row: what is offered, what the callee is offered, what it answers,
/// what the caller is answered.
#[test]
fn each_stream_of_an_offer_gets_its_answer() {
    let table = [
        (
            "several streams, one refused by the callee",
            "m=audio 40000 RTP/AVP 0\nm=video 40002 RTP/AVP 99\na=rtpmap:99 H264/90000\n",
            "m=audio P RTP/AVP 0\nm=video P RTP/AVP 99\na=rtpmap:99 H264/90000\n",
            "m=audio 50000 RTP/AVP 0\nm=video 0 RTP/AVP 99\n",
            "m=audio P RTP/AVP 0\nm=video 0 RTP/AVP 99\n",
        ),
        (
            "MSRP over TCP is refused, audio is not",
            "m=message 2855 TCP/MSRP *\na=path:msrp://127.0.1.1:2855/x;tcp\na=mid:m\n\
             m=audio 40000 RTP/AVP 0\n",
            "m=message 0 TCP/MSRP *\na=mid:m\nm=audio P RTP/AVP 0\n",
            "m=message 0 TCP/MSRP *\nm=audio 50000 RTP/AVP 0\n",
            "m=message 0 TCP/MSRP *\na=mid:m\nm=audio P RTP/AVP 0\n",
        ),
        (
            "text over RTP (RFC 4103) with its redundancy",
            "m=text 40000 RTP/AVP 98 100\na=rtpmap:98 t140/1000\na=rtpmap:100 red/1000\n\
             a=fmtp:100 98/98/98\n",
            "m=text P RTP/AVP 98 100\na=rtpmap:98 t140/1000\na=rtpmap:100 red/1000\n\
             a=fmtp:100 98/98/98\n",
            "m=text 50000 RTP/AVP 98 100\na=rtpmap:98 t140/1000\na=rtpmap:100 red/1000\n\
             a=fmtp:100 98/98/98\n",
            "m=text P RTP/AVP 98 100\na=rtpmap:98 t140/1000\na=rtpmap:100 red/1000\n\
             a=fmtp:100 98/98/98\n",
        ),
        (
            "order, fmtp, ptime and comfort noise stay",
            "m=audio 40000 RTP/AVP 18 8 13 101\na=rtpmap:101 telephone-event/8000\n\
             a=fmtp:18 annexb=no\na=fmtp:101 0-16\na=ptime:30\na=maxptime:60\n",
            "m=audio P RTP/AVP 18 8 13 101\na=rtpmap:101 telephone-event/8000\n\
             a=fmtp:18 annexb=no\na=fmtp:101 0-16\na=ptime:30\na=maxptime:60\n",
            "m=audio 50000 RTP/AVP 8 13 101\na=rtpmap:101 telephone-event/8000\na=ptime:20\n",
            "m=audio P RTP/AVP 8 13 101\na=rtpmap:101 telephone-event/8000\na=ptime:20\n",
        ),
        (
            "T.38 beside audio in one offer; over TCP it is refused",
            "m=audio 40000 RTP/AVP 0\nm=image 40002 udptl t38\na=T38FaxVersion:0\n\
             m=image 40004 tcp t38\n",
            "m=audio P RTP/AVP 0\nm=image P udptl t38\na=T38FaxVersion:0\nm=image 0 tcp t38\n",
            "m=audio 50000 RTP/AVP 0\nm=image 0 udptl t38\nm=image 0 tcp t38\n",
            "m=audio P RTP/AVP 0\nm=image 0 udptl t38\nm=image 0 tcp t38\n",
        ),
        (
            "bundling is refused, bundle-only streams with it (RFC 9143 7.3)",
            "a=group:BUNDLE 0 1\nm=audio 40000 RTP/AVP 0\na=mid:0\nm=video 0 RTP/AVP 99\n\
             a=bundle-only\na=mid:1\na=rtpmap:99 VP8/90000\n",
            "m=audio P RTP/AVP 0\na=mid:0\nm=video 0 RTP/AVP 99\na=mid:1\n",
            "m=audio 50000 RTP/AVP 0\na=mid:0\nm=video 0 RTP/AVP 99\na=mid:1\n",
            "m=audio P RTP/AVP 0\na=mid:0\nm=video 0 RTP/AVP 99\na=mid:1\n",
        ),
        (
            "an answer with too few streams is made whole (RFC 3264 6)",
            "m=audio 40000 RTP/AVP 0\nm=video 40002 RTP/AVP 99 100\n",
            "m=audio P RTP/AVP 0\nm=video P RTP/AVP 99 100\n",
            "m=audio 50000 RTP/AVP 0\n",
            "m=audio P RTP/AVP 0\nm=video 0 RTP/AVP 99 100\n",
        ),
        (
            "the caller sees its own payload types",
            "m=audio 40000 RTP/AVP 111 0 101 110\na=rtpmap:111 opus/48000/2\n\
             a=rtpmap:101 telephone-event/8000\na=rtpmap:110 telephone-event/48000\n",
            "m=audio P RTP/AVP 111 0 101 110\na=rtpmap:111 opus/48000/2\n\
             a=rtpmap:101 telephone-event/8000\na=rtpmap:110 telephone-event/48000\n",
            "m=audio 50000 RTP/AVP 96 97\na=rtpmap:96 opus/48000/2\na=fmtp:96 useinbandfec=1\n\
             a=rtpmap:97 telephone-event/48000\na=fmtp:97 0-15\n",
            "m=audio P RTP/AVP 111 110\na=rtpmap:111 opus/48000/2\na=fmtp:111 useinbandfec=1\n\
             a=rtpmap:110 telephone-event/48000\na=fmtp:110 0-15\n",
        ),
        (
            "the caller multiplexes RTCP whatever the callee does",
            "m=audio 40000 RTP/AVP 0\na=rtcp-mux\n",
            "m=audio P RTP/AVP 0\na=rtcp-mux\n",
            "m=audio 50000 RTP/AVP 0\n",
            "m=audio P RTP/AVP 0\na=rtcp-mux\n",
        ),
        (
            "a party that can only multiplex forces nobody (RFC 8858)",
            "m=audio 40000 RTP/AVP 0\na=rtcp-mux-only\na=rtcp-mux\n",
            "m=audio P RTP/AVP 0\na=rtcp-mux\n",
            "m=audio 50000 RTP/AVP 0\na=rtcp:50001\n",
            "m=audio P RTP/AVP 0\na=rtcp-mux\n",
        ),
        (
            "no address in a line that nobody knows",
            "m=audio 40000 RTP/AVP 0\na=alt:1 1 : x y 10.9.8.7 40000\na=x-b:10\n\
             a=candidate:1 1 UDP 1 10.9.8.7 40000 typ host\na=ice-ufrag:abcd\na=x-c:127.0.1.1\n",
            "m=audio P RTP/AVP 0\na=x-b:10\na=x-c:127.0.0.20\n",
            "m=audio 50000 RTP/AVP 0\n",
            "m=audio P RTP/AVP 0\n",
        ),
    ];
    for (what, offer, offered, answer, answered) in table {
        let talk = talk(World::new(), offer, answer);
        assert_eq!(streams(&talk.offer), offered, "{what}: offer");
        assert_eq!(streams(&talk.answer), answered, "{what}: answer");
        for (message, others) in [(&talk.offer, "127.0.1."), (&talk.answer, "127.0.2.")] {
            assert!(!message.body().contains(others), "{what}: {}", message.body());
        }
        talk.end();
    }
}

#[test]
fn an_offer_of_nothing_that_passes_gets_488() {
    for offer in [
        "m=message 2855 TCP/MSRP *\n",
        "m=audio 40000/2 RTP/AVP 0\n",
        "m=image 40000 tcp t38\nm=audio 0 RTP/AVP 0\n",
    ] {
        let mut world = World::new();
        let caller = dial(&mut world, offer);
        world.expect(PBX, "SIP/2.0 100");
        let refused = world.expect(PBX, "SIP/2.0 488");
        assert!(refused.header("Reason").contains("cause=114"), "{offer}");
        caller.ack_refusal(&mut world, &refused);
        world.quiet();
        world.all_gone();
    }
}

/// RFC 5761: each leg for itself.
#[test]
fn rtcp_goes_where_each_party_wants_it() {
    let mut mixed = talk(
        World::new(),
        "m=audio 40000 RTP/AVP 0\na=rtcp-mux\n",
        "m=audio 50000 RTP/AVP 0\na=rtcp:50007\n",
    );
    let at = |address: &str| Some((address.to_owned(), RTCP.to_vec()));
    assert_eq!(mixed.up("127.0.1.1:40000", 0, false, &RTCP), at("127.0.2.1:50007"));
    assert_eq!(mixed.down("127.0.2.1:50007", 0, true, &RTCP), at("127.0.1.1:40000"));
    // Where it was not agreed, it is from nobody.
    assert_eq!(mixed.up("127.0.1.1:40001", 0, true, &RTCP), None);
    assert_eq!(mixed.down("127.0.2.1:50001", 0, true, &RTCP), None);
    mixed.end();
    let mut plain = talk(
        World::new(),
        "m=audio 40000 RTP/AVP 0\n",
        // An answer cannot ask for what was not offered.
        "m=audio 50000 RTP/AVP 0\na=rtcp-mux\n",
    );
    assert!(!plain.answer.body().contains("rtcp-mux"));
    assert_eq!(plain.up("127.0.1.1:40001", 0, true, &RTCP), at("127.0.2.1:50001"));
    plain.end();
    let both = "a=rtcp-mux\n";
    let mut muxed = talk(
        World::new(),
        &format!("m=audio 40000 RTP/AVP 0\n{both}"),
        &format!("m=audio 50000 RTP/AVP 0\n{both}"),
    );
    assert_eq!(muxed.up("127.0.1.1:40000", 0, false, &RTCP), at("127.0.2.1:50000"));
    assert_eq!(muxed.down("127.0.2.1:50000", 0, false, &RTCP), at("127.0.1.1:40000"));
    muxed.end();
}

/// RFC 3264 6.1: each party gets packets under the number that it gave the format.
#[test]
fn packets_get_the_payload_type_of_who_receives_them() {
    let mut talk = talk(
        World::new(),
        "m=audio 40000 RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000\n",
        "m=audio 50000 RTP/AVP 0 96\na=rtpmap:96 telephone-event/8000\n",
    );
    assert!(talk.answer.body().contains("m=audio "));
    assert!(talk.answer.body().contains("a=rtpmap:101 telephone-event/8000"));
    for (sent, got) in [(0, 0), (101, 96), (0x80 | 101, 0x80 | 96), (13, 13)] {
        let (to, packet) = talk.up("127.0.1.1:40000", 0, false, &rtp(sent)).unwrap();
        assert_eq!((to.as_str(), packet[1]), ("127.0.2.1:50000", got));
        assert_eq!(packet[2..], rtp(0)[2..]);
    }
    // By the offer's number as RFC 3264 wants it, or by its own.
    for (sent, got) in [(0, 0), (101, 101), (96, 101)] {
        let (_, packet) = talk.down("127.0.2.1:50000", 0, false, &rtp(sent)).unwrap();
        assert_eq!(packet[1], got);
    }
    // A later offer with one number for both ends the mapping; a refused one does not.
    let same = "RTP/AVP 0 96\na=rtpmap:96 telephone-event/8000\n";
    talk.refused(2, &format!("m=audio 40000 {same}"));
    let (_, packet) = talk.up("127.0.1.1:40000", 0, false, &rtp(101)).unwrap();
    assert_eq!(packet[1], 96);
    talk.again(3, &format!("m=audio 40000 {same}"), &format!("m=audio 50000 {same}"));
    for number in [96, 101] {
        let (_, packet) = talk.up("127.0.1.1:40000", 0, false, &rtp(number)).unwrap();
        assert_eq!(packet[1], number);
    }
    talk.end();
}

/// RFC 3264 8.4 and 8.3.1: a call is on hold in any spelling, and comes back.
#[test]
fn hold_in_every_spelling_stops_what_it_says() {
    let audio = "m=audio 40000 RTP/AVP 0\n";
    let answer = "m=audio 50000 RTP/AVP 0\n";
    // The offer; what the callee must read; its answer; does the caller's audio pass, the callee's?
    let table = [
        (
            format!("{audio}a=sendonly\n"),
            "a=sendonly",
            format!("{answer}a=recvonly\n"),
            true,
            false,
        ),
        (
            format!("{audio}a=sendonly\n"),
            "a=sendonly",
            format!("{answer}a=inactive\n"),
            false,
            false,
        ),
        (
            format!("{audio}a=inactive\n"),
            "a=inactive",
            format!("{answer}a=inactive\n"),
            false,
            false,
        ),
        (
            format!("{audio}a=recvonly\n"),
            "a=recvonly",
            format!("{answer}a=sendonly\n"),
            false,
            true,
        ),
        (
            format!("a=sendonly\n{audio}"),
            "a=sendonly",
            format!("{answer}a=recvonly\n"),
            true,
            false,
        ),
        (
            format!("a=inactive\n{audio}"),
            "a=inactive",
            format!("a=inactive\n{answer}"),
            false,
            false,
        ),
        (format!("{audio}c=IN IP4 0.0.0.0\n"), "c=IN IP4 0.0.0.0", answer.to_owned(), false, false),
        (format!("{audio}c=IN IP6 ::\n"), "c=IN IP4 0.0.0.0", answer.to_owned(), false, false),
        // Both hold at once.
        (
            format!("{audio}a=sendonly\n"),
            "a=sendonly",
            format!("{answer}a=sendonly\n"),
            false,
            false,
        ),
    ];
    for (offer, reads, answer_held, up, down) in table {
        let mut talk = talk(World::new(), audio, answer);
        let ports = (talk.offer.media_port(0), talk.answer.media_port(0));
        let (invite, ok) = talk.again(2, &offer, &answer_held);
        assert!(invite.body().contains(&format!("{reads}\r\n")), "{offer}: {}", invite.body());
        assert_eq!((invite.media_port(0), ok.media_port(0)), ports, "ports stay: {offer}");
        let through = talk.up("127.0.1.1:40000", 0, false, &rtp(0));
        assert_eq!(through.is_some(), up, "caller: {offer} {answer_held}");
        let through = talk.down("127.0.2.1:50000", 0, false, &rtp(0));
        assert_eq!(through.is_some(), down, "callee: {offer} {answer_held}");
        talk.again(3, audio, answer);
        assert!(talk.up("127.0.1.1:40000", 0, false, &rtp(0)).is_some(), "resumed: {offer}");
        assert!(talk.down("127.0.2.1:50000", 0, false, &rtp(0)).is_some(), "resumed: {offer}");
        talk.end();
    }
}

/// EM-60, in the way of RFC 2543 too.
#[test]
fn an_emergency_caller_cannot_hold_in_any_spelling() {
    for hold in ["a=sendonly\n", "a=inactive\n", "c=IN IP4 0.0.0.0\n"] {
        let mut world = World::new();
        let audio = "m=audio 40000 RTP/AVP 0\n";
        let body = part("127.0.1.1", 1, audio);
        let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &body);
        world.expect(PBX, "SIP/2.0 100");
        let callee = Callee::take(&mut world, PSAP_1);
        let contact = "Contact: <sip:psap@127.0.9.1:5060>\n";
        let body = part("127.0.9.1", 1, "m=audio 50000 RTP/AVP 0\n");
        let ok = callee.invite.reply("200 OK", &callee.tag, &format!("{contact}{body}"));
        world.send(PSAP_1, CORE, &ok);
        world.expect(PSAP_1, "ACK ");
        caller.learn(&world.expect(PBX, "SIP/2.0 200"));
        caller.ack(&mut world, "");
        let held = part("127.0.1.1", 2, &format!("{audio}{hold}"));
        caller.request(&mut world, "INVITE", &held);
        world.expect(PBX, "SIP/2.0 488");
        assert!(world.inbox_of(PSAP_1).is_empty(), "{hold}");
    }
}

/// UDPTL: a sequence number, not the first octets of RTP.
const FAX: [u8; 6] = [0, 7, 1, 0xd6, 0, 0];

/// RFC 3264 8.3.3 and RFC 6337 3.4: the switch to T.38, its refusal, and the way back.
#[test]
fn a_switch_to_t38_can_be_refused_taken_and_undone() {
    let audio = "m=audio 40000 RTP/AVP 0\n";
    let fax = "m=image 40000 udptl t38\na=T38FaxRateManagement:transferredTCF\n";
    let mut talk = talk(World::new(), audio, "m=audio 50000 RTP/AVP 0\n");
    let invite = talk.refused(2, fax);
    assert!(invite.body().contains(" udptl t38\r\na=T38FaxRateManagement:transferredTCF\r\n"));
    assert_eq!(talk.up("127.0.1.1:40000", 0, false, &FAX), None, "still audio");
    assert!(talk.up("127.0.1.1:40000", 0, false, &rtp(0)).is_some());
    assert!(talk.down("127.0.2.1:50000", 0, false, &rtp(0)).is_some());
    talk.again(3, fax, "m=image 50000 udptl t38\n");
    let at = |address: &str| Some((address.to_owned(), FAX.to_vec()));
    assert_eq!(talk.up("127.0.1.1:40000", 0, false, &FAX), at("127.0.2.1:50000"));
    assert_eq!(talk.down("127.0.2.1:50000", 0, false, &FAX), at("127.0.1.1:40000"));
    // Nobody else's, and nothing on the RTCP port.
    assert_eq!(talk.up("127.0.1.9:40000", 0, false, &FAX), None);
    assert_eq!(talk.up("127.0.1.1:40001", 0, true, &FAX), None);
    talk.again(4, audio, "m=audio 50000 RTP/AVP 0\n");
    assert_eq!(talk.up("127.0.1.1:40000", 0, false, &FAX), None);
    assert!(talk.up("127.0.1.1:40000", 0, false, &rtp(0)).is_some());
    talk.end();
}

/// RFC 3264 8.1, 8.2: streams are added, removed and taken up again.
#[test]
fn streams_come_and_go() {
    let audio = "m=audio 40000 RTP/AVP 0\n";
    let mut talk = talk(World::new(), audio, "m=audio 50000 RTP/AVP 0\n");
    let two = format!("{audio}m=video 40002 RTP/AVP 99\n");
    let (invite, ok) = talk.again(2, &two, "m=audio 50000 RTP/AVP 0\nm=video 50002 RTP/AVP 99\n");
    (talk.offer, talk.answer) = (invite, ok);
    let video = talk.up("127.0.1.1:40002", 1, false, &rtp(99)).unwrap();
    assert_eq!(video.0, "127.0.2.1:50002");
    let (invite, ok) = talk.again(
        3,
        &format!("{audio}m=video 0 RTP/AVP 99\n"),
        "m=audio 50000 RTP/AVP 0\nm=video 0 RTP/AVP 99\n",
    );
    assert_eq!((invite.media_port(1), ok.media_port(1)), (0, 0));
    assert_eq!(talk.up("127.0.1.1:40002", 1, false, &rtp(99)), None, "gone");
    assert_eq!(talk.down("127.0.2.1:50002", 1, false, &rtp(99)), None, "gone");
    assert!(talk.up("127.0.1.1:40000", 0, false, &rtp(0)).is_some());
    let (invite, ok) = talk.again(4, &two, "m=audio 50000 RTP/AVP 0\nm=video 50004 RTP/AVP 99\n");
    assert_ne!((invite.media_port(1), ok.media_port(1)), (0, 0));
    (talk.offer, talk.answer) = (invite, ok);
    let video = talk.up("127.0.1.1:40002", 1, false, &rtp(99)).unwrap();
    assert_eq!(video.0, "127.0.2.1:50004");
    talk.end();
}

/// An answer in early media may refuse what the last one takes.
#[test]
fn the_last_answer_holds() {
    let mut world = World::new();
    let offer = "m=audio 40000 RTP/AVP 0\nm=video 40002 RTP/AVP 99\n";
    let mut caller = dial(&mut world, offer);
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    let early = part("127.0.2.1", 1, "m=audio 50000 RTP/AVP 0\nm=video 0 RTP/AVP 99\n");
    callee.reply(&mut world, "183 Session Progress", &early);
    caller.learn(&world.expect(PBX, "SIP/2.0 183"));
    let last = part("127.0.2.1", 2, "m=audio 50000 RTP/AVP 0\nm=video 50002 RTP/AVP 99\n");
    callee.reply(&mut world, "200 OK", &last);
    world.expect(CARRIER_A, "ACK ");
    let answer = world.expect(PBX, "SIP/2.0 200");
    caller.ack(&mut world, "");
    let offer = callee.invite.clone();
    let mut talk = Talk { world, caller, callee, offer, answer };
    assert!(talk.up("127.0.1.1:40002", 1, false, &rtp(99)).is_some());
    assert!(talk.down("127.0.2.1:50002", 1, false, &rtp(99)).is_some());
    talk.end();
}

/// A description outside an offer and its answer negotiates nothing.
#[test]
fn a_description_in_info_is_refused() {
    let audio = "m=audio 40000 RTP/AVP 0\n";
    let mut talk = talk(World::new(), audio, "m=audio 50000 RTP/AVP 0\n");
    let other = part("127.0.1.1", 2, "m=audio 41000 RTP/AVP 0\n");
    talk.caller.request(&mut talk.world, "INFO", &other);
    talk.world.expect(PBX, "SIP/2.0 415");
    assert!(talk.up("127.0.1.1:40000", 0, false, &rtp(0)).is_some());
    talk.end();
}
