//! What RFC 3550 makes of packets that a test knows: counts (A.3) by plain sets, jitter (A.8) as an
//! interval, since nobody knows when exactly a packet was seen. Shares nothing with the product.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Instant};

/// A packet that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Synchronisation source: packets of one come together.
    pub(super) ssrc: u32,
    /// Its place in the stream, of which the sequence number is the low half.
    pub(super) number: u64,
    /// In milliseconds, which the stream's clock counts in whole units.
    pub(super) timestamp_ms: f64,
    pub(super) octets: u64,
    /// It left here after this, and had gone through before that.
    pub(super) before: Instant,
    pub(super) after: Instant,
}

/// Of all packets in the order in which they were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) expected: u64,
    /// Numbers that never came.
    pub(super) missing: u64,
    /// The RFC's own figure: a packet that came twice makes up for one that did not.
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
    /// Runs of missing numbers.
    pub(super) gaps: u64,
}

fn rows(sent: &[Sent]) -> impl Iterator<Item = &[Sent]> {
    sent.chunk_by(|one, next| one.ssrc == next.ssrc)
}

pub(super) fn counts(sent: &[Sent]) -> Counts {
    let mut all = Counts::default();
    for row in rows(sent) {
        let mut come = BTreeSet::new();
        for packet in row {
            let late = come.last().is_some_and(|highest| packet.number < *highest);
            if !come.insert(packet.number) {
                all.duplicates += 1;
            } else if late {
                all.reordered += 1;
            }
            all.bytes += packet.octets;
        }
        let received = row.len() as u64;
        let (Some(&first), Some(&last)) = (come.first(), come.last()) else { continue };
        let expected = last - first + 1;
        all.packets += received;
        all.expected += expected;
        all.missing += expected - come.len() as u64;
        all.lost += expected.saturating_sub(received);
        let steps = come.iter().zip(come.iter().skip(1));
        all.gaps += steps.filter(|(one, next)| **next > **one + 1).count() as u64;
    }
    all
}

/// What the jitter can have been, in milliseconds, however long anybody was held up.
#[derive(Clone, Debug)]
pub(super) struct Jitter {
    /// After the last packet.
    pub(super) last: RangeInclusive<f64>,
    /// The highest of all.
    pub(super) highest: RangeInclusive<f64>,
}

/// A difference above this is a new start of the timestamps, in milliseconds.
const STEP_MS: f64 = 1_000.0;

/// Of packets each of which was seen after the one before it was sent, and before it had gone through.
/// `begins`: where the jitter stood.
pub(super) fn jitter(sent: &[Sent], begins: RangeInclusive<f64>) -> Jitter {
    let (mut low, mut high) = begins.into_inner();
    let mut highest = (low, high);
    for row in rows(sent) {
        for packets in row.windows(3) {
            let [before, last, packet] = packets else { continue };
            let longest = packet.after.duration_since(before.before).as_secs_f64() * 1_000.0;
            let units = packet.timestamp_ms - last.timestamp_ms;
            // Arrivals are in order.
            let (least, most) = (-units, longest - units);
            let nearest =
                if least <= 0.0 && most >= 0.0 { 0.0 } else { least.abs().min(most.abs()) };
            let furthest = least.abs().max(most.abs());
            let next = |jitter: f64, distance: f64| jitter + (distance - jitter) / 16.0;
            let taken = (next(low, nearest.min(STEP_MS)), next(high, furthest.min(STEP_MS)));
            (low, high) = if nearest > STEP_MS {
                (low, high)
            } else if furthest < STEP_MS {
                taken
            } else {
                (low.min(taken.0), high.max(taken.1))
            };
            highest = (highest.0.max(low), highest.1.max(high));
        }
    }
    Jitter { last: low..=high, highest: highest.0..=highest.1 }
}
