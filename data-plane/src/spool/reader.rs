//! The reading end of the spool: hands the link the records behind a number, as they lie on disk.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use ravelin_contract::chain::Record;

use super::segment::{self, Segment};

/// Reads forward through the segments. Give it only numbers that are durable.
#[derive(Debug)]
pub struct SpoolReader {
    dir: PathBuf,
    next_seq: u64,
    open: Option<(Segment, BufReader<File>)>,
    line: Vec<u8>,
}

impl SpoolReader {
    /// Starts behind record `seq`.
    #[must_use]
    pub fn after(dir: &Path, seq: u64) -> Self {
        Self { dir: dir.to_owned(), next_seq: seq + 1, open: None, line: Vec::new() }
    }

    /// Number of the record that [`Self::read`] will give first.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The next records up to number `last`, at most `max_records` and about `max_bytes`.
    ///
    /// # Errors
    /// If the records are not there or cannot be read: `NotFound` if they were removed.
    pub fn read(
        &mut self,
        last: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while self.next_seq <= last && records.len() < max_records && bytes < max_bytes {
            let record = self.read_one()?;
            bytes += self.line.len();
            records.push(record);
            self.next_seq += 1;
        }
        Ok(records)
    }

    fn read_one(&mut self) -> io::Result<Record> {
        loop {
            if self.open.is_none() {
                self.open = Some(self.find()?);
            }
            let Some((_, reader)) = &mut self.open else { continue };
            self.line.clear();
            if reader.read_until(b'\n', &mut self.line)? == 0 {
                // The end of this segment: the record is in the one that begins with it.
                let ended = self.open.take();
                let (segment, reader) = self.find()?;
                if ended.is_some_and(|(before, _)| before.first_seq == segment.first_seq) {
                    return Err(missing(self.next_seq));
                }
                self.open = Some((segment, reader));
                continue;
            }
            // Who receives it checks the chain; here it only has to be a record.
            let record: Record = serde_json::from_slice(&self.line)?;
            match record.seq.cmp(&self.next_seq) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(record),
                std::cmp::Ordering::Greater => return Err(missing(self.next_seq)),
            }
        }
    }

    /// Opens the segment that holds the next record.
    fn find(&self) -> io::Result<(Segment, BufReader<File>)> {
        let segment = segment::list(&self.dir)?
            .into_iter()
            .rev()
            .find(|segment| segment.first_seq <= self.next_seq)
            .ok_or_else(|| missing(self.next_seq))?;
        let file = File::open(&segment.path)?;
        Ok((segment, BufReader::with_capacity(64 * 1024, file)))
    }
}

fn missing(seq: u64) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("record {seq} is not in the spool"))
}
