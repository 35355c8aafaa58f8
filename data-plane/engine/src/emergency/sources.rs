//! Which emergency calls may cost ordinary ones (EM-67). Every emergency call is taken; a source
//! that sends more of them than people dial loses the right to have ordinary calls ended for it
//! (EM-64), or whoever forges 911 could clear a node of its calls.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{
    limits::{EMERGENCY_BURST, EMERGENCY_PER_MINUTE, EMERGENCY_SOURCES_MAX},
    time::Instant,
};

/// What a source's new emergency call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Ordinary calls may be ended for it.
    First,
    /// It takes what is free. `newly`: the source was not in excess before, and an alarm is due.
    Excess { newly: bool },
}

#[derive(Clone, Copy, Debug)]
struct Source {
    /// When its allowance is whole again.
    whole_at: Instant,
    excess: bool,
}

/// Sources of emergency calls of late.
#[derive(Debug, Default)]
pub(crate) struct Sources(BTreeMap<IpAddr, Source>);

impl Sources {
    /// Counts an emergency call of `source`.
    pub(crate) fn count(&mut self, now: Instant, source: IpAddr) -> Standing {
        let cost = Duration::from_secs(60) / EMERGENCY_PER_MINUTE;
        let allowance = cost * EMERGENCY_BURST;
        if self.0.len() >= EMERGENCY_SOURCES_MAX && !self.0.contains_key(&source) {
            self.0.retain(|_, source| source.whole_at > now);
            if self.0.len() >= EMERGENCY_SOURCES_MAX {
                // More sources at a time than sites have phones: none of the new ones is believed.
                return Standing::Excess { newly: false };
            }
        }
        let entry = self.0.entry(source).or_insert(Source { whole_at: now, excess: false });
        let whole_at = entry.whole_at.max(now) + cost;
        if whole_at.since(now) <= allowance {
            *entry = Source { whole_at, excess: false };
            return Standing::First;
        }
        let newly = !std::mem::replace(&mut entry.excess, true);
        Standing::Excess { newly }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_rate_and_each_source_for_itself() {
        let mut sources = Sources::default();
        let (one, two): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let start = Instant::from_millis(1_000);
        for _ in 0..EMERGENCY_BURST {
            assert_eq!(sources.count(start, one), Standing::First);
        }
        assert_eq!(sources.count(start, one), Standing::Excess { newly: true });
        assert_eq!(sources.count(start, one), Standing::Excess { newly: false });
        assert_eq!(sources.count(start, two), Standing::First);
        // An excess call costs no allowance: a source is not shut out by going on.
        let mut first = 0;
        for second in 1..=600 {
            let now = start + Duration::from_secs(second);
            first += u32::from(sources.count(now, one) == Standing::First);
        }
        assert!(first.abs_diff(10 * EMERGENCY_PER_MINUTE) <= 1, "{first}");
    }

    #[test]
    fn sources_are_bounded_and_forgotten() {
        let mut sources = Sources::default();
        let address = |number: usize| IpAddr::from(u128::try_from(number).unwrap().to_be_bytes());
        let start = Instant::from_millis(1);
        for number in 0..EMERGENCY_SOURCES_MAX {
            assert_eq!(sources.count(start, address(number)), Standing::First);
        }
        let more = address(EMERGENCY_SOURCES_MAX);
        assert_eq!(sources.count(start, more), Standing::Excess { newly: false });
        assert_eq!(sources.count(start, address(0)), Standing::First, "a known one goes on");
        let later = start + Duration::from_secs(60);
        assert_eq!(sources.count(later, more), Standing::First);
        assert_eq!(sources.0.len(), 1);
    }
}
