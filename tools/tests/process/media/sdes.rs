//! SRTP with keys in SDP (RFC 4568) through the binary. What arrives is decrypted by another
//! implementation than ours (webrtc-srtp), and what is sent is encrypted by it.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use webrtc_srtp::{context::Context, protection_profile::ProtectionProfile};

use super::{
    base64,
    call::Call,
    edge::{Edge, Net, Setup, description, media_of},
    voice::{Voice, drained, rtp, sender_report},
};
use crate::support::PATIENCE;

pub(super) const PORT: u16 = 40_000;
/// Long enough for a packet that is not stopped to arrive; what arrives later fails a later step.
const SETTLE: Duration = Duration::from_millis(200);

pub(super) const SUITES: [(&str, ProtectionProfile); 4] = [
    ("AES_CM_128_HMAC_SHA1_80", ProtectionProfile::Aes128CmHmacSha1_80),
    ("AES_CM_128_HMAC_SHA1_32", ProtectionProfile::Aes128CmHmacSha1_32),
    ("AEAD_AES_128_GCM", ProtectionProfile::AeadAes128Gcm),
    ("AEAD_AES_256_GCM", ProtectionProfile::AeadAes256Gcm),
];

fn context(profile: ProtectionProfile, key: &[u8]) -> Context {
    let (key, salt) = key.split_at(profile.key_len());
    Context::new(key, salt, profile, None, None).expect("a context")
}

/// The callee's end of the encrypted leg.
pub(super) struct Sealed {
    suite: &'static str,
    profile: ProtectionProfile,
    pub(super) voice: Voice,
    /// Of what it sends.
    key: Vec<u8>,
    /// Of what it was told to expect.
    told: String,
    pub(super) seal: Context,
    pub(super) open: Context,
}

impl Sealed {
    pub(super) fn new(
        edge: &Edge,
        (suite, profile): (&'static str, ProtectionProfile),
        octet: u8,
    ) -> Self {
        let key = vec![octet; profile.key_len() + profile.salt_len()];
        let voice = Voice::new(edge.net.callee, PORT, 0x0c0c_0c0c);
        let (seal, open) = (context(profile, &key), context(profile, &key));
        Self { suite, profile, voice, key, told: String::new(), seal, open }
    }

    pub(super) fn answer(&self, version: u32) -> String {
        let key = base64::encode(&self.key);
        let line = format!("a=crypto:1 {} inline:{key}\n", self.suite);
        let ip = self.voice.rtp.local_addr().expect("an address").ip();
        description(ip, version, &format!("m=audio {PORT} RTP/SAVP 0\n{line}"))
    }

    /// Takes the keys that an offer gives.
    #[track_caller]
    pub(super) fn learn(&mut self, offer: &str) {
        self.voice.to = media_of(offer, 0);
        let start = format!("a=crypto:1 {} inline:", self.suite);
        let line = offer.lines().find_map(|line| line.strip_prefix(&start));
        let line = line.unwrap_or_else(|| panic!("no {start} in\n{offer}"));
        let key = line.split('|').next().expect("a key").trim().to_owned();
        if key != self.told {
            self.open = context(self.profile, &base64::decode(&key));
            self.told = key;
        }
    }

    /// Master keys and salts of both directions, as their octets.
    pub(super) fn secrets(&self) -> [Vec<u8>; 2] {
        [self.key.clone(), base64::decode(&self.told)]
    }

    fn change_key(&mut self, octet: u8) {
        self.key.fill(octet);
        self.seal = context(self.profile, &self.key);
    }

    pub(super) fn say(&mut self, packet: &[u8]) {
        let sealed = self.seal.encrypt_rtp(packet).expect("encrypted");
        self.voice.rtp.send_to(&sealed, self.voice.to).expect("sent");
    }
}

#[track_caller]
fn heard(socket: &std::net::UdpSocket) -> Vec<u8> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut packets = drained(socket);
        assert!(packets.len() < 2, "more than was sent: {packets:x?}");
        if let Some(packet) = packets.pop() {
            return packet;
        }
        assert!(Instant::now() < end, "nothing is heard");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn silence(socket: &std::net::UdpSocket) {
    std::thread::sleep(SETTLE);
    assert_eq!(drained(socket), Vec::<Vec<u8>>::new(), "silence");
}

pub(super) fn packet(sequence: u16, ssrc: u32) -> Vec<u8> {
    rtp(
        0,
        sequence,
        ssrc,
        format!("number {sequence:05} of {ssrc:08x}, and nobody else's").as_bytes(),
    )
}

/// One packet in each direction, and a report; each read at its end.
#[track_caller]
pub(super) fn both_ways(plain: &Voice, sealed: &mut Sealed, sequence: u16, ssrc: u32) {
    let said = packet(sequence, ssrc);
    plain.rtp.send_to(&said, plain.to).expect("sent");
    let arrived = heard(&sealed.voice.rtp);
    assert_ne!(arrived, said, "encrypted");
    let text = sealed.open.decrypt_rtp(&arrived).expect("under the key that was offered");
    assert_eq!(text, said, "{}", sealed.suite);
    let said = packet(sequence, ssrc ^ 0xff);
    sealed.say(&said);
    assert_eq!(heard(&plain.rtp), said, "{}", sealed.suite);
}

#[track_caller]
pub(super) fn reports_both_ways(plain: &Voice, sealed: &mut Sealed) {
    let report = sender_report(plain.ssrc, 5);
    plain.rtcp.send_to(&report, plain.rtcp_to()).expect("sent");
    let arrived = heard(&sealed.voice.rtcp);
    assert_eq!(sealed.open.decrypt_rtcp(&arrived).expect("SRTCP"), report);
    let report = sender_report(sealed.voice.ssrc, 6);
    let secret = sealed.seal.encrypt_rtcp(&report).expect("encrypted");
    sealed.voice.rtcp.send_to(&secret, sealed.voice.rtcp_to()).expect("sent");
    assert_eq!(heard(&plain.rtcp), report);
}

pub(super) fn plain_offer(ip: IpAddr, version: u32) -> String {
    description(ip, version, &format!("m=audio {PORT} RTP/AVP 0\n"))
}

fn interworking(suite: (&'static str, ProtectionProfile)) {
    let media = ["{ srtp: off }", &format!("{{ srtp: sdes, srtp_suites: [{}] }}", suite.0)];
    let mut edge = Edge::start(Net::loopback(4), &Setup { media, ..Setup::default() });
    let mut plain = Voice::new(edge.net.caller, PORT, 0x0a0a_0a0a);
    let mut sealed = Sealed::new(&edge, suite, 1);
    let near = edge.net.caller;
    let offer = plain_offer(near, 1);
    let mut call = Call::up(&mut edge, 1, &offer, &sealed.answer(1));
    sealed.learn(&call.invite);
    plain.to = media_of(&call.answer, 0);
    assert!(!call.answer.contains("crypto"), "no key on the plain leg: {}", call.answer);

    // Over the wrap of the sequence number: the rollover counter of both ends goes on.
    let ssrc = plain.ssrc;
    for step in 0..12 {
        both_ways(&plain, &mut sealed, 65_530_u16.wrapping_add(step), ssrc);
    }
    reports_both_ways(&plain, &mut sealed);
    // Another SSRC under the same keys begins at its own counter.
    both_ways(&plain, &mut sealed, 9, 0x0b0b_0b0b);

    // The same keys again: the counter is not lost.
    call.again(&mut edge, &plain_offer(near, 2), &sealed.answer(2));
    sealed.learn(&call.invite);
    both_ways(&plain, &mut sealed, 20, ssrc);
    both_ways(&plain, &mut sealed, 21, ssrc);

    // What is not under the key: refused, counted, and harmless.
    let mut wrong = context(sealed.profile, &vec![0xee; sealed.key.len()]);
    for sequence in 22..32 {
        let bad = wrong.encrypt_rtp(&packet(sequence, ssrc ^ 0xff)).expect("encrypted");
        sealed.voice.rtp.send_to(&bad, sealed.voice.to).expect("sent");
        let clear = packet(sequence, ssrc ^ 0xff);
        sealed.voice.rtp.send_to(&clear, sealed.voice.to).expect("sent");
    }
    silence(&plain.rtp);
    both_ways(&plain, &mut sealed, 32, ssrc);
    let repeated = sealed.seal.encrypt_rtp(&packet(33, ssrc ^ 0xff)).expect("encrypted");
    sealed.voice.rtp.send_to(&repeated, sealed.voice.to).expect("sent");
    heard(&plain.rtp);
    sealed.voice.rtp.send_to(&repeated, sealed.voice.to).expect("sent");
    silence(&plain.rtp);

    // New keys of the callee; the old ones are over with the first packet under the new.
    let mut old = std::mem::replace(&mut sealed.seal, context(sealed.profile, &sealed.key));
    sealed.change_key(2);
    call.again(&mut edge, &plain_offer(near, 3), &sealed.answer(3));
    sealed.learn(&call.invite);
    both_ways(&plain, &mut sealed, 40, ssrc);
    let stale = old.encrypt_rtp(&packet(41, ssrc ^ 0xff)).expect("encrypted");
    sealed.voice.rtp.send_to(&stale, sealed.voice.to).expect("sent");
    silence(&plain.rtp);
    both_ways(&plain, &mut sealed, 42, ssrc);

    call.end(&mut edge);
    let records = edge.stop();
    let drops = &records[0].streams[1].drops;
    assert_eq!(drops.get("srtp_replay"), Some(&1), "{}: {drops:?}", suite.0);
    assert_eq!(drops.get("srtp_auth"), Some(&21), "{}: {drops:?}", suite.0);
}

#[test]
fn each_suite_is_understood_by_another_implementation_over_wraps_and_re_invites() {
    for suite in SUITES {
        interworking(suite);
    }
}

/// SRTP on both legs, each with keys and a suite of its own.
#[test]
fn two_encrypted_legs_have_nothing_in_common() {
    let media = [
        "{ srtp: sdes, srtp_suites: [AES_CM_128_HMAC_SHA1_80] }",
        "{ srtp: sdes, srtp_suites: [AEAD_AES_256_GCM] }",
    ];
    let mut edge = Edge::start(Net::loopback(5), &Setup { media, ..Setup::default() });
    let mut near = Sealed::new(&edge, SUITES[0], 3);
    near.voice = Voice::new(edge.net.caller, PORT, 0x0a0a_0a0a);
    let mut far = Sealed::new(&edge, SUITES[3], 4);
    let call = Call::up(&mut edge, 1, &near.answer(1), &far.answer(1));
    far.learn(&call.invite);
    near.learn(&call.answer);
    for sequence in 65_533..=65_535_u16 {
        let said = packet(sequence, 7);
        near.say(&said);
        let arrived = heard(&far.voice.rtp);
        assert_eq!(far.open.decrypt_rtp(&arrived).expect("for the callee"), said);
        far.say(&said);
        let arrived = heard(&near.voice.rtp);
        assert_eq!(near.open.decrypt_rtp(&arrived).expect("for the caller"), said);
    }
    call.end(&mut edge);
    edge.stop();
}

/// An MKI (RFC 3711 3.1) stands before the tag of what its owner sends.
#[test]
fn packets_with_an_mki_are_understood() {
    let media = ["{ srtp: off }", "{ srtp: sdes, srtp_suites: [AES_CM_128_HMAC_SHA1_80] }"];
    let mut edge = Edge::start(Net::loopback(6), &Setup { media, ..Setup::default() });
    let near = edge.net.caller;
    let plain = Voice::new(near, PORT, 7);
    let mut sealed = Sealed::new(&edge, SUITES[0], 5);
    let answer = sealed.answer(1).trim_end().to_owned() + "|2^31|7:2\r\n";
    let call = Call::up(&mut edge, 1, &plain_offer(near, 1), &answer);
    sealed.learn(&call.invite);
    for (sequence, mki, passes) in [(1, [0, 7], true), (2, [0, 8], false), (3, [0, 7], true)] {
        let said = packet(sequence, 9);
        let mut secret = sealed.seal.encrypt_rtp(&said).expect("encrypted").to_vec();
        let tag = secret.split_off(secret.len() - 10);
        secret.extend(mki);
        secret.extend(tag);
        sealed.voice.rtp.send_to(&secret, sealed.voice.to).expect("sent");
        if passes {
            assert_eq!(heard(&plain.rtp), said);
        } else {
            silence(&plain.rtp);
        }
    }
    call.end(&mut edge);
    let records = edge.stop();
    assert_eq!(records[0].streams[1].drops.get("srtp_mki"), Some(&1), "{records:?}");
}

/// Where a trunk asks for encryption, what cannot be encrypted is refused and never carried.
#[test]
fn plain_rtp_is_refused_where_encryption_is_asked_for() {
    let off = "{ srtp: off }";
    let crypto =
        format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}\n", base64::encode(&[1; 30]));
    let unknown =
        format!("a=crypto:1 AES_CM_128_HMAC_SHA1_96 inline:{}\n", base64::encode(&[1; 30]));
    let print = vec!["AB"; 32].join(":");
    let dtls = format!("a=fingerprint:sha-256 {print}\na=setup:actpass\n");
    for (place, near, offers) in [
        (
            7,
            "{ srtp: sdes }",
            vec![
                ("RTP/AVP", String::new(), 117),
                ("RTP/AVPF", String::new(), 117),
                ("UDP/TLS/RTP/SAVP", dtls.clone(), 117),
                ("RTP/SAVP", unknown, 119),
                ("RTP/SAVP", String::new(), 119),
            ],
        ),
        (8, off, vec![("RTP/SAVP", crypto.clone(), 118), ("UDP/TLS/RTP/SAVP", dtls, 118)]),
        (9, "{ srtp: dtls }", vec![("RTP/AVP", String::new(), 117), ("RTP/SAVP", crypto, 117)]),
    ] {
        let setup = Setup { media: [near, off], ..Setup::default() };
        let mut edge = Edge::start(Net::loopback(place), &setup);
        for (number, (profile, lines, cause)) in offers.iter().enumerate() {
            let streams = format!("m=audio {PORT} {profile} 0\n{lines}");
            let offer = description(edge.net.caller, 1, &streams);
            let name = format!("refused{number}x");
            edge.caller.offer(&name, "+12125550001", &offer);
            let refused = edge.caller.expect("SIP/2.0 488", &format!("{name}@"));
            assert!(refused.contains(&format!("cause={cause};")), "{near} {profile}: {refused}");
            edge.caller.ack_refusal(&name, "+12125550001", &refused);
        }
        let records = edge.stop();
        assert_eq!(records.len(), offers.len());
        assert!(records.iter().all(|record| record.status == 488), "{records:?}");
    }
}
