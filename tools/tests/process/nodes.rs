//! An edge on another machine: its own data directory, the control plane reached by mutual TLS.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::support::{PATIENCE, Process, Scratch, chain, config, kinds, ravelin, run, text};

struct Planes {
    scratch: Scratch,
    file: PathBuf,
    api: String,
    link: String,
}

impl Planes {
    fn new(place: u8) -> Self {
        let scratch = Scratch::new();
        let (api, link) =
            (format!("http://127.13.{place}9.1:18080"), format!("127.13.{place}9.1:17443"));
        let listen = api.trim_start_matches("http://");
        let document = config(place).replace("127.4.", "127.13.").replace(
            &format!("listen: 127.13.{place}0.1:8080"),
            &format!("listen: {listen}\n  link: {{ listen: \"{link}\" }}"),
        );
        assert!(document.contains(&link), "the example's control block was not found");
        let file = scratch.write("ravelin.yml", &document);
        Self { scratch, file, api, link }
    }

    fn control_data(&self) -> PathBuf {
        self.scratch.path().join("control")
    }

    fn control(&self) -> Process {
        let mut command = ravelin();
        command.arg("control").arg("--config").arg(&self.file);
        let mut process = Process::start(command.arg("--data").arg(self.control_data()));
        process.wait_for_line("ready", 1);
        process
    }

    /// What an operator does to let a node in; `authority` is the issuing control plane's data.
    fn add(&self, authority: &Path, name: &str, edge: &str) {
        let out = self.scratch.path().join(edge).join("certs");
        let mut command = ravelin();
        command.args(["node", "add", name, "--data"]).arg(authority).arg("--out").arg(&out);
        let output = run(&mut command);
        assert!(output.status.success(), "{}", text(&output.stderr));
        for file in ["link.pem", "link.key", "link-ca.pem"] {
            assert!(out.join(file).exists() && text(&output.stdout).contains(file));
        }
    }

    fn edge(&self, edge: &str) -> Process {
        let mut command = ravelin();
        command
            .args(["edge", "--control", &format!("tls://{}", self.link), "--config"])
            .arg(&self.file);
        Process::start(command.arg("--data").arg(self.scratch.path().join(edge)))
    }

    /// Applies the file, again until the node has answered.
    fn apply(&self, edge: &Process) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut command = ravelin();
            command.arg("apply").arg(&self.file).args(["--url", &self.api]);
            let output = run(command.arg("--data").arg(self.control_data()));
            let told = text(&output.stdout);
            if told.contains("edge-1: ") && !told.contains("edge-1: away") {
                return told;
            }
            assert!(Instant::now() < end, "{told}{}\n{}", text(&output.stderr), edge.log());
        }
    }
}

#[test]
fn an_edge_on_another_machine_follows_over_mutual_tls_and_comes_back() {
    let planes = Planes::new(24);
    let control = planes.control();
    planes.add(&planes.control_data(), "edge-1", "edge");
    let mut edge = planes.edge("edge");
    edge.wait_for_line("connected to tls:", 1);
    assert!(planes.apply(&edge).contains("edge-1: active"));

    // The control plane goes and comes back: the edge connects again, and nothing is missing.
    control.stop();
    edge.wait_for_line("control plane lost", 1);
    let control = planes.control();
    edge.wait_for_line("connected to tls:", 2);
    assert!(planes.apply(&edge).contains("edge-1: active"));
    edge.stop();
    let of_edge = chain(&planes.scratch.path().join("edge"));
    assert!(kinds(&of_edge).iter().any(|kind| kind == "edge.stopped"));
    // Its end waits for a slow control plane, but not for ever: what is missing comes with the next run.
    let (end, mut records) = (Instant::now() + PATIENCE, of_edge.len());
    loop {
        let mut verify = ravelin();
        verify.args(["audit", "verify", "--json", "--url", &planes.api]);
        let stored = run(verify.arg("--data").arg(planes.control_data()));
        assert!(stored.status.success(), "{}", text(&stored.stderr));
        let stored = text(&stored.stdout);
        if stored.contains("edge-1") && stored.contains(&records.to_string()) {
            break;
        }
        assert!(Instant::now() < end, "{records} records are not in {stored}");
        let mut edge = planes.edge("edge");
        edge.wait_for_line("connected to tls:", 1);
        edge.stop();
        records = chain(&planes.scratch.path().join("edge")).len();
    }
    control.stop();
}

#[test]
fn a_certificate_of_another_authority_or_another_name_lets_nobody_in() {
    let planes = Planes::new(23);
    let other = Planes::new(22);
    let (control, foreign) = (planes.control(), other.control());

    // The right authority, a certificate for another node.
    planes.add(&planes.control_data(), "edge-2", "named");
    let mut edge = planes.edge("named");
    edge.wait_for_line("does not belong to edge-1", 1);
    edge.wait_for_line("edge: ready", 1);
    edge.stop();

    // The right name by another authority: neither side takes the other.
    planes.add(&other.control_data(), "edge-1", "foreign");
    let mut edge = planes.edge("foreign");
    edge.wait_for_line("invalid peer certificate", 1);
    edge.stop();
    // The edge knows whom to trust, but shows what nobody issued here.
    let authority = planes.scratch.path().join("foreign/certs/link-ca.pem");
    fs::copy(planes.control_data().join("certs/link-ca.pem"), authority).expect("copied");
    let mut edge = planes.edge("foreign");
    edge.wait_for_line("control plane not reached", 1);
    edge.stop();
    let mut ask = ravelin();
    ask.arg("apply").arg(&planes.file).args(["--url", &planes.api]);
    let told = text(&run(ask.arg("--data").arg(planes.control_data())).stdout);
    assert!(told.contains("no node is connected"), "{told}");
    foreign.stop();
    control.stop();
}

#[test]
fn a_node_is_issued_nothing_without_the_authority() {
    let scratch = Scratch::new();
    let mut command = ravelin();
    command.args(["node", "add", "edge-1", "--data"]).arg(scratch.data());
    let output = run(command.arg("--out").arg(scratch.path().join("out")));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("link-ca.key"), "{}", text(&output.stderr));
    assert!(!scratch.path().join("out").exists());
}
