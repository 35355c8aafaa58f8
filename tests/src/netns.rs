//! Network namespaces of a test's own: nothing that happens in them reaches another network.

use std::process::{Command, Stdio};

/// A namespace with loopback only, removed at the end.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// # Errors
    /// Says what the machine lacks: root, iproute2, nftables.
    pub fn new(purpose: &str) -> Result<Self, String> {
        let name = format!("rv-{purpose}-{}", std::process::id());
        command("ip", &["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Drops `percent` of all UDP datagrams, both ways.
    ///
    /// # Errors
    /// If nftables cannot do that here.
    pub fn lose_udp(&self, percent: u8) -> Result<(), String> {
        let chain = "{ type filter hook input priority 0 ; }";
        self.run(&["nft", "add", "table", "ip", "loss"])?;
        self.run(&["nft", "add", "chain", "ip", "loss", "input", chain])?;
        let draw = format!("numgen random mod 100 < {percent}");
        let rule: Vec<&str> =
            ["nft", "add", "rule", "ip", "loss", "input", "meta", "l4proto", "udp"]
                .into_iter()
                .chain(draw.split(' '))
                .chain(["counter", "drop"])
                .collect();
        self.run(&rule)
    }

    /// Runs one test of this test program again, inside the namespace.
    ///
    /// # Errors
    /// If it fails; its output has been shown.
    pub fn run_test(&self, test: &str, marker: &str) -> Result<(), String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let status = Command::new("ip")
            .args(["netns", "exec", &self.name])
            .arg(program)
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(marker, "1")
            .status()
            .map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("{test} failed in its namespace")) }
    }

    fn run(&self, words: &[&str]) -> Result<(), String> {
        let mut all = vec!["netns", "exec", &self.name];
        all.extend(words);
        command("ip", &all)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = command("ip", &["netns", "del", &self.name]);
    }
}

fn command(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", words.join(" "), text.trim()))
}
