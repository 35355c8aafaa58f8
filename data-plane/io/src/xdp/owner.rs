//! Whose pins these are. A node has one edge process at a time; a second one of its name would take
//! the first one's streams. The lock is the kernel's (flock(2) on the folder of the pins), so it ends
//! with the process however that ends, and is seen from every network namespace.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The folder of a node's pins, held until this is dropped.
#[derive(Debug)]
pub(super) struct Owner(#[expect(dead_code, reason = "held, not read")] File);

/// A living process holds the pins: its number, where it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held(pub(super) Option<u32>);

impl Owner {
    /// Holds the folder. `None`: there is none, or it cannot be opened; then this process can change
    /// nothing in it either.
    ///
    /// # Errors
    /// A living process holds it.
    pub(super) fn take(pins: &Path) -> Result<Option<Self>, Held> {
        loop {
            let Ok(folder) = File::open(pins) else { return Ok(None) };
            match folder.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Held(holder(&folder))),
                Err(TryLockError::Error(_)) => return Ok(None),
            }
            let identity = |found: fs::Metadata| (found.dev(), found.ino());
            let (held, there) = (folder.metadata(), fs::metadata(pins));
            // Whoever held it before may have removed it meanwhile, and another made it anew.
            if there.is_ok_and(|there| held.is_ok_and(|held| identity(held) == identity(there))) {
                return Ok(Some(Self(folder)));
            }
        }
    }
}

/// Who holds a lock on a file, as the kernel lists it: `1: FLOCK  ADVISORY  WRITE 71 00:1b:42 0 EOF`.
fn holder(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, process, place, ..] = fields[..] else { return None };
        (place.rsplit(':').next() == Some(&inode)).then(|| process.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_and_a_folder_made_anew_another() {
        let pins = std::env::temp_dir().join(format!("ravelin-owner-{}", std::process::id()));
        assert!(Owner::take(&pins).unwrap().is_none(), "nothing there");
        fs::create_dir(&pins).unwrap();
        let first = Owner::take(&pins).unwrap().unwrap();
        let Held(by) = Owner::take(&pins).unwrap_err();
        // Some file systems number a file otherwise than the kernel lists it.
        assert!(by.is_none_or(|by| by == std::process::id()), "{by:?}");
        // It is removed by its owner, and made by the next.
        fs::remove_dir(&pins).unwrap();
        fs::create_dir(&pins).unwrap();
        let second = Owner::take(&pins).unwrap().unwrap();
        drop(first);
        assert!(Owner::take(&pins).is_err());
        drop(second);
        assert!(Owner::take(&pins).unwrap().is_some());
        fs::remove_dir(&pins).unwrap();
    }
}
