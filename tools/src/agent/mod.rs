//! The built-in test agent, and `ravelin demo`: it plays a caller and the trunks of a config on their
//! own addresses and places two calls through a running Ravelin, an ordinary one and one to 911.

mod audio;
mod callee;
mod caller;
mod sip;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ravelin_policy::{Document, Listener, Role, Snapshot, Transport};
use serde_json::json;

use self::{
    audio::{PACKET_EVERY, Voice},
    callee::{Callee, Seen},
    caller::Call,
};
use crate::{
    cli::DemoArgs,
    exit::{Failure, Outcome},
    print,
};

/// Called number of the ordinary call.
const ORDINARY_NUMBER: &str = "+12125550100";
/// Share of packets that must arrive whole, in percent: a loaded machine may drop one.
const HEARD_PERCENT_MIN: usize = 95;

/// The caller, as the config knows it.
struct Customer {
    local: SocketAddr,
    listener: SocketAddr,
    realm: String,
    number: String,
}

/// One finished call.
struct Result {
    name: &'static str,
    from: String,
    to: String,
    expected: Option<String>,
    took: Option<(String, Seen)>,
    caller: caller::Outcome,
    note: String,
    faults: Vec<String>,
}

pub(crate) fn run(args: &DemoArgs) -> std::result::Result<Outcome, Failure> {
    let text = ravelin_edge::settings::read_document(&args.config).map_err(Failure::cannot_run)?;
    let snapshot = ravelin_policy::compile(&text, 1)
        .map_err(|errors| Failure::cannot_run(ravelin_edge::settings::one_line(&errors)))?
        .snapshot;
    let customer = customer(&snapshot, &text)?;
    let packets = packets(args.seconds);
    let ordinary = format!("sip:{ORDINARY_NUMBER}@{}", customer.listener);
    let emergency = format!("sip:911@{}", customer.listener);
    let results = [
        place(&snapshot, &customer, "ordinary", &ordinary, packets)?,
        place(&snapshot, &customer, "emergency", &emergency, packets)?,
    ];
    for result in &results {
        show(result, args.json)?;
    }
    Ok(Outcome::of(results.iter().all(|result| result.faults.is_empty())))
}

/// Packets of that many seconds; 60 at most, which the command line sees to.
fn packets(seconds: u32) -> u16 {
    let a_second = 1_000 / PACKET_EVERY.as_millis().max(1);
    u16::try_from(u128::from(seconds) * a_second).unwrap_or(u16::MAX)
}

fn customer(snapshot: &Snapshot, text: &str) -> std::result::Result<Customer, Failure> {
    let missing = |what: &str| Failure::cannot_run(format!("the config has no {what}"));
    let trunk = snapshot
        .trunks
        .iter()
        .find(|trunk| trunk.role == Role::Customer && !trunk.targets.is_empty())
        .ok_or_else(|| missing("customer trunk with a target"))?;
    let listener = listener(snapshot, trunk.realm)
        .ok_or_else(|| missing("UDP listener in the realm of its customer trunk"))?;
    let target = trunk.targets.first().ok_or_else(|| missing("target of its customer trunk"))?;
    let document = Document::from_yaml(text)
        .map_err(|errors| Failure::cannot_run(ravelin_edge::settings::one_line(&errors)))?;
    let raw = document.config.trunks.iter().find(|raw| raw.id == trunk.id);
    let pattern = raw.and_then(|raw| raw.numbers.first()).cloned().unwrap_or_default();
    Ok(Customer {
        local: target.addr,
        listener: listener.bind,
        realm: snapshot.realm(trunk.realm).map(|realm| realm.id.clone()).unwrap_or_default(),
        number: own_number(&pattern),
    })
}

fn listener(snapshot: &Snapshot, realm: ravelin_policy::RealmId) -> Option<&Listener> {
    snapshot
        .listeners
        .iter()
        .find(|listener| listener.realm == realm && listener.transport == Transport::Udp)
}

/// A number that the pattern of the customer's numbers covers.
fn own_number(pattern: &str) -> String {
    const DIGITS: usize = "+12125550100".len();
    let mut number = pattern.trim_end_matches('*').to_owned();
    if number.is_empty() {
        number = "+1313".to_owned();
    }
    while number.len() < DIGITS {
        number.push('1');
    }
    number
}

/// How long the callee's end of a call is waited for once the caller's is over.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

fn place(
    snapshot: &Snapshot,
    customer: &Customer,
    name: &'static str,
    to: &str,
    packets: u16,
) -> std::result::Result<Result, Failure> {
    let seed = seed();
    let (ours, theirs) = (Voice(seed), Voice(seed.rotate_left(32) ^ 0x5a5a));
    let from = format!("sip:{}@{}", customer.number, customer.local);
    let source: IpAddr = customer.local.ip();
    let explained = ravelin_policy::explain(snapshot, &customer.realm, source, to, Some(&from));

    let mut trunks = Vec::new();
    for trunk in snapshot.trunks.iter().filter(|trunk| trunk.role != Role::Customer) {
        for target in trunk.targets.iter().filter(|target| target.transport == Transport::Udp) {
            let callee = Callee::start(target.addr, theirs, ours, packets)
                .map_err(|error| in_the_way(&trunk.id, target.addr, &error))?;
            trunks.push((trunk.id.clone(), callee));
        }
    }
    let call = Call {
        local: customer.local,
        ravelin: customer.listener,
        from: from.clone(),
        to: to.to_owned(),
        call_id: format!("demo-{seed:016x}@{}", customer.local.ip()),
        voice: ours,
        other: theirs,
        packets,
    };
    let caller =
        caller::place(&call).map_err(|error| in_the_way("the caller", customer.local, &error))?;
    // Ravelin answers the caller's BYE itself: the callee has its own later, and hears out what is on
    // its way.
    let late = Instant::now() + ENDED_WITHIN;
    let took = loop {
        let mut seen = trunks.iter().map(|(id, callee)| (id.clone(), callee.seen()));
        let took = seen.find(|(_, seen)| seen.invites > 0);
        let is_up = took.as_ref().is_some_and(|(_, seen)| seen.acknowledged && !seen.ended);
        if !is_up || Instant::now() >= late {
            break took;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut result = Result {
        name,
        from,
        to: to.to_owned(),
        expected: explained.trunks.first().cloned(),
        took,
        caller,
        note: String::new(),
        faults: Vec::new(),
    };
    judge(&mut result, packets);
    Ok(result)
}

fn in_the_way(who: &str, at: SocketAddr, error: &std::io::Error) -> Failure {
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => "stop what uses it",
        std::io::ErrorKind::AddrNotAvailable => "it must be an address of this machine",
        _ => "see the error",
    };
    Failure::cannot_run(format!("{who} cannot be played at {at}: {error}; {advice}"))
}

fn judge(result: &mut Result, packets: u16) {
    let faults = &mut result.faults;
    let caller = &result.caller;
    match caller.status {
        200 => {}
        0 => faults.push("no answer to the INVITE".into()),
        status => faults.push(format!("the INVITE was answered {status}")),
    }
    let Some((trunk, seen)) = &result.took else {
        faults.push("no trunk saw the call".into());
        return;
    };
    if result.expected.as_ref() != Some(trunk) {
        let expected = result.expected.as_deref().unwrap_or("none");
        faults.push(format!("trunk {trunk} took the call, {expected} was to"));
    }
    if !seen.acknowledged {
        faults.push("the callee's answer was not acknowledged".into());
    }
    if caller.bye_status != 200 || !seen.ended {
        faults.push("the call was not ended in order".into());
    }
    let needed = usize::from(packets) * HEARD_PERCENT_MIN / 100;
    for (who, heard) in [("callee", &seen.heard), ("caller", &caller.heard)] {
        if heard.verified < needed {
            faults.push(format!("the {who} heard {} of {packets} packets", heard.verified));
        }
        if heard.foreign > 0 {
            faults.push(format!("the {who} got {} packets of other content", heard.foreign));
        }
    }
    let signed = if seen.identity.is_some() { "signed" } else { "not signed" };
    let location = if seen.has_location { ", with location" } else { "" };
    result.note = format!("{signed}{location}");
}

fn show(result: &Result, as_json: bool) -> std::result::Result<(), Failure> {
    let passed = result.faults.is_empty();
    let (trunk, seen) = result.took.clone().unwrap_or_else(|| ("-".into(), Seen::default()));
    if as_json {
        return print::json(&json!({
            "call": result.name,
            "from": result.from,
            "to": result.to,
            "status": result.caller.status,
            "trunk": trunk,
            "request_uri": seen.request_uri,
            "signed": seen.identity.is_some(),
            "location": seen.has_location,
            "caller_sent": result.caller.sent,
            "callee_verified": seen.heard.verified,
            "callee_sent": seen.sent,
            "caller_verified": result.caller.heard.verified,
            "verdict": if passed { "passed" } else { "failed" },
            "faults": result.faults,
        }));
    }
    let verdict = if passed { "passed" } else { "FAILED" };
    print::line(&format!("{verdict}  {} call {} -> {}", result.name, result.from, result.to))?;
    print::line(&format!(
        "        answered by {trunk} ({}), {}",
        result.caller.status,
        if result.note.is_empty() { "not seen by a trunk" } else { &result.note }
    ))?;
    print::line(&format!(
        "        audio checked octet by octet: callee heard {} of {} packets, caller heard {} of {}",
        seen.heard.verified, result.caller.sent, result.caller.heard.verified, seen.sent
    ))?;
    for fault in &result.faults {
        print::line(&format!("        fault: {fault}"))?;
    }
    Ok(())
}

/// Differs from call to call, so that late packets of one are foreign to the next.
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    nanos ^ u64::from(std::process::id()).rotate_left(48)
}

#[cfg(test)]
mod tests {
    use super::{own_number, packets};

    #[test]
    fn a_number_of_the_customer_is_made_from_its_pattern() {
        assert_eq!(own_number("+1313555*"), "+13135551111");
        assert_eq!(own_number("+13135550100"), "+13135550100");
        assert_eq!(own_number("*"), "+13131111111");
    }

    #[test]
    fn seconds_become_packets() {
        assert_eq!(packets(3), 150);
        assert_eq!(packets(60), 3_000);
    }
}
