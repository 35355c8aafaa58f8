//! Instructions per operation, counted by callgrind: a figure that a busy machine does not change,
//! for comparing two commits. `cargo bench -p ravelin-bench --bench instructions`; needs valgrind
//! (Debian package of that name). A name as argument counts only what contains it.
//!
//! Each work runs under callgrind with collection inside of one function; the figure is the
//! difference of two runs of different length, so that nothing of the preparation is in it.

use std::{
    env,
    hint::black_box,
    process::{Command, ExitCode},
};

use ravelin_bench::{
    messages::{BYE, OK, invite},
    rig::Rig,
    work::{parse_and_read, rewrite_sdp, write},
};
use ravelin_wire::sip::{Framing, Message};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Marks the process that is being counted.
const WORK: &str = "--work";
/// Operations of the shorter run; the longer has twice as many.
const OPERATIONS: u32 = 200;
/// Calls that come before: the tables of the engine are in use, their memory is there.
const CALLS_BEFORE: u32 = 400;

/// Name, the functions that are collected in, and the work.
type Work = (&'static str, &'static [&'static str], fn(u32));

const WORKS: &[Work] = &[
    ("sip_parse/invite_sdp", &["*work::parse_and_read"], |n| parse(&invite(), n)),
    ("sip_parse/200_sdp", &["*work::parse_and_read"], |n| parse(OK, n)),
    ("sip_parse/bye", &["*work::parse_and_read"], |n| parse(BYE, n)),
    ("sip_write/invite_sdp", &["*work::write"], |n| rewrite(&invite(), n)),
    ("sip_write/200_sdp", &["*work::write"], |n| rewrite(OK, n)),
    ("sip_write/bye", &["*work::write"], |n| rewrite(BYE, n)),
    ("sdp/rewrite", &["*work::rewrite_sdp"], |n| {
        let invite = invite();
        let body = Message::parse(&invite, Framing::Datagram).expect("valid").body();
        let mut out = Vec::with_capacity(1024);
        for _ in 0..n {
            out.clear();
            rewrite_sdp(body, &mut out);
        }
    }),
    ("engine/whole_call", &["*rig::receive", "*rig::end_turn"], |n| {
        let mut rig = Rig::new();
        for _ in 0..CALLS_BEFORE + n {
            black_box(rig.call());
        }
    }),
];

fn parse(bytes: &[u8], operations: u32) {
    for _ in 0..operations {
        black_box(parse_and_read(black_box(bytes)));
    }
}

fn rewrite(bytes: &[u8], operations: u32) {
    let message = Message::parse(bytes, Framing::Datagram).expect("valid");
    let mut out = Vec::with_capacity(2048);
    for _ in 0..operations {
        out.clear();
        write(black_box(&message), &mut out);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [mark, name, operations] = arguments.as_slice()
        && mark == WORK
    {
        let found = WORKS.iter().find(|(known, ..)| known == name);
        let (Some((.., work)), Ok(operations)) = (found, operations.parse()) else {
            return ExitCode::FAILURE;
        };
        work(operations);
        return ExitCode::SUCCESS;
    }
    // Cargo hands over flags of its own.
    let wanted = arguments.iter().find(|argument| !argument.starts_with("--"));
    for (name, functions, _) in WORKS {
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let counted = collected(name, functions, OPERATIONS * 2)
            .zip(collected(name, functions, OPERATIONS))
            .map(|(long, short)| long.saturating_sub(short) / u64::from(OPERATIONS));
        match counted {
            Some(instructions) => println!("{name:<24} {instructions:>8} instructions"),
            None => {
                eprintln!("{name}: callgrind gave no figure; is valgrind installed?");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// What callgrind collected in `functions` while `name` ran.
fn collected(name: &str, functions: &[&str], operations: u32) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(functions.iter().map(|function| format!("--toggle-collect={function}")))
        .arg(env::current_exe().ok()?)
        .args([WORK, name, &operations.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().find_map(|line| line.split("Collected : ").nth(1)?.trim().parse().ok())
}
