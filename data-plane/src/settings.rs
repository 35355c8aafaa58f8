//! Settings: from a document to what shards run on. Reading, compiling and loading of credentials
//! happen here, off the shards' cores.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ravelin_contract::{
    audit::{AuditEvent, Severity},
    link::FieldError,
};
use ravelin_policy::{Compiled, Mode, Snapshot, snapshot::Stir};
use ravelin_stir::{
    sign::Signer,
    trust::{Trust, TrustBuilder},
};

use crate::telemetry::event;

/// Largest config document that is read from a file.
pub const DOCUMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What `ravelin edge` is started with.
#[derive(Clone, Debug)]
pub struct EdgeOptions {
    /// Config file. With [`Self::control`] it only serves the first start, before the control plane
    /// has sent anything.
    pub config: Option<PathBuf>,
    /// Data directory.
    pub data: PathBuf,
    /// `unix:PATH` or `tls://HOST:PORT`.
    pub control: Option<String>,
    /// How long a stop waits for calls to end by themselves before it ends them.
    pub drain_within: Duration,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self { config: None, data: PathBuf::new(), control: None, drain_within: DRAIN_WITHIN }
    }
}

/// [`EdgeOptions::drain_within`] unless told otherwise.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Reads a config file.
///
/// # Errors
/// A line that says what to do.
pub fn read_document(path: &Path) -> Result<String, String> {
    let fail = |error: &dyn std::fmt::Display| {
        format!("config file {} cannot be read: {error}", path.display())
    };
    let size = fs::metadata(path).map_err(|error| fail(&error))?.len();
    if size > DOCUMENT_BYTES_MAX {
        return Err(fail(&format!("it has {size} bytes, at most {DOCUMENT_BYTES_MAX} are read")));
    }
    fs::read_to_string(path).map_err(|error| fail(&error))
}

/// One line for all faults of a document: the first one, and how many there are.
#[must_use]
pub fn one_line(errors: &[FieldError]) -> String {
    let Some(first) = errors.first() else { return "no fault was named".into() };
    let place = match first.line {
        Some(line) => format!("line {line}: {}", first.path),
        None => first.path.clone(),
    };
    let more = match errors.len() {
        1 => String::new(),
        count => format!(" (and {} more; `ravelin check` lists them)", count - 1),
    };
    format!("{place}: {}{more}", first.reason)
}

/// Signs of a test run in this process (E2, E3), for the file name at hand.
#[must_use]
pub fn test_signals_here(file: Option<&Path>) -> Vec<String> {
    let name = file.and_then(Path::file_name).and_then(OsStr::to_str);
    let variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(key, value)| {
            // A value that is not text is not one of the words for "off".
            Some((key.into_string().ok()?, value.to_string_lossy().into_owned()))
        })
        .collect();
    let pairs = variables.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    ravelin_policy::test_signals(name, pairs).0.iter().map(describe).collect()
}

fn describe(signal: &ravelin_policy::TestSignal) -> String {
    use ravelin_policy::TestSignal::{FileName, Variable};
    match signal {
        Variable { name, value } => format!("{name}={value:?} is set in the environment"),
        FileName(name) => format!("the config file's name {name:?} contains \"test\""),
    }
}

/// Compiles a document and holds its mode against the signs of a test run: a production node must
/// not run where 911 might be blocked, and must not be blocked silently (E3, E4).
///
/// # Errors
/// Every fault of the document, or the contradiction.
pub fn compile(
    text: &str,
    version: u64,
    test_signals: &[String],
) -> Result<Compiled, Vec<FieldError>> {
    let compiled = ravelin_policy::compile(text, version)?;
    if compiled.snapshot.mode == Mode::Production && !test_signals.is_empty() {
        return Err(vec![FieldError {
            path: "deployment.mode".into(),
            line: None,
            reason: format!(
                "it says production, but {}; remove that, or declare deployment.mode: test",
                test_signals.join(", and ")
            ),
        }]);
    }
    Ok(compiled)
}

/// What STIR/SHAKEN runs on. A fault leaves calls unsigned, never refused; it is an alarm.
#[derive(Debug)]
pub struct Credentials {
    pub trust: Arc<Trust>,
    pub signer: Option<Arc<Signer>>,
    pub faults: Vec<FieldError>,
}

/// Loads the certificates and the key that `stir` names; relative paths start at `data`.
#[must_use]
pub fn credentials(stir: &Stir, data: &Path, now_unix: u64) -> Credentials {
    let mut faults = Vec::new();
    let mut read = |key: &str, path: &Option<String>| {
        let Some(path) = path else {
            faults.push(fault(key, "it is not set".into()));
            return None;
        };
        let path = data.join(path);
        fs::read(&path)
            .map_err(|error| faults.push(fault(key, format!("{}: {error}", path.display()))))
            .ok()
    };

    let mut chain = None;
    let mut key = None;
    if stir.signing {
        chain = read("certificate_path", &stir.certificate_path);
        key = read("private_key_path", &stir.private_key_path);
    }
    let anchors = if stir.verification { read("ca_cert_path", &stir.ca_cert_path) } else { None };

    let mut signer = None;
    if let (Some(chain), Some(key)) = (&chain, &key) {
        match stir.certificate_url.as_deref() {
            None => faults.push(fault("certificate_url", "it is not set".into())),
            Some(url) => match Signer::load(chain, key, url, now_unix) {
                Ok(loaded) => signer = Some(Arc::new(loaded)),
                Err(error) => faults.push(fault("certificate_path", error.to_string())),
            },
        }
    }

    let mut builder = TrustBuilder::default();
    if let Some(anchors) = anchors {
        if let Err(reason) = builder.anchors_pem(&anchors) {
            faults.push(fault("ca_cert_path", format!("{reason:?}")));
        }
        // Calls that we signed ourselves and that come back are verified like any other.
        if let (Some(url), Some(chain)) = (stir.certificate_url.as_deref(), &chain) {
            builder.chain_pem(url, chain);
        }
    }
    let (trust, refused) = builder.build(now_unix);
    // A list that cannot be used revokes nothing: the operator must know.
    faults.extend(refused.iter().map(|error| fault("crl", error.to_string())));
    Credentials { trust: Arc::new(trust), signer, faults }
}

fn fault(key: &str, reason: String) -> FieldError {
    FieldError { path: format!("features.stir_shaken.{key}"), line: None, reason }
}

impl Credentials {
    /// The faults as alarms for the audit chain.
    pub fn alarms(&self) -> impl Iterator<Item = AuditEvent> + '_ {
        self.faults.iter().map(|fault| {
            event("stir.credentials_unusable", Severity::Alarm)
                .field("path", fault.path.clone())
                .field("reason", fault.reason.clone())
                .into_event()
        })
    }
}

/// Shards of one node at most: a shard's number is one octet in every identifier that it makes.
pub const SHARDS_MAX: usize = 128;

/// The core of each shard, and what the operator should know about it. A core that this process
/// may not use is replaced by one that it may: calls matter more than placement.
#[must_use]
pub fn cores(snapshot: &Snapshot) -> (Vec<usize>, Option<String>) {
    place(&snapshot.cores, &usable_cores())
}

fn place(wanted: &[u16], usable: &[usize]) -> (Vec<usize>, Option<String>) {
    if wanted.is_empty() {
        let most = usable.len().min(SHARDS_MAX);
        let warning = (usable.len() > most)
            .then(|| format!("of {} cores {most} have a shard, which is the most", usable.len()));
        return (usable.iter().copied().take(most).collect(), warning);
    }
    let mut spare = usable.iter().copied().cycle();
    let mut missing = Vec::new();
    let cores = wanted
        .iter()
        .take(SHARDS_MAX)
        .filter_map(|&core| {
            let core = usize::from(core);
            if usable.contains(&core) {
                return Some(core);
            }
            missing.push(core);
            spare.next()
        })
        .collect();
    let warning = (!missing.is_empty())
        .then(|| format!("edge.cores names {missing:?}, but this process may use only {usable:?}"));
    (cores, warning)
}

/// The cores of this process's affinity mask, from `/proc/self/status`.
fn usable_cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let cores = list.map(str::trim).map(parse_core_list).unwrap_or_default();
    if cores.is_empty() { vec![0] } else { cores }
}

/// `0-3,8` as numbers.
fn parse_core_list(list: &str) -> Vec<usize> {
    list.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_core_list("0-1"), [0, 1]);
        assert_eq!(parse_core_list("0,2-4,7"), [0, 2, 3, 4, 7]);
        assert!(parse_core_list("").is_empty());
        assert!(!usable_cores().is_empty());
    }

    #[test]
    fn every_wanted_shard_gets_a_usable_core() {
        assert_eq!(place(&[], &[2, 3]), (vec![2, 3], None));
        assert_eq!(place(&[3, 2], &[2, 3]), (vec![3, 2], None));
        let (cores, warning) = place(&[0, 1], &[0]);
        assert_eq!(cores, [0, 0]);
        assert!(warning.unwrap().contains("[1]"));
        let all: Vec<_> = (0..SHARDS_MAX + 1).collect();
        assert_eq!(place(&[], &all[..SHARDS_MAX]), (all[..SHARDS_MAX].to_vec(), None));
        let (cores, warning) = place(&[], &all);
        assert_eq!(cores.len(), SHARDS_MAX);
        assert!(warning.unwrap().contains("of 129 cores 128"));
    }

    #[test]
    fn faults_fit_one_line() {
        let error = |line| FieldError { path: "a.b".into(), line, reason: "bad".into() };
        assert_eq!(one_line(&[error(None)]), "a.b: bad");
        let two = one_line(&[error(Some(3)), error(None)]);
        assert_eq!(two, "line 3: a.b: bad (and 1 more; `ravelin check` lists them)");
    }

    #[test]
    fn missing_credentials_are_faults_and_not_an_end() {
        let stir = Stir {
            signing: true,
            verification: true,
            certificate_path: Some("certs/none.pem".into()),
            ca_cert_path: Some("certs/none-ca.pem".into()),
            ..Stir::default()
        };
        let loaded = credentials(&stir, Path::new("/nonexistent"), 1_795_348_800);
        assert!(loaded.signer.is_none());
        let paths: Vec<_> = loaded.alarms().map(|alarm| alarm.fields["path"].clone()).collect();
        assert_eq!(
            paths,
            [
                "features.stir_shaken.certificate_path",
                "features.stir_shaken.private_key_path",
                "features.stir_shaken.ca_cert_path"
            ]
        );
        let off = credentials(&Stir::default(), Path::new("/nonexistent"), 1_795_348_800);
        assert!(off.faults.is_empty());
    }
}
