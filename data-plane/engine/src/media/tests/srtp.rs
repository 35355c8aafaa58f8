//! SRTP through the pipeline. What arrives is decrypted, and what is sent encrypted, by another
//! implementation (webrtc-srtp).

use ravelin_srtp::{Keying, Keys, Master, MasterKey, Suite};
use webrtc_srtp::{context::Context, protection_profile::ProtectionProfile};

use super::*;

fn key(suite: Suite, seed: u8) -> MasterKey {
    let octets: Vec<u8> =
        (0..suite.keying_bytes()).map(|at| seed ^ (at as u8).wrapping_mul(31)).collect();
    MasterKey::new(suite, &octets).unwrap()
}

/// One direction of a party of ours.
fn party(suite: Suite, seed: u8) -> Context {
    let profile = match suite {
        Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Suite::AesCm256HmacSha1_80 => ProtectionProfile::Aes256CmHmacSha1_80,
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
    };
    let key = key(suite, seed);
    let (key, salt) = key.key_and_salt().split_at(suite.key_bytes());
    Context::new(key, salt, profile, None, None).unwrap()
}

fn keying(suite: Suite, ours: u8, theirs: u8) -> Keying {
    Keying { ours: Keys::single(key(suite, ours)), theirs: Keys::single(key(suite, theirs)) }
}

fn keyed(suite: Suite, ours: u8, theirs: u8) -> Security {
    Security::Keyed(Box::new(keying(suite, ours, theirs)))
}

fn rtp(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 160, 0, 0, 0, 9]);
    packet.extend(payload);
    packet
}

/// A sender report and a CNAME.
fn report() -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6, 0, 0, 0, 9];
    packet.extend([7; 20]);
    packet.extend([0x81, 202, 0, 3, 0, 0, 0, 9, 1, 4, b'n', b'a', b'm', b'e', 0, 0]);
    packet
}

/// A call whose caller is at `a` and whose callee is at `b`.
struct Call {
    rig: Rig,
    anchor: Anchor,
    a: SocketAddr,
    b: SocketAddr,
}

impl Call {
    fn new(caller: Security, callee: Security) -> Self {
        let mut rig = Rig::new(table(8, Limits::default()));
        let (a, b) = (addr("127.9.3.1:7000"), addr("127.9.3.2:8000"));
        let mut anchor = rig.allocate(Instant(0)).unwrap();
        anchor.stage(Side::Caller, 0, remote(a));
        anchor.stage_security(Side::Caller, 0, caller);
        anchor.stage(Side::Callee, 0, remote(b));
        anchor.stage_security(Side::Callee, 0, callee);
        rig.table.commit(Instant(0), &mut anchor);
        Self { rig, anchor, a, b }
    }

    /// What the other party gets of a datagram that `from` sends.
    fn send(&mut self, from: Side, control: bool, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
        let odd = u32::from(control);
        let place = |addr: SocketAddr| SocketAddr::new(addr.ip(), addr.port() + odd as u16);
        let (source, to) = match from {
            Side::Caller => (place(self.a), place(self.b)),
            Side::Callee => (place(self.b), place(self.a)),
        };
        let port = MediaPortId(self.rig.port(&self.anchor, from, 0).0 + odd);
        let out = self.rig.port(&self.anchor, from.other(), 0);
        let Rig { table, tx, counters, now } = &mut self.rig;
        tx.clear();
        table.relay(*now, port, source, bytes, tx, counters)?;
        let sent = tx.iter().next().unwrap();
        assert_eq!(sent.egress, Egress::Media { port: MediaPortId(out.0 + odd), to });
        Ok(sent.bytes.to_vec())
    }

    /// The other party's offer or answer is the same as before but for the keys.
    fn stage(&mut self, side: Side, security: Security) {
        let at = if side == Side::Caller { self.a } else { self.b };
        self.anchor.stage(side, 0, remote(at));
        self.anchor.stage_security(side, 0, security);
    }

    fn commit(&mut self) {
        self.rig.table.commit(Instant(0), &mut self.anchor);
    }
}

/// Both directions, every suite against RTP and against every suite with other keys, RTCP too.
#[test]
fn contents_arrive_under_the_other_partys_keys() {
    for near in Suite::ALL {
        for far in [None].into_iter().chain(Suite::ALL.iter().map(|suite| Some(*suite))) {
            let callee = far.map_or(Security::None, |suite| keyed(suite, 3, 4));
            let mut call = Call::new(keyed(*near, 1, 2), callee);
            let (mut a_sends, mut a_hears) = (party(*near, 2), party(*near, 1));
            let mut b = far.map(|suite| (party(suite, 4), party(suite, 3)));
            for count in 0..40_u16 {
                let sequence = 65_520_u16.wrapping_add(count);
                let plain = rtp(sequence, &vec![count as u8; usize::from(count) * 5]);
                let sent = a_sends.encrypt_rtp(&plain).unwrap();
                let heard = call.send(Side::Caller, false, &sent).unwrap();
                assert_ne!(heard, sent);
                match &mut b {
                    None => assert_eq!(heard, plain),
                    Some((_, hears)) => assert_eq!(hears.decrypt_rtp(&heard).unwrap(), plain),
                }
                let back = match &mut b {
                    None => plain.clone(),
                    Some((sends, _)) => sends.encrypt_rtp(&plain).unwrap().to_vec(),
                };
                let heard = call.send(Side::Callee, false, &back).unwrap();
                assert_eq!(a_hears.decrypt_rtp(&heard).unwrap(), plain, "{near} {far:?}");

                let sent = a_sends.encrypt_rtcp(&report()).unwrap();
                let heard = call.send(Side::Caller, true, &sent).unwrap();
                match &mut b {
                    None => assert_eq!(heard, report()),
                    Some((_, hears)) => assert_eq!(hears.decrypt_rtcp(&heard).unwrap(), report()),
                }
                let back = match &mut b {
                    None => report(),
                    Some((sends, _)) => sends.encrypt_rtcp(&report()).unwrap().to_vec(),
                };
                let heard = call.send(Side::Callee, true, &back).unwrap();
                assert_eq!(a_hears.decrypt_rtcp(&heard).unwrap(), report(), "{near} {far:?}");
            }
        }
    }
}

/// lessons.md 2.19 and 2.21: from a third party, and from the party's own address: nothing passes,
/// nothing changes, everything is counted, and the call lives.
#[test]
fn a_million_bad_packets_end_no_call() {
    const EACH: u32 = 500_000;
    let suite = Suite::AesCm128HmacSha1_80;
    let mut call = Call::new(keyed(suite, 1, 2), Security::None);
    let (mut a_sends, mut stranger) = (party(suite, 2), party(suite, 9));
    let first = a_sends.encrypt_rtp(&rtp(100, b"first")).unwrap();
    assert_eq!(call.send(Side::Caller, false, &first), Ok(rtp(100, b"first")));
    let pa = call.rig.port(&call.anchor, Side::Caller, 0);
    let third = addr("127.9.3.9:7000");
    let mut forged = stranger.encrypt_rtp(&rtp(101, b"forged")).unwrap().to_vec();
    for count in 0..EACH {
        forged[12..16].copy_from_slice(&count.to_be_bytes());
        let at_the_gate = call.rig.relay(pa, third, &forged);
        assert_eq!(at_the_gate, Err(DropReason::MediaSource));
        // Its own sequence numbers, sources and payload types, as a forger would try them.
        forged[2..4].copy_from_slice(&(count as u16).to_be_bytes());
        forged[11] = if count % 2 == 0 { 9 } else { count as u8 };
        let refused = call.send(Side::Caller, false, &forged).unwrap_err();
        assert!(matches!(refused, DropReason::SrtpAuthentication | DropReason::SrtpReplay));
    }
    let counters = &call.rig.counters;
    assert_eq!(counters.drops(DropReason::MediaSource), u64::from(EACH));
    let refused =
        counters.drops(DropReason::SrtpAuthentication) + counters.drops(DropReason::SrtpReplay);
    assert_eq!(refused, u64::from(EACH));
    let count = call.rig.table.count(&call.anchor, Side::Caller);
    assert_eq!((count.packets, count.dropped), (1, u64::from(EACH)));
    let next = a_sends.encrypt_rtp(&rtp(101, b"second")).unwrap();
    assert_eq!(call.send(Side::Caller, false, &next), Ok(rtp(101, b"second")));
}

/// rtpengine#1443: a re-INVITE with the same keys goes on where the stream was, two wraps later.
#[test]
fn the_same_keys_go_on_over_a_reinvite() {
    for suite in Suite::ALL {
        let mut call = Call::new(keyed(*suite, 1, 2), keyed(*suite, 3, 4));
        let (mut a_sends, mut b_hears) = (party(*suite, 2), party(*suite, 3));
        let mut old = Vec::new();
        for index in (0..150_000_u32).step_by(10_000) {
            let sent = a_sends.encrypt_rtp(&rtp(index as u16, b"before")).unwrap();
            let heard = call.send(Side::Caller, false, &sent).unwrap();
            assert_eq!(b_hears.decrypt_rtp(&heard).unwrap(), rtp(index as u16, b"before"));
            old = sent.to_vec();
        }
        call.stage(Side::Caller, keyed(*suite, 1, 2));
        call.stage(Side::Callee, keyed(*suite, 3, 4));
        call.commit();
        assert_eq!(call.send(Side::Caller, false, &old), Err(DropReason::SrtpReplay));
        for index in 150_000..150_020_u32 {
            let sent = a_sends.encrypt_rtp(&rtp(index as u16, b"after")).unwrap();
            let heard = call.send(Side::Caller, false, &sent).unwrap();
            assert_eq!(b_hears.decrypt_rtp(&heard).unwrap(), rtp(index as u16, b"after"));
        }
    }
}

#[test]
fn new_keys_take_over_with_the_answer_and_not_before() {
    let suite = Suite::AeadAes128Gcm;
    let mut call = Call::new(keyed(suite, 1, 2), keyed(suite, 3, 4));
    let (mut a_old, mut b_hears) = (party(suite, 2), party(suite, 3));
    let mut a_new = party(Suite::AesCm128HmacSha1_32, 6);
    let mut send = |call: &mut Call, by: &mut Context, sequence: u16| {
        let plain = rtp(sequence, b"a voice that is longer than any tag");
        let sent = by.encrypt_rtp(&plain).unwrap();
        let heard = call.send(Side::Caller, false, &sent)?;
        assert_eq!(b_hears.decrypt_rtp(&heard).unwrap(), plain);
        Ok(())
    };
    send(&mut call, &mut a_old, 10).unwrap();
    // An offer with new keys is refused: the old ones stay (RFC 4568 7.1.4).
    call.stage(Side::Caller, keyed(Suite::AesCm128HmacSha1_32, 5, 6));
    let early = send(&mut call, &mut a_new, 11);
    assert_eq!(early, Err(DropReason::SrtpAuthentication));
    call.anchor.roll_back();
    call.commit();
    assert_eq!(send(&mut call, &mut a_new, 11), Err(DropReason::SrtpAuthentication));
    send(&mut call, &mut a_old, 11).unwrap();
    // And another is answered. Until the caller uses its new keys its old ones are understood.
    call.stage(Side::Caller, keyed(Suite::AesCm128HmacSha1_32, 5, 6));
    call.stage(Side::Callee, keyed(suite, 3, 4));
    call.commit();
    send(&mut call, &mut a_old, 12).unwrap();
    assert_eq!(
        call.send(
            Side::Caller,
            false,
            &a_old.encrypt_rtp(&rtp(12, b"the same number for the second time")).unwrap()
        ),
        Err(DropReason::SrtpAuthentication),
        "used before, under keys that are not the newest"
    );
    send(&mut call, &mut a_new, 13).unwrap();
    assert_eq!(send(&mut call, &mut a_old, 14), Err(DropReason::SrtpAuthentication));
    // What goes to the caller is under its new keys from the answer on.
    let heard = call.send(Side::Callee, false, &{
        let mut b_sends = party(suite, 4);
        b_sends.encrypt_rtp(&rtp(1, b"back")).unwrap()
    });
    let mut a_hears = party(Suite::AesCm128HmacSha1_32, 5);
    assert_eq!(a_hears.decrypt_rtp(&heard.unwrap()).unwrap(), rtp(1, b"back"));
}

/// A stream goes from RTP to SRTP and back with an offer and its answer.
#[test]
fn protection_comes_and_goes_with_offers() {
    let suite = Suite::AesCm128HmacSha1_80;
    let mut call = Call::new(Security::None, Security::None);
    let plain = rtp(1, b"clear");
    assert_eq!(call.send(Side::Caller, false, &plain), Ok(plain.clone()));
    call.stage(Side::Callee, keyed(suite, 1, 2));
    call.commit();
    let plain = rtp(2, b"shut");
    let heard = call.send(Side::Caller, false, &plain).unwrap();
    assert_eq!(party(suite, 1).decrypt_rtp(&heard).unwrap(), plain);
    // The callee's packets in the clear are nobody's now.
    assert!(call.send(Side::Callee, false, &rtp(3, b"injected by who knows who")).is_err());
    call.stage(Side::Callee, Security::None);
    call.commit();
    let plain = rtp(4, b"clear");
    assert_eq!(call.send(Side::Caller, false, &plain), Ok(plain.clone()));
}

/// Before DTLS has given keys nothing passes: not even in the clear.
#[test]
fn nothing_passes_without_keys() {
    let mut call = Call::new(Security::None, Security::Awaiting);
    for control in [false, true] {
        let packet = if control { report() } else { rtp(1, b"voice") };
        assert_eq!(call.send(Side::Caller, control, &packet), Err(DropReason::SrtpNoKeys));
        assert_eq!(call.send(Side::Callee, control, &packet), Err(DropReason::SrtpNoKeys));
    }
    assert_eq!(call.rig.counters.drops(DropReason::SrtpNoKeys), 4);
}

/// No packet is sent under a key stream that was used: one that comes again in the clear, and any
/// after the key's lifetime, is refused and counted.
#[test]
fn no_key_stream_is_used_twice() {
    let suite = Suite::AeadAes256Gcm;
    let master = Master { key: key(suite, 1), mki: None, lifetime: Some(3) };
    let keying =
        Keying { ours: Keys::several([master]).unwrap(), theirs: Keys::single(key(suite, 2)) };
    let mut call = Call::new(Security::None, Security::Keyed(Box::new(keying)));
    assert!(call.send(Side::Caller, false, &rtp(1, b"one")).is_ok());
    assert_eq!(call.send(Side::Caller, false, &rtp(1, b"two")), Err(DropReason::SrtpRepeat));
    assert!(call.send(Side::Caller, false, &rtp(2, b"two")).is_ok());
    assert!(call.send(Side::Caller, false, &rtp(3, b"three")).is_ok());
    assert_eq!(call.send(Side::Caller, false, &rtp(4, b"four")), Err(DropReason::SrtpKeySpent));
    assert_eq!(call.rig.counters.drops(DropReason::SrtpKeySpent), 1);
    assert_eq!(call.rig.counters.drops(DropReason::SrtpRepeat), 1);
}

/// RFC 3711 9.1: whatever was in between, keys that come back protect nothing under an index that they
/// protected before, and let in nothing that they let in before.
#[test]
fn keys_that_come_back_go_on_where_they_were() {
    let between: [fn(Suite) -> Security; 4] = [
        |_| Security::None,
        |_| Security::Awaiting,
        |suite| keyed(suite, 11, 12),
        |suite| {
            let mut keying = keying(suite, 1, 2);
            keying.ours.unencrypted_rtcp = true;
            keying.theirs.unencrypted_rtcp = true;
            Security::Keyed(Box::new(keying))
        },
    ];
    for suite in Suite::ALL {
        for (case, between) in between.iter().enumerate() {
            let mut call = Call::new(Security::None, keyed(*suite, 1, 2));
            let (mut sends, mut hears) = (party(*suite, 2), party(*suite, 1));
            let mut numbers = Vec::new();
            let mut report_heard = |call: &mut Call| {
                let heard = call.send(Side::Caller, true, &report()).unwrap();
                let behind = if suite.is_aead() { 0 } else { suite.rtcp_tag_bytes() };
                let word = *heard[..heard.len() - behind].last_chunk::<4>().unwrap();
                numbers.push(u32::from_be_bytes(word) & 0x7fff_ffff);
                assert_eq!(hears.decrypt_rtcp(&heard).unwrap(), report());
            };
            // Two wraps, so that the rollover counter counts.
            let mut recorded = Vec::new();
            for index in (0..150_000_u32).step_by(10_000) {
                call.send(Side::Caller, false, &rtp(index as u16, b"to")).unwrap();
                recorded = sends.encrypt_rtp(&rtp(index as u16, b"from")).unwrap().to_vec();
                call.send(Side::Callee, false, &recorded).unwrap();
            }
            report_heard(&mut call);
            report_heard(&mut call);
            call.stage(Side::Callee, between(*suite));
            call.commit();
            if case == 2 {
                // The first packet under the keys between closes those before.
                let other = party(*suite, 12).encrypt_rtp(&rtp(1, b"between")).unwrap();
                call.send(Side::Callee, false, &other).unwrap();
            }
            call.stage(Side::Callee, keyed(*suite, 1, 2));
            call.commit();
            report_heard(&mut call);
            assert!(numbers.is_sorted_by(|a, b| a < b), "{suite} {case}: {numbers:?}");
            let last = 140_000_u32 as u16;
            let again = call.send(Side::Caller, false, &rtp(last, b"another payload"));
            assert_eq!(again, Err(DropReason::SrtpRepeat), "{suite} {case}");
            let copy = call.send(Side::Callee, false, &recorded);
            assert_eq!(copy, Err(DropReason::SrtpReplay), "{suite} {case}");
            let next = sends.encrypt_rtp(&rtp(last + 1, b"goes on")).unwrap();
            let heard = call.send(Side::Callee, false, &next);
            assert_eq!(heard, Ok(rtp(last + 1, b"goes on")), "{suite} {case}");
        }
    }
}
