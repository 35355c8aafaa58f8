//! Config document to [`Snapshot`].

use ravelin_contract::link::FieldError;

use crate::Snapshot;

/// A snapshot, and what its author should know about it.
#[derive(Debug)]
pub struct Compiled {
    pub snapshot: Snapshot,
    /// Legal but unwise, for example a site with only one emergency trunk (EM-82).
    pub warnings: Vec<FieldError>,
}

/// Compiles a config document (YAML; JSON is YAML). Every fault is reported, not only the first.
///
/// # Errors
/// The faults, in the order of the document.
pub fn compile(document: &str, version: u64) -> Result<Compiled, Vec<FieldError>> {
    let _ = (document, version);
    Err(vec![FieldError { path: String::new(), line: None, reason: "empty".to_owned() }])
}

/// Paths whose change from `old` to `new` takes effect only after a restart of the edge: cores,
/// listeners, media ranges, node name. Empty: the new snapshot can be put in force as it is.
#[must_use]
pub fn restart_needed(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let mut paths = Vec::new();
    let mut check = |changed: bool, path: &str| {
        if changed {
            paths.push(path.to_owned());
        }
    };
    check(old.node != new.node, "node");
    check(old.cores != new.cores, "edge.cores");
    check(old.listeners != new.listeners, "edge.listeners");
    check(old.media != new.media, "edge.media");
    paths
}
