//! What a stream comes to, in the units of records and views. Off the packet path.

use std::collections::BTreeMap;

use ravelin_contract::cdr::{Party, StreamQuality};

use super::{Quality, emodel};
use crate::drops::DropReason;

/// Share lost between two reports is told in 256ths.
const FRACTION: f64 = 256.0;

impl Quality {
    /// The figures of now. `other` is the other party of the same stream: what its RTCP says
    /// belongs to this party's stream.
    #[must_use]
    pub(in crate::media) fn report(&self, stream: u8, from: Party, other: &Self) -> StreamQuality {
        let expected = self.sequence.expected();
        let lost = self.sequence.lost();
        let clock_hz = self.media_type.and_then(|number| self.formats.clock_hz(number));
        let mean = self.jitter.mean();
        let heard = self.reports.heard;
        let told = heard.reports > 0;
        StreamQuality {
            ssrc: self.ssrc,
            ssrc_changes: self.ssrc_changes,
            codec: self.codec().map(str::to_owned),
            payload_type: self.media_type,
            clock_hz,
            packets: self.received,
            bytes: self.octets,
            rtcp_packets: self.rtcp_packets,
            expected,
            lost,
            loss_percent: hundredths(share(lost, expected) * 100.0),
            gaps: self.sequence.gaps(),
            duplicates: self.sequence.duplicates(),
            reordered: self.sequence.reordered(),
            restarts: self.sequence.restarts(),
            timestamp_steps: self.jitter.steps(),
            astray: self.sequence.astray() + self.other_sources,
            late: self.jitter.late(),
            early: self.jitter.early(),
            jitter_ms: mean.map(milliseconds),
            jitter_max_ms: mean.map(|_| milliseconds(self.jitter.highest())),
            rtt_ms: self.reports.round_trips.mean().map(milliseconds),
            rtt_max_ms: self
                .reports
                .round_trips
                .mean()
                .map(|_| milliseconds(self.reports.round_trips.highest)),
            heard_lost: told.then_some(heard.lost),
            heard_loss_max_percent: told
                .then(|| hundredths(f64::from(heard.fraction_highest) * 100.0 / FRACTION)),
            heard_jitter_ms: clock_hz
                .filter(|_| told)
                .and_then(|clock| nanoseconds(heard.jitter, clock))
                .map(milliseconds),
            mos: self.mos(other).map(|score| f64::from(score) / 100.0),
            dtmf_events: self.dtmf.events(),
            latches: self.latches,
            timeouts: self.timeouts,
            drops: self.drops_by_label(),
            ..StreamQuality::silent(stream, from)
        }
    }

    /// Encoding name of the last packet of media.
    #[must_use]
    pub(in crate::media) fn codec(&self) -> Option<&str> {
        self.media_type.and_then(|number| self.formats.name(number))
    }

    /// What the E-model makes of the stream as it came, in hundredths: measured loss and its
    /// burstiness, half of both round trips, and a receiver's buffer of twice the mean jitter.
    /// `None`: nothing came, or nothing is published for the codec.
    #[must_use]
    pub(in crate::media) fn mos(&self, other: &Self) -> Option<u16> {
        let codec = emodel::Impairment::of(self.codec()?)?;
        let expected = self.sequence.expected();
        if expected == 0 {
            return None;
        }
        let lost = self.sequence.lost();
        let loss = share(lost, expected);
        // G.107 7.5: mean run against the mean run of random loss, 1 / (1 - loss).
        let run = share(lost, self.sequence.gaps());
        let burst = (run * (1.0 - loss)).max(1.0);
        let trips = [self, other].map(|side| side.reports.round_trips.mean().unwrap_or(0));
        let [own, others] = trips.map(milliseconds);
        let buffer = 2.0 * self.jitter.mean().map_or(0.0, milliseconds);
        emodel::mos(codec, loss, burst, own / 2.0 + others / 2.0 + buffer)
    }

    /// Whether any packet came.
    pub(in crate::media) fn has_come(&self) -> bool {
        self.received > 0
    }

    fn drops_by_label(&self) -> BTreeMap<String, u64> {
        let counts = DropReason::ALL.iter().zip(self.drops.0);
        counts
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.label().to_owned(), u64::from(count)))
            .collect()
    }

    /// Mean jitter in nanoseconds.
    #[must_use]
    pub(in crate::media) fn jitter_ns(&self) -> Option<u64> {
        self.jitter.mean()
    }

    /// Mean round trip to this party in nanoseconds.
    #[must_use]
    pub(in crate::media) fn round_trip_ns(&self) -> Option<u64> {
        self.reports.round_trips.mean()
    }

    /// Digits seen.
    pub(in crate::media) fn dtmf_events(&self) -> u32 {
        self.dtmf.events()
    }

    /// Packets that were to come and those that did not.
    #[must_use]
    pub(in crate::media) fn expected_and_lost(&self) -> (u64, u64) {
        (self.sequence.expected(), self.sequence.lost())
    }
}

/// Zero of nothing is nothing.
fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

/// To the microsecond.
fn milliseconds(ns: u64) -> f64 {
    (ns / 1_000) as f64 / 1_000.0
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Of units of a clock.
fn nanoseconds(units: u32, clock_hz: u32) -> Option<u64> {
    (u64::from(units) * 1_000_000_000).checked_div(u64::from(clock_hz))
}
