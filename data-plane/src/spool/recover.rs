//! What a start does with the spool that the run before left behind: checks its tail, cuts off what
//! is not a chain (keeping a copy as evidence), and says what may be missing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use ravelin_contract::chain::{Entry, Head};

use super::segment::{self, Segment};

/// Kind of the audit event that ends the chain of a run that was stopped in order. A chain that
/// ends otherwise belongs to a run that died, and entries that were not yet written may be missing.
pub const STOPPED: &str = "edge.stopped";

/// Segments whose chain is checked at start. Older ones are checked by `ravelin audit verify`.
const SEGMENTS_CHECKED: usize = 2;

/// The spool as it was found and made usable.
#[derive(Debug)]
pub struct Recovered {
    pub head: Head,
    /// Segments that remain, oldest first; the last one is appended to.
    pub segments: Vec<Segment>,
    /// Why entries are or may be missing. How many is never known: what a dying process had not
    /// written is gone without a trace.
    pub gap: Option<String>,
}

/// Makes the spool in `dir` end in a good record.
///
/// # Errors
/// If files cannot be read, cut or copied. Nothing is cut before its copy is on disk.
pub fn recover(dir: &Path, now_unix_ms: u64) -> io::Result<Recovered> {
    fs::create_dir_all(dir)?;
    let mut segments = segment::list(dir)?;
    let mut first = segments.len().saturating_sub(SEGMENTS_CHECKED);
    // A segment whose very first line is damaged cannot anchor itself: begin one earlier.
    while first > 0 && segment::scan(&segments[first], None, |_| {})?.records == 0 {
        first -= 1;
    }

    let mut head = None;
    let mut last_entry = None;
    let mut gap = None;
    let mut index = first;
    while index < segments.len() {
        let scan = segment::scan(&segments[index], head, |_| {})?;
        let fault = scan.fault.or_else(|| misnamed(&segments[index], head));
        if scan.records > 0 {
            last_entry = scan.last_entry;
        }
        if scan.records > 0 || head.is_some() {
            head = Some(scan.head);
        }
        if let Some(fault) = fault {
            let later = segments.split_off(index + 1);
            let copy = set_aside(&mut segments[index], fault.offset, &later, now_unix_ms)?;
            gap = Some(damage(&fault.error.to_string(), copy.as_deref()));
            break;
        }
        index += 1;
    }

    // Nothing readable remains of a chain that had begun: go on with the number that the file's
    // name promises, and let the break show.
    let head = head.unwrap_or_else(|| {
        let seq = segments.last().map_or(0, |segment| segment.first_seq.saturating_sub(1));
        Head { seq, ..Head::START }
    });
    while segments.last().is_some_and(|segment| segment.bytes == 0) {
        if let Some(empty) = segments.pop() {
            fs::remove_file(&empty.path)?;
        }
    }
    if gap.is_none() && head.seq > 0 && !last_entry.is_some_and(|entry| is_stop(&entry)) {
        let reason = "the run before did not stop in order: entries that were not yet written \
                      are missing";
        gap = Some(reason.into());
    }
    sync_dir(dir)?;
    Ok(Recovered { head, segments, gap })
}

/// An empty or early-ended segment before this one makes the name of this one wrong.
fn misnamed(segment: &Segment, before: Option<Head>) -> Option<segment::Fault> {
    use ravelin_contract::chain::ChainError;
    let expected = before?.seq + 1;
    (segment.first_seq != expected).then_some(segment::Fault {
        offset: 0,
        error: ChainError::Sequence { expected, found: segment.first_seq },
        at_end: false,
    })
}

fn damage(error: &str, copy: Option<&Path>) -> String {
    match copy {
        None => format!("the last record was cut short and removed: {error}"),
        Some(copy) => format!(
            "the spool was damaged ({error}); what followed is kept in {}",
            copy.file_name().unwrap_or_default().to_string_lossy()
        ),
    }
}

fn is_stop(entry: &str) -> bool {
    matches!(serde_json::from_str(entry), Ok(Entry::Audit(event)) if event.kind == STOPPED)
}

/// Cuts `segment` at `offset` and removes the segments after it. Unless all that goes is one
/// unfinished line, it is copied to `damaged-<seq>-<time>.jsonl` first.
fn set_aside(
    segment: &mut Segment,
    offset: u64,
    later: &[Segment],
    now_unix_ms: u64,
) -> io::Result<Option<PathBuf>> {
    let mut file = OpenOptions::new().read(true).write(true).open(&segment.path)?;
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.read_to_end(&mut rest)?;
    let torn_line = later.is_empty() && !rest.contains(&b'\n');
    let mut copy = None;
    if !torn_line {
        let name = format!("damaged-{:020}-{now_unix_ms}.jsonl", segment.first_seq);
        let path = segment.path.with_file_name(name);
        let mut kept = File::create(&path)?;
        kept.write_all(&rest)?;
        for segment in later {
            io::copy(&mut File::open(&segment.path)?, &mut kept)?;
        }
        kept.sync_all()?;
        copy = Some(path);
    }
    for segment in later {
        fs::remove_file(&segment.path)?;
    }
    file.set_len(offset)?;
    file.sync_all()?;
    segment.bytes = offset;
    Ok(copy)
}

/// Makes names that were created or removed in `dir` durable.
///
/// # Errors
/// If the directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
