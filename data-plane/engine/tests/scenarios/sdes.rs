//! SRTP by keys in SDP (RFC 4568), leg by leg: what each party reads, and packets decrypted where they
//! arrive.

use ravelin_engine::limits::Limits;
use ravelin_srtp::{
    Keying, Opener, Sealer, Suite,
    keys::{Keys, MasterKey},
    sdes::{self, Crypto},
};

use super::common::*;

pub const PLAIN: &str = "m=audio 40000 RTP/AVP 0\n";
const PLAIN_ANSWER: &str = "m=audio 50000 RTP/AVP 0\n";

/// The config with media settings at the PBX and at carrier A.
pub fn config(pbx: &str, carrier: &str) -> String {
    let with = |text: String, id: &str, media: &str| {
        let at = format!("  - id: {id}\n");
        assert!(text.contains(&at));
        text.replacen(&at, &format!("{at}    media: {{ {media} }}\n"), 1)
    };
    let text = with(CONFIG.to_owned(), "pbx", pbx);
    with(text, "carrier-a", carrier)
}

pub fn world(pbx: &str, carrier: &str) -> World {
    World::with(&config(pbx, carrier), Limits::default())
}

pub fn part(ip: &str, version: u32, streams: &str) -> String {
    format!(
        "Content-Type: application/sdp\n\nv=0\no=x 1 {version} IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\n\
         t=0 0\n{streams}"
    )
}

pub fn keys(suite: Suite, octet: u8) -> Keys {
    Keys::single(MasterKey::new(suite, &vec![octet; suite.keying_bytes()]).unwrap())
}

pub fn line(tag: u32, keys: &Keys) -> String {
    let mut value = Vec::new();
    Crypto { tag, keys: keys.clone() }.write(&mut value);
    format!("a=crypto:{}\n", String::from_utf8(value).unwrap())
}

pub fn secure(port: u16, lines: &str) -> String {
    format!("m=audio {port} RTP/SAVP 0\n{lines}")
}

/// The a=crypto lines of a body.
pub fn lines(message: &Msg) -> Vec<Crypto> {
    let body = message.body();
    let values = body.lines().filter_map(|line| line.strip_prefix("a=crypto:"));
    values.map(|value| Crypto::parse(value.as_bytes()).unwrap()).collect()
}

fn local(message: &Msg) -> std::net::SocketAddr {
    let body = message.body();
    let address = body.lines().find_map(|line| line.strip_prefix("c=IN IP4 ")).unwrap();
    addr(&format!("{address}:{}", message.media_port(0)))
}

pub fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 160, 1, 2, 3, 4]);
    packet.extend(b"audio that nobody else may hear");
    packet
}

/// One party's protection.
pub struct Party {
    pub sealer: Sealer,
    opener: Opener,
}

impl Party {
    pub fn new(keying: &Keying) -> Self {
        Self { sealer: Sealer::new(&keying.ours), opener: Opener::new(&keying.theirs) }
    }

    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut sealed = packet.to_vec();
        sealed.resize(packet.len() + self.sealer.rtp_overhead(), 0);
        let length = self.sealer.seal_rtp(&mut sealed, packet.len()).unwrap();
        sealed.truncate(length);
        sealed
    }

    pub fn open(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut open = vec![0; packet.len()];
        let length = self.opener.open_rtp(packet, &mut open).unwrap();
        open.truncate(length);
        open
    }
}

pub struct Talk {
    pub world: World,
    pub caller: Caller,
    pub callee: Callee,
    pub offer: Msg,
    pub answer: Msg,
}

fn dial(world: &mut World, number: &str, offer: &str) -> Caller {
    let uri = format!("sip:{number}@127.0.0.10");
    Caller::invite(world, PBX, ACCESS, &uri, &part("127.0.1.1", 1, offer))
}

/// `answer` makes the callee's streams of what it was offered.
#[track_caller]
pub fn talk(mut world: World, offer: &str, answer: impl Fn(&Msg) -> String) -> Talk {
    let mut caller = dial(&mut world, "+12125551234", offer);
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    let offer = callee.invite.clone();
    let body = part("127.0.2.1", 1, &answer(&offer));
    callee.reply(&mut world, "200 OK", &body);
    world.expect(CARRIER_A, "ACK ");
    let answer = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&answer);
    caller.ack(&mut world, "");
    world.quiet();
    Talk { world, caller, callee, offer, answer }
}

impl Talk {
    fn through(&mut self, from: &str, by: &Msg, bytes: &[u8]) -> Option<Vec<u8>> {
        self.world.media.clear();
        self.world.send_media(from, local(by), bytes);
        self.world.media.pop().map(|(_, bytes)| bytes)
    }

    pub fn up(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let by = self.answer.clone();
        self.through("127.0.1.1:40000", &by, bytes)
    }

    pub fn down(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let by = self.offer.clone();
        self.through("127.0.2.1:50000", &by, bytes)
    }

    #[track_caller]
    pub fn again(&mut self, offer: &str, answer: impl Fn(&Msg) -> String) -> (Msg, Msg) {
        let world = &mut self.world;
        self.caller.request(world, "INVITE", &part("127.0.1.1", 2, offer));
        world.expect(PBX, "SIP/2.0 100");
        let invite = world.expect(CARRIER_A, "INVITE ");
        let body = part("127.0.2.1", 2, &answer(&invite));
        world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", &body));
        world.expect(CARRIER_A, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        self.caller.ack(world, "");
        world.quiet();
        (invite, ok)
    }

    /// The same from the callee.
    #[track_caller]
    pub fn back(&mut self, offer: &str, answer: impl Fn(&Msg) -> String) -> (Msg, Msg) {
        let world = &mut self.world;
        self.callee.request(world, "INVITE", &part("127.0.2.1", 3, offer));
        world.expect(CARRIER_A, "SIP/2.0 100");
        let invite = world.expect(PBX, "INVITE ");
        let body = part("127.0.1.1", 3, &answer(&invite));
        world.send(PBX, ACCESS, &invite.reply("200 OK", "", &body));
        world.expect(PBX, "ACK ");
        let ok = world.expect(CARRIER_A, "SIP/2.0 200");
        world.forget_inbox();
        (invite, ok)
    }
}

/// RTP on one leg, SRTP on the other, with each suite: the packet that arrives decrypts to the one
/// that was sent, and no key of one leg is seen on the other.
#[test]
fn plain_and_encrypted_legs_understand_each_other() {
    for (tag, suite) in [
        (1, Suite::AeadAes256Gcm),
        (2, Suite::AeadAes128Gcm),
        (3, Suite::AesCm128HmacSha1_80),
        (4, Suite::AesCm128HmacSha1_32),
    ] {
        let theirs = keys(suite, 7);
        let answer = secure(50000, &line(tag, &theirs));
        let mut talk = talk(world("srtp: off", "srtp: sdes"), PLAIN, |_| answer.clone());
        assert!(talk.offer.body().contains(" RTP/SAVP 0\r\n"));
        let offered = lines(&talk.offer);
        let names: Vec<_> = offered.iter().map(|line| (line.tag, line.keys.suite())).collect();
        let all = [
            (1, Suite::AeadAes256Gcm),
            (2, Suite::AeadAes128Gcm),
            (3, Suite::AesCm128HmacSha1_80),
            (4, Suite::AesCm128HmacSha1_32),
        ];
        assert_eq!(names, all);
        assert!(talk.answer.body().contains(" RTP/AVP 0\r\n"));
        assert!(lines(&talk.answer).is_empty());
        let ours = offered[tag as usize - 1].keys.clone();
        let mut callee = Party::new(&Keying { ours: theirs, theirs: ours });
        for sequence in 1..4 {
            let arrived = talk.up(&rtp(sequence)).unwrap();
            assert_ne!(arrived, rtp(sequence));
            assert_eq!(callee.open(&arrived), rtp(sequence), "{suite}");
            let sealed = callee.seal(&rtp(sequence));
            assert_eq!(talk.down(&sealed).unwrap(), rtp(sequence));
            assert_eq!(talk.down(&sealed), None, "a replay");
            assert_eq!(talk.down(&rtp(sequence + 9)), None, "plain on an encrypted leg");
        }
    }
}

/// Both legs encrypt, each under its own keys: tag and suite of the offer come back to the caller.
#[test]
fn each_leg_has_its_own_keys() {
    let caller_keys = keys(Suite::AesCm128HmacSha1_80, 3);
    let unknown = "a=crypto:5 F8_128_HMAC_SHA1_80 inline:AAAA\n";
    let offer = secure(40000, &format!("{unknown}{}", line(77, &caller_keys)));
    let callee_keys = keys(Suite::AeadAes128Gcm, 4);
    let answer = secure(50000, &line(1, &callee_keys));
    let carrier = "srtp: sdes, srtp_suites: [AEAD_AES_128_GCM, AES_CM_128_HMAC_SHA1_32]";
    let mut talk = talk(world("srtp: accept", carrier), &offer, |_| answer.clone());
    let offered = lines(&talk.offer);
    assert_eq!(offered.len(), 2);
    let [told] = &lines(&talk.answer)[..] else { panic!("one line") };
    assert_eq!((told.tag, told.keys.suite()), (77, Suite::AesCm128HmacSha1_80));
    let mut caller = Party::new(&Keying { ours: caller_keys.clone(), theirs: told.keys.clone() });
    let mut callee =
        Party::new(&Keying { ours: callee_keys.clone(), theirs: offered[0].keys.clone() });
    let arrived = talk.up(&caller.seal(&rtp(1))).unwrap();
    assert_eq!(callee.open(&arrived), rtp(1));
    let arrived = talk.down(&callee.seal(&rtp(2))).unwrap();
    assert_eq!(caller.open(&arrived), rtp(2));
    let secret = |keys: &Keys| {
        let text = line(1, keys);
        text.split("inline:").nth(1).unwrap().trim().to_owned()
    };
    for keys in [&caller_keys, &told.keys] {
        assert!(!talk.offer.0.contains(&secret(keys)));
    }
    for keys in [&callee_keys, &offered[0].keys, &offered[1].keys] {
        assert!(!talk.answer.0.contains(&secret(keys)));
    }
}

/// With `pass` on both legs nothing is looked into.
#[test]
fn keys_pass_from_end_to_end_where_both_trunks_pass_them() {
    let (mine, yours) = (keys(Suite::AesCm128HmacSha1_80, 3), keys(Suite::AesCm128HmacSha1_80, 4));
    let offer = secure(40000, &format!("a=crypto:9 X-OWN inline:AAAA\n{}", line(1, &mine)));
    let answer = secure(50000, &line(1, &yours));
    let mut talk = talk(World::new(), &offer, |_| answer.clone());
    assert!(talk.offer.body().contains("a=crypto:9 X-OWN inline:AAAA\r\n"));
    assert_eq!(lines(&talk.answer)[0].keys, yours);
    let mut caller = Party::new(&Keying { ours: mine.clone(), theirs: yours.clone() });
    let sealed = caller.seal(&rtp(1));
    assert_eq!(talk.up(&sealed), Some(sealed));
}

/// What each mode takes from its peer (RFC 3264, RFC 4568): status and cause of the refusal.
#[test]
fn policy_decides_what_is_taken() {
    let good = secure(40000, &line(1, &keys(Suite::AesCm128HmacSha1_80, 3)));
    let foreign = secure(40000, "a=crypto:1 F8_128_HMAC_SHA1_80 inline:AAAA\n");
    let no_keys = secure(40000, "");
    let weak = secure(40000, "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\n");
    let table = [
        ("srtp: sdes", PLAIN, Some(117)),
        ("srtp: dtls", PLAIN, Some(117)),
        ("srtp: off", good.as_str(), Some(118)),
        ("srtp: sdes", foreign.as_str(), Some(119)),
        ("srtp: sdes", no_keys.as_str(), Some(119)),
        ("srtp: accept", weak.as_str(), Some(119)),
        ("srtp: sdes, srtp_suites: [AEAD_AES_256_GCM]", good.as_str(), Some(119)),
        ("srtp: sdes", good.as_str(), None),
        ("srtp: accept", good.as_str(), None),
        ("srtp: accept", PLAIN, None),
        ("srtp: off", PLAIN, None),
    ];
    for (mode, offer, refused) in table {
        let mut world = world(mode, "srtp: off");
        let caller = dial(&mut world, "+12125551234", offer);
        world.expect(PBX, "SIP/2.0 100");
        let Some(cause) = refused else {
            let invite = world.expect(CARRIER_A, "INVITE ");
            assert!(invite.body().contains(" RTP/AVP 0\r\n"), "{mode}: {offer}");
            assert!(!invite.body().contains("crypto"));
            continue;
        };
        let answer = world.expect(PBX, "SIP/2.0 488");
        assert!(answer.header("Reason").contains(&format!("cause={cause};")), "{mode}: {offer}");
        caller.ack_refusal(&mut world, &answer);
        assert!(world.inbox_of(CARRIER_A).is_empty(), "{mode}");
        world.all_gone();
    }
}

/// An emergency call is never refused for its encryption, whatever the trunks ask for.
#[test]
fn an_emergency_call_goes_through_plain_if_need_be() {
    let crypto = secure(40000, &line(1, &keys(Suite::AesCm128HmacSha1_80, 3)));
    for (pbx, offer) in
        [("srtp: sdes", PLAIN), ("srtp: dtls", PLAIN), ("srtp: off", crypto.as_str())]
    {
        let text = config(pbx, "srtp: off").replacen(
            "  - id: psap-1\n",
            "  - id: psap-1\n    media: { srtp: sdes }\n",
            1,
        );
        let mut world = World::with(&text, Limits::default());
        let mut caller = dial(&mut world, "911", offer);
        world.expect(PBX, "SIP/2.0 100");
        let callee = Callee::take(&mut world, PSAP_1);
        assert!(callee.invite.body().contains(" RTP/SAVP 0\r\n"), "{pbx}");
        // It cannot, and says so in the only way that it knows.
        let body = part("127.0.9.1", 1, PLAIN_ANSWER);
        callee.reply(&mut world, "200 OK", &body);
        world.expect(PSAP_1, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        caller.learn(&ok);
        let profile = if offer == PLAIN { " RTP/AVP 0\r\n" } else { " RTP/SAVP 0\r\n" };
        assert!(ok.body().contains(profile), "{}", ok.body());
        world.media.clear();
        if offer == PLAIN {
            world.send_media("127.0.1.1:40000", local(&ok), &rtp(1));
            assert_eq!(world.media[0].1, rtp(1));
        }
    }
}

/// A PSAP that refuses the description may have refused the encryption: it is asked once more
/// without, before the next trunk.
#[test]
fn an_emergency_call_whose_encryption_is_refused_is_offered_plain() {
    for code in ["488 Not Acceptable Here", "606 Not Acceptable", "415 Unsupported Media Type"] {
        let text = config("srtp: off", "srtp: off").replacen(
            "  - id: psap-1\n",
            "  - id: psap-1\n    media: { srtp: sdes }\n",
            1,
        );
        let mut world = World::with(&text, Limits::default());
        dial(&mut world, "911", PLAIN);
        world.expect(PBX, "SIP/2.0 100");
        let callee = Callee::take(&mut world, PSAP_1);
        assert!(callee.invite.body().contains(" RTP/SAVP 0\r\n"));
        callee.reply(&mut world, code, "");
        world.expect(PSAP_1, "ACK ");
        let again = Callee::take(&mut world, PSAP_1);
        assert!(again.invite.body().contains(" RTP/AVP 0\r\n"), "{}", again.invite.body());
        // Refused again: it was not that.
        again.reply(&mut world, code, "");
        world.expect(PSAP_1, "ACK ");
        world.expect(PSAP_2, "INVITE ");
        assert!(world.inbox_of(PSAP_1).is_empty());
    }
}

/// An ordinary call is not answered without the encryption that its trunk asks for.
#[test]
fn an_answer_without_keys_fails_the_call() {
    for answer in [PLAIN_ANSWER.to_owned(), secure(50000, "")] {
        let mut world = world("srtp: off", "srtp: sdes");
        dial(&mut world, "+12125551234", PLAIN);
        world.expect(PBX, "SIP/2.0 100");
        let callee = Callee::take(&mut world, CARRIER_A);
        let body = part("127.0.2.1", 1, &answer);
        callee.reply(&mut world, "200 OK", &body);
        world.expect(CARRIER_A, "ACK ");
        world.expect(CARRIER_A, "BYE ");
    }
}

/// RFC 4568 7.1.4: what does not change goes on, rollover counter and all; a refused offer changes
/// nothing; new keys begin anew.
#[test]
fn re_offers_keep_keys_unless_they_are_changed() {
    let mine = keys(Suite::AesCm128HmacSha1_80, 3);
    let offer = secure(40000, &line(1, &mine));
    let theirs = keys(Suite::AeadAes128Gcm, 4);
    let reply = |_: &Msg| secure(50000, &line(2, &keys(Suite::AeadAes128Gcm, 4)));
    let mut talk = talk(world("srtp: sdes", "srtp: sdes"), &offer, reply);
    let told = lines(&talk.answer)[0].clone();
    let ours = lines(&talk.offer)[1].clone();
    let mut caller = Party::new(&Keying { ours: mine.clone(), theirs: told.keys.clone() });
    let mut callee = Party::new(&Keying { ours: theirs.clone(), theirs: ours.keys.clone() });
    // Over the rollover of the sequence number.
    for sequence in [65_534, 65_535, 0, 1] {
        let arrived = talk.up(&caller.seal(&rtp(sequence))).unwrap();
        assert_eq!(callee.open(&arrived), rtp(sequence));
    }
    // The same again: same lines, the one in force first.
    let (invite, ok) = talk.again(&offer, reply);
    assert_eq!(lines(&ok)[0], told);
    assert_eq!(lines(&invite)[0], ours);
    assert_eq!(lines(&invite).len(), 4);
    let arrived = talk.up(&caller.seal(&rtp(2))).unwrap();
    assert_eq!(callee.open(&arrived), rtp(2), "the rollover counter goes on");
    // A refused change of keys.
    let other = keys(Suite::AesCm128HmacSha1_80, 9);
    let changed = secure(40000, &line(1, &other));
    let world = &mut talk.world;
    talk.caller.request(world, "INVITE", &part("127.0.1.1", 3, &changed));
    let invite = world.expect(CARRIER_A, "INVITE ");
    world.send(CARRIER_A, CORE, &invite.reply("488 Not Acceptable Here", "", ""));
    world.forget_inbox();
    let arrived = talk.up(&caller.seal(&rtp(3))).unwrap();
    assert_eq!(callee.open(&arrived), rtp(3), "refused");
    // One that is taken.
    let (_, ok) = talk.again(&changed, reply);
    let told = lines(&ok)[0].clone();
    caller.sealer = Sealer::new(&other);
    let arrived = talk.up(&caller.seal(&rtp(4))).unwrap();
    assert_eq!(callee.open(&arrived), rtp(4));
    let arrived = talk.down(&callee.seal(&rtp(1))).unwrap();
    assert_eq!(caller.open(&arrived), rtp(1), "our own key did not change");
    // The callee offers: it gets the key that it knows.
    let back = secure(50000, &line(5, &theirs));
    let answer = secure(40000, &line(told.tag, &other));
    let (invite, ok) = talk.back(&back, |offer| {
        let line = lines(offer).into_iter().find(|line| line.keys == told.keys).unwrap();
        answer.replace(&format!("a=crypto:{} ", told.tag), &format!("a=crypto:{} ", line.tag))
    });
    assert!(lines(&invite).iter().any(|line| line.keys == told.keys));
    assert_eq!(lines(&ok)[0], Crypto { tag: 5, keys: ours.keys });
    let arrived = talk.down(&callee.seal(&rtp(2))).unwrap();
    assert_eq!(caller.open(&arrived), rtp(2));
}

/// An INVITE without an offer: the callee's 200 offers, the caller's ACK answers.
#[test]
fn a_late_offer_is_encrypted_too() {
    let mut world = world("srtp: sdes", "srtp: accept");
    let uri = "sip:+12125551234@127.0.0.10";
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, uri, "");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    let offer = part("127.0.2.1", 1, PLAIN_ANSWER);
    callee.reply(&mut world, "200 OK", &offer);
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    assert!(ok.body().contains(" RTP/SAVP 0\r\n"));
    let line_offered = lines(&ok)[2].clone();
    let mine = keys(line_offered.keys.suite(), 3);
    let answer = secure(40000, &line(line_offered.tag, &mine));
    caller.ack(&mut world, &part("127.0.1.1", 1, &answer));
    let ack = world.expect(CARRIER_A, "ACK ");
    assert!(ack.body().contains(" RTP/AVP 0\r\n") && !ack.body().contains("crypto"));
    let mut party = Party::new(&Keying { ours: mine, theirs: line_offered.keys });
    world.media.clear();
    world.send_media("127.0.1.1:40000", local(&ok), &party.seal(&rtp(1)));
    assert_eq!(world.media[0].1, rtp(1));
    world.send_media("127.0.2.1:50000", local(&ack), &rtp(2));
    assert_eq!(party.open(&world.media[1].1), rtp(2));
}

/// A key that is asked for with an MKI (RFC 4568 6.1) is used with it.
#[test]
fn an_mki_is_used_as_agreed() {
    let master = keys(Suite::AesCm128HmacSha1_80, 3);
    let plain_line = line(1, &master);
    let with_mki = plain_line.trim_end().to_owned() + "|2^20|1:4\n";
    let talked = talk(world("srtp: accept", "srtp: off"), &secure(40000, &with_mki), |_| {
        PLAIN_ANSWER.to_owned()
    });
    let mut talk = talked;
    let told = lines(&talk.answer)[0].clone();
    let mine = Crypto::parse(with_mki.trim().trim_start_matches("a=crypto:").as_bytes()).unwrap();
    assert!(sdes::choose([&b""[..]].into_iter(), &[]).is_err());
    let mut caller = Party::new(&Keying { ours: mine.keys, theirs: told.keys });
    assert_eq!(talk.up(&caller.seal(&rtp(1))).unwrap(), rtp(1));
    let arrived = talk.down(&rtp(1)).unwrap();
    assert_eq!(caller.open(&arrived), rtp(1));
}

/// What is kept for `ravelin trace` holds no key.
#[test]
fn a_trace_holds_no_key() {
    let text = config("srtp: sdes", "srtp: sdes").replacen(
        "  cores: [0]\n",
        "  cores: [0]\n  limits: { capture_bytes: 64KiB }\n",
        1,
    );
    let world = World::with(&text, Limits::default());
    let mine = keys(Suite::AesCm128HmacSha1_80, 3);
    let theirs = keys(Suite::AesCm128HmacSha1_80, 4);
    let talk = talk(world, &secure(40000, &line(1, &mine)), |_| {
        secure(50000, &line(3, &keys(Suite::AesCm128HmacSha1_80, 4)))
    });
    let id = talk.world.engine.calls(talk.world.now, 10)[0].id.clone();
    let kept = format!("{:?}", talk.world.engine.ladder(&id).unwrap());
    let hex = |text: &str| text.bytes().map(|octet| format!("{octet:02x}")).collect::<String>();
    assert!(kept.contains(&hex("a=crypto:")), "the lines are there");
    for keys in [&mine, &theirs, &lines(&talk.offer)[2].keys, &lines(&talk.answer)[0].keys] {
        let text = line(1, keys);
        let secret = text.split("inline:").nth(1).unwrap().trim();
        assert!(!kept.contains(secret) && !kept.contains(&hex(secret)));
    }
}
