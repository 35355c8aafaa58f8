//! What the tests share: a data directory, a config on addresses of the test's own, processes that
//! end with their test.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use ravelin_contract::chain::{Entry, Head};

/// How long anything is waited for; far more than it takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/loopback.yml");

/// The variables that would put the product under test into doubt about its mode (E2).
const TEST_VARIABLES: [&str; 5] =
    ["PYTEST_CURRENT_TEST", "TEST_MODE", "TESTING", "PBX_TEST_MODE", "RAVELIN_TEST_MODE"];

/// A command of the binary, in a clean environment.
pub(crate) fn ravelin() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ravelin"));
    for variable in TEST_VARIABLES {
        command.env_remove(variable);
    }
    command.env_remove("RAVELIN_TOKEN").stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().expect("the binary starts")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory that goes away with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ravelin-p-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left for a look: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The example config on addresses of one test: 127.0.x.y becomes 127.4.(10 * place + x).y. Media
/// ranges are cut short, so that starting is quick.
pub(crate) fn config(place: u8) -> String {
    let example = fs::read_to_string(EXAMPLE).expect("the example config");
    let mut config = example.replace("24999", "20099").replace("34999", "30099");
    for net in 0..10 {
        let own = format!("127.4.{}.", u32::from(place) * 10 + net);
        config = config.replace(&format!("127.0.{net}."), &own);
    }
    assert!(!config.contains("127.0."), "an address of the example was missed");
    config
}

/// An address of [`config`].
pub(crate) fn address(place: u8, net: u8, host: u8, port: u16) -> std::net::SocketAddr {
    ([127, 4, place * 10 + net, host], port).into()
}

/// A running process that is killed when the test ends before it does.
pub(crate) struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, book) = (child.stderr.take().expect("a pipe"), Arc::clone(&lines));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                book.lock().expect("lines").push(line);
            }
        });
        Self { child, lines, reader }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.lines.lock().expect("lines").join("\n")
    }

    /// Waits for a line with `part`, the `count`th one.
    pub(crate) fn wait_for_line(&mut self, part: &str, count: usize) {
        let end = Instant::now() + PATIENCE;
        loop {
            // Asked first: what is written before the end counts.
            let over = Instant::now() >= end || self.reader.is_finished();
            let log = self.log();
            if log.lines().filter(|line| line.contains(part)).count() >= count {
                return;
            }
            assert!(!over, "no {count} lines with {part:?} came; the log:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the process did not end; the log:\n{}", self.log());
    }

    /// Ends it in order and expects exit code 0.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}; the log:\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process of this test.
pub(crate) fn signal(id: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &id.to_string()]).status();
    assert!(status.expect("kill").success(), "no process {id}");
}

/// Every entry of a chain that must hold, read without the product's code for segments.
pub(crate) fn chain(data: &Path) -> Vec<Entry> {
    let mut files: Vec<_> = fs::read_dir(data.join("audit"))
        .expect("audit directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("segment")))
        .collect();
    files.sort();
    let mut head = Head::START;
    let mut entries = Vec::new();
    for file in files {
        for line in fs::read_to_string(&file).expect("a segment").lines() {
            let record = serde_json::from_str(line).expect("a record");
            head.accept(&record).expect("the chain holds");
            entries.push(serde_json::from_str(record.entry.get()).expect("an entry"));
        }
    }
    entries
}

/// Kinds of the audit events, in order; a gap is `gap`.
pub(crate) fn kinds(entries: &[Entry]) -> Vec<String> {
    entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Audit(event) => Some(event.kind.clone()),
            Entry::Gap { .. } => Some("gap".into()),
            Entry::Cdr(_) => None,
        })
        .collect()
}
