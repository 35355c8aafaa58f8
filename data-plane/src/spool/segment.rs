//! Segment files: `audit/segment-<first seq>.jsonl`, one chain record per line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use ravelin_contract::chain::{self, ChainError, Head, Record};

const PREFIX: &str = "segment-";
const SUFFIX: &str = ".jsonl";

/// One segment on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of its first record, taken from the file's name.
    pub first_seq: u64,
    pub path: PathBuf,
    pub bytes: u64,
}

/// Name of the segment whose first record is `first_seq`.
#[must_use]
pub fn path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{first_seq:020}{SUFFIX}"))
}

/// The segments of `dir`, oldest first.
///
/// # Errors
/// If the directory cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let first_seq = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        if let Some(first_seq) = first_seq {
            let bytes = entry.metadata()?.len();
            segments.push(Segment { first_seq, path: entry.path(), bytes });
        }
    }
    segments.sort_by_key(|segment| segment.first_seq);
    Ok(segments)
}

/// Where and how a segment stops being a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Octets of the file before the faulty line.
    pub offset: u64,
    pub error: ChainError,
    /// The faulty line is the last one of the file: what a write that was cut short looks like.
    pub at_end: bool,
}

/// What reading a segment from its start found.
#[derive(Clone, Debug)]
pub struct Scan {
    /// After the last good record.
    pub head: Head,
    /// Octets that the good records fill.
    pub good_bytes: u64,
    /// Records read and found good.
    pub records: u64,
    /// Text of the last good entry.
    pub last_entry: Option<String>,
    pub fault: Option<Fault>,
}

/// Checks every line of a segment. Without `anchor`, the first record's own `prev` is believed:
/// the records before it are gone or checked elsewhere. `each` sees every good record.
///
/// # Errors
/// If the file cannot be read; a broken chain is a [`Fault`].
pub fn scan(
    segment: &Segment,
    anchor: Option<Head>,
    mut each: impl FnMut(&Record),
) -> io::Result<Scan> {
    let mut reader = BufReader::with_capacity(256 * 1024, File::open(&segment.path)?);
    let mut scan = Scan {
        head: anchor.unwrap_or(Head::START),
        good_bytes: 0,
        records: 0,
        last_entry: None,
        fault: None,
    };
    let mut anchored = anchor.is_some();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(scan);
        }
        let outcome = parse_line(&line, scan.records + 1).and_then(|record| {
            if !anchored {
                scan.head = self_anchor(&record, segment.first_seq)?;
                anchored = true;
            }
            scan.head.accept(&record)?;
            Ok(record)
        });
        match outcome {
            Ok(record) => {
                scan.good_bytes += read as u64;
                scan.records += 1;
                each(&record);
                scan.last_entry = Some(record.entry.get().to_owned());
            }
            Err(error) => {
                let at_end = reader.fill_buf()?.is_empty();
                scan.fault = Some(Fault { offset: scan.good_bytes, error, at_end });
                return Ok(scan);
            }
        }
    }
}

/// Reads one line, end of line included, as a record. Every octet counts: a line that says the same
/// in other octets is not the line that was sealed.
///
/// # Errors
/// [`ChainError::Malformed`] with `line` as its number.
pub fn parse_line(line: &[u8], number: u64) -> Result<Record, ChainError> {
    let malformed = |reason: &str| ChainError::Malformed { line: number, reason: reason.into() };
    let Some(text) = line.strip_suffix(b"\n") else {
        return Err(malformed("the line has no end"));
    };
    let record: Record =
        serde_json::from_slice(text).map_err(|error| malformed(&error.to_string()))?;
    let again = serde_json::to_vec(&record).map_err(|error| malformed(&error.to_string()))?;
    if again != text {
        return Err(malformed("not written the way records are written"));
    }
    Ok(record)
}

/// The head that a segment's first record claims to follow.
fn self_anchor(record: &Record, first_seq: u64) -> Result<Head, ChainError> {
    if record.seq != first_seq || record.seq == 0 {
        return Err(ChainError::Sequence { expected: first_seq, found: record.seq });
    }
    let seq = record.seq;
    let hash = chain::hash_from_hex(&record.prev).ok_or(ChainError::Broken { seq })?;
    let anchor = Head { seq: seq - 1, hash };
    if anchor.seq == 0 && anchor != Head::START {
        return Err(ChainError::Broken { seq });
    }
    Ok(anchor)
}
