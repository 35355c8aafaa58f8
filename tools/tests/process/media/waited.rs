//! What the edge says of the time that it adds to the way of a packet, compared with what it added.

use std::time::{Duration, Instant};

use ravelin_contract::{chain::Head, link::Up, metrics::MetricsReport};

use super::{
    call::Call,
    edge::{Edge, Setup, description, media_of},
    namespaces::Spaces,
    voice::{Voice, talk, talk_within},
};
use crate::support::PATIENCE;

const PORT: u16 = 40_000;
const HELD: Duration = Duration::from_millis(400);

/// Packets that the shards have relayed, and the longest that they kept one.
fn added(report: &MetricsReport) -> (u64, Duration) {
    let of_name = report.histograms.iter().filter(|it| it.name == "media_added_latency");
    of_name.fold((0, Duration::ZERO), |(count, longest), it| {
        (count + it.count, longest.max(Duration::from_nanos(it.max_ns)))
    })
}

/// The first figures with so many packets.
fn wait_for(edge: &mut Edge, packets: u64) -> Duration {
    let control = edge.control.as_mut().expect("a control plane");
    let end = Instant::now() + PATIENCE;
    loop {
        let report = control.until("metrics", |frame| match frame {
            Up::Metrics(report) => Some(report),
            _ => None,
        });
        let (count, longest) = added(&report);
        if count >= packets {
            return longest;
        }
        assert!(Instant::now() < end, "{count} of {packets} packets");
    }
}

/// Figures have two digits.
fn at_most(begun: Instant) -> Duration {
    begun.elapsed().mul_f64(1.02)
}

fn time_in_the_socket_counts(spaces: &Spaces, driver: &str) {
    let setup = Setup { driver, followed: true, ..Setup::default() };
    let mut edge = Edge::start_in(Some(spaces), Spaces::net(), &setup);
    edge.control.as_mut().expect("a control plane").welcome(Head::START);
    let lines = format!("m=audio {PORT} RTP/AVP 0\n");
    let [offer, answer] = edge.net.parties().map(|ip| description(ip, 1, &lines));
    let call = Call::up(&mut edge, 1, &offer, &answer);
    let [near, far] = edge.net.parties();
    let (mut caller, mut callee) = (Voice::new(near, PORT, 7), Voice::new(far, PORT, 8));
    (caller.to, callee.to) = (media_of(&call.answer, 0), media_of(&call.invite, 0));
    let mut parties = [[caller, callee]];
    let begun = Instant::now();
    talk(&mut parties, false);
    let before = wait_for(&mut edge, 2);
    assert!(before <= at_most(begun), "{before:?} of {:?}", begun.elapsed());
    // While the whole process stands still, two packets lie in their sockets.
    let begun = Instant::now();
    let mut said = 1;
    loop {
        let waiting = edge.frozen(|| talk_within(HELD, &mut parties, false));
        talk(&mut parties, false);
        said += 2;
        if waiting == 2 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it never stands still");
    }
    let longest = wait_for(&mut edge, 2 * said);
    // The longest of all may still be one of before.
    let most = at_most(begun).max(before);
    assert!(longest >= HELD && longest <= most, "{longest:?} of {most:?}");
    call.end(&mut edge);
    edge.stop();
}

#[test]
fn time_in_the_socket_is_time_that_the_edge_adds() {
    let name = "time_in_the_socket_is_time_that_the_edge_adds";
    for driver in ["uring", "mmsg"] {
        match Spaces::new() {
            Ok(spaces) => spaces.at_the_peers(|| time_in_the_socket_counts(&spaces, driver)),
            Err(why) => println!("skipped: {name}: {why}"),
        }
    }
}
