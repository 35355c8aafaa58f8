//! How good the streams of each trunk were: histograms with fixed bounds, fed when a call ends.

use ravelin_contract::metrics::Buckets;

use crate::media::Score;

/// Trunks that are told apart. The streams of further ones count under [`OTHERS`], so that no config
/// makes the number of time series grow without bound.
pub(crate) const SCORED_TRUNKS_MAX: usize = 128;
/// Label of the trunks beyond.
const OTHERS: &str = "(others)";

/// One histogram: its name, what it is, its upper bounds as counted here, and how many of these
/// units make one of those that are shown.
struct Kind {
    name: &'static str,
    help: &'static str,
    bounds: &'static [u64],
    unit: f64,
}

const MS: u64 = 1_000_000;

const KINDS: [Kind; 4] = [
    Kind {
        name: "stream_mos",
        help: "Mean opinion score of a party's stream by the E-model, at the end of the call",
        bounds: &[150, 200, 250, 300, 350, 380, 400, 420, 430, 440],
        unit: 100.0,
    },
    Kind {
        name: "stream_jitter_seconds",
        help: "Mean interarrival jitter of a party's stream, at the end of the call",
        bounds: &[MS, 2 * MS, 5 * MS, 10 * MS, 20 * MS, 50 * MS, 100 * MS],
        unit: 1e9,
    },
    Kind {
        name: "stream_loss_ratio",
        help: "Lost packets of a party's stream of those expected, at the end of the call",
        bounds: &[0, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000],
        unit: 1e6,
    },
    Kind {
        name: "stream_rtt_seconds",
        help: "Mean round trip between Ravelin and a party, at the end of the call",
        bounds: &[
            5 * MS,
            10 * MS,
            20 * MS,
            50 * MS,
            100 * MS,
            150 * MS,
            200 * MS,
            300 * MS,
            500 * MS,
        ],
        unit: 1e9,
    },
];

/// Most bounds of a kind, and one above them.
const PLACES: usize = 11;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    by_bound: [u64; PLACES],
    sum: u64,
}

impl Counts {
    fn add(&mut self, bounds: &[u64], value: u64) {
        let place = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        if let Some(count) = self.by_bound.get_mut(place) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }
}

/// Of all trunks of one shard.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    trunks: Vec<(String, [Counts; KINDS.len()])>,
}

impl Scores {
    /// Adds a stream that a party behind `trunk` sent.
    pub(crate) fn add(&mut self, trunk: &str, score: &Score) {
        let loss = (score.lost.saturating_mul(1_000_000)).checked_div(score.expected);
        let values = [score.mos.map(u64::from), score.jitter, loss, score.round_trip];
        let counts = self.of(trunk);
        for ((kind, counts), value) in KINDS.iter().zip(counts).zip(values) {
            if let Some(value) = value {
                counts.add(kind.bounds, value);
            }
        }
    }

    fn of(&mut self, trunk: &str) -> &mut [Counts; KINDS.len()] {
        let known = self.trunks.iter().position(|(name, _)| name == trunk);
        let place = known.unwrap_or_else(|| {
            let full = self.trunks.len() >= SCORED_TRUNKS_MAX;
            let name = if full { OTHERS } else { trunk };
            self.trunks.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                self.trunks.push((name.to_owned(), Default::default()));
                self.trunks.len() - 1
            })
        });
        // The place was found or made above.
        let last = self.trunks.len() - 1;
        #[allow(clippy::indexing_slicing, reason = "not beyond the last")]
        &mut self.trunks[place.min(last)].1
    }

    /// Everything that was counted.
    pub(crate) fn buckets(&self, into: &mut Vec<Buckets>) {
        for (trunk, counts) in &self.trunks {
            for (kind, counts) in KINDS.iter().zip(counts) {
                if counts.by_bound.iter().all(|count| *count == 0) {
                    continue;
                }
                let places = kind.bounds.len() + 1;
                into.push(Buckets {
                    name: kind.name.to_owned(),
                    help: kind.help.to_owned(),
                    labels: vec![("trunk".to_owned(), trunk.clone())],
                    bounds: kind.bounds.iter().map(|bound| *bound as f64 / kind.unit).collect(),
                    counts: counts.by_bound.iter().take(places).copied().collect(),
                    sum: counts.sum as f64 / kind.unit,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORE: Score = Score {
        mos: Some(441),
        jitter: Some(2 * MS),
        round_trip: None,
        expected: 1_000,
        lost: 10,
        dtmf_events: 0,
    };

    fn buckets(scores: &Scores) -> Vec<Buckets> {
        let mut out = Vec::new();
        scores.buckets(&mut out);
        out
    }

    #[test]
    fn values_fall_under_the_bound_that_is_not_below_them() {
        let mut scores = Scores::default();
        scores.add("a", &SCORE);
        scores.add("a", &Score { mos: Some(100), lost: 0, ..SCORE });
        let buckets = buckets(&scores);
        let names: Vec<&str> = buckets.iter().map(|buckets| buckets.name.as_str()).collect();
        assert_eq!(names, ["stream_mos", "stream_jitter_seconds", "stream_loss_ratio"]);
        for buckets in &buckets {
            assert_eq!(buckets.counts.len(), buckets.bounds.len() + 1);
            assert_eq!(buckets.counts.iter().sum::<u64>(), 2);
            assert_eq!(buckets.labels, [("trunk".to_owned(), "a".to_owned())]);
        }
        let [mos, jitter, loss] = buckets.try_into().unwrap();
        assert_eq!((mos.counts[0], mos.counts[10]), (1, 1));
        assert!((mos.sum - 5.41).abs() < 1e-9);
        assert_eq!((jitter.bounds[1], jitter.counts[1]), (0.002, 2));
        assert_eq!((loss.bounds[3], loss.counts[0], loss.counts[3]), (0.01, 1, 1));
    }

    #[test]
    fn the_number_of_trunks_is_bounded() {
        let mut scores = Scores::default();
        for trunk in 0..SCORED_TRUNKS_MAX + 50 {
            scores.add(&format!("t{trunk}"), &SCORE);
        }
        scores.add("t3", &SCORE);
        assert_eq!(scores.trunks.len(), SCORED_TRUNKS_MAX + 1);
        let others = scores.trunks.last().unwrap();
        assert_eq!((others.0.as_str(), others.1[0].by_bound[10]), (OTHERS, 50));
    }

    #[test]
    fn every_kind_has_room_for_its_bounds() {
        for kind in KINDS {
            assert!(kind.bounds.len() < PLACES && kind.bounds.is_sorted(), "{}", kind.name);
        }
    }
}
