use proptest::prelude::*;

use super::*;

const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

fn parse(value: &str) -> Result<Crypto, Refused> {
    Crypto::parse(value.as_bytes())
}

fn written(crypto: &Crypto) -> String {
    let mut out = Vec::new();
    crypto.write(&mut out);
    String::from_utf8(out).unwrap()
}

fn counting() -> impl FnMut(&mut [u8]) {
    let mut source = crate::random::Source::new(&[5; 32], b"test");
    move |out: &mut [u8]| source.fill(out)
}

/// The lines that RFC 4568 shows in 6.1 and 7.1.5, and what they say.
#[test]
fn the_examples_of_the_standard() {
    let first = parse(&format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4")).unwrap();
    assert_eq!((first.tag, first.keys.suite()), (1, Suite::AesCm128HmacSha1_80));
    let [master] = first.keys.masters() else { panic!() };
    assert_eq!(master.lifetime, Some(1 << 20));
    assert_eq!(master.mki, Mki::new(1, 4));
    assert_eq!(master.key.key_and_salt()[..8], *b"wDfvg&T+");
    let second =
        parse("1 AES_CM_128_HMAC_SHA1_80 inline:YUJDZGVmZ2hpSktMbW9QUXJzVHVWd3l6MTIzNDU2|1066:4")
            .unwrap();
    let [master] = second.keys.masters() else { panic!() };
    assert_eq!((master.lifetime, master.mki), (None, Mki::new(1066, 4)));
    assert_eq!(master.key.key_and_salt(), b"aBCdefghiJKLmoPQrsTuVwyz123456");
    let offered = parse(
        "1 AES_CM_128_HMAC_SHA1_80 \
         inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4 FEC_ORDER=FEC_SRTP",
    );
    assert!(offered.is_ok());
    assert_eq!(
        parse("2 F8_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5QUJDREUwMTIzNDU2Nzg5QUJjZGVm|2^20|1:4"),
        Err(Refused::Suite)
    );
}

#[test]
fn what_is_written_reads_the_same() {
    let key =
        |fill: u8, suite: Suite| MasterKey::new(suite, &vec![fill; suite.keying_bytes()]).unwrap();
    for suite in Suite::ALL {
        for lifetime in [None, Some(1), Some(1 << 31), Some(1 << 48), Some(1_000_001)] {
            for mki in [None, Mki::new(1, 1), Mki::new(u64::from(u32::MAX), 128)] {
                for unencrypted_rtcp in [false, true] {
                    let master = Master { key: key(7, *suite), mki, lifetime };
                    let mut keys = Keys::several([master]).unwrap();
                    keys.unencrypted_rtcp = unencrypted_rtcp;
                    let crypto = Crypto { tag: 3, keys };
                    assert_eq!(parse(&written(&crypto)), Ok(crypto));
                }
            }
        }
    }
    let two = [(1, 8), (2, 9)].map(|(id, fill)| Master {
        key: key(fill, Suite::AeadAes128Gcm),
        mki: Mki::new(id, 2),
        lifetime: None,
    });
    let crypto = Crypto { tag: 999_999_999, keys: Keys::several(two).unwrap() };
    assert_eq!(parse(&written(&crypto)), Ok(crypto.clone()));
    assert_eq!(
        written(&crypto),
        "999999999 AEAD_AES_128_GCM inline:CAgICAgICAgICAgICAgICAgICAgICAgICAgICA==|1:2;\
         inline:CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQ==|2:2"
    );
}

#[test]
fn every_refusal_has_its_name() {
    let with = |rest: &str| parse(&format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}{rest}"));
    for (rest, refused) in [
        ("|0", Refused::Lifetime),
        ("|2^49", Refused::Lifetime),
        ("|2^", Refused::Lifetime),
        ("|020", Refused::Lifetime),
        ("|281474976710657", Refused::Lifetime),
        ("|99999999999999999999", Refused::Lifetime),
        ("|", Refused::Lifetime),
        ("|-1", Refused::Lifetime),
        ("|1:0", Refused::Mki),
        ("|1:129", Refused::Mki),
        ("|256:1", Refused::Mki),
        ("|01:4", Refused::Mki),
        ("|1:", Refused::Mki),
        ("|:4", Refused::Mki),
        ("|1:4|1:4", Refused::Syntax),
        ("|2^20|2^20", Refused::Mki),
        ("|2^20|1:4|x", Refused::Syntax),
        (";inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz", Refused::Mki),
        (";", Refused::Syntax),
        (" UNENCRYPTED_SRTP", Refused::UnencryptedSrtp),
        (" UNAUTHENTICATED_SRTP", Refused::UnauthenticatedSrtp),
        (" KDR=1", Refused::Kdr),
        (" KDR=24", Refused::Kdr),
        (" FEC_ORDER=SRTP_FEC", Refused::Fec),
        (" FEC_KEY=inline:abc", Refused::Fec),
        (" WSH=x", Refused::Parameter),
        (" NEW_THING", Refused::Parameter),
        (" -", Refused::Parameter),
        (" \u{e9}", Refused::Syntax),
    ] {
        assert_eq!(with(rest), Err(refused), "{rest}");
    }
    for rest in
        ["", " -NEW_THING", " WSH=64", " KDR=0", "  \t WSH=128 ", "|2^48", "|1", "|2^31|1:1"]
    {
        assert!(with(rest).is_ok(), "{rest}");
    }
    assert!(with(" UNENCRYPTED_SRTCP").unwrap().keys.unencrypted_rtcp);
    for (value, refused) in [
        ("", Refused::Syntax),
        ("1", Refused::Syntax),
        ("1 AES_CM_128_HMAC_SHA1_80", Refused::Syntax),
        ("x AES_CM_128_HMAC_SHA1_80 inline:a", Refused::Syntax),
        ("1234567890 AES_CM_128_HMAC_SHA1_80 inline:a", Refused::Syntax),
        ("1 AES-CM inline:a", Refused::Syntax),
        ("1 NULL_HMAC_SHA1_80 inline:a", Refused::Suite),
        ("1 AES_CM_128_HMAC_SHA1_80 uri:a", Refused::Method),
        ("1 AES_CM_128_HMAC_SHA1_80 inline", Refused::Syntax),
        ("1 AES_CM_128_HMAC_SHA1_80 inline:", Refused::Key),
        ("1 AES_CM_128_HMAC_SHA1_80 inline:****", Refused::Key),
    ] {
        assert_eq!(parse(value), Err(refused), "{value}");
    }
    // The length must be the suite's.
    assert_eq!(parse(&format!("1 AEAD_AES_128_GCM inline:{KEY}")), Err(Refused::Key));
    let many: Vec<_> = (1..=5).map(|id| format!("inline:{KEY}|{id}:1")).collect();
    let line = format!("1 AES_CM_128_HMAC_SHA1_80 {}", many.join(";"));
    assert_eq!(parse(&line), Err(Refused::Keys));
    let line = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}{}", " -x".repeat(1_000));
    assert_eq!(parse(&line), Err(Refused::Syntax));
}

#[test]
fn the_offerers_order_decides() {
    let lines = [
        format!("1 F8_128_HMAC_SHA1_80 inline:{KEY}"),
        format!("2 AES_CM_128_HMAC_SHA1_32 inline:{KEY}"),
        format!("3 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNAUTHENTICATED_SRTP"),
        format!("4 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31|7:2 UNENCRYPTED_SRTCP"),
    ];
    let values = || lines.iter().map(String::as_bytes);
    assert_eq!(choose(values(), Suite::ALL).unwrap().tag, 2);
    let chosen = choose(values(), &[Suite::AesCm128HmacSha1_80]).unwrap();
    assert_eq!(chosen.tag, 4);
    assert_eq!(choose(values(), &[Suite::AeadAes128Gcm]), Err(Refused::UnauthenticatedSrtp));
    assert_eq!(choose(values().take(2), &[Suite::AeadAes128Gcm]), Err(Refused::Suite));
    assert_eq!(choose(std::iter::empty(), Suite::ALL), Err(Refused::Absent));
    let answered = answer(&chosen, &mut counting());
    assert_eq!((answered.tag, answered.keys.suite()), (4, Suite::AesCm128HmacSha1_80));
    assert!(answered.keys.unencrypted_rtcp);
    assert_eq!(answered.keys.masters()[0].mki, Mki::new(1, 2));
    assert_ne!(answered.keys.masters()[0].key, chosen.keys.masters()[0].key);
}

#[test]
fn lines_and_their_lengths_are_bounded() {
    let good = format!("7 AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
    let behind = |others: usize| {
        let mut lines = vec!["1 NEW_SUITE inline:a"; others];
        lines.push(&good);
        choose(lines.into_iter().map(str::as_bytes), Suite::ALL).map(|chosen| chosen.tag)
    };
    assert_eq!(behind(CRYPTO_LINES_MAX - 1), Ok(7));
    assert_eq!(behind(CRYPTO_LINES_MAX), Err(Refused::Suite));
    let padded = |octets: usize| parse(&format!("{good}{}", " ".repeat(octets - good.len())));
    assert_eq!(padded(CRYPTO_VALUE_MAX_BYTES).map(|line| line.tag), Ok(7));
    assert_eq!(padded(CRYPTO_VALUE_MAX_BYTES + 1), Err(Refused::Syntax));
}

#[test]
fn an_answer_fits_its_offer() {
    let mut random = counting();
    let offered = offer(&[Suite::AeadAes256Gcm, Suite::AesCm128HmacSha1_80], &mut random);
    assert_eq!(offered.iter().map(|line| line.tag).collect::<Vec<_>>(), [1, 2]);
    assert_ne!(offered[0].keys.masters()[0].key, offered[1].keys.masters()[0].key);
    for line in &offered {
        let chosen = Crypto::parse(written(line).as_bytes()).unwrap();
        let answered = answer(&chosen, &mut random);
        let keying = accept(&offered, written(&answered).as_bytes()).unwrap();
        assert_eq!((keying.ours, keying.theirs), (line.keys.clone(), answered.keys.clone()));
        let mut other = answered.clone();
        other.tag = 3;
        assert_eq!(accept(&offered, written(&other).as_bytes()), Err(Refused::NotOffered));
        other.tag = 3 - line.tag;
        assert_eq!(accept(&offered, written(&other).as_bytes()), Err(Refused::NotOffered));
        other = answered.clone();
        other.keys.unencrypted_rtcp = true;
        assert_eq!(accept(&offered, written(&other).as_bytes()), Err(Refused::NotOffered));
        assert_eq!(accept(&offered, written(line).as_bytes()), Err(Refused::KeyRepeated));
    }
    assert_eq!(accept(&offered, b"1 x"), Err(Refused::Syntax));
}

proptest! {
    /// Whatever is accepted is written so that it reads the same.
    #[test]
    fn reading_and_writing_agree(
        tag in 0_u32..1_000_000_000,
        suite in 0..Suite::ALL.len(),
        mutate in prop::option::of((0_usize..120, any::<u8>())),
        seed: u8,
    ) {
        let suite = Suite::ALL[suite];
        let key = MasterKey::new(suite, &vec![seed; suite.keying_bytes()]).unwrap();
        let master = Master { key, mki: Mki::new(u64::from(seed), 3), lifetime: Some(1 << 20) };
        let crypto = Crypto { tag, keys: Keys::several([master]).unwrap() };
        let mut line = written(&crypto).into_bytes();
        if let Some((at, octet)) = mutate {
            let at = at % line.len();
            line[at] = octet;
        }
        if let Ok(read) = Crypto::parse(&line) {
            prop_assert_eq!(parse(&written(&read)), Ok(read));
        } else {
            prop_assert!(mutate.is_some());
        }
    }
}
