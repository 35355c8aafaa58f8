//! SRTP, SRTCP and `a=crypto` values as they arrive, on arbitrary octets. The fuzzer has no key, so
//! nothing of its own may open, and nothing that it sends may disturb a stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ravelin_srtp::{Keys, Master, MasterKey, Mki, Opener, Sealer, Suite, sdes::Crypto};

fn keys(suite: Suite, mki: Option<Mki>) -> Keys {
    let octets: Vec<u8> = (0..suite.keying_bytes()).map(|at| (at as u8).wrapping_mul(91)).collect();
    let key = MasterKey::new(suite, &octets).expect("a key");
    Keys::several([Master { key, mki, lifetime: None }]).expect("keys")
}

fuzz_target!(|octets: &[u8]| {
    if let Ok(crypto) = Crypto::parse(octets) {
        let mut text = Vec::new();
        crypto.write(&mut text);
        assert_eq!(Crypto::parse(&text).as_ref(), Ok(&crypto));
    }
    let Some((choice, octets)) = octets.split_first() else { return };
    let suite = Suite::ALL[usize::from(*choice) % Suite::ALL.len()];
    let mki = if choice & 0x80 == 0 { None } else { Mki::new(u64::from(choice & 3), 2) };
    let keys = keys(suite, mki);
    let (mut sealer, mut opener) = (Sealer::new(&keys), Opener::new(&keys));
    let seal = |sealer: &mut Sealer, sequence: u16| {
        let mut packet = vec![0x80, 0];
        packet.extend(sequence.to_be_bytes());
        packet.extend([0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let length = packet.len();
        packet.resize(length + sealer.rtp_overhead(), 0);
        sealer.seal_rtp(&mut packet, length).expect("sealed");
        packet
    };
    let mut out = vec![0; octets.len().max(64)];
    opener.open_rtp(&seal(&mut sealer, 65_530), &mut out).expect("opened");
    assert!(opener.open_rtp(octets, &mut out).is_err());
    assert!(opener.open_rtcp(octets, &mut out).is_err());
    assert_eq!(opener.sources(), 1);
    opener.open_rtp(&seal(&mut sealer, 65_531), &mut out).expect("opened");
    opener.open_rtp(&seal(&mut sealer, 2), &mut out).expect("opened");

    // What is sealed opens to what it was, whatever it holds.
    for control in [false, true] {
        let mut buffer = octets.to_vec();
        buffer.resize(octets.len() + ravelin_srtp::limits::OVERHEAD_MAX, 0);
        let sealed = if control {
            sealer.seal_rtcp(&mut buffer, octets.len())
        } else {
            sealer.seal_rtp(&mut buffer, octets.len())
        };
        let Ok(length) = sealed else { continue };
        let sealed = &buffer[..length];
        let mut out = vec![0; length];
        let opened = if control {
            opener.open_rtcp(sealed, &mut out)
        } else {
            opener.open_rtp(sealed, &mut out)
        };
        assert_eq!(opened.map(|length| &out[..length]), Ok(octets));
    }
});
