//! The process ends, and calls with SRTP go on in the next one: keys, rollover counters, and never an
//! index twice (design 8, RFC 3711 9.1, RFC 4568 7.1.4).

use ravelin_srtp::{Keying, Suite};

use super::{common::*, sdes::*};

const TERMS: [&str; 2] = ["srtp: off", "srtp: sdes"];
/// Tag and suite that the callee takes.
const TAKEN: (u32, Suite) = (2, Suite::AeadAes128Gcm);
/// `ravelin_srtp::limits::RTP_LEAD`.
const LEAD: u16 = 32;

/// Plain towards the caller, SRTP towards the callee; the callee's end of it.
fn call() -> (Talk, Party) {
    let theirs = keys(TAKEN.1, 7);
    let answer = secure(50_000, &line(TAKEN.0, &theirs));
    let talk = talk(world(TERMS[0], TERMS[1]), PLAIN, |_| answer.clone());
    let ours = lines(&talk.offer)[TAKEN.0 as usize - 1].keys.clone();
    (talk, Party::new(&Keying { ours: theirs, theirs: ours }))
}

fn crash(talk: &mut Talk) -> ravelin_engine::checkpoint::Adoption {
    talk.world.crash_into(&config(TERMS[0], TERMS[1]), 0, 1, None, 300)
}

#[test]
fn a_call_with_srtp_goes_on_under_its_keys_and_no_index_comes_twice() {
    let (mut talk, mut callee) = call();
    let (mut up, mut down) = (65_500_u16, 65_400_u16);
    for kill in 0..10_u16 {
        for _ in 0..5 + 7 * kill {
            (up, down) = (up.wrapping_add(1), down.wrapping_add(1));
            let sealed = talk.up(&rtp(up)).expect("forwarded");
            assert_eq!(callee.open(&sealed), rtp(up));
            let sealed = callee.seal(&rtp(down));
            assert_eq!(talk.down(&sealed), Some(rtp(down)), "after {kill} kills");
        }
        let last = up;
        let adoption = crash(&mut talk);
        assert_eq!(adoption.adopted, 1, "{adoption:?}");
        talk.world.quiet();
        // What the record claims is refused, whether it was used or not: a copy too.
        assert_eq!(talk.up(&rtp(last)), None);
        let sealed = loop {
            up = up.wrapping_add(1);
            assert!(up.wrapping_sub(last) <= LEAD + 1, "silent for too long");
            if let Some(sealed) = talk.up(&rtp(up)) {
                break sealed;
            }
        };
        // The party's own rollover counter goes on, and it takes each index once: one that came
        // twice would be refused here.
        assert_eq!(callee.open(&sealed), rtp(up));
        // What it said meanwhile is lost, and nothing else.
        for _ in 0..20 {
            down = down.wrapping_add(1);
            callee.seal(&rtp(down));
        }
    }
}

#[test]
fn a_re_invite_after_the_restart_names_the_same_keys() {
    let (mut talk, mut callee) = call();
    let sealed = talk.up(&rtp(1)).unwrap();
    assert_eq!(callee.open(&sealed), rtp(1));
    let offered = lines(&talk.offer);
    assert_eq!(crash(&mut talk).adopted, 1);
    talk.world.quiet();
    let theirs = keys(TAKEN.1, 7);
    let answer = secure(50_000, &line(TAKEN.0, &theirs));
    let (offer, _) = talk.again(PLAIN, |_| answer.clone());
    // The suite in force first, under its key. Nobody knows what the others have been used for.
    let now = lines(&offer);
    assert_eq!(now[0], offered[TAKEN.0 as usize - 1]);
    assert_eq!(now.len(), offered.len());
    assert!(now[1..].iter().all(|line| !offered.contains(line)), "{now:?}");
    // The same keys: indices go on, none begins anew.
    let sealed = talk.up(&rtp(100)).unwrap();
    assert_eq!(callee.open(&sealed), rtp(100));
    let sealed = callee.seal(&rtp(3));
    assert_eq!(talk.down(&sealed), Some(rtp(3)));
    assert_eq!(talk.down(&sealed), None, "a replay");
    // The callee offers with another key: ours stays, as in every answer of this leg.
    let other = keys(TAKEN.1, 9);
    let (_, ok) = talk.back(&secure(50_000, &line(1, &other)), |_| PLAIN.to_owned());
    assert_eq!(lines(&ok)[0].keys, offered[TAKEN.0 as usize - 1].keys);
}

/// Under a record that tells of a part that this version does not know, a call is not half taken
/// over: it ends, with its record, and its parties hear of it.
#[test]
fn an_unknown_part_ends_the_call_with_a_cause() {
    let (mut talk, _) = call();
    assert!(talk.up(&rtp(1)).is_some());
    let world = &mut talk.world;
    let (slot, bytes) = world.kept.pop_first().unwrap();
    let mut hit = 0;
    for at in 48..bytes.len() - 3 {
        // The part that holds SRTP: its tag, and a length that is that of what follows.
        let length = u16::from_le_bytes([bytes[at + 1], bytes[at + 2]]);
        if bytes[at] != 3 || !(100..400).contains(&length) {
            continue;
        }
        let mut other = bytes.clone();
        other[at] = 200;
        let body = other.split_off(48);
        let sequence = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
        world.kept.insert(slot, ravelin_engine::checkpoint::sealed_for_test(slot, sequence, &body));
        hit += 1;
        break;
    }
    assert_eq!(hit, 1, "no part with keys");
    let adoption = crash(&mut talk);
    assert_eq!(adoption.ended.get("media_unknown"), Some(&1), "{adoption:?}");
    assert_eq!(adoption.adopted, 0);
    let world = &mut talk.world;
    for (party, listener) in [(PBX, ACCESS), (CARRIER_A, CORE)] {
        let bye = world.expect(party, "BYE ");
        world.send(party, listener, &bye.reply("200 OK", "", ""));
    }
    let cdr = world.call_cdr();
    assert_eq!((cdr.cause, cdr.adopted), (503, 1));
    assert_eq!(world.engine.tables().ports_in_use, 0);
}

/// Where records could be read by others no key is written, and it is counted.
#[test]
fn without_memory_of_its_own_no_key_is_written() {
    let (mut talk, _) = call();
    assert_eq!(talk.world.kept.len(), 1);
    talk.world.engine.keep_no_keys();
    // The next record of the call would hold keys.
    let answer = secure(50_000, &line(TAKEN.0, &keys(TAKEN.1, 8)));
    talk.again(PLAIN, |_| answer.clone());
    assert!(talk.world.kept.is_empty());
    assert_eq!(talk.world.engine.counters().checkpoints_too_long, 1);
}

/// What is left of an edge that nobody starts again: no key is in its records any more, and the next
/// process still ends its calls, with their CDRs.
#[test]
fn a_record_whose_keys_were_wiped_ends_its_call() {
    let (mut talk, _) = call();
    assert!(talk.up(&rtp(1)).is_some());
    let ours = lines(&talk.offer)[TAKEN.0 as usize - 1].keys.clone();
    let (slot, bytes) = talk.world.kept.pop_first().unwrap();
    let wiped = ravelin_engine::checkpoint::without_keys(&bytes);
    for keys in [ours, keys(TAKEN.1, 7)] {
        let secret = keys.masters()[0].key.key_and_salt().to_vec();
        let is_in = |bytes: &[u8]| bytes.windows(secret.len()).any(|part| part == secret);
        assert!(is_in(&bytes) && !is_in(&wiped));
    }
    talk.world.kept.insert(slot, wiped);
    let adoption = crash(&mut talk);
    assert_eq!(adoption.ended.get("media_unknown"), Some(&1), "{adoption:?}");
    let world = &mut talk.world;
    for (party, listener) in [(PBX, ACCESS), (CARRIER_A, CORE)] {
        let bye = world.expect(party, "BYE ");
        world.send(party, listener, &bye.reply("200 OK", "", ""));
    }
    let cdr = world.call_cdr();
    assert_eq!((cdr.cause, cdr.adopted), (503, 1));
    // Nothing readable: the head alone stays, and is counted as what it is.
    let mut other = bytes;
    other[4..6].copy_from_slice(&99_u16.to_le_bytes());
    let wiped = ravelin_engine::checkpoint::without_keys(&other);
    assert_eq!(wiped, other[..48]);
}
