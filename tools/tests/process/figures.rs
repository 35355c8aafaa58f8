//! What an operator sees of a call's media: while it lasts, in its record, and as metrics.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use ravelin_contract::{
    cdr::{CdrKind, StreamQuality},
    chain::Entry,
};
use serde_json::Value;

use crate::{
    peer::{Peer, bind, header},
    support::{PATIENCE, Process, Scratch, chain, config, ravelin, run, text},
};

/// Of 127.11.0.0/16.
const NETS: u8 = 3 * 10;
const PACKET: Duration = Duration::from_millis(20);
/// There is no series of it before a notification was sent, which this test does not do.
const ONCE_DELIVERED: &str = "ravelin_emergency_delivery_attempts_total";
/// How long the callee keeps a sender report without saying so.
const KEPT: Duration = Duration::from_millis(500);

fn at(net: u8, host: u8, port: u16) -> SocketAddr {
    ([127, 11, NETS + net, host], port).into()
}

fn url() -> String {
    format!("http://{}", at(0, 1, 8080))
}

/// Body of an answer to GET.
fn get(path: &str) -> String {
    let mut stream = TcpStream::connect(at(0, 1, 8080)).expect("a control plane");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: ravelin\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.lines().next().is_some_and(|line| line.contains("200")), "{head}");
    body.to_owned()
}

/// Sum of a metric over all label sets that contain `label`.
fn metric(text: &str, name: &str, label: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{').unwrap_or((series, ""));
        (found == name && labels.contains(label)).then(|| value.parse::<f64>().ok()).flatten()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

fn rtp(payload_type: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(7_u32.to_be_bytes());
    packet.extend(payload);
    packet
}

fn words(head: [u8; 2], words: &[u32]) -> Vec<u8> {
    let mut packet = head.to_vec();
    packet.extend(u16::try_from(words.len()).expect("short").to_be_bytes());
    packet.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    packet
}

/// What comes next.
fn heard(socket: &UdpSocket) -> Vec<u8> {
    let (end, mut buffer) = (Instant::now() + PATIENCE, [0; 2_048]);
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => return buffer[..length].to_vec(),
            Err(_) => assert!(Instant::now() < end, "nothing is heard"),
        }
    }
}

/// Where a description wants audio.
fn audio(description: &str, net: u8, host: u8) -> SocketAddr {
    let line = description.lines().find_map(|line| line.strip_prefix("m=audio "));
    let port = line.and_then(|line| line.split(' ').next()?.parse().ok());
    at(net, host, port.expect("a port"))
}

/// `ravelin calls` as JSON, one value for each line.
fn calls(scratch: &Scratch, more: &[&str]) -> Vec<Value> {
    let mut command = ravelin();
    command.args(["calls", "--json", "--url", &url(), "--data"]).arg(scratch.data()).args(more);
    let output = run(&mut command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The caller's stream has everything that was done to it.
fn is_right(caller: &StreamQuality) {
    assert_eq!((caller.codec.as_deref(), caller.payload_type), (Some("PCMA"), Some(8)));
    assert_eq!((caller.clock_hz, caller.ssrc), (Some(8_000), Some(7)));
    // One number was left out; two digits had three packets each.
    assert_eq!((caller.packets, caller.expected, caller.lost, caller.gaps), (106, 107, 1, 1));
    assert_eq!((caller.rtcp_packets, caller.dtmf_events, caller.latches), (1, 2, 1));
    assert!(caller.mos.is_some_and(|score| (1.0..4.41).contains(&score)), "{caller:?}");
    assert!(caller.jitter_ms.is_some() && caller.jitter_max_ms >= caller.jitter_ms);
    assert_eq!((caller.heard_lost, caller.heard_loss_max_percent), (Some(18), Some(25.0)));
    assert_eq!(caller.heard_jitter_ms, Some(10.0));
    assert_eq!(caller.drops.values().sum::<u64>(), 3, "{:?}", caller.drops);
    assert_eq!(caller.rtt_ms, None, "the callee sent no report that it could answer");
}

fn round_trip_is_right(callee: &StreamQuality, longest_ms: f64) {
    let trip = callee.rtt_ms.expect("a round trip");
    let kept = KEPT.as_secs_f64() * 1_000.0;
    assert!((kept..=longest_ms).contains(&trip), "{trip} ms of {kept} to {longest_ms}");
    assert_eq!(callee.rtt_max_ms, callee.rtt_ms);
}

#[test]
fn an_operator_sees_what_became_of_a_calls_media() {
    let scratch = Scratch::new();
    let customer = "    role: customer";
    let document = config(3).replace("127.4.", "127.11.");
    assert!(document.contains(customer));
    let media = format!("    media: {{ nat: latch }}\n{customer}");
    let file = scratch.write("ravelin.yml", &document.replacen(customer, &media, 1));
    let mut command = ravelin();
    command.args(["up", "--drain-within", "1s", "--config"]).arg(&file);
    let mut up = Process::start(command.arg("--data").arg(scratch.data()));
    up.wait_for_line("ravelin: up.", 1);

    let mut caller = Peer::new(at(1, 7, 0), at(0, 10, 5060));
    let mut carrier = Peer::new(at(2, 1, 5060), at(0, 20, 5060));
    let description = |ip| {
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio 40000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
        )
    };
    caller.offer("seen", "+12125550001", &description(caller.address().ip()));
    let invite = carrier.expect("INVITE ", "");
    carrier.answer(&invite, "200 OK", &description(carrier.address().ip()));
    carrier.expect("ACK ", &header(&invite, "Call-ID"));
    let answer = caller.expect("SIP/2.0 200", "seen");
    caller.ack("seen", &answer);

    // The caller is behind a NAT: its RTP comes from another port than it says.
    let socket = |at: SocketAddr| {
        let socket = bind(at);
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        socket
    };
    let (near, out) = (socket(at(1, 7, 41_000)), audio(&answer, 0, 10));
    let (far, far_rtcp) = (socket(at(2, 1, 40_000)), socket(at(2, 1, 40_001)));
    let (near_rtcp, back) = (socket(at(1, 7, 40_001)), audio(&invite, 0, 20));
    let mut sequence = 0_u16;
    let mut say = |ahead: u16, payload_type: u8, timestamp: Option<u32>, payload: &[u8]| {
        sequence += ahead;
        let timestamp = timestamp.unwrap_or_else(|| u32::from(sequence) * 160);
        near.send_to(&rtp(payload_type, sequence, timestamp, payload), out).expect("sent");
        assert_eq!(heard(&far)[2..4], sequence.to_be_bytes());
        std::thread::sleep(PACKET);
    };
    for _ in 0..50 {
        say(1, 8, None, &[0x55; 160]);
    }
    for timestamp in [51 * 160, 54 * 160] {
        for _ in 0..3 {
            say(1, 101, Some(timestamp), &[1, 0x8a, 3, 0x20]);
        }
    }
    say(2, 8, None, &[0x55; 160]);
    for _ in 1..50 {
        say(1, 8, None, &[0x55; 160]);
    }
    for number in 0..5 {
        far.send_to(&rtp(8, number, u32::from(number) * 160, &[0x55; 160]), back).expect("sent");
        heard(&near);
    }
    // Somebody else's.
    let stranger = socket(at(8, 66, 4_000));
    for number in 0..3 {
        stranger.send_to(&rtp(8, number, 0, &[0; 160]), out).expect("sent");
    }
    // A sender report, which the callee answers later than it says.
    let (began, rtcp) = (Instant::now(), |at: SocketAddr| SocketAddr::new(at.ip(), at.port() + 1));
    let report = words([0x80, 200], &[7, 0x1234, 0x5678_0000, 0, 106, 106 * 160]);
    near_rtcp.send_to(&report, rtcp(out)).expect("sent");
    assert_eq!(heard(&far_rtcp), report);
    std::thread::sleep(KEPT);
    let block = [9, 7, 0x4000_0012, 110, 80, 0x1234_5678, 0];
    far_rtcp.send_to(&words([0x81, 201], &block), rtcp(back)).expect("sent");
    heard(&near_rtcp);
    let longest_ms = began.elapsed().as_secs_f64() * 1_000.0;

    // While it lasts.
    let list = calls(&scratch, &[]);
    let id = list[0]["id"].as_str().expect("an id").to_owned();
    let live = calls(&scratch, &["--call", &id]);
    let live: Vec<StreamQuality> = match &live[..] {
        [Value::Array(streams)] => {
            streams.iter().map(|one| serde_json::from_value(one.clone()).expect("one")).collect()
        }
        many => many.iter().map(|one| serde_json::from_value(one.clone()).expect("one")).collect(),
    };
    is_right(&live[0]);
    round_trip_is_right(&live[1], longest_ms);

    // When it is over.
    let target = header(&answer, "Contact");
    caller.send(&format!(
        "BYE {} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKbyeseen;rport\r\nMax-Forwards: 70\r\n\
         From: <sip:+13135550100@{}>;tag=seen\r\nTo: {}\r\nCall-ID: seen@{}\r\nCSeq: 2 BYE\r\n\
         Content-Length: 0\r\n\r\n",
        target.trim_matches(['<', '>']),
        caller.address(),
        caller.address(),
        header(&answer, "To"),
        caller.address(),
    ));
    let bye = carrier.expect("BYE ", "");
    carrier.reply(&bye, "200 OK");
    caller.expect("SIP/2.0 200", "CSeq: 2 BYE");

    let end = Instant::now() + PATIENCE;
    let page = loop {
        let page = get("/metrics");
        if metric(&page, "ravelin_dtmf_events_total", "") == Some(2.0) {
            break page;
        }
        assert!(Instant::now() < end, "no digits in\n{page}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let label = live[0].drops.keys().next().expect("a reason");
    for (name, label, least) in [
        ("ravelin_rtp_lost_total", "", 1.0),
        ("ravelin_rtp_expected_total", "", 107.0),
        ("ravelin_drops_total", &*format!("\"{label}\""), 3.0),
        ("ravelin_media_latched_total", "", 1.0),
        ("ravelin_stream_mos_count", "pbx-detroit", 1.0),
        ("ravelin_stream_jitter_seconds_count", "pbx-detroit", 1.0),
        ("ravelin_stream_loss_ratio_count", "pbx-detroit", 1.0),
        ("ravelin_stream_rtt_seconds_count", "carrier-a", 1.0),
    ] {
        let found = metric(&page, name, label);
        assert!(found.is_some_and(|found| found >= least), "{name} {label}: {found:?}\n{page}");
    }
    // What the manual names is there to be looked at, under its own name or without the ending that
    // the text format adds.
    let manual = include_str!("../../../docs/MANUAL.md");
    let named = manual.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let is_missing = |name: &&str| {
        let is_typed = |name: &str| page.contains(&format!("# TYPE {name} "));
        name.starts_with("ravelin_")
            && !name.ends_with('_')
            && *name != ONCE_DELIVERED
            && !is_typed(name)
            && !is_typed(name.trim_end_matches("_total"))
    };
    let missing: Vec<_> = named.filter(is_missing).collect();
    assert_eq!(missing, Vec::<&str>::new());
    up.stop();
    let entries = chain(&scratch.data());
    let cdr = entries.iter().find_map(|entry| match entry {
        Entry::Cdr(cdr) if cdr.kind == CdrKind::Call => Some(cdr),
        _ => None,
    });
    let streams = &cdr.expect("a record of the call").streams;
    is_right(&streams[0]);
    round_trip_is_right(&streams[1], longest_ms);
}
