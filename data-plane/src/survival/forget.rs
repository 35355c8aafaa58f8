//! What a killed edge left and nobody will take over: the keys go, the rest of its calls' records
//! stays for the one that ends them in order.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ravelin_engine::{checkpoint, time::Instant};

use super::{
    ADOPTED_WITHIN, MEMORY, in_shared_memory_of,
    slots::{COPY_BYTES, HEAD_BYTES, alive_at, read_at_most},
};

/// Records of one file.
const FILE_PREFIX: &str = "calls-";

/// What became of the records in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Where they are.
    pub place: PathBuf,
    pub outcome: ForgetOutcome,
}

/// See [`Forgotten`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForgetOutcome {
    /// Calls whose records were cut down; none the second time.
    Wiped(u32),
    /// A living edge keeps them.
    InUse,
    /// An edge that starts within so many seconds takes these calls over.
    StillGood(u64),
}

/// Overwrites the keys in records that no edge can take over any more: of every data directory that
/// this user's edges had, or of `data` alone. With `now` also those that an edge could still take
/// over; such calls end then.
///
/// # Errors
/// What cannot be read or written.
pub fn forget(data: Option<&Path>, now: bool) -> Result<Vec<Forgotten>, String> {
    let time = ravelin_io::clock::now().mono;
    let mut all = Vec::new();
    for place in places(data) {
        let told = |error: io::Error| format!("{}: {error}", place.display());
        if let Some(outcome) = wipe(&place, time, now).map_err(told)? {
            all.push(Forgotten { place, outcome });
        }
    }
    Ok(all)
}

/// Folders that may have records.
fn places(data: Option<&Path>) -> Vec<PathBuf> {
    match data {
        Some(data) => {
            let shared = in_shared_memory_of(data).ok();
            [Some(data.join("run")), shared].into_iter().flatten().collect()
        }
        None => {
            let ours = format!("ravelin-{}-", rustix::process::geteuid().as_raw());
            let entries = fs::read_dir(MEMORY).into_iter().flatten().flatten();
            let named = entries.filter(|entry| {
                entry.file_name().to_str().is_some_and(|name| name.starts_with(&ours))
            });
            named.map(|entry| entry.path()).collect()
        }
    }
}

/// `None`: there is nothing.
pub(super) fn wipe(place: &Path, time: Instant, now: bool) -> io::Result<Option<ForgetOutcome>> {
    let user = rustix::process::geteuid().as_raw();
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() && found.uid() == user => {}
        _ => return Ok(None),
    }
    let files: Vec<_> = fs::read_dir(place)?.flatten().map(|entry| entry.path()).collect();
    let is_ours = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(FILE_PREFIX) && (name.ends_with(".map") || name.ends_with(".new"))
    };
    let files: Vec<_> = files.iter().filter(is_ours).collect();
    if files.is_empty() {
        return Ok(None);
    }
    let Some(_hold) = hold(place)? else { return Ok(Some(ForgetOutcome::InUse)) };
    if !now {
        let alive =
            files.iter().filter_map(|path| File::open(path).ok()).map(|file| alive_at(&file));
        let silent = alive.max().map_or(ADOPTED_WITHIN, |alive| time.since(alive));
        if let Some(left) = ADOPTED_WITHIN.checked_sub(silent).filter(|left| !left.is_zero()) {
            return Ok(Some(ForgetOutcome::StillGood(left.as_secs() + 1)));
        }
    }
    let mut wiped = 0;
    for path in files {
        if path.extension().is_some_and(|kind| kind == "new") {
            // Never in force: what is in it stands in the other file too, or the calls have ended.
            wipe_file(&open(path)?)?;
            fs::remove_file(path)?;
        } else {
            wiped += wipe_file(&open(path)?)?;
        }
    }
    Ok(Some(ForgetOutcome::Wiped(wiped)))
}

fn open(path: &Path) -> io::Result<File> {
    let no_links = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(no_links).open(path)
}

/// Gives how many slots had a record with more than may stay.
fn wipe_file(file: &File) -> io::Result<u32> {
    let length = file.metadata()?.len();
    let (mut at, mut slots) = (HEAD_BYTES, 0);
    while at < length {
        let mut any = false;
        for copy in [at, at + COPY_BYTES].into_iter().filter(|copy| *copy < length) {
            let bytes = read_at_most(file, copy);
            if bytes.iter().any(|octet| *octet != 0) {
                let mut kept = checkpoint::without_keys(&bytes);
                kept.resize(bytes.len(), 0);
                if kept != bytes {
                    file.write_all_at(&kept, copy)?;
                    any = true;
                }
            }
        }
        slots += u32::from(any);
        at += 2 * COPY_BYTES;
    }
    Ok(slots)
}

/// Holds a folder of records as long as what it gives lives; the kernel lets go of it when a process
/// ends, however that ends. `None`: another process holds it.
pub(super) fn hold(place: &Path) -> io::Result<Option<File>> {
    let folder = File::open(place)?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
