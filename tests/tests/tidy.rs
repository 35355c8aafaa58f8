//! House rules that read the source as text: where `unsafe` may stand, which crates may not look
//! at a clock, how long a file may be, what must not be left lying about.

#[path = "tidy/limits.rs"]
mod limits;

use std::path::Path;

use ravelin_tests::tree;

/// A file longer than this wants splitting (design 2, style 4).
const FILE_MAX_LINES: usize = 1000;

const SANS_IO_FOLDERS: &[&str] = &[
    "data-plane/wire/src",
    "data-plane/stir/src",
    "data-plane/policy/src",
    "data-plane/engine/src",
];

/// Words that read a clock, the environment, a random source, a file or a socket.
const IO_WORDS: &[(&str, &str)] = &[
    ("std::time::Instant", "time is handed in"),
    ("SystemTime", "time is handed in"),
    ("Instant::now", "time is handed in"),
    ("std::env", "settings are handed in"),
    ("std::fs", "files belong to the edge"),
    ("std::thread", "threads belong to the edge"),
    ("UdpSocket", "sockets belong to io"),
    ("TcpStream", "sockets belong to io"),
    ("thread_rng", "seeds are handed in"),
    ("println!", "a library does not print"),
    ("eprintln!", "a library does not print"),
];

/// Crates that handle octets of peers: the lints that forbid panics must stay switched on.
const PEER_BYTES: &[&str] =
    &["data-plane/wire/src/lib.rs", "data-plane/stir/src/lib.rs", "data-plane/engine/src/lib.rs"];
const PEER_LINTS: &[&str] = &[
    "clippy::unwrap_used",
    "clippy::expect_used",
    "clippy::panic",
    "clippy::indexing_slicing",
    "clippy::cast_possible_truncation",
];

#[test]
fn unsafe_stands_only_in_sys() {
    let root = tree::root();
    for path in tree::files(&root, "rs") {
        let relative = relative(&root, &path);
        if relative.starts_with("data-plane/io/src/sys/") {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let mentions = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
            let found = mentions.iter().any(|word| code.contains(word)) && !code.contains('"');
            assert!(!found, "{relative}:{}: unsafe outside io/src/sys", number + 1);
        }
    }
}

#[test]
fn every_crate_but_io_forbids_unsafe() {
    let root = tree::root();
    for path in tree::files(&root, "toml") {
        let relative = relative(&root, &path);
        if !relative.ends_with("Cargo.toml")
            || relative == "Cargo.toml"
            || relative.starts_with("data-plane/io/")
            || relative.starts_with("tests/fuzz/")
        {
            continue;
        }
        let folder = path.parent().expect("folder");
        let entry = [folder.join("src/lib.rs"), folder.join("src/main.rs")]
            .into_iter()
            .find(|entry| entry.exists())
            .expect("lib.rs or main.rs");
        assert!(
            read(&entry).contains("#![forbid(unsafe_code)]"),
            "{relative}: the crate does not forbid unsafe code"
        );
    }
}

#[test]
fn sans_io_crates_look_at_no_clock_file_or_socket() {
    let root = tree::root();
    for folder in SANS_IO_FOLDERS {
        for path in tree::files(&root.join(folder), "rs") {
            let is_test = path.ends_with("tests.rs")
                || path.components().any(|part| part.as_os_str() == "tests");
            if is_test {
                continue;
            }
            let text = read(&path);
            let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            for (number, line) in product.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for (word, why) in IO_WORDS {
                    assert!(
                        !code.contains(word),
                        "{}:{}: {word} in a sans-IO crate: {why}",
                        relative(&root, &path),
                        number + 1
                    );
                }
            }
        }
    }
}

#[test]
fn crates_that_read_peer_octets_deny_panics() {
    let root = tree::root();
    for path in PEER_BYTES {
        let text = read(&root.join(path));
        for lint in PEER_LINTS {
            assert!(text.contains(lint), "{path}: {lint} is not denied");
        }
    }
}

#[test]
fn files_are_short() {
    let root = tree::root();
    for path in tree::files(&root, "rs") {
        let lines = read(&path).lines().count();
        assert!(
            lines <= FILE_MAX_LINES,
            "{}: {lines} lines; split it (limit {FILE_MAX_LINES})",
            relative(&root, &path)
        );
    }
}

#[test]
fn nothing_is_left_lying_about() {
    // Put together at run time, so that this file does not find itself.
    let marks: Vec<String> = [
        ["todo", "!("],
        ["unimplemented", "!("],
        ["dbg", "!("],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["#[ign", "ore"],
    ]
    .iter()
    .map(|parts| parts.concat())
    .collect();
    let root = tree::root();
    for path in tree::files(&root, "rs") {
        for (number, line) in read(&path).lines().enumerate() {
            for mark in &marks {
                assert!(
                    !line.contains(mark.as_str()),
                    "{}:{}: {mark}",
                    relative(&root, &path),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn tests_do_not_sleep_for_luck() {
    // A wait for a condition with a deadline is written as a loop in one of these helpers; a bare
    // sleep anywhere else in a test is a guess.
    const HELPERS: &[&str] = &["tests/src/wait.rs"];
    let root = tree::root();
    for path in tree::files(&root.join("tests"), "rs") {
        let relative = relative(&root, &path);
        if HELPERS.contains(&relative.as_str()) || relative == "tests/tests/tidy.rs" {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            assert!(
                !line.contains("thread::sleep("),
                "{relative}:{}: use ravelin_tests::wait",
                number + 1
            );
        }
    }
}

/// The README's table of a packet's life names real places (design 3).
#[test]
fn packet_table_of_the_readme_names_real_files() {
    let root = tree::root();
    let readme = read(&root.join("README.md"));
    let table = readme
        .split("<!-- packet-table -->")
        .nth(1)
        .expect("README.md: the packet table is marked by <!-- packet-table -->");
    let mut paths = 0;
    for cell in table.split('`').skip(1).step_by(2) {
        if cell.contains('/') {
            paths += 1;
            assert!(root.join(cell).exists(), "README.md: {cell} does not exist");
        }
    }
    assert!(paths >= 10, "README.md: the packet table names only {paths} paths");
}

/// Every promise of docs/SPECIFICATION.md names a test that exists, or says what is missing.
#[test]
fn every_promise_names_its_test() {
    let root = tree::root();
    let specification = read(&root.join("docs/SPECIFICATION.md"));
    let sources: String =
        tree::files(&root, "rs").iter().map(|path| read(path)).collect::<Vec<_>>().join("\n");
    let mut promises = 0;
    for line in specification.lines().filter(|line| line.starts_with("| P-")) {
        promises += 1;
        let tests = line.rsplit('|').nth(1).unwrap_or_default();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(
            !names.is_empty() || tests.contains("to come"),
            "docs/SPECIFICATION.md: no test and no `to come` in: {line}"
        );
        for name in names {
            let exists = if name.contains('/') || name.contains('.') {
                root.join(name.split(' ').next().unwrap_or_default()).exists()
            } else {
                let function = name.rsplit("::").next().unwrap_or_default();
                sources.contains(&format!("fn {function}("))
            };
            assert!(exists, "docs/SPECIFICATION.md: `{name}` does not exist: {line}");
        }
    }
    assert!(promises >= 20, "docs/SPECIFICATION.md: only {promises} promises found");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// The manual's tables of causes and drop reasons are those of the code.
#[test]
fn the_manual_lists_every_cause_and_drop_reason() {
    let manual = read(&tree::root().join("docs/MANUAL.md"));
    for cause in ravelin_engine::cause::Cause::ALL {
        let status = match cause.status() {
            0 => "-".to_owned(),
            status => status.to_string(),
        };
        let row =
            format!("| {} | {status} | `{}` | {} |", cause.number(), cause.label(), cause.text());
        assert!(manual.contains(&row), "docs/MANUAL.md lacks the row: {row}");
    }
    for reason in ravelin_engine::drops::DropReason::ALL {
        let row = format!("| `{}` |", reason.label());
        assert!(manual.contains(&row), "docs/MANUAL.md lacks the row of {row}");
    }
}
