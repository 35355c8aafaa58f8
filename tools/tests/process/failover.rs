//! Trunks whose machines refuse: the next one is tried at once, on every shard.

use std::{io::Read, net::TcpListener};

use ravelin_contract::{cdr::CdrKind, chain::Entry};

use crate::{
    peer::Peer,
    support::{Process, Scratch, address, chain, config, ravelin},
};

const TRANSPORT_FAILED: u16 = 402;
/// Calls placed: enough that both shards own some. They fall on one of two by a keyed hash: all on the
/// same one once in 8 million runs.
const CALLS: usize = 24;

/// Dials `user` some times; the carrier or PSAP at `last` refuses each. Returns shard and cause of
/// each attempt at `dead`.
fn place_calls(
    place: u8,
    config: &str,
    user: &str,
    dead: &str,
    last: std::net::SocketAddr,
) -> Vec<(u8, u16)> {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", config);
    let mut command = ravelin();
    command.arg("edge").arg("--config").arg(&file).arg("--data").arg(scratch.data());
    let mut process = Process::start(&mut command);
    process.wait_for_line("edge: ready", 1);
    let mut caller = Peer::new(address(place, 1, 7, 0), address(place, 0, 10, 5060));
    let mut callee = Peer::new(last, address(place, 0, 20, 5060));
    for number in 0..CALLS {
        let name = format!("{user}-{number}").replace('+', "p");
        caller.invite(&name, user);
        let invite = callee.expect("INVITE ", "");
        callee.reply(&invite, "200 OK");
        let answer = caller.expect("SIP/2.0 200", &name);
        caller.ack(&name, &answer);
        callee.expect("ACK ", "");
    }
    process.signal("TERM");
    process.signal("TERM");
    process.wait();
    chain(&scratch.data())
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Cdr(cdr)
                if cdr.kind == CdrKind::Attempt && cdr.outbound_trunk.as_deref() == Some(dead) =>
            {
                Some((cdr.shard, cdr.cause))
            }
            _ => None,
        })
        .collect()
}

fn all_failed_at_once(attempts: &[(u8, u16)]) {
    assert_eq!(attempts.len(), CALLS);
    for shard in [0, 1] {
        assert!(attempts.iter().any(|attempt| attempt.0 == shard), "one shard: {attempts:?}");
    }
    let told = attempts.iter().all(|attempt| attempt.1 == TRANSPORT_FAILED);
    assert!(told, "a timer had to run out: {attempts:?}");
}

/// An ICMP error reaches one of the sockets that share the port, not always that of the sender.
#[test]
fn a_closed_udp_port_is_left_at_once_on_every_shard() {
    const PLACE: u8 = 20;
    let config = config(PLACE);
    let last = address(PLACE, 9, 2, 5060);
    all_failed_at_once(&place_calls(PLACE, &config, "911", "detroit_emergency", last));
    let last = address(PLACE, 3, 1, 5060);
    all_failed_at_once(&place_calls(PLACE, &config, "+12125550001", "carrier-a", last));
}

fn over_tcp(place: u8) -> String {
    let target = format!("{{ uri: \"sip:{}\" }}", address(place, 9, 1, 5060));
    let config = config(place);
    assert!(config.contains(&target), "{config}");
    config.replace(&target, &target.replace(" }", ", transport: tcp }"))
}

#[test]
fn a_tcp_trunk_that_refuses_is_left_at_once() {
    const PLACE: u8 = 21;
    let last = address(PLACE, 9, 2, 5060);
    all_failed_at_once(&place_calls(PLACE, &over_tcp(PLACE), "911", "detroit_emergency", last));
}

#[test]
fn a_tcp_trunk_that_hangs_up_on_the_request_is_left_at_once() {
    const PLACE: u8 = 22;
    let listener = TcpListener::bind(address(PLACE, 9, 1, 5060)).expect("a listener");
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            // The request is read whole, so that the end is a FIN and no reset.
            let mut connection = connection;
            let mut buffer = [0; 65_536];
            let mut seen = Vec::new();
            while !String::from_utf8_lossy(&seen).contains("</presence>") {
                match connection.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(length) => seen.extend_from_slice(&buffer[..length]),
                }
            }
        }
    });
    let last = address(PLACE, 9, 2, 5060);
    all_failed_at_once(&place_calls(PLACE, &over_tcp(PLACE), "911", "detroit_emergency", last));
}
