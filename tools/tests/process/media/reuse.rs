//! Ports that are used again while the parties of their calls before still send (lessons.md 1.1).
//!
//! `RAVELIN_REUSE_CALLS=24000 cargo test -p ravelin --test process media::reuse` goes 24 times through
//! a pool of 1,000.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    call::Call,
    edge::{Edge, Net, Setup, description, media_of},
    voice::{Voice, talk},
};

/// Calls that are up at a time.
const UP: usize = 10;
/// How long a party goes on after its call: longer than a port rests where ports are scarce.
const LATE: Duration = Duration::from_secs(3);
/// In which a pool is gone through once, at the fastest. A port rests for a second at least, and of two
/// shards one may have more than its share of the calls.
const CYCLE: Duration = Duration::from_secs(3);
const PARTY_PORT: u16 = 30_000;

/// A call's parties after its end.
struct Gone {
    since: Instant,
    number: usize,
    voices: [Voice; 2],
}

#[test]
fn late_senders_of_calls_before_reach_nobody_on_ports_that_are_used_again() {
    let wanted = std::env::var("RAVELIN_REUSE_CALLS").ok();
    let calls: usize = wanted.map_or(300, |text| text.parse().expect("a number of calls"));
    let cycles = if calls > 1_000 { 24 } else { 5 };
    let pairs = calls / cycles;
    let setup = Setup { pairs: u16::try_from(pairs).expect("a pool"), ..Setup::default() };
    let mut edge = Edge::start(Net::loopback(16), &setup);
    let [near, far] = edge.net.parties();
    // Sockets are free again when their late packets are over.
    let mut free: VecDeque<u16> = (0..12_000).map(|at| PARTY_PORT + 2 * at).collect();
    let mut up: VecDeque<(usize, Call)> = VecDeque::new();
    let mut voices: Vec<[Voice; 2]> = Vec::new();
    let mut gone: VecDeque<Gone> = VecDeque::new();
    let (mut used, mut late) = (std::collections::BTreeMap::new(), 0_u64);
    let pace = CYCLE / u32::try_from(pairs).expect("a pool");
    let mut last = Instant::now();
    for number in 0..calls {
        // What was slow is not made good for: calls in a burst would find no port that has rested.
        std::thread::sleep(pace.saturating_sub(last.elapsed()));
        last = Instant::now();
        let port = free.pop_front().expect("a free port of the parties");
        let audio = |ip| description(ip, 1, &format!("m=audio {port} RTP/AVP 0\n"));
        let call = Call::up(&mut edge, number, &audio(near), &audio(far));
        let ssrc = u32::try_from(number).expect("a number") * 2;
        let mut pair = [Voice::new(near, port, ssrc), Voice::new(far, port, ssrc + 1)];
        pair[0].to = media_of(&call.answer, 0);
        pair[1].to = media_of(&call.invite, 0);
        *used.entry(pair[0].to.port()).or_insert(0) += 1;
        up.push_back((number, call));
        voices.push(pair);
        for gone in &mut gone {
            for voice in &mut gone.voices {
                voice.say();
                late += 1;
            }
        }
        talk(&mut voices, false);
        if up.len() > UP {
            let (number, call) = up.pop_front().expect("a call");
            call.end(&mut edge);
            gone.push_back(Gone { since: Instant::now(), number, voices: voices.remove(0) });
        }
        for voice in voices.iter_mut().chain(gone.iter_mut().map(|gone| &mut gone.voices)).flatten()
        {
            voice.listen();
            assert!(voice.foreign.is_empty(), "heard of another call: {:x?}", voice.foreign[0]);
        }
        while gone.front().is_some_and(|gone| gone.since.elapsed() > LATE) {
            let over = gone.pop_front().expect("a call");
            free.push_back(over.voices[0].rtp.local_addr().expect("an address").port());
            assert!(over.number < number);
        }
    }
    let again = used.values().filter(|uses| **uses > 1).count();
    println!(
        "{calls} calls over {pairs} pairs, {again} used again, {late} late packets: none heard"
    );
    assert!(again * 10 >= pairs * 9, "ports were used again: {again} of {pairs}");
    assert!(late > 0);
    edge.stop();
}
