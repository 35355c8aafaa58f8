//! Calls over a network that loses 5 % of all datagrams both ways. SIPp's built-in caller and
//! callee confuse repeats under loss (a repeated 200 ends their BYE); `caller.xml` and `callee.xml`
//! tell them apart.

use std::time::Duration;

use ravelin_tests::{netns::Namespace, sipp::Sipp, tree};

use super::support::{SBC, settle, skip, start};

const NAME: &str = "loss::five_percent_loss_leaves_no_call_behind";
const INSIDE: &str = "RAVELIN_TEST_IN_NAMESPACE";

/// Every call succeeds, every 200 is acknowledged, nothing is left.
#[test]
fn five_percent_loss_leaves_no_call_behind() {
    if std::env::var_os(INSIDE).is_some() {
        return calls_under_loss();
    }
    let namespace = match Namespace::new("loss") {
        Ok(namespace) => namespace,
        Err(why) => return skip(NAME, &why),
    };
    if let Err(why) = namespace.lose_udp(5) {
        return skip(NAME, &why);
    }
    if let Err(why) = namespace.run_test(NAME, INSIDE) {
        panic!("{why}");
    }
}

fn calls_under_loss() {
    let Some((folder, product)) = start("loss") else { return };
    let calls = 3_000;
    let mut callee = Sipp::start(
        folder.path(),
        "uas",
        &format!(
            "-sf {} -i 127.8.2.1 -p 5060 -m {calls} -timeout 180",
            tree::root().join("tests/tests/peers/callee.xml").display()
        ),
    );
    let mut caller = Sipp::start(
        folder.path(),
        "uac",
        &format!(
            "-sf {} {SBC} -i 127.8.1.1 -p 5060 -s 14045551234 -r 100 -m {calls}",
            tree::root().join("tests/tests/peers/caller.xml").display()
        ),
    );
    let grade = caller.finish(Duration::from_secs(150));
    assert_eq!((grade.successful, grade.failed), (calls, 0), "the caller's count: {grade:?}");
    assert!(grade.retransmissions > 100, "there was loss: {grade:?}");
    let grade = callee.finish(Duration::from_secs(90));
    assert_eq!((grade.successful, grade.failed), (calls, 0), "the callee's count: {grade:?}");
    settle(&product);
    let unacknowledged = product.metric("ravelin_unacknowledged_2xx_total");
    assert_eq!(unacknowledged, Some(0.0), "200 responses to the caller without ACK");
}
