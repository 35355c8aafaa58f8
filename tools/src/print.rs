//! Printing results. A reader that goes away (`ravelin calls | head`) ends the program quietly.

use std::io::{self, Write};

use serde::Serialize;

use crate::exit::Failure;

/// Writes one line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    finish(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")))
}

/// Writes one JSON object on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::cannot_run(format!("the result cannot be written: {error}")))?;
    line(&text)
}

fn finish(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::cannot_run(format!("standard output: {error}"))),
    }
}

/// Text from elsewhere without characters that would move the cursor or forge lines.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
