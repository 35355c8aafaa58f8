//! One stream end to end through [`Quality`].

use proptest::prelude::*;
use ravelin_contract::cdr::Party;

use super::*;

const PACKET_BYTES: usize = 172;

#[derive(Clone, Copy)]
struct Rtp {
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
}

fn take(quality: &mut Quality, ms: u64, rtp: Rtp, payload: &[u8]) {
    let header = rtp::Header {
        marker: false,
        payload_type: rtp.payload_type,
        sequence: rtp.sequence,
        timestamp: rtp.timestamp,
        ssrc: rtp.ssrc,
        csrc: &[],
        extension: None,
        payload,
        padding: 0,
    };
    quality.rtp(Instant::from_millis(ms), &header, PACKET_BYTES, true);
}

fn audio(n: u16) -> Rtp {
    Rtp { payload_type: 8, sequence: n, timestamp: u32::from(n) * 160, ssrc: 7 }
}

fn report(quality: &Quality) -> ravelin_contract::cdr::StreamQuality {
    quality.report(0, Party::Caller, &Quality::default())
}

#[test]
fn a_clean_stream() {
    let mut quality = Quality::default();
    assert_eq!(report(&quality), ravelin_contract::cdr::StreamQuality::silent(0, Party::Caller));
    for n in 0..500 {
        take(&mut quality, u64::from(n) * 20, audio(n), &[]);
    }
    let report = report(&quality);
    assert_eq!((report.packets, report.bytes), (500, 500 * PACKET_BYTES as u64));
    assert_eq!((report.expected, report.lost, report.jitter_ms), (500, 0, Some(0.0)));
    assert_eq!((report.codec.as_deref(), report.clock_hz), (Some("PCMA"), Some(8_000)));
    assert_eq!((report.ssrc, report.mos), (Some(7), Some(4.41)));
}

#[test]
fn events_and_noise_disturb_neither_jitter_nor_loss() {
    let mut quality = Quality::default();
    let event = Format::new(101, b"telephone-event", 8_000).unwrap();
    quality.set_formats(Formats::new([event]));
    let mut number = 0;
    let mut next = |payload_type, timestamp| {
        number += 1;
        Rtp { payload_type, sequence: number, timestamp, ssrc: 7 }
    };
    for n in 0..200_u32 {
        let (ms, timestamp) = (u64::from(n) * 20, n * 160);
        match n {
            // A digit, with its ends sent again.
            50..60 => {
                let payload = [5, if n > 57 { 0x8a } else { 0x0a }, 0, 160];
                take(&mut quality, ms, next(101, 50 * 160), &payload);
            }
            // Silence: noise is described once, at an odd time.
            100..150 if n == 103 => take(&mut quality, ms + 13, next(13, timestamp), &[40]),
            100..150 => {}
            _ => take(&mut quality, ms, next(8, timestamp), &[]),
        }
    }
    let report = report(&quality);
    assert_eq!((report.lost, report.jitter_max_ms), (0, Some(0.0)));
    assert_eq!((report.dtmf_events, report.codec.as_deref()), (1, Some("PCMA")));
    assert_eq!(report.packets, 151);
}

#[test]
fn another_source_takes_over_with_its_second_packet() {
    let mut quality = Quality::default();
    for n in 0..10 {
        take(&mut quality, u64::from(n) * 20, audio(n), &[]);
    }
    // One packet of a third source is nothing.
    take(&mut quality, 200, Rtp { ssrc: 9, ..audio(60_000) }, &[]);
    for n in 0..10_u16 {
        let rtp =
            Rtp { ssrc: 8, timestamp: 3_000_000_000 + u32::from(n) * 160, ..audio(40_000 + n) };
        if n != 5 {
            take(&mut quality, 200 + u64::from(n) * 20, rtp, &[]);
        }
    }
    let report = report(&quality);
    assert_eq!((report.ssrc, report.ssrc_changes, report.astray), (Some(8), 1, 1));
    assert_eq!((report.expected, report.lost, report.jitter_max_ms), (20, 1, Some(0.0)));
    assert_eq!(report.packets, 20);
}

#[test]
fn what_the_fast_path_took_is_added() {
    let mut quality = Quality::default();
    for n in 0..10 {
        take(&mut quality, u64::from(n) * 20, audio(n), &[]);
    }
    quality.pass_by();
    // 10..=1009: ten missing, two handed up as events.
    let passed = PassedBy {
        packets: 988,
        bytes: 988 * 172,
        lost: 10,
        jitter: 16,
        last: Instant::from_millis(20_000),
    };
    quality.passed_by(passed);
    let event = Rtp { payload_type: 101, ..audio(500) };
    take(&mut quality, 600, event, &[5, 0x8a, 0, 160]);
    take(&mut quality, 600, event, &[5, 0x8a, 0, 160]);
    quality.pass_no_more();
    for n in 1_010..1_020 {
        take(&mut quality, 300_000 + u64::from(n) * 20, audio(n), &[]);
    }
    let report = report(&quality);
    assert_eq!((report.packets, report.bytes), (1_010, 988 * 172 + 22 * 172));
    assert_eq!((report.expected, report.lost, report.astray), (1_020, 10, 0));
    // 16 units of 8 kHz.
    assert_eq!((report.jitter_max_ms, report.timestamp_steps), (Some(2.0), 0));
}

/// The fast path was told of a stream and does not take it: its loss is seen here, and no more once it
/// does.
#[test]
fn what_the_fast_path_leaves_is_measured_here() {
    let mut quality = Quality::default();
    let mut from = 0_u16;
    let mut come = |quality: &mut Quality, count: u16| {
        for n in from..from + count {
            take(quality, u64::from(n) * 20, audio(n), &[]);
        }
        from += count + 4;
    };
    come(&mut quality, 10);
    quality.pass_by();
    come(&mut quality, 149);
    assert_eq!(report(&quality).lost, 0, "it may be on its way there");
    come(&mut quality, 100);
    come(&mut quality, 100);
    assert_eq!((report(&quality).lost, report(&quality).astray), (4, 0));
    let passed = PassedBy { packets: 50, bytes: 50 * 172, lost: 1, ..PassedBy::default() };
    quality.passed_by(passed);
    come(&mut quality, 5);
    come(&mut quality, 5);
    assert_eq!(report(&quality).lost, 5, "their numbers are followed there");
    for _ in 0..10 {
        come(&mut quality, 50);
        come(&mut quality, 50);
        quality.passed_by(passed);
    }
    assert_eq!((report(&quality).lost, report(&quality).astray), (15, 0), "some of each");
    quality.pass_no_more();
    quality.passed_by(passed);
    come(&mut quality, 10);
    come(&mut quality, 10);
    assert_eq!(report(&quality).lost, 20, "last counts that come late change nothing");
    quality.pass_by();
    come(&mut quality, 200);
    quality.pass_no_more();
    quality.passed_by(passed);
    let before = report(&quality).lost;
    come(&mut quality, 10);
    come(&mut quality, 10);
    assert_eq!(report(&quality).lost, before + 8, "nor of one that it never took");
}

#[test]
fn loss_delay_and_bursts_lower_the_score() {
    let score = |lost: &[u16]| {
        let mut quality = Quality::default();
        for n in (0..1_000).filter(|n| !lost.contains(n)) {
            take(&mut quality, u64::from(n) * 20, audio(n), &[]);
        }
        report(&quality).mos.unwrap()
    };
    let clean = score(&[]);
    let scattered: Vec<u16> = (0..30).map(|n| 10 + n * 30).collect();
    let in_a_row: Vec<u16> = (100..130).collect();
    assert!(score(&scattered) < clean - 0.1);
    assert!(score(&in_a_row) < score(&scattered));
}

proptest! {
    /// Whatever comes in whatever order: the sums stay consistent.
    #[test]
    fn nothing_that_comes_makes_the_figures_absurd(
        packets in prop::collection::vec(
            (any::<u8>(), any::<u16>(), any::<u32>(), 0..3_u32, 0..100_000_u64,
             prop::collection::vec(any::<u8>(), 0..6)),
            0..300,
        ),
    ) {
        let mut quality = Quality::default();
        let count = packets.len() as u64;
        let mut now = 0;
        for (payload_type, sequence, timestamp, ssrc, wait, payload) in packets {
            now += wait;
            let rtp = Rtp { payload_type: payload_type & 0x7f, sequence, timestamp, ssrc };
            take(&mut quality, now, rtp, &payload);
        }
        let report = report(&quality);
        prop_assert_eq!(report.packets, count);
        prop_assert!(report.lost <= report.expected);
        prop_assert!((0.0..=100.0).contains(&report.loss_percent));
        prop_assert!(report.jitter_max_ms.unwrap_or(0.0) <= 1_000.0);
        prop_assert!(report.mos.is_none_or(|score| (1.0..=4.5).contains(&score)));
        let different = report.expected - report.lost;
        prop_assert!(different + report.duplicates + report.astray <= count + 1);
    }
}
