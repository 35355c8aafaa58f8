//! The arrows between the crates (design 2). `cargo metadata` is the witness.

use std::{collections::BTreeMap, process::Command};

use ravelin_tests::tree;

/// Which of our crates each crate may depend on (not counting dev-dependencies).
const ALLOWED: &[(&str, &[&str])] = &[
    ("ravelin-contract", &[]),
    ("ravelin-wire", &[]),
    ("ravelin-stir", &[]),
    ("ravelin-srtp", &[]),
    ("ravelin-policy", &["ravelin-contract"]),
    (
        "ravelin-engine",
        &["ravelin-contract", "ravelin-wire", "ravelin-stir", "ravelin-srtp", "ravelin-policy"],
    ),
    ("ravelin-io", &["ravelin-engine", "ravelin-wire"]),
    (
        "ravelin-edge",
        &[
            "ravelin-contract",
            "ravelin-policy",
            "ravelin-stir",
            "ravelin-wire",
            "ravelin-engine",
            "ravelin-io",
        ],
    ),
    ("ravelin-control", &["ravelin-contract", "ravelin-policy", "ravelin-stir"]),
    (
        "ravelin",
        &[
            "ravelin-contract",
            "ravelin-policy",
            "ravelin-stir",
            "ravelin-wire",
            "ravelin-engine",
            "ravelin-io",
            "ravelin-edge",
            "ravelin-control",
        ],
    ),
];

/// Crates that see the network only through values handed to them: none of these may come near.
const SANS_IO: &[&str] =
    &["ravelin-wire", "ravelin-stir", "ravelin-srtp", "ravelin-policy", "ravelin-engine"];
const IO_CRATES: &[&str] =
    &["tokio", "glommio", "io-uring", "socket2", "libc", "rand", "getrandom", "reqwest", "mio"];

/// Libraries that must not enter the product: one crypto library, kept YAML readers.
const BANNED: &[&str] = &["ring", "openssl-sys", "native-tls", "serde_yaml", "serde_yml", "atty"];

#[test]
fn arrows_point_one_way() {
    let packages = packages();
    for (name, dependencies) in &packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| crate_name == name) else {
            assert!(
                ["ravelin-bench", "ravelin-tests"].contains(&name.as_str()),
                "{name} is not in the table of allowed arrows"
            );
            continue;
        };
        for dependency in dependencies.iter().filter(|other| packages.contains_key(*other)) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency} (design 2)"
            );
        }
    }
    for (name, _) in ALLOWED {
        assert!(packages.contains_key(*name), "{name} is missing from the workspace");
    }
}

#[test]
fn sans_io_crates_depend_on_no_io() {
    let packages = packages();
    for name in SANS_IO {
        for dependency in &packages[*name] {
            assert!(
                !IO_CRATES.contains(&dependency.as_str()),
                "{name} is sans-IO and must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn data_plane_has_no_tokio_and_no_dashmap() {
    let packages = packages();
    let data_plane = ["ravelin-io", "ravelin-edge"].iter().chain(SANS_IO);
    for name in data_plane {
        for banned in ["tokio", "dashmap", "axum", "sqlx", "reqwest"] {
            assert!(
                !packages[*name].iter().any(|dependency| dependency == banned),
                "{name} must not depend on {banned}"
            );
        }
    }
}

/// Asked of the dependency graph and not of Cargo.lock, which also lists optional crates that no
/// feature turns on. Of this platform alone: the crates of others were never fetched by who has built
/// nothing but this.
#[test]
fn no_banned_library_is_built() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}", "--offline"])
        .current_dir(tree::root())
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("aws-lc-rs "), "the graph was read");
    for line in text.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(!BANNED.contains(&name), "{name} is built");
    }
}

/// Normal and build dependencies of every package of the workspace.
fn packages() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(tree::root())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name").to_owned();
        let dependencies = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .map(|dependency| dependency["name"].as_str().expect("name").to_owned())
            .collect();
        packages.insert(name, dependencies);
    }
    packages
}
