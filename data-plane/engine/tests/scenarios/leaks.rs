//! Whatever a party offers or answers, the other reads none of its addresses and none of its keys,
//! and what it reads is a description of as many streams in the same order.

use proptest::prelude::*;
use ravelin_engine::limits::Limits;
use ravelin_wire::sdp::Description;

use super::common::*;

/// A key that stands in every a=crypto line here.
const KEY: &str = "c2VjcmV0IG9mIHRoZSBvdGhlciBzaWRlIDEyMzQ1Njc4";

fn attribute() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        Just("IP"),
        Just("10.11.12.13"),
        Just("2001:db8::77"),
        Just("[2001:db8::77]:9"),
        Just("IP:5"),
    ];
    prop_oneof![
        Just("a=sendonly".to_owned()),
        Just("a=inactive".to_owned()),
        Just("a=rtcp-mux".to_owned()),
        Just("a=rtcp-mux-only".to_owned()),
        Just("a=mid:1".to_owned()),
        Just("a=ptime:20".to_owned()),
        Just("c=IN IP4 0.0.0.0".to_owned()),
        Just("c=IN IP4 10.11.12.13".to_owned()),
        Just("a=bundle-only".to_owned()),
        Just("a=ice-ufrag:abcd".to_owned()),
        Just("a=ice-pwd:0123456789012345678901".to_owned()),
        Just(format!("a=key-mgmt:mikey {KEY}")),
        Just(format!("k=base64:{KEY}")),
        (1..4_u8).prop_map(|tag| format!("a=crypto:{tag} AES_CM_128_HMAC_SHA1_80 inline:{KEY}")),
        (1..4_u8).prop_map(|tag| format!("a=crypto:{tag} AEAD_AES_128_GCM inline:{KEY}|2^20|1:4")),
        (0..128_u8).prop_map(|number| format!("a=rtpmap:{number} telephone-event/8000")),
        (0..128_u8).prop_map(|number| format!("a=fmtp:{number} 0-16")),
        (host.clone(), 0..65_536_u32).prop_map(|(ip, port)| format!("a=x-at:{port} {ip} z")),
        host.clone().prop_map(|ip| format!("a=candidate:1 1 UDP 1 {ip} 5000 typ host")),
        host.clone().prop_map(|ip| format!("a=ssrc:1 cname:me@{ip}")),
        host.clone().prop_map(|ip| format!("i=from {ip}")),
        (0..65_536_u32).prop_map(|port| format!("a=rtcp:{port}")),
        (0..65_536_u32).prop_map(|port| format!("a=rtcp:{port} IN IP4 10.11.12.13")),
        host.prop_map(|ip| format!("a=path:msrp://{ip}:9/x;tcp")),
    ]
}

fn stream() -> impl Strategy<Value = String> {
    let proto = prop_oneof![
        4 => Just("RTP/AVP"),
        2 => Just("RTP/SAVP"),
        1 => Just("RTP/SAVPF"),
        1 => Just("UDP/TLS/RTP/SAVPF"),
        1 => Just("udptl"),
        1 => Just("TCP/MSRP"),
        1 => Just("UDP/BFCP"),
    ];
    let kind = prop_oneof![3 => Just("audio"), 1 => Just("video"), 1 => Just("image")];
    let port = prop_oneof![1 => Just(0_u16), 1 => Just(9), 6 => 1_024..60_000_u16];
    let formats = prop::collection::vec(0..128_u8, 1..5);
    let lines = prop::collection::vec(attribute(), 0..8);
    (kind, port, proto, formats, lines).prop_map(|(kind, port, proto, formats, lines)| {
        let formats: Vec<String> = formats.iter().map(u8::to_string).collect();
        let mut out = format!("m={kind} {port} {proto} {}\n", formats.join(" "));
        lines.iter().for_each(|line| out += &format!("{line}\n"));
        out
    })
}

fn description() -> impl Strategy<Value = String> {
    let session = prop::collection::vec(attribute(), 0..4);
    (session, prop::collection::vec(stream(), 1..5)).prop_map(|(session, streams)| {
        let mut out: String = session
            .iter()
            .filter(|line| line.starts_with("a=") && !line.starts_with("a=rtcp:"))
            .map(|line| format!("{line}\n"))
            .collect();
        streams.iter().for_each(|stream| out += stream);
        out
    })
}

fn part(ip: &str, streams: &str) -> String {
    format!(
        "Content-Type: application/sdp\n\nv=0\no=x 1 1 IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\n{}",
        streams.replace("IP:5", &format!("{ip}:5")).replace(" IP ", &format!(" {ip} "))
    )
}

/// What came to the other side of `told`.
fn check(
    told: &Msg,
    sent: &str,
    asked: Option<&str>,
    theirs: &str,
    keys_pass: bool,
) -> Result<(), TestCaseError> {
    let body = told.body();
    prop_assert!(!body.contains(theirs), "{theirs} in {body}");
    for foreign in ["10.11.12.13", "2001:db8"] {
        prop_assert!(!body.contains(foreign), "{body}");
    }
    prop_assert!(keys_pass || !body.contains(KEY), "{body}");
    let after = Description::parse(body.as_bytes());
    prop_assert!(after.is_ok(), "{body}");
    let after = after.unwrap();
    let before = sent.split_once("\n\n").unwrap().1.as_bytes();
    let before = Description::parse(before).unwrap();
    // An answer has as many streams as its offer, and of the same kinds, whatever the peer answered.
    let offer = asked.unwrap_or(sent).split_once("\n\n").unwrap().1.as_bytes();
    let offer = Description::parse(offer).unwrap();
    let kinds = |of: &Description<'_>| -> Vec<Vec<u8>> {
        of.medias().iter().map(|media| media.kind_text.to_vec()).collect()
    };
    prop_assert_eq!(kinds(&after), kinds(&offer), "{}", body);
    for (old, new) in before.medias().iter().zip(after.medias()) {
        prop_assert_eq!(old.formats().count(), new.formats().count());
        prop_assert!(new.port == 0 || (20_000..30_064).contains(&new.port));
        prop_assert!(old.port != 0 || new.port == 0);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_address_and_no_key_crosses(
        offer in description(),
        answer in description(),
        modes in (0..4_usize, 0..4_usize),
        ice in any::<bool>(),
    ) {
        let mode = ["pass", "off", "accept", "sdes"];
        let (pbx, carrier) = (mode[modes.0], mode[modes.1]);
        let ice = if ice { "lite" } else { "off" };
        let mut text = CONFIG.to_owned();
        for (id, mode) in [("pbx", pbx), ("carrier-a", carrier)] {
            let at = format!("  - id: {id}\n");
            let media = format!("{at}    media: {{ srtp: {mode}, ice: {ice} }}\n");
            text = text.replacen(&at, &media, 1);
        }
        let keys_pass = pbx == "pass" && carrier == "pass";
        let mut world = World::with(&text, Limits::default());
        let uri = "sip:+12125551234@127.0.0.10";
        let mut sent = part("127.0.1.1", &offer);
        Caller::invite(&mut world, PBX, ACCESS, uri, &sent);
        world.expect(PBX, "SIP/2.0 100");
        if let Some(refused) = world.try_take(PBX) {
            prop_assert!(refused.start().starts_with("SIP/2.0 4"), "{}", refused.start());
            return Ok(());
        }
        let callee = Callee::take(&mut world, CARRIER_A);
        check(&callee.invite, &sent, None, "127.0.1.1", keys_pass)?;
        let offered = std::mem::replace(&mut sent, part("127.0.2.1", &answer));
        callee.reply(&mut world, "200 OK", &sent);
        world.expect(CARRIER_A, "ACK ");
        if let Some(ok) = world.try_take(PBX)
            && ok.start().starts_with("SIP/2.0 200")
        {
            check(&ok, &sent, Some(&offered), "127.0.2.1", keys_pass)?;
        }
    }
}
