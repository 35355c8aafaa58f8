//! 911 through the product (EM-1, EM-50; compliance-systems K1).

use std::time::Duration;

use ravelin_tests::sipp::Sipp;

use super::support::{SBC, settle, start};

/// Every spelling of 911 reaches the site's emergency trunk; a number that only looks like it is
/// an ordinary call.
#[test]
fn every_spelling_of_911_reaches_the_psap() {
    let Some((folder, product)) = start("spellings_of_911") else { return };
    for (index, dialled) in ["911", "9911", "9-911", "+911", "%39%31%31"].iter().enumerate() {
        let mut psap = Sipp::start(
            folder.path(),
            &format!("psap{index}"),
            "-sn uas -i 127.8.9.1 -p 5060 -m 1",
        );
        let mut caller = Sipp::start(
            folder.path(),
            &format!("caller{index}"),
            &format!("-sn uac {SBC} -i 127.8.1.1 -p 5060 -s {dialled} -m 1"),
        );
        assert_eq!(caller.finish(Duration::from_secs(20)).successful, 1, "{dialled}: caller");
        assert_eq!(psap.finish(Duration::from_secs(20)).successful, 1, "{dialled}: PSAP");
    }
    let mut carrier = Sipp::start(folder.path(), "carrier", "-sn uas -i 127.8.2.1 -p 5060 -m 1");
    let mut caller = Sipp::start(
        folder.path(),
        "ordinary",
        &format!("-sn uac {SBC} -i 127.8.1.1 -p 5060 -s +13135550911 -m 1"),
    );
    assert_eq!(caller.finish(Duration::from_secs(20)).successful, 1, "ordinary: caller");
    assert_eq!(carrier.finish(Duration::from_secs(20)).successful, 1, "ordinary: carrier");
    settle(&product);
}

/// The site's trunk is dead: the global emergency trunk takes the call (EM-50, EM-51).
#[test]
fn a_dead_emergency_trunk_is_passed_over() {
    let Some((folder, product)) = start("dead_emergency_trunk") else { return };
    let mut psap = Sipp::start(folder.path(), "backup", "-sn uas -i 127.8.9.2 -p 5060 -m 1");
    let mut caller = Sipp::start(
        folder.path(),
        "caller",
        &format!("-sn uac {SBC} -i 127.8.1.1 -p 5060 -s 911 -m 1"),
    );
    assert_eq!(caller.finish(Duration::from_secs(30)).successful, 1, "caller");
    assert_eq!(psap.finish(Duration::from_secs(20)).successful, 1, "backup PSAP");
    settle(&product);
}
