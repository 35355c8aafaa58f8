//! The fast path against the sockets, in network namespaces of their own.

mod conditions;
pub(crate) mod differential;
pub(crate) mod packet;
mod polling;
mod program;
mod reborn;
mod rules;
mod survival;
pub(crate) mod world;

use std::process::Command;

/// The objects that are checked in are what the sources say: built again, octet for octet.
#[test]
fn the_object_is_that_of_the_source() {
    let name = "the_object_is_that_of_the_source";
    let version = Command::new("clang-14").arg("--version").output();
    let Ok(version) = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    else {
        return world::skip(name, "clang-14 is not installed (tools/setup test)");
    };
    // Other builds of the compiler may choose other instructions.
    if !version.contains("Debian clang version 14.0.6") {
        return world::skip(name, "the compiler is another one than Debian 12's clang 14.0.6");
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf");
    for name in ["relay", "load"] {
        let built = std::env::temp_dir().join(format!("ravelin-{name}-{}.o", std::process::id()));
        let output =
            Command::new(format!("{folder}/build")).arg(&built).arg(name).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let object = std::fs::read(&built).unwrap();
        std::fs::remove_file(&built).unwrap();
        let kept = std::fs::read(format!("{folder}/{name}.o")).unwrap();
        assert!(object == kept, "run data-plane/io/bpf/build {name}.o {name} and commit {name}.o");
    }
}
