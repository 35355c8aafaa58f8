//! `ravelin parse`: the verdict of the data plane's parser on files.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use ravelin_wire::verdict::{Verdict, verdict};
use serde::Serialize;

use crate::{
    cli::ParseArgs,
    exit::{Failure, Outcome},
    print,
};

/// Read of one file at most: far more than any message may have, so that the verdict on a longer
/// file is that of its beginning, "too large".
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    verdict: &'a str,
    kind: Option<String>,
    cause: Option<u16>,
    reason: Option<&'a str>,
}

pub(crate) fn run(args: &ParseArgs) -> Result<Outcome, Failure> {
    let mut passed = true;
    let mut unreadable = None;
    for path in &args.files {
        let name = path.to_string_lossy();
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let failure = Failure::cannot_run(format!("{name} cannot be read: {error}"));
                if let Some(before) = unreadable.replace(failure) {
                    eprintln!("ravelin: {before}");
                }
                continue;
            }
        };
        let line = match verdict(&bytes) {
            Verdict::Accept { kind } => Line {
                file: &name,
                verdict: "accept",
                kind: Some(kind.to_string()),
                cause: None,
                reason: None,
            },
            Verdict::Reject { cause, reason } => {
                passed = false;
                Line {
                    file: &name,
                    verdict: "reject",
                    kind: None,
                    cause: Some(cause),
                    reason: Some(reason),
                }
            }
        };
        if args.json {
            print::json(&line)?;
        } else {
            print::line(&text(&line))?;
        }
    }
    unreadable.map_or_else(|| Ok(Outcome::of(passed)), Err)
}

fn text(line: &Line<'_>) -> String {
    let mut text = format!("{} {}", print::plain(line.file), line.verdict);
    if let Some(kind) = &line.kind {
        text.push(' ');
        text.push_str(kind);
    }
    if let (Some(cause), Some(reason)) = (line.cause, line.reason) {
        text.push_str(&format!(" {cause} {reason}"));
    }
    text
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
