//! The file of one shard: a page that says whose it is, then two pages for each slot of the call
//! table, which take turns.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use ravelin_engine::{
    checkpoint::{self, Change, LAYOUT, RECORD_BYTES_MAX, RECORD_HEAD_BYTES},
    time::Instant,
};

use crate::telemetry::log;

const MAGIC: &[u8; 8] = b"RvCalls1";
/// Octets of one copy of one record.
pub(super) const COPY_BYTES: u64 = RECORD_BYTES_MAX as u64;
/// Before the first slot.
pub(super) const HEAD_BYTES: u64 = COPY_BYTES;
const BOOT_BYTES: usize = 36;
/// Where the time stands at which the process was alive.
const ALIVE_AT: u64 = 64;
/// How often it is written.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// Which life of which machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The kernel's own id of this boot: monotonic times compare within one.
    pub(super) boot: String,
}

impl Origin {
    pub(super) fn of_this_boot() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { boot: format!("{:<36.36}", boot.trim()) }
    }
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) origin: Origin,
    pub(super) shards: u8,
    /// When the process was last known to be alive, by its clock.
    pub(super) alive: Instant,
    /// The newest sound copy of each slot; if none is sound, what there is, so that it is counted.
    pub(super) records: Vec<Vec<u8>>,
}

/// The records of one shard, being written.
#[derive(Debug)]
pub(crate) struct Slots {
    file: File,
    path: PathBuf,
    /// Until it is published it has another name.
    draft: PathBuf,
    next_alive: Instant,
    /// Writes that failed: these calls would not outlive the process.
    pub(crate) errors: u64,
    /// Octets written.
    pub(crate) written: u64,
}

fn copy_at(slot: u32, copy: u64) -> u64 {
    HEAD_BYTES + (u64::from(slot) * 2 + copy % 2) * COPY_BYTES
}

impl Slots {
    pub(super) fn create(path: &Path, shard: u8, shards: u8, origin: &Origin) -> io::Result<Self> {
        let draft = path.with_extension("new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&draft)?;
        let mut head = Vec::with_capacity(64);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&LAYOUT.to_le_bytes());
        head.extend_from_slice(&[shard, shards]);
        head.extend_from_slice(origin.boot.as_bytes());
        file.write_all_at(&head, 0)?;
        let next_alive = Instant::default();
        Ok(Self { file, path: path.to_owned(), draft, next_alive, errors: 0, written: 0 })
    }

    /// Takes the place of the file of the process before: from now on a crash finds this one.
    pub(crate) fn publish(&self) -> io::Result<()> {
        fs::rename(&self.draft, &self.path)
    }

    /// Notes now and then that the process is alive.
    pub(crate) fn alive(&mut self, now: Instant) {
        if now < self.next_alive {
            return;
        }
        self.next_alive = now + ALIVE_EVERY;
        let written = self.file.write_all_at(&now.0.to_le_bytes(), ALIVE_AT);
        self.note(written);
    }

    /// Does what the engine asks for.
    pub(crate) fn apply(&mut self, change: Change<'_>) {
        let done = match change {
            Change::Put { slot, sequence, bytes } => {
                self.written += bytes.len() as u64;
                self.file.write_all_at(bytes, copy_at(slot, sequence))
            }
            Change::Remove { slot } => {
                // All of it: there may be keys in it.
                let nothing = [0; RECORD_BYTES_MAX];
                let first = self.file.write_all_at(&nothing, copy_at(slot, 0));
                first.and_then(|()| self.file.write_all_at(&nothing, copy_at(slot, 1)))
            }
        };
        self.note(done);
    }

    fn note(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            if self.errors == 0 {
                let text = format!(
                    "{}: calls would not outlive a crash any more: {error}",
                    self.path.display()
                );
                log("alarm", "shard", &text);
            }
            self.errors += 1;
        }
    }
}

/// Reads the file of a shard of the process before.
///
/// # Errors
/// There is none, it cannot be read, or is no such file.
pub(super) fn read(path: &Path) -> io::Result<Found> {
    let file = File::open(path)?;
    let mut head = [0; 12 + BOOT_BYTES];
    file.read_exact_at(&mut head, 0)?;
    let (magic, rest) = head.split_at(MAGIC.len());
    let (layout, rest) = rest.split_at(2);
    if magic != MAGIC {
        return Err(io::Error::other("not a file of calls"));
    }
    let layout = u16::from_le_bytes([layout[0], layout[1]]);
    if layout != LAYOUT {
        // They are handed on all the same: each is refused by its number, and counted.
        let text = format!(
            "{}: another version left these calls (layout {layout}, this one has {LAYOUT}): none of \
             them can be taken over",
            path.display()
        );
        log("alarm", "start", &text);
    }
    let (numbers, boot) = rest.split_at(2);
    let origin = Origin { boot: String::from_utf8_lossy(boot).into_owned() };
    let alive = alive_at(&file);
    let length = file.metadata()?.len().saturating_sub(HEAD_BYTES);
    let slots = u32::try_from(length.div_ceil(2 * COPY_BYTES)).unwrap_or(u32::MAX);
    let records = (0..slots).filter_map(|slot| newest(&file, slot)).collect();
    Ok(Found { origin, shards: numbers[1], alive, records })
}

/// When the process that wrote a file was last known to be alive.
pub(super) fn alive_at(file: &File) -> Instant {
    let mut alive = [0; 8];
    // Written behind the head; a process that ended before that was hardly alive.
    let read = file.read_exact_at(&mut alive, ALIVE_AT);
    Instant(read.map_or(0, |()| u64::from_le_bytes(alive)))
}

/// The newest sound copy of a slot, else any that is there.
fn newest(file: &File, slot: u32) -> Option<Vec<u8>> {
    let copies = [0, 1].map(|copy| {
        let at = copy_at(slot, copy);
        let mut head = [0; RECORD_HEAD_BYTES];
        file.read_exact_at(&mut head, at).ok()?;
        // Most of a table is empty.
        head.iter().any(|octet| *octet != 0).then(|| read_at_most(file, at))
    });
    let sequence = |bytes: &Vec<u8>| checkpoint::sequence(bytes).ok();
    copies.into_iter().flatten().max_by_key(sequence)
}

pub(super) fn read_at_most(file: &File, at: u64) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_BYTES_MAX];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    bytes.truncate(length);
    bytes
}
