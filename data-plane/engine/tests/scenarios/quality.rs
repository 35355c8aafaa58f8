//! What the record of a call says of its streams, against what tshark makes of the same packets.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use ravelin_contract::cdr::{Party, StreamQuality};

use crate::common::*;

/// One packet as it arrives: milliseconds, and which one it is.
type Arrival = (u64, u16);

const PACKETS: u16 = 2_000;
const SSRC: u32 = 0x0102_0304;

/// A stream of 20 ms packets: some lost, some twice, half of them delayed by up to 30 ms, which
/// makes some overtake others. Numbers and timestamps wrap.
fn arrivals(seed: u64, lost_percent: u64, twice_percent: u64) -> Vec<Arrival> {
    let mut state = seed;
    // SplitMix64.
    let mut below = |bound: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    };
    let mut arrivals = Vec::new();
    for n in 0..PACKETS {
        // The first and the last come, so that both count from the same numbers.
        let inner = n > 3 && n < PACKETS - 3;
        if inner && below(100) < lost_percent {
            continue;
        }
        let delay = if inner && below(2) == 0 { below(31) } else { 0 };
        let at = u64::from(n) * 20 + delay;
        arrivals.push((at, n));
        if inner && below(100) < twice_percent {
            arrivals.push((at + below(20), n));
        }
    }
    arrivals.sort_unstable();
    arrivals
}

fn packet(n: u16) -> Vec<u8> {
    let number = 65_000_u16.wrapping_add(n);
    let timestamp = 4_294_960_000_u32.wrapping_add(u32::from(n) * 160);
    let mut packet = vec![0x80, 0];
    packet.extend(number.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(SSRC.to_be_bytes());
    packet.extend([0x55; 160]);
    packet
}

/// Through the engine, as what the caller of a call sends.
fn measured(arrivals: &[Arrival]) -> StreamQuality {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    let to = addr(&format!("127.0.0.10:{}", ok.media_port(0)));
    let began = world.now.mono;
    for (at, n) in arrivals {
        let now = world.now.mono.since(began);
        let wait = Duration::from_millis(*at).checked_sub(now).unwrap();
        world.pass(u64::try_from(wait.as_millis()).unwrap());
        world.send_media("127.0.1.1:40000", to, &packet(*n));
    }
    assert_eq!(world.media.len(), arrivals.len(), "all of it went on");
    caller.request(&mut world, "BYE", "");
    let cdr = world.call_cdr();
    cdr.streams.iter().find(|stream| stream.from == Party::Caller).unwrap().clone()
}

/// Ethernet, IPv4, UDP, in a capture file with microseconds.
fn capture(arrivals: &[Arrival]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (at, n) in arrivals {
        let rtp = packet(*n);
        let udp_length = u16::try_from(rtp.len() + 8).unwrap();
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((udp_length + 20).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 1, 1, 127, 0, 0, 10]);
        for field in [40_000, 20_000, udp_length, 0] {
            frame.extend(field.to_be_bytes());
        }
        frame.extend(rtp);
        let length = u32::try_from(frame.len()).unwrap();
        let (seconds, rest) = (at / 1_000, at % 1_000 * 1_000);
        for word in [seconds, rest] {
            file.extend(u32::try_from(word).unwrap().to_le_bytes());
        }
        file.extend(length.to_le_bytes());
        file.extend(length.to_le_bytes());
        file.extend(frame);
    }
    file
}

/// Packets, lost (A.3, duplicates against it), mean and highest jitter in milliseconds, as tshark
/// tells them; `None`: it is not installed.
fn by_tshark(arrivals: &[Arrival], name: &str) -> Option<(u64, i64, f64, f64)> {
    Command::new("tshark")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    let path = std::env::temp_dir().join(format!("ravelin-{name}-{}.pcap", std::process::id()));
    std::fs::write(&path, capture(arrivals)).unwrap();
    let output = Command::new("tshark")
        .args(["-q", "-d", "udp.port==40000,rtp", "-z", "rtp,streams", "-r"])
        .arg(&path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains("0x01020304"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    // ... SSRC, payload, packets, lost, (share), deltas, jitter: lowest, mean, highest.
    let words: Vec<&str> =
        line.split_whitespace().skip_while(|word| *word != "0x01020304").collect();
    let number = |at: usize| words[at].parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
    Some((words[2].parse().unwrap(), words[3].parse().unwrap(), number(9), number(10)))
}

#[test]
fn agrees_with_tshark_on_the_same_packets() {
    for (seed, lost_percent, twice_percent) in [(1, 0, 0), (2, 3, 0), (3, 3, 2), (4, 20, 0)] {
        let arrivals = arrivals(seed, lost_percent, twice_percent);
        let ours = measured(&arrivals);
        assert_eq!(ours.expected, u64::from(PACKETS));
        let name = format!("quality-{seed}");
        let Some((packets, lost, mean, highest)) = by_tshark(&arrivals, &name) else {
            println!("skipped: agrees_with_tshark_on_the_same_packets: tshark is not installed");
            return;
        };
        let by_the_rfc =
            i64::try_from(ours.lost).unwrap() - i64::try_from(ours.duplicates).unwrap();
        assert_eq!((ours.packets, by_the_rfc), (packets, lost), "seed {seed}");
        let near = |ours: Option<f64>, theirs: f64| (ours.unwrap() - theirs).abs() < 0.002;
        assert!(near(ours.jitter_ms, mean), "seed {seed}: {:?} and {mean}", ours.jitter_ms);
        assert!(
            near(ours.jitter_max_ms, highest),
            "seed {seed}: {:?}, {highest}",
            ours.jitter_max_ms
        );
    }
}

/// Reports of both parties as they pass: round trips to each, what each hears, digits, reasons.
#[test]
fn the_record_holds_both_directions_with_rtcp_digits_and_drops() {
    let mut world = World::new();
    let offer = "Content-Type: application/sdp\n\nv=0\no=- 1 1 IN IP4 127.0.1.1\ns=-\n\
                 c=IN IP4 127.0.1.1\nt=0 0\nm=audio 40000 RTP/AVP 0 101\n\
                 a=rtpmap:101 telephone-event/8000\n";
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", offer);
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    let to_caller = ok.media_port(0);
    let to_callee = callee.invite.media_port(0);
    let near = |port: u16| addr(&format!("127.0.0.10:{port}"));
    let far = |port: u16| addr(&format!("127.0.0.20:{port}"));
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    for n in 0..100 {
        world.send_media("127.0.1.1:40000", near(to_caller), &packet(n));
        world.pass(20);
    }
    // A digit with its end sent three times, and a stranger.
    for last in [0, 1, 2_u16] {
        let mut digit = words(&[0x8065_0000 | u32::from(65_100 + last), 77, SSRC]);
        digit.extend([5, 0x8a, 3, 0x20]);
        world.send_media("127.0.1.1:40000", near(to_caller), &digit);
    }
    world.send_media("127.0.1.9:40000", near(to_caller), &packet(7));
    // The caller's report passes; the callee answers it 100 ms later, 60 of which it held it.
    let report = words(&[0x80c8_0006, SSRC, 0x0000_aaaa, 0xbbbb_0000, 0, 0, 0]);
    world.send_media("127.0.1.1:40001", near(to_caller + 1), &report);
    world.pass(100);
    let held = 65_536 * 60 / 1_000;
    let heard = [SSRC, 0x4000_0003, 0, 80, 0xaaaa_bbbb, held];
    let answer = words(&[&[0x81c9_0007, 9][..], &heard].concat());
    world.send_media("127.0.2.1:50001", far(to_callee + 1), &answer);
    caller.request(&mut world, "BYE", "");
    let cdr = world.call_cdr();
    let [from_caller, from_callee] = cdr.streams.as_slice() else { panic!("{:?}", cdr.streams) };
    assert_eq!((from_caller.from, from_callee.from), (Party::Caller, Party::Callee));
    assert_eq!((from_caller.packets, from_caller.rtcp_packets), (103, 1));
    assert_eq!((from_caller.dtmf_events, from_caller.codec.as_deref()), (1, Some("PCMU")));
    assert_eq!(from_caller.drops.get("media_source"), Some(&1));
    assert_eq!((from_caller.heard_lost, from_caller.heard_jitter_ms), (Some(3), Some(10.0)));
    assert_eq!(from_caller.heard_loss_max_percent, Some(25.0));
    assert_eq!((from_caller.rtt_ms, from_callee.codec.as_deref()), (None, None));
    let trip = from_callee.rtt_ms.unwrap();
    assert!((trip - 40.0).abs() < 0.02, "{trip}");
    assert!(from_caller.mos.is_some_and(|score| (4.0..4.41).contains(&score)), "{from_caller:?}");
    let mut buckets = Vec::new();
    world.engine.buckets(&mut buckets);
    let trunks: Vec<_> =
        buckets.iter().map(|of| (of.name.as_str(), of.labels[0].1.as_str())).collect();
    let expected = ["stream_mos", "stream_jitter_seconds", "stream_loss_ratio"];
    assert_eq!(trunks, expected.map(|name| (name, "pbx")));
}
