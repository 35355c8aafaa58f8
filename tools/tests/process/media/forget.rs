//! Keys of calls whose edge was killed and is never started again: `ravelin forget` takes them out of
//! memory, and out of nobody else's.

use std::{fs, path::Path};

use ravelin_contract::{cdr::CdrKind, chain::Entry};

use super::{
    call::Call,
    edge::{Edge, Net, Setup, media_of},
    sdes::{PORT, SUITES, Sealed, both_ways, plain_offer},
    voice::Voice,
};
use crate::support::{Process, chain, ravelin, run, text};

/// Of 127.14.0.0/16.
const PLACE: u8 = 23;

/// Whether octets stand in any record of calls in memory.
fn is_in_memory(secret: &[u8]) -> bool {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    // Other tests' folders come and go.
    let files = entries(Path::new("/dev/shm")).flat_map(|folder| entries(&folder.path()));
    let mut contents = files.filter_map(|file| fs::read(file.path()).ok());
    contents.any(|content| content.windows(secret.len()).any(|part| part == secret))
}

/// Exit code and output of `ravelin forget` for one data directory.
fn forget(data: &Path, now: bool) -> (Option<i32>, String) {
    let mut command = ravelin();
    command.arg("forget").arg("--data").arg(data);
    if now {
        command.arg("--now");
    }
    let output = run(&mut command);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn keys_of_a_killed_edge_are_forgotten_and_its_calls_are_not() {
    let suite = SUITES[2];
    let media = ["{ srtp: off }", &format!("{{ srtp: sdes, srtp_suites: [{}] }}", suite.0)];
    let setup = Setup { media, ..Setup::default() };
    let mut edge = Edge::start(Net::loopback(PLACE), &setup);
    let mut plain = Voice::new(edge.net.caller, PORT, 0x0a0a_0a0a);
    let mut sealed = Sealed::new(&edge, suite, 0x5c);
    let offer = plain_offer(edge.net.caller, 1);
    let call = Call::up(&mut edge, 1, &offer, &sealed.answer(1));
    sealed.learn(&call.invite);
    plain.to = media_of(&call.answer, 0);
    both_ways(&plain, &mut sealed, 1, plain.ssrc);
    let secrets = sealed.secrets();
    let all_in_memory = || secrets.iter().all(|secret| is_in_memory(secret));
    assert!(all_in_memory(), "a restart would find them");

    // A living edge's are its own, whatever is asked.
    for now in [false, true] {
        let (code, told) = forget(&edge.data(), now);
        assert!(code == Some(0) && told.contains("its edge lives"), "{code:?}: {told}");
        assert!(all_in_memory());
        both_ways(&plain, &mut sealed, 2 + u16::from(now), plain.ssrc);
    }

    let (net, scratch) = (edge.net, edge.kill());
    let (code, told) = forget(&scratch.data(), false);
    assert!(code == Some(1) && told.contains("takes its calls over"), "{code:?}: {told}");
    assert!(all_in_memory());
    let (code, told) = forget(&scratch.data(), true);
    assert!(code == Some(0) && told.contains("keys wiped, 1 calls"), "{code:?}: {told}");
    assert!(!secrets.iter().any(|secret| is_in_memory(secret)));

    // Should one start all the same: the call is ended, and on record.
    let mut command = ravelin();
    command.args(["edge", "--config"]).arg(scratch.path().join("ravelin.yml"));
    let mut process = Process::start(command.arg("--data").arg(scratch.data()));
    process.wait_for_line("edge: ready", 1);
    process.stop();
    let entries = chain(&scratch.data());
    let cdrs: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Cdr(cdr) if cdr.kind == CdrKind::Call => Some(cdr),
            _ => None,
        })
        .collect();
    assert_eq!(cdrs.len(), 1);
    assert_eq!((cdrs[0].cause, cdrs[0].adopted), (503, 1));
    assert_eq!(cdrs[0].source.split(':').next(), Some(&*net.caller.to_string()));
}
