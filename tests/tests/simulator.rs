//! Thousands of seeded runs of the whole engine between simulated peers.
//!
//! A longer run: `RAVELIN_SIM_START=1000000 RAVELIN_SIM_COUNT=500000 cargo test --release -p ravelin-tests --test
//! simulator`. A failing seed is printed; run it alone with `RAVELIN_SIM_COUNT=1`, and with
//! `RAVELIN_SIM_TRACE=1` to see every datagram.

use ravelin_tests::sim::{Plan, run};

/// How many seeds a plain run takes: about a minute in release mode on two cores.
const SEEDS: u64 = 3_000;

#[test]
fn seeded_runs_conserve_everything_and_both_parties_agree() {
    let start = setting("RAVELIN_SIM_START", 1);
    let count = setting("RAVELIN_SIM_COUNT", SEEDS);
    let mut answered = 0;
    for seed in start..start + count {
        let plan = Plan::draw(seed);
        let verdict = run(plan.clone());
        answered += verdict.answered;
        assert!(
            verdict.faults.is_empty(),
            "seed {seed}: {:#?}\nplan: {plan:#?}\nagain: RAVELIN_SIM_START={seed} \
             RAVELIN_SIM_COUNT=1 cargo test -p ravelin-tests --test simulator",
            verdict.faults
        );
    }
    assert!(count < 10 || answered > 0, "no call of {count} runs was answered");
    println!("{count} seeds from {start}: {answered} answered calls");
}

/// How many seeds with crashes a plain run takes.
const CRASHES: u64 = 2_000;

#[test]
fn confirmed_calls_live_through_crashes_at_any_step_and_nothing_is_left() {
    let start = setting("RAVELIN_SIM_START", 1);
    let count = setting("RAVELIN_SIM_COUNT", CRASHES);
    let (mut answered, mut adopted) = (0, 0);
    for seed in start..start + count {
        let plan = Plan::draw_with_crashes(seed);
        let verdict = run(plan.clone());
        answered += verdict.answered;
        adopted += verdict.adopted;
        assert!(
            verdict.faults.is_empty(),
            "seed {seed}: {:#?}\nplan: {plan:#?}\nagain: RAVELIN_SIM_START={seed} \
             RAVELIN_SIM_COUNT=1 cargo test -p ravelin-tests --test simulator confirmed",
            verdict.faults
        );
    }
    assert!(count < 10 || adopted > 0, "no call of {count} runs lived through a crash");
    println!(
        "{count} seeds from {start}: {answered} answered calls, {adopted} lived through a crash"
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..20 {
        let first = run(Plan::draw(seed));
        let second = run(Plan::draw(seed));
        assert_eq!(first.answered, second.answered, "seed {seed}");
        assert_eq!(first.faults, second.faults, "seed {seed}");
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
