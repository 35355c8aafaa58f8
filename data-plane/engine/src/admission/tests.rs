use std::{collections::VecDeque, thread};

use proptest::prelude::*;

use super::*;
use crate::emergency::EmergencyRoute;

#[derive(Clone, Debug)]
enum Step {
    Call,
    Emergency,
    HangUp { which: usize },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Call),
        1 => Just(Step::Emergency),
        3 => any::<usize>().prop_map(|which| Step::HangUp { which }),
        3 => (0..700_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    /// The count is the number of live permits at any time, an ordinary call passes exactly when
    /// both limits allow it, an emergency call always.
    #[test]
    fn permits_are_counted_and_limits_hold(
        calls in proptest::option::of(0..6_u32),
        cps in proptest::option::of(0..6_u32),
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let token = EmergencyRoute::for_test();
        let gauge = TrunkGauge::standalone(calls, cps);
        let mut live: Vec<Permit> = Vec::new();
        let mut admitted: VecDeque<u64> = VecDeque::new();
        let mut refused = (0, 0);
        let mut now_ms = 1_000_000;
        for step in steps {
            match step {
                Step::Call => {
                    while admitted.front().is_some_and(|at| at + 1_000 <= now_ms) {
                        admitted.pop_front();
                    }
                    let full = calls.is_some_and(|max| live.len() >= max as usize);
                    let fast = cps.is_some_and(|max| admitted.len() >= max as usize);
                    match gauge.admit(Instant::from_millis(now_ms), None) {
                        Ok(permit) => {
                            prop_assert!(!full && !fast);
                            live.push(permit);
                            admitted.push_back(now_ms);
                        }
                        Err(Refusal::Calls) => {
                            prop_assert!(full);
                            refused.0 += 1;
                        }
                        Err(Refusal::Rate) => {
                            prop_assert!(!full && fast);
                            refused.1 += 1;
                        }
                    }
                }
                Step::Emergency => {
                    let permit = gauge.admit(Instant::from_millis(now_ms), Some(&token));
                    live.push(permit.unwrap());
                }
                Step::HangUp { which } if !live.is_empty() => {
                    drop(live.swap_remove(which % live.len()));
                }
                Step::HangUp { .. } => {}
                Step::Wait { ms } => now_ms += ms,
            }
            prop_assert_eq!(gauge.calls() as usize, live.len());
            prop_assert_eq!(gauge.refused(), refused);
        }
        drop(live);
        prop_assert_eq!(gauge.calls(), 0);
    }
}

/// Two shards at once: never more than the limits, and nothing left behind.
#[test]
fn limits_hold_over_two_threads() {
    const CALLS: u32 = 40;
    const CPS: u32 = 500;
    let gauge = TrunkGauge::standalone(Some(CALLS), Some(CPS));
    // The clocks of the threads run over the same 3 s, each at its own pace.
    let run = || {
        let mut times = Vec::new();
        for step in 0..3_000_u64 {
            let now = Instant::from_millis(10_000 + step);
            let mut held = Vec::new();
            for _ in 0..30 {
                if let Ok(permit) = gauge.admit(now, None) {
                    assert!(gauge.calls() <= CALLS);
                    times.push(now.as_millis());
                    held.push(permit);
                }
            }
        }
        times
    };
    let mut times = thread::scope(|scope| {
        let first = scope.spawn(run);
        let second = scope.spawn(run);
        let mut times = first.join().unwrap();
        times.extend(second.join().unwrap());
        times
    });
    times.sort_unstable();
    assert_eq!(gauge.calls(), 0);
    assert!(times.len() >= 2 * CPS as usize, "{} admitted", times.len());
    for (first, later) in times.iter().zip(times.iter().skip(CPS as usize)) {
        assert!(later - first >= 1_000, "more than {CPS} in the second from {first}");
    }
}

fn target(port: u16) -> (SocketAddr, Transport) {
    (SocketAddr::from(([127, 0, 0, 1], port)), Transport::Udp)
}

#[test]
fn gauges_survive_a_new_version() {
    let mut known = Known::default();
    let old = known.gauge(Some(5), Some(3), [target(1), target(2)].into_iter());
    let now = Instant::from_millis(5_000);
    let permits: Vec<_> = (0..3).map(|_| old.admit(now, None).unwrap()).collect();
    old.targets()[1].failed(1);

    let new = known.gauge(Some(4), Some(3), [target(2), target(3)].into_iter());
    assert_eq!(new.calls(), 3);
    assert_eq!(new.admit(now, None).unwrap_err(), Refusal::Rate, "the same second goes on");
    assert!(!new.is_usable(0, now), "the target that stayed is still down");
    assert!(new.is_usable(1, now));
    assert!(!new.is_usable(2, now), "there is no such target");
    let later = now + Duration::from_secs(1);
    let fourth = new.admit(later, None).unwrap();
    assert_eq!(new.admit(later, None).unwrap_err(), Refusal::Calls);
    // Calls of the old version are counted in the new one.
    drop(permits);
    assert_eq!((old.calls(), new.calls()), (1, 1));
    drop(fourth);
    assert_eq!(new.calls(), 0);
}

#[test]
fn health_goes_down_after_the_failures_and_up_at_once() {
    let health = TargetHealth::default();
    let now = Instant::from_millis(1);
    assert_eq!(health.state(), TargetState::Unprobed);
    assert!(!health.failed(3) && !health.failed(3) && health.is_usable(now));
    assert!(health.failed(3), "the third failure takes it down");
    assert!(!health.failed(3), "and it goes down once");
    assert!(!health.is_usable(now));
    assert!(health.succeeded());
    assert!(!health.succeeded());
    assert_eq!((health.state(), health.failures()), (TargetState::Up, 0));
    health.hold(now, Duration::from_secs(2));
    assert!(!health.is_usable(now + Duration::from_secs(1)));
    assert!(health.is_usable(now + Duration::from_secs(2)));
}
