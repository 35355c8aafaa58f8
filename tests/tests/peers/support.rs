//! What the tests of this folder share.

use std::time::Duration;

use ravelin_tests::{
    product::{Folder, Product},
    sipp,
    wait::{self, Watch},
};

pub(crate) const CONFIG: &str = include_str!("load.yml");
pub(crate) const API: &str = "127.0.0.1:18980";
pub(crate) const SBC: &str = "127.8.0.10:5060";

/// 64*T1 and a margin: after this every transaction of a call is over (RFC 3261 17).
pub(crate) const ALL_OVER: Duration = Duration::from_secs(45);

/// Prints why a test cannot run here; `tools/test` counts these lines.
pub(crate) fn skip(test: &str, why: &str) {
    println!("skipped: {test}: {why}");
}

/// Starts the product, or says why the machine cannot run this test.
pub(crate) fn start(test: &str) -> Option<(Folder, Product)> {
    if !sipp::is_installed() {
        skip(test, "SIPp is not installed (tools/setup test)");
        return None;
    }
    let folder = Folder::new(test);
    let product = Product::up(CONFIG, API, &folder);
    Some((folder, product))
}

/// Two such standstills on one path take as long as SIPp waits before it repeats (RFC 3261 T1).
const HALF_T1: Duration = Duration::from_millis(250);
/// How often something is played at most.
const PLAYS: u64 = 3;

/// What a party repeated or missed is played again if the machine stood still meanwhile, whatever
/// Ravelin did; `plays`: how often it was played by now.
///
/// # Panics
/// On a machine that ran on, and when it happened time and again.
#[track_caller]
pub(crate) fn is_forgiven(watch: Watch, plays: u64, what: &str) {
    let standstill = watch.longest_standstill();
    println!("{what}; the machine stood still for {standstill:?}");
    assert!(standstill >= HALF_T1, "on a machine that ran on: {what}");
    assert!(plays < PLAYS, "{PLAYS} times in a row: {what}");
}

/// Waits until the product holds nothing more: no call, transaction, port, permit.
pub(crate) fn settle(product: &Product) {
    for gauge in [
        "ravelin_calls",
        "ravelin_client_transactions",
        "ravelin_server_transactions",
        "ravelin_media_ports_in_use",
        "ravelin_permits",
    ] {
        wait::until(&format!("{gauge} is back to zero"), ALL_OVER, || {
            let value = product.metric(gauge);
            assert!(value.is_some(), "there is no metric {gauge}");
            value.filter(|value| *value == 0.0)
        });
    }
}
