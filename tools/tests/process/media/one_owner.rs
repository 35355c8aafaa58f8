//! Two edges under one node's name on one machine: the second would take the first one's program and
//! streams out of the kernel, so it does not start.

use std::process::Command;

use super::{
    call::Call,
    edge::{Edge, Net, Setup, config, description, media_of},
    namespaces::Spaces,
    voice::{Voice, talk},
};
use crate::support::{Process, Scratch, ravelin, run, text};

/// Of 127.14.0.0/16, where no fast path is to be had.
const PLACE: u8 = 24;
const PORT: u16 = 40_000;

fn edge(scratch: &Scratch, net: &Net, driver: &str, node: &str) -> Command {
    let setup = Setup { driver, ..Setup::default() };
    let file = scratch.write("ravelin.yml", &config(net, &setup, node));
    let mut command = ravelin();
    command.args(["edge", "--config"]).arg(file).arg("--data").arg(scratch.data());
    command
}

fn two_edges(spaces: &Spaces, others: &Spaces) {
    let setup = Setup { driver: "xdp", ..Setup::default() };
    let (mut first, node) = (Edge::start_in(Some(spaces), Spaces::net(), &setup), spaces.node());
    let streams = format!("m=audio {PORT} RTP/AVP 0\n");
    let [offer, answer] = first.net.parties().map(|ip| description(ip, 1, &streams));
    let call = Call::up(&mut first, 1, &offer, &answer);
    let [mut caller, mut callee] = first.net.parties().map(|ip| Voice::new(ip, PORT, 7));
    (caller.to, callee.to) = (media_of(&call.answer, 0), media_of(&call.invite, 0));
    let mut parties = [[caller, callee]];
    for _ in 0..20 {
        talk(&mut parties, false);
    }

    // One that could have a fast path of its own, elsewhere on the machine; and one that could not,
    // and would take down what it takes for a leftover.
    let loopback = Net::loopback(PLACE);
    for (driver, net, space) in
        [("xdp", Spaces::net(), Some(others)), ("auto", loopback, None), ("uring", loopback, None)]
    {
        let scratch = Scratch::new();
        let mut second = edge(&scratch, &net, driver, &node);
        let output = match space {
            Some(space) => space.at_the_edge(|| run(&mut second)),
            None => run(&mut second),
        };
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{driver}: {log}");
        let last = log.lines().last().unwrap_or_default();
        for part in [&*node, &format!("process {}", first.id()), "stop that one", "`node`"] {
            assert!(last.contains(part), "{driver}: no {part:?} in {last}");
        }
        for _ in 0..20 {
            talk(&mut parties, false);
        }
    }

    // Another name hinders nobody, and a dead one holds nothing.
    let scratch = Scratch::new();
    let start = |node: &str| {
        let mut process = Process::start(&mut edge(&scratch, &loopback, "auto", node));
        process.wait_for_line("edge: ready", 1);
        process
    };
    start("another").stop();
    drop(first.kill());
    let second = start(&node);
    assert!(second.log().contains("fast path of an earlier process is taken down"));
    second.stop();
}

#[test]
fn a_second_edge_of_one_name_is_refused_while_the_first_lives() {
    match (Spaces::new(), Spaces::new()) {
        (Ok(spaces), Ok(others)) => spaces.at_the_peers(|| two_edges(&spaces, &others)),
        (Err(why), _) | (_, Err(why)) => {
            println!("skipped: a_second_edge_of_one_name_is_refused_while_the_first_lives: {why}");
        }
    }
}
