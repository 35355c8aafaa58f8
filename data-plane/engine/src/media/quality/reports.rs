//! What RTCP says, read as it passes: round trips between Ravelin and each party, and how a party
//! hears the other.

use ravelin_wire::rtcp::{Compound, Kind, Report};

use crate::time::Instant;

/// Sender reports of one party that a receiver report may still answer. Reports are seconds apart
/// (RFC 3550 6.2), so this is well over ten seconds.
const SENT_MAX: usize = 4;
/// A round trip beyond this is not believed, in nanoseconds.
const ROUND_TRIP_MAX_NS: u64 = 30_000_000_000;

/// A sender report that went on to the other party.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    ssrc: u32,
    /// Middle of its NTP time; 0 marks an empty place, for a receiver never asks for 0.
    time: u32,
    at: Instant,
}

/// Round trips between Ravelin and a party, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RoundTrips {
    pub last: u64,
    pub highest: u64,
    sum: u64,
    count: u64,
}

impl RoundTrips {
    fn add(&mut self, ns: u64) {
        self.last = ns;
        self.highest = self.highest.max(ns);
        self.sum += ns;
        self.count += 1;
    }

    pub(super) fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.count)
    }
}

/// How the other party says that it hears this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub reports: u32,
    /// Since the source began, over the whole way from this party.
    pub lost: i32,
    /// In units of this party's clock, at the last report.
    pub jitter: u32,
    /// The worst share lost between two reports, in 1/256.
    pub fraction_highest: u8,
}

/// RTCP of one party.
#[derive(Clone, Debug, Default)]
pub(super) struct Reports {
    sent: [Sent; SENT_MAX],
    next: usize,
    pub(super) round_trips: RoundTrips,
    pub(super) heard: Heard,
    /// Blocks with figures that cannot be.
    pub(super) implausible: u32,
}

impl Reports {
    fn remember(&mut self, ssrc: u32, time: u32, at: Instant) {
        if let Some(place) = self.sent.get_mut(self.next) {
            *place = Sent { ssrc, time, at };
        }
        self.next = (self.next + 1) % SENT_MAX;
    }

    fn when_sent(&self, ssrc: u32, time: u32) -> Option<Instant> {
        let found = self.sent.iter().find(|sent| sent.ssrc == ssrc && sent.time == time);
        found.map(|sent| sent.at)
    }

    /// Another source: what is said of the one before is over.
    pub(super) fn restart(&mut self) {
        self.heard.lost = 0;
    }
}

/// Takes what one party sent and the other is about to get. `ssrc` is the source that the other
/// party sends with. True: the sender is there; false: it only took its leave.
pub(super) fn take(
    now: Instant,
    compound: Compound<'_>,
    from: &mut Reports,
    other: &mut Reports,
    ssrc: Option<u32>,
) -> bool {
    let mut leaves = false;
    for packet in compound.packets() {
        leaves |= packet.kind == Kind::Bye;
        if let Some((source, time)) = packet.ssrc.zip(packet.sender_time()) {
            from.remember(source, time, now);
        }
        for report in packet.reports() {
            if Some(report.ssrc) == ssrc {
                take_report(now, &report, from, other);
            }
        }
    }
    !leaves
}

/// `from` tells how it hears `other`.
fn take_report(now: Instant, report: &Report, from: &mut Reports, other: &mut Reports) {
    let heard = &mut other.heard;
    heard.reports = heard.reports.saturating_add(1);
    heard.lost = report.lost;
    heard.jitter = report.jitter;
    heard.fraction_highest = heard.fraction_highest.max(report.fraction_lost);
    if report.last_report == 0 {
        return;
    }
    let Some(sent) = other.when_sent(report.ssrc, report.last_report) else { return };
    // 1/65536 seconds, exactly.
    let held = (u64::from(report.delay) * 1_000_000_000) >> 16;
    let passed = now.0.saturating_sub(sent.0);
    match passed.checked_sub(held) {
        Some(trip) if trip <= ROUND_TRIP_MAX_NS => from.round_trips.add(trip),
        _ => from.implausible = from.implausible.saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender_report(ssrc: u32, time: u32, blocks: &[[u32; 6]]) -> Vec<u8> {
        let count = u8::try_from(blocks.len()).unwrap();
        let mut words = vec![ssrc, time >> 16, time << 16, 0, 0, 0];
        words.extend(blocks.iter().flatten());
        let length = u32::try_from(words.len()).unwrap();
        words.insert(0, (0x80 | u32::from(count)) << 24 | 200 << 16 | length);
        words.into_iter().flat_map(u32::to_be_bytes).collect()
    }

    fn receiver_report(ssrc: u32, blocks: &[[u32; 6]]) -> Vec<u8> {
        let count = u8::try_from(blocks.len()).unwrap();
        let mut words = vec![ssrc];
        words.extend(blocks.iter().flatten());
        let length = u32::try_from(words.len()).unwrap();
        words.insert(0, (0x80 | u32::from(count)) << 24 | 201 << 16 | length);
        words.into_iter().flat_map(u32::to_be_bytes).collect()
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// The example of RFC 3550 6.4.1, figure 2: the report with NTP time 0xb44d.b705:2000.0000 is
    /// held 5.250 s; 6.125 s lie between it and the answer's arrival with 0xb44d.b705 and so on.
    #[test]
    fn the_round_trip_of_figure_2() {
        let (mut sender, mut receiver) = (Reports::default(), Reports::default());
        let report = sender_report(7, 0xb705_2000, &[]);
        let report = Compound::parse(&report).unwrap();
        assert!(take(at(0), report, &mut sender, &mut receiver, None));
        let answer = receiver_report(9, &[[7, 0, 0, 0, 0xb705_2000, 0x0005_4000]]);
        let answer = Compound::parse(&answer).unwrap();
        assert!(take(at(6_125), answer, &mut receiver, &mut sender, Some(7)));
        // A = 0xb710:8000 - 0xb705:2000 - 0x0005:4000 = 0x0006:2000 in the figure is 6.125 s; ours
        // passed 6.125 s and was held 5.250 s.
        assert_eq!(receiver.round_trips.mean(), Some(875_000_000));
        assert_eq!(sender.round_trips.mean(), None);
    }

    #[test]
    fn what_a_party_says_of_another_source_or_another_time_is_not_believed() {
        let (mut one, mut two) = (Reports::default(), Reports::default());
        let report = sender_report(7, 0x1111, &[]);
        take(at(0), Compound::parse(&report).unwrap(), &mut one, &mut two, None);
        for block in [
            // Of a source that nobody has.
            [8, 0, 0, 0, 0x1111, 0],
            // Of a report that never passed.
            [7, 0, 0, 0, 0x2222, 0],
            // Held for longer than it is old.
            [7, 0, 0, 0, 0x1111, 70 << 16],
            [7, 0, 0, 0, 0, 0],
        ] {
            let answer = receiver_report(9, &[block]);
            take(at(50), Compound::parse(&answer).unwrap(), &mut two, &mut one, Some(7));
        }
        assert_eq!(two.round_trips, RoundTrips::default());
        assert_eq!(two.implausible, 1);
        assert_eq!(one.heard.reports, 3);
    }

    #[test]
    fn memory_is_bounded_and_the_latest_reports_are_known() {
        let (mut one, mut two) = (Reports::default(), Reports::default());
        for n in 1..=10_u32 {
            let report = sender_report(7, n << 8, &[]);
            take(
                at(u64::from(n) * 1_000),
                Compound::parse(&report).unwrap(),
                &mut one,
                &mut two,
                None,
            );
        }
        for (n, known) in [(6_u32, false), (7, true), (10, true)] {
            assert_eq!(one.when_sent(7, n << 8).is_some(), known, "{n}");
        }
    }

    #[test]
    fn how_the_other_hears_it_is_kept_and_a_bye_is_no_sign_of_life() {
        let (mut one, mut two) = (Reports::default(), Reports::default());
        let answer = sender_report(9, 1, &[[7, 0x4000_0010, 0, 160, 0, 0]]);
        take(at(0), Compound::parse(&answer).unwrap(), &mut two, &mut one, Some(7));
        let answer = sender_report(9, 2, &[[7, 0x0100_0012, 0, 80, 0, 0]]);
        take(at(0), Compound::parse(&answer).unwrap(), &mut two, &mut one, Some(7));
        let expected = Heard { reports: 2, lost: 18, jitter: 80, fraction_highest: 64 };
        assert_eq!(one.heard, expected);
        let mut last = receiver_report(9, &[]);
        last.extend([0x81, 203, 0, 1, 0, 0, 0, 9]);
        assert!(!take(at(0), Compound::parse(&last).unwrap(), &mut two, &mut one, Some(7)));
    }
}
