//! Config documents kept on disk, so that a cold start without network works: `snapshots/`.
//!
//! | File | |
//! |---|---|
//! | `last-good.json` | the document in force |
//! | `previous-good.json` | the one before, used when `last-good.json` is damaged |
//! | `next.json` | a document that only a restart can put in force |

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use ravelin_contract::chain::to_hex;
use serde::{Deserialize, Serialize};

use crate::spool::recover::sync_dir;

/// A config document with the version it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    pub version: u64,
    /// SHA-256 of `text`, lower-case hexadecimal.
    pub sha256: String,
    /// Name of the file it came from, or `control-plane`.
    pub origin: String,
    pub saved_unix_ms: u64,
    pub text: String,
}

impl Document {
    #[must_use]
    pub fn new(version: u64, origin: &str, text: String) -> Self {
        Self {
            version,
            sha256: sha256(&text),
            origin: origin.into(),
            saved_unix_ms: crate::telemetry::unix_ms(),
            text,
        }
    }
}

/// SHA-256 of a document, lower-case hexadecimal.
#[must_use]
pub fn sha256(text: &str) -> String {
    to_hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

/// The directory.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: PathBuf,
}

impl Snapshots {
    /// In the data directory `data`.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { dir: data.join("snapshots") }
    }

    /// Makes `document` the last good one; the one before is kept beside it.
    ///
    /// # Errors
    /// If the disk refuses; the last good document is then still the one before.
    pub fn save_good(&self, document: &Document) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let good = self.good();
        if good.exists() {
            let previous = self.dir.join("previous-good.json");
            let spare = self.dir.join("previous-good.json.new");
            // A hard link: at every moment both names hold a whole document.
            let _ = fs::remove_file(&spare);
            fs::hard_link(&good, &spare).or_else(|_| fs::copy(&good, &spare).map(|_| ()))?;
            fs::rename(&spare, &previous)?;
        }
        write_whole(&good, document)
    }

    /// Keeps `document` for the next start.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn save_next(&self, document: &Document) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        write_whole(&self.next(), document)
    }

    /// Forgets what was kept for the next start: it is in force, or newer settings are.
    pub fn clear_next(&self) {
        // Not being there is what is wanted.
        let _ = fs::remove_file(self.next());
    }

    /// What a start shall try, best first. Files that are damaged are left out; `damaged` hears of
    /// them.
    #[must_use]
    pub fn candidates(&self, mut damaged: impl FnMut(String)) -> Vec<Document> {
        let mut found = Vec::new();
        for path in [self.next(), self.good(), self.dir.join("previous-good.json")] {
            match read(&path) {
                Ok(document) => found.push(document),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => damaged(format!("{}: {error}", path.display())),
            }
        }
        found
    }

    fn good(&self) -> PathBuf {
        self.dir.join("last-good.json")
    }

    fn next(&self) -> PathBuf {
        self.dir.join("next.json")
    }
}

/// Writes beside the file, syncs, renames: a crash leaves the old content or the new.
fn write_whole(path: &Path, document: &Document) -> io::Result<()> {
    let spare = path.with_extension("json.new");
    let mut file = File::create(&spare)?;
    file.write_all(&serde_json::to_vec(document)?)?;
    file.sync_all()?;
    fs::rename(&spare, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn read(path: &Path) -> io::Result<Document> {
    let document: Document = serde_json::from_slice(&fs::read(path)?)?;
    if document.sha256 != sha256(&document.text) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum does not fit"));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ravelin-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn the_newest_undamaged_document_comes_first() {
        let data = scratch("snapshots");
        let snapshots = Snapshots::new(&data);
        let none = |text: String| panic!("damaged: {text}");
        assert!(snapshots.candidates(none).is_empty());
        for version in 1..=3 {
            let text = format!("node: n{version}\n");
            snapshots.save_good(&Document::new(version, "t", text)).unwrap();
        }
        let versions: Vec<_> = snapshots.candidates(none).iter().map(|d| d.version).collect();
        assert_eq!(versions, [3, 2]);
        snapshots.save_next(&Document::new(9, "t", "x".into())).unwrap();
        assert_eq!(snapshots.candidates(none)[0].version, 9);
        snapshots.clear_next();
        assert_eq!(snapshots.candidates(none)[0].version, 3);
        let _ = fs::remove_dir_all(&data);
    }

    #[test]
    fn every_changed_octet_of_a_document_is_noticed() {
        let data = scratch("snapshots-flip");
        let snapshots = Snapshots::new(&data);
        let first = Document::new(1, "t", "node: n1\n".into());
        let second = Document::new(2, "t", "node: n2\n".into());
        snapshots.save_good(&first).unwrap();
        snapshots.save_good(&second).unwrap();
        let good = data.join("snapshots/last-good.json");
        let whole = fs::read(&good).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&good, &bytes).unwrap();
            let found = snapshots.candidates(|_| {});
            // What is not covered by the checksum may change, the document may not.
            assert!(
                found[0] == first || found[0].text == second.text,
                "octet {at} changed the document"
            );
        }
        let _ = fs::remove_dir_all(&data);
    }
}
