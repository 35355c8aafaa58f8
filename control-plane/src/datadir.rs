//! The data directory: its folders, modes, lock and first token (contract, "Files under --data").

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::error::ControlError;

/// Paths under `--data DIR`, all made and locked.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    /// Held for the life of the process: one control plane per data directory.
    _lock: File,
}

impl DataDir {
    /// Makes the folders that are missing and takes the lock.
    ///
    /// # Errors
    /// Names the path that cannot be made, or says that another control plane runs here.
    pub fn open(root: &Path) -> Result<Self, ControlError> {
        make_dir(root, 0o750)?;
        let root = root.canonicalize().map_err(at(root))?;
        for (name, mode) in [("run", 0o700), ("certs", 0o700), ("snapshots", 0o750)] {
            let folder = root.join(name);
            make_dir(&folder, mode)?;
            tighten(&folder, mode)?;
        }
        let path = root.join("run/control.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(ControlError::AlreadyRunning { what: root.display().to_string() })
            }
            Err(TryLockError::Error(source)) => Err(ControlError::File { path, source }),
        }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    #[must_use]
    pub fn link_socket(&self) -> PathBuf {
        self.root.join("run/link.sock")
    }

    #[must_use]
    pub fn certs(&self) -> PathBuf {
        self.root.join("certs")
    }

    #[must_use]
    pub fn admin_token(&self) -> PathBuf {
        self.root.join("admin.token")
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), ControlError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(at(path))
}

/// A folder that somebody else made first (the edge, an installer) may be open to all: sockets and
/// keys lie in these.
fn tighten(path: &Path, mode: u32) -> Result<(), ControlError> {
    let found = fs::metadata(path).map_err(at(path))?.permissions().mode();
    if found & 0o777 & !mode == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(found & mode)).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ControlError {
    let path = path.to_path_buf();
    move |source| ControlError::File { path, source }
}

/// Writes a secret that only the owner may read: made beside its place, synced, then moved there,
/// so that a reader never sees half of it.
///
/// # Errors
/// Names the path that failed.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), ControlError> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(at(path))
}
