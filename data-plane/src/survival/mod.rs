//! What outlives the process: the records of confirmed calls, in one file per shard that a killed
//! process leaves in memory, and their way back into the next one.
//!
//! The engine says what changes; here is where it is written, before anything of the same turn is
//! sent. A plain `pwrite` to a file in memory (tmpfs) does it, 2 to 4 microseconds on a loaded
//! virtual machine, about five times in the life of a call: no mapping, no page faults in the
//! shard's code and nothing unsafe. On a disk a shard could wait for the journal; memory it is. The
//! end of a process does not tear such a write, for a record is at most a page; a checksum and a
//! second copy are there all the same.

mod forget;
mod slots;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use ravelin_engine::{checkpoint::NotAdopted, time::Instant};

pub use forget::{ForgetOutcome, Forgotten, forget};
pub(crate) use slots::Slots;
use slots::{Origin, read};

use crate::telemetry::log;

/// A process that starts later than this after the one before was alive takes no calls over: who was
/// in them has hung up, and nobody heard it. They end with their records.
pub(crate) const ADOPTED_WITHIN: Duration = Duration::from_secs(120);
/// `statfs` type of a file system in memory.
const TMPFS: i64 = 0x0102_1994;
/// Where such a file system is on every Linux.
const MEMORY: &str = "/dev/shm";
/// How long a start waits for who wipes keys in its place: that takes a moment.
const HOLD_WITHIN: Duration = Duration::from_secs(5);
const HOLD_STEP: Duration = Duration::from_millis(10);

/// The files of one data directory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    origin: Origin,
    in_memory: bool,
    /// The folder, locked as long as this process lives.
    _held: Option<Arc<File>>,
}

/// What one shard of the process before left.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) records: Vec<Vec<u8>>,
    /// None of these calls can go on.
    pub(crate) condemned: Option<NotAdopted>,
    /// When the process before was last known to be alive.
    pub(crate) alive: Instant,
}

impl Place {
    /// Finds the place of a data directory: `DIR/run` if that is in memory, else a directory of this
    /// user's own in `/dev/shm`, named after `DIR`; without one, `DIR/run` all the same.
    ///
    /// # Errors
    /// Another process has it.
    pub(crate) fn find(data: &Path) -> Result<Self, String> {
        let run = data.join("run");
        let origin = Origin::of_this_boot();
        let (dir, in_memory) =
            if is_in_memory(&run) { (run, true) } else { Self::apart(data, run) };
        let held = Self::hold(&dir)?;
        Ok(Self { dir, origin, in_memory, _held: held })
    }

    fn apart(data: &Path, run: PathBuf) -> (PathBuf, bool) {
        match in_shared_memory(data) {
            Ok(dir) => (dir, true),
            Err(error) => {
                let text = format!(
                    "records of calls are on a disk, which may make a shard wait, and calls with SRTP \
                     or ICE have none, for no key is written to a disk: {MEMORY} cannot be used \
                     ({error})"
                );
                log("warning", "start", &text);
                (run, false)
            }
        }
    }

    /// Two edges whose folders of records are one: data directories of one name in two containers
    /// that share this memory.
    fn hold(dir: &Path) -> Result<Option<Arc<File>>, String> {
        for _ in 0..=HOLD_WITHIN.as_millis() / HOLD_STEP.as_millis() {
            match forget::hold(dir) {
                Ok(Some(held)) => return Ok(Some(Arc::new(held))),
                Ok(None) => thread::sleep(HOLD_STEP),
                // No locks there: the one on the data directory has to do.
                Err(_) => return Ok(None),
            }
        }
        Err(format!(
            "another process keeps its records of calls in {}: stop that one, or give another --data",
            dir.display()
        ))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether what is written here never reaches a disk: keys may be in it.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    fn file(&self, shard: u8) -> PathBuf {
        self.dir.join(format!("calls-{shard}.map"))
    }

    /// Whether a process before left calls, as far as the files' lengths tell.
    pub(crate) fn has_calls(&self) -> bool {
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut lengths = files
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "map"))
            .filter_map(|file| file.metadata().ok());
        lengths.any(|file| file.len() > slots::HEAD_BYTES)
    }

    /// What the process before left, for each of `shards` shards; what belongs to no shard of today
    /// goes to the first one, which ends it.
    pub(crate) fn left(&self, shards: u8, now: Instant) -> Vec<Vec<Left>> {
        let mut all: Vec<Vec<Left>> = (0..shards).map(|_| Vec::new()).collect();
        for shard in 0..=u8::MAX {
            let path = self.file(shard);
            let found = match read(&path) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let text = format!("{}: the calls in it are lost: {error}", path.display());
                    log("alarm", "start", &text);
                    continue;
                }
            };
            let condemned = if found.origin.boot != self.origin.boot {
                Some(NotAdopted::Rebooted)
            } else if found.shards != shards {
                Some(NotAdopted::Shards)
            } else if now.since(found.alive) > ADOPTED_WITHIN {
                Some(NotAdopted::TooLate)
            } else {
                None
            };
            let owner = if shard < shards { usize::from(shard) } else { 0 };
            if let Some(own) = all.get_mut(owner).filter(|_| !found.records.is_empty()) {
                own.push(Left { records: found.records, condemned, alive: found.alive });
            }
        }
        all
    }

    /// A new file for one shard. It takes the place of the one before with [`Slots::publish`].
    pub(crate) fn create(&self, shard: u8, shards: u8) -> io::Result<Slots> {
        Slots::create(&self.file(shard), shard, shards, &self.origin)
    }

    /// Removes everything: no call is left.
    pub(crate) fn remove(&self) {
        self.remove_from(0);
        if self.dir.starts_with(MEMORY) {
            // Whatever else may be in it is not ours to remove.
            let _ = fs::remove_dir(&self.dir);
        }
    }

    /// Removes the files of shards from `first` on: those that this process does not have.
    pub(crate) fn remove_from(&self, first: u8) {
        for shard in first..=u8::MAX {
            let path = self.file(shard);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let text = format!("{} cannot be removed: {error}", path.display());
                    log("warning", "edge", &text);
                }
            }
        }
    }
}

fn is_in_memory(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|found| found.f_type == TMPFS)
}

/// A directory of our own under [`MEMORY`]. Everybody may write there: it must be ours, and closed to
/// others.
fn in_shared_memory(data: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};

    if !is_in_memory(Path::new(MEMORY)) {
        return Err(io::Error::other("no file system in memory"));
    }
    let user = rustix::process::geteuid().as_raw();
    let dir = in_shared_memory_of(data)?;
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&dir)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{} is not this user's alone", dir.display())));
    }
    Ok(dir)
}

/// The name of such a directory.
fn in_shared_memory_of(data: &Path) -> io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let path = fs::canonicalize(data)?;
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, path.as_os_str().as_encoded_bytes());
    let name: String = digest.as_ref().iter().take(8).map(|octet| format!("{octet:02x}")).collect();
    Ok(Path::new(MEMORY).join(format!("ravelin-{user}-{name}")))
}

/// Wipes what other edges of this user left, on whose data directory nobody started one in time.
pub(crate) fn forget_others() {
    match forget(None, false) {
        Ok(all) => {
            for one in all {
                if let ForgetOutcome::Wiped(calls @ 1..) = one.outcome {
                    let text = format!(
                        "{}: keys of {calls} calls that an edge left are wiped",
                        one.place.display()
                    );
                    log("info", "start", &text);
                }
            }
        }
        Err(error) => {
            log("warning", "start", &format!("keys that an edge left stay: {error}"));
        }
    }
}
