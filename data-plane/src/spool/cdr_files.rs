//! `cdr/<UTC day>.jsonl`: the CDRs as plain JSON lines for users and their tools. The chain is the
//! truth; these files are a rendering of it and carry no evidence.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use ravelin_contract::{cdr::Cdr, chain::Entry};

use crate::telemetry::utc_day;

/// The file of one day.
#[derive(Debug)]
pub(super) struct CdrFiles {
    dir: PathBuf,
    day: String,
    file: Option<File>,
    text: Vec<u8>,
}

impl CdrFiles {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), day: String::new(), file: None, text: Vec::new() }
    }

    /// Appends the CDRs among `entries`. A call belongs to the day on which it began.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.text.clear();
        for entry in entries {
            let Entry::Cdr(cdr) = entry else { continue };
            self.change_day(cdr)?;
            serde_json::to_writer(&mut self.text, cdr)?;
            self.text.push(b'\n');
        }
        self.flush()
    }

    fn change_day(&mut self, cdr: &Cdr) -> io::Result<()> {
        let day = utc_day(cdr.start_unix_ms);
        if day != self.day || self.file.is_none() {
            self.flush()?;
            self.file = Some(open_day(&self.dir.join(format!("{day}.jsonl")))?);
            self.day = day;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file
            && !self.text.is_empty()
        {
            let written = file.write_all(&self.text);
            self.text.clear();
            if written.is_err() {
                self.file = None;
            }
            return written;
        }
        Ok(())
    }
}

/// Opens for appending and cuts an unfinished last line that a crash or a full disk left.
fn open_day(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    let mut end = length;
    let mut octet = [0];
    while end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut octet)?;
        if octet == *b"\n" {
            break;
        }
        end -= 1;
    }
    if end != length {
        file.set_len(end)?;
    }
    Ok(file)
}
