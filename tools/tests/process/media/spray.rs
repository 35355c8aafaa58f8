//! The spray test (lessons.md 1.3, 1.4, 2.20, 2.21; ES2025-01): every media port attacked before,
//! during and after calls and their re-INVITEs, from every address but the party's. Every packet that
//! anybody receives is looked at.
//!
//! `RAVELIN_SPRAY_CALLS=500 cargo test -p ravelin --test process media::spray` is the long run.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    call::Call,
    edge::{Edge, FIRST_PORT, Net, Setup, description, media_of},
    namespaces::Spaces,
    strangers::Strangers,
    voice::{Voice, drained, talk, talk_within},
};

/// A party's RTP port, by call; where it goes by a re-INVITE.
const PARTY_PORT: u16 = 40_000;
const MOVED_PORT: u16 = 45_000;
/// Where a party behind a NAT says that it is.
const INSIDE_PORT: u16 = 50_000;
/// Packets of a stream that may pass before its source is proven (`docs/MANUAL.md`).
const UNPROVEN: usize = 5;
/// Within which streams are taken over by the fast path: next hops are resolved first.
const FAST: Duration = Duration::from_secs(30);
/// What comes late is still seen.
const SETTLE: Duration = Duration::from_millis(300);

fn calls_wanted(usual: u16) -> u16 {
    let wanted = std::env::var("RAVELIN_SPRAY_CALLS").ok();
    wanted.map_or(usual, |text| text.parse().expect("a number of calls"))
}

/// Port pairs for so many calls, some of which stay free. Calls fall on the shards by a keyed hash and
/// each shard has its share of the pairs: of two shards one gets three deviations more than half of the
/// calls about once in 400 runs, and six never.
fn pairs_for(calls: u16) -> u16 {
    calls + 6 * calls.isqrt() + 6
}

fn audio(ip: IpAddr, version: u32, port: u16) -> String {
    description(
        ip,
        version,
        &format!("m=audio {port} RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000\n"),
    )
}

fn ssrc(side: usize, call: u16) -> u32 {
    0x0a00_0000 + (u32::try_from(side).expect("a side") << 20) + u32::from(call)
}

/// The strangers of both realms, and what they spray.
struct Spray {
    sides: [Strangers; 2],
    ours: [IpAddr; 2],
    ports: Vec<u16>,
}

impl Spray {
    fn new(net: &Net, pairs: u16, one_link: bool) -> Self {
        let strangers = |side: usize| {
            let mut hosts = vec![net.strangers[side], net.parties()[side]];
            if one_link {
                hosts.push(net.parties()[1 - side]);
            }
            Strangers::new(&hosts, &[if side == 0 { 39_000 } else { 39_002 }])
        };
        let ports = (0..pairs).map(|pair| FIRST_PORT + 2 * pair).collect();
        Self { sides: [strangers(0), strangers(1)], ours: net.ours(), ports }
    }

    /// Every port of the range; the parties' own SSRCs where there is a call.
    fn everywhere(&mut self, calls: &[[Voice; 2]]) {
        for (side, strangers) in self.sides.iter_mut().enumerate() {
            for port in &self.ports {
                let at = SocketAddr::new(self.ours[side], *port);
                let voice = calls.iter().map(|call| &call[side]).find(|voice| voice.to == at);
                let (ssrc, sequence) = voice.map_or((1, 1), |voice| (voice.ssrc, voice.sequence));
                strangers.attack(at, ssrc, sequence);
            }
        }
    }

    #[track_caller]
    fn heard_nothing(&self) {
        for strangers in &self.sides {
            let heard = strangers.heard();
            assert!(heard.is_empty(), "{} packets diverted, such as {:x?}", heard.len(), heard[0]);
        }
    }
}

#[track_caller]
fn nothing_foreign(calls: &mut [[Voice; 2]]) {
    std::thread::sleep(SETTLE);
    for voice in calls.iter_mut().flatten() {
        voice.listen();
        let foreign = &voice.foreign;
        assert!(
            foreign.is_empty(),
            "{} packets forwarded, such as {:x?}",
            foreign.len(),
            foreign[0]
        );
    }
}

/// Signalled sources alone: nothing of a stranger passes, nothing of a party goes astray.
fn sprayed(spaces: Option<&Spaces>, net: Net, driver: &str, count: u16) {
    let pairs = pairs_for(count);
    let setup = Setup { pairs, driver, ..Setup::default() };
    let mut edge = Edge::start_in(spaces, net, &setup);
    let mut spray = Spray::new(&net, pairs, spaces.is_none());
    spray.everywhere(&[]);

    let [near, far] = net.parties();
    let (mut calls, mut voices) = (Vec::new(), Vec::new());
    for number in 0..count {
        let port = PARTY_PORT + 2 * number;
        let call = Call::ring(&mut edge, usize::from(number), &audio(near, 1, port));
        let [caller, mut callee] =
            [(0, near), (1, far)].map(|(side, ip)| Voice::new(ip, port, ssrc(side, number)));
        callee.to = media_of(&call.invite, 0);
        calls.push(call);
        voices.push([caller, callee]);
    }
    spray.everywhere(&voices);
    for (number, call) in calls.iter_mut().enumerate() {
        let port = voices[number][1].rtp.local_addr().expect("an address").port();
        call.accept(&mut edge, &audio(far, 1, port));
        voices[number][0].to = media_of(&call.answer, 0);
    }
    // The strangers are first.
    spray.everywhere(&voices);
    for _ in 0..3 {
        talk(&mut voices, true);
    }
    spray.everywhere(&voices);
    talk(&mut voices, true);

    // Half of the callers move, and so does every third callee.
    for (number, call) in (0..count).zip(&mut calls) {
        let port = if number % 2 == 0 { MOVED_PORT } else { PARTY_PORT } + 2 * number;
        call.offer_again(&mut edge, &audio(near, 2, port));
        edge.callee.reply(&call.invite, "100 Trying");
    }
    spray.everywhere(&voices);
    talk(&mut voices, true);
    for (number, call) in (0..count).zip(&mut calls) {
        let [caller, callee] = &mut voices[usize::from(number)];
        if number % 2 == 0 {
            spray.sides[0].join(caller.to, caller.moved(MOVED_PORT + 2 * number));
        }
        if number % 3 == 0 {
            spray.sides[1].join(callee.to, callee.moved(MOVED_PORT + 2 * number));
        }
        let port = callee.rtp.local_addr().expect("an address").port();
        call.accept(&mut edge, &audio(far, 2, port));
        caller.to = media_of(&call.answer, 0);
        callee.to = media_of(&call.invite, 0);
        // Strays of the epoch before come before anything of the new one.
        for (side, voice) in [caller, callee].into_iter().enumerate() {
            spray.sides[side].attack(voice.to, voice.ssrc, voice.sequence);
        }
    }
    for _ in 0..3 {
        talk(&mut voices, true);
    }
    talk_under_fire(&mut spray, &mut voices);
    if spaces.is_some() {
        talk_without_the_process(&edge, &mut spray, &mut voices);
    }
    nothing_foreign(&mut voices);
    spray.heard_nothing();

    let said: Vec<_> = voices.iter().map(|[near, far]| [near.sequence, far.sequence]).collect();
    for call in calls {
        call.end(&mut edge);
    }
    spray.everywhere(&voices);
    nothing_foreign(&mut voices);
    spray.heard_nothing();
    let sent: usize = spray.sides.iter().map(|side| side.sent).sum();
    println!("{count} calls, {sent} packets of strangers: none forwarded, none diverted");
    let records = edge.stop();
    assert_eq!(records.len(), usize::from(count));
    for record in &records {
        let forwarded = [&record.media_caller, &record.media_callee]
            .map(|count| count.as_ref().expect("media").packets);
        let each = |said: &[u16; 2]| said.map(u64::from) == forwarded;
        // The fast path's last second may be missing from a record.
        assert!(spaces.is_some() || said.iter().any(each), "{forwarded:?} of {said:?}");
        let drops: u64 =
            record.streams.iter().filter_map(|one| one.drops.get("media_source")).sum();
        assert!(drops > 0, "what was kept out is on record: {record:?}");
    }
}

/// Packets of parties and strangers mixed, a call at a time.
fn talk_under_fire(spray: &mut Spray, voices: &mut [[Voice; 2]]) {
    for call in voices.chunks_mut(1) {
        for (side, strangers) in spray.sides.iter_mut().enumerate() {
            strangers.attack(call[0][side].to, call[0][side].ssrc, call[0][side].sequence);
        }
        talk(call, true);
    }
}

/// With the edge stopped only the program in the kernel forwards: it forwards all of the parties'
/// speech, and nothing else.
fn talk_without_the_process(edge: &Edge, spray: &mut Spray, voices: &mut [[Voice; 2]]) {
    let end = Instant::now() + FAST;
    loop {
        talk(voices, false);
        let waiting = edge.frozen(|| talk_within(Duration::from_millis(500), voices, false));
        if waiting == 0 {
            break;
        }
        assert!(Instant::now() < end, "{waiting} parties are not on the fast path");
        talk(voices, false);
    }
    edge.frozen(|| {
        spray.everywhere(voices);
        for _ in 0..5 {
            talk(voices, false);
        }
    });
    talk_under_fire(spray, voices);
}

#[test]
fn a_sprayer_gets_nothing_through_and_diverts_nothing() {
    sprayed(None, Net::loopback(1), "auto", calls_wanted(40));
}

#[test]
fn a_sprayer_gets_nothing_through_the_mmsg_driver_either() {
    sprayed(None, Net::loopback(2), "mmsg", calls_wanted(12));
}

/// The same with streams that the program in the kernel forwards.
#[test]
fn a_sprayer_gets_nothing_past_the_fast_path_and_diverts_nothing() {
    let spaces = match Spaces::new() {
        Ok(spaces) => spaces,
        Err(why) => {
            println!(
                "skipped: a_sprayer_gets_nothing_past_the_fast_path_and_diverts_nothing: {why}"
            );
            return;
        }
    };
    let count = calls_wanted(40);
    spaces.at_the_peers(|| sprayed(Some(&spaces), Spaces::net(), "xdp", count));
}

/// Callers behind a NAT that their SDP does not know, and a rival on the very host: at most the first
/// five packets of a stream pass, and none after the party is found; from other hosts none ever.
#[test]
fn with_latching_a_sprayer_gets_five_packets_at_most_and_never_the_stream() {
    let (net, count) = (Net::loopback(3), calls_wanted(12));
    let pairs = pairs_for(count);
    let media = ["{ nat: latch }"; 2];
    let mut edge = Edge::start(net, &Setup { pairs, media, ..Setup::default() });
    let [near, far] = net.parties();
    // Whoever sprayed closed ports could not latch at all: these two have not.
    let mut neighbour = Strangers::new(&[near], &[39_000]);
    let mut outsider = Strangers::new(&[net.strangers[0], far], &[39_000]);
    let mut late = Strangers::new(&[near], &[39_004]);
    let (mut all, mut calls) = (Vec::new(), Vec::new());
    for batch in (0..count).collect::<Vec<_>>().chunks(8) {
        let mut voices = Vec::new();
        for number in batch {
            let inside = INSIDE_PORT + 2 * number;
            let port = PARTY_PORT + 2 * number;
            let offer = audio(near, 1, inside);
            let call = Call::up(&mut edge, usize::from(*number), &offer, &audio(far, 1, port));
            let [mut caller, mut callee] =
                [(0, near), (1, far)].map(|(side, ip)| Voice::new(ip, port, ssrc(side, *number)));
            caller.to = media_of(&call.answer, 0);
            callee.to = media_of(&call.invite, 0);
            outsider.attack(caller.to, caller.ssrc, caller.sequence);
            neighbour.burst(caller.to, caller.ssrc ^ 0xff, 700, 12);
            voices.push([caller, callee]);
            calls.push(call);
        }
        // Each caller speaks until it is heard, as a gateway would.
        for _ in 0..1_000 {
            let mut found = true;
            for [caller, callee] in &mut voices {
                let said = caller.say();
                std::thread::sleep(Duration::from_millis(20) / 8);
                callee.listen();
                found &= callee.foreign.contains(&said);
            }
            if found {
                break;
            }
        }
        std::thread::sleep(SETTLE);
        for [caller, callee] in &mut voices {
            callee.listen();
            let of_ssrc = |packet: &Vec<u8>, ssrc: u32| packet[8..12] == ssrc.to_be_bytes();
            let (own, others): (Vec<_>, Vec<_>) =
                callee.foreign.drain(..).partition(|packet| of_ssrc(packet, caller.ssrc));
            assert!(!own.is_empty(), "the party is found");
            assert!(others.len() <= UNPROVEN, "{} packets of strangers", others.len());
            assert!(others.iter().all(|packet| of_ssrc(packet, caller.ssrc ^ 0xff)), "{others:x?}");
        }
        talk(&mut voices, false);
        all.append(&mut voices);
    }
    // Found, and now attacked by everybody, and again after a re-INVITE.
    for again in 0..2 {
        for [caller, _] in &all {
            for strangers in [&mut neighbour, &mut outsider, &mut late] {
                strangers.attack(caller.to, caller.ssrc, caller.sequence);
                strangers.burst(caller.to, caller.ssrc ^ 0xff, 800, 12);
            }
        }
        talk(&mut all, false);
        talk(&mut all, false);
        nothing_foreign(&mut all);
        for (number, call) in (0..count).zip(&mut calls).filter(|_| again == 0) {
            let offer = audio(near, 2, INSIDE_PORT + 2 * number);
            call.again(&mut edge, &offer, &audio(far, 2, PARTY_PORT + 2 * number));
        }
    }
    for strangers in [&neighbour, &outsider, &late] {
        assert_eq!(strangers.heard(), Vec::<Vec<u8>>::new(), "diverted");
    }
    for call in calls {
        call.end(&mut edge);
    }
    let records = edge.stop();
    assert!(records.iter().all(|record| record.streams[0].latches == 1), "{records:?}");
    assert!(all.iter().flatten().all(|voice| drained(&voice.rtp).is_empty()));
}
