//! The writing end of the chain on disk: seals, appends, syncs, rotates, forgets.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use ravelin_contract::chain::{Entry, Head};

use super::{
    recover::{Recovered, sync_dir},
    segment::{self, Segment},
};

/// How large segments grow, and how much is kept of what is no longer needed here.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// A segment that has reached this size gets a successor.
    pub segment_max_bytes: u64,
    /// Segments that are stored elsewhere are kept while all segments together are at most this.
    pub retain_bytes: u64,
}

impl Sizes {
    /// 16 MiB a segment; 1 GiB kept.
    pub const DEFAULT: Self =
        Self { segment_max_bytes: 16 * 1024 * 1024, retain_bytes: 1024 * 1024 * 1024 };
}

/// The chain on disk. Everything up to [`Self::head`] is durable: an append that fails leaves chain
/// and file as they were before it.
#[derive(Debug)]
pub struct ChainFile {
    dir: PathBuf,
    sizes: Sizes,
    head: Head,
    segments: Vec<Segment>,
    file: Option<File>,
    /// The file may hold more than [`Segment::bytes`] says: cut it before the next write.
    dirty: bool,
    line: Vec<u8>,
}

impl ChainFile {
    #[must_use]
    pub fn new(dir: &Path, sizes: Sizes, recovered: Recovered) -> Self {
        Self {
            dir: dir.to_owned(),
            sizes,
            head: recovered.head,
            segments: recovered.segments,
            file: None,
            dirty: true,
            line: Vec::new(),
        }
    }

    /// After the last durable record.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Octets of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Appends all of `entries` and makes them durable, or none of them.
    ///
    /// # Errors
    /// If the disk is full or broken. The same entries may be given again.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut head = self.head;
        self.line.clear();
        for entry in entries {
            let record = head.seal(entry)?;
            serde_json::to_writer(&mut self.line, &record)?;
            self.line.push(b'\n');
        }
        let written = self.write_line_buffer();
        if written.is_err() {
            self.dirty = true;
        } else {
            self.head = head;
        }
        written
    }

    fn write_line_buffer(&mut self) -> io::Result<()> {
        let full =
            self.segments.last().is_none_or(|last| last.bytes >= self.sizes.segment_max_bytes);
        if full {
            self.start_segment()?;
        }
        let Some(last) = self.segments.last_mut() else {
            return Err(io::Error::other("no segment is open"));
        };
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(OpenOptions::new().append(true).open(&last.path)?),
        };
        if self.dirty {
            file.set_len(last.bytes)?;
            self.dirty = false;
        }
        file.write_all(&self.line)?;
        file.sync_data()?;
        last.bytes += self.line.len() as u64;
        Ok(())
    }

    fn start_segment(&mut self) -> io::Result<()> {
        let first_seq = self.head.seq + 1;
        let path = segment::path(&self.dir, first_seq);
        self.file = None;
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        file.set_len(0)?;
        sync_dir(&self.dir)?;
        self.file = Some(file);
        self.segments.push(Segment { first_seq, path, bytes: 0 });
        Ok(())
    }

    /// Removes the oldest segments whose records are all stored elsewhere (number at most
    /// `stored_seq`), as far as needed to come down to the size that is kept. Returns the number of
    /// the first record that is still here.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn forget(&mut self, stored_seq: u64) -> io::Result<u64> {
        let mut bytes = self.bytes();
        let mut gone = 0;
        for pair in self.segments.windows(2) {
            if bytes <= self.sizes.retain_bytes || pair[1].first_seq > stored_seq + 1 {
                break;
            }
            fs::remove_file(&pair[0].path)?;
            bytes -= pair[0].bytes;
            gone += 1;
        }
        self.segments.drain(..gone);
        Ok(self.segments.first().map_or(self.head.seq + 1, |first| first.first_seq))
    }

    /// Puts every segment aside under `audit/<name>/` and lets the chain go on after `head`.
    /// Returns what was put aside, oldest first.
    ///
    /// # Errors
    /// If files cannot be moved.
    pub fn rebase(&mut self, head: Head, name: &str) -> io::Result<Vec<Segment>> {
        let aside = self.dir.join(name);
        fs::create_dir_all(&aside)?;
        self.file = None;
        let mut moved = Vec::new();
        for segment in std::mem::take(&mut self.segments) {
            let path = segment::path(&aside, segment.first_seq);
            fs::rename(&segment.path, &path)?;
            moved.push(Segment { path, ..segment });
        }
        sync_dir(&aside)?;
        sync_dir(&self.dir)?;
        self.head = head;
        Ok(moved)
    }
}
