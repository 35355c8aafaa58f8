use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;

/// What the wheel must equal: a map ordered by tick and insertion.
#[derive(Default)]
struct Reference {
    timers: BTreeMap<(u64, u64), u32>,
    order: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Insert { after_us: u64 },
    Cancel { which: usize },
    Advance { by_us: u64 },
    ToNextDeadline,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // Near, a few blocks away, and beyond the circle of level 3 (49 days).
        4 => prop_oneof![
            0..2_000_000_u64,
            0..600_000_000_u64,
            0..90_000_000_000_u64,
            0..10_000_000_000_000_u64
        ].prop_map(|after_us| Step::Insert { after_us }),
        2 => any::<usize>().prop_map(|which| Step::Cancel { which }),
        2 => prop_oneof![0..5_000_u64, 0..70_000_000_u64, 0..20_000_000_000_u64]
            .prop_map(|by_us| Step::Advance { by_us }),
        2 => Just(Step::ToNextDeadline),
    ]
}

fn probe(target: u32) -> Timer {
    Timer::Probe { target, generation: 0 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn equals_an_ordered_map(
        start_ms in prop_oneof![Just(0_u64), 0..1_u64 << 33, (1_u64 << 32) - 300..(1_u64 << 32) + 300],
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut now = Instant::from_millis(start_ms);
        let mut wheel = Wheel::new(now);
        let mut reference = Reference::default();
        let mut running: Vec<(TimerId, (u64, u64))> = Vec::new();
        let mut ended: Vec<TimerId> = Vec::new();
        for step in steps {
            match step {
                Step::Insert { after_us } => {
                    let deadline = now + Duration::from_micros(after_us);
                    let tick = deadline.0.div_ceil(1_000_000);
                    let number = u32::try_from(reference.order).unwrap();
                    let key = (tick, reference.order);
                    reference.timers.insert(key, number);
                    reference.order += 1;
                    running.push((wheel.insert(deadline, probe(number)), key));
                }
                Step::Cancel { which } if !running.is_empty() => {
                    let (id, key) = running.swap_remove(which % running.len());
                    let expected = reference.timers.remove(&key).is_some();
                    prop_assert_eq!(wheel.cancel(id), expected);
                    ended.push(id);
                }
                Step::Cancel { .. } => {}
                Step::Advance { by_us } => now = now + Duration::from_micros(by_us),
                Step::ToNextDeadline => {
                    let next = wheel.next_deadline();
                    let first = reference.timers.keys().next().map(|key| key.0);
                    prop_assert_eq!(next.is_some(), first.is_some());
                    if let (Some(next), Some(first)) = (next, first) {
                        // Never late.
                        prop_assert!(next.0 <= first.max(now.0 / 1_000_000) * 1_000_000);
                        now = now.max(next);
                    }
                }
            }
            loop {
                let fired = wheel.pop_expired(now);
                let due = reference
                    .timers
                    .first_key_value()
                    .map(|(key, number)| (*key, *number))
                    .filter(|(key, _)| key.0 <= now.0 / 1_000_000);
                prop_assert_eq!(fired, due.map(|(_, number)| probe(number)));
                match due {
                    Some((key, _)) => reference.timers.remove(&key),
                    None => break,
                };
            }
            prop_assert_eq!(wheel.len(), reference.timers.len());
            for id in &ended {
                prop_assert!(!wheel.cancel(*id));
            }
        }
    }

    /// Following `next_deadline` alone reaches every timer at its tick, and in few steps.
    #[test]
    fn next_deadline_leads_to_every_timer(
        start_ms in 0..1_u64 << 34,
        after_ms in proptest::collection::vec(0..10_000_000_000_u64, 1..40),
    ) {
        let start = Instant::from_millis(start_ms);
        let mut wheel = Wheel::new(start);
        let mut expected: Vec<u64> = after_ms.iter().map(|after| start_ms + after).collect();
        for after in &after_ms {
            wheel.insert(start + Duration::from_millis(*after), probe(0));
        }
        expected.sort_unstable();
        let mut fired = Vec::new();
        let mut wakes = 0;
        while let Some(next) = wheel.next_deadline() {
            wakes += 1;
            while wheel.pop_expired(next).is_some() {
                fired.push(next.as_millis());
            }
        }
        prop_assert_eq!(fired, expected);
        // At most one wake per level for each timer, and one per lap of the circle.
        prop_assert!(wakes <= after_ms.len() * 4 + 4);
    }
}

#[test]
fn nothing_is_allocated_once_warm() {
    let mut wheel = Wheel::new(Instant(0));
    let mut now = Instant(0);
    for _ in 0..1_000 {
        wheel.insert(now + Duration::from_secs(1), probe(0));
    }
    let capacity = wheel.entries.capacity();
    for _ in 0..50 {
        now = now + Duration::from_secs(1);
        while wheel.pop_expired(now).is_some() {}
        assert!(wheel.is_empty());
        for _ in 0..1_000 {
            wheel.insert(now + Duration::from_secs(1), probe(0));
        }
    }
    assert_eq!(wheel.entries.capacity(), capacity);
}
