//! An edge with one customer and one carrier, wherever its addresses are.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ravelin_contract::{
    cdr::{Cdr, CdrKind},
    chain::Entry,
};

use super::namespaces::Spaces;
use crate::{
    link,
    peer::Peer,
    support::{Process, Scratch, chain, ravelin},
};

pub(super) const SIP: u16 = 5060;
/// First media port of either realm.
pub(super) const FIRST_PORT: u16 = 20_000;

/// Who is where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Net {
    pub(super) access: IpAddr,
    pub(super) core: IpAddr,
    pub(super) caller: IpAddr,
    pub(super) callee: IpAddr,
    /// Hosts that no call knows, one that reaches each realm.
    pub(super) strangers: [IpAddr; 2],
}

impl Net {
    /// A place in 127.14.0.0/16, 0-24.
    pub(super) fn loopback(place: u8) -> Self {
        let at = |net: u8, host: u8| IpAddr::from([127, 14, place * 10 + net, host]);
        Self {
            access: at(0, 10),
            core: at(0, 20),
            caller: at(1, 7),
            callee: at(2, 1),
            strangers: [at(8, 66), at(8, 67)],
        }
    }

    /// Our address towards caller and callee.
    pub(super) fn ours(&self) -> [IpAddr; 2] {
        [self.access, self.core]
    }

    pub(super) fn parties(&self) -> [IpAddr; 2] {
        [self.caller, self.callee]
    }
}

/// What a test asks of its edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup<'a> {
    /// Media port pairs of each realm.
    pub(super) pairs: u16,
    pub(super) driver: &'a str,
    /// `media:` of the caller's trunk and of the callee's.
    pub(super) media: [&'a str; 2],
    /// A control plane's end listens: [`Edge::control`].
    pub(super) followed: bool,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { pairs: 50, driver: "auto", media: ["{}", "{}"], followed: false }
    }
}

pub(super) fn config(net: &Net, setup: &Setup<'_>, node: &str) -> String {
    let Net { access, core, caller, callee, .. } = net;
    let Setup { pairs, driver, media: [near, far], .. } = setup;
    let ports = format!("{FIRST_PORT}-{}", FIRST_PORT + 2 * pairs - 1);
    format!(
        r#"node: {node}
deployment: {{ mode: production }}
edge:
  listeners:
    - {{ id: access-udp, realm: access, transport: udp, bind: "{access}:{SIP}" }}
    - {{ id: core-udp, realm: core, transport: udp, bind: "{core}:{SIP}" }}
  media:
    - {{ realm: access, address: {access}, ports: {ports}, driver: {driver} }}
    - {{ realm: core, address: {core}, ports: {ports}, driver: {driver} }}
trunks:
  - id: customer
    realm: access
    role: customer
    sources: [{caller}/32]
    targets: [{{ uri: "sip:{caller}:{SIP}" }}]
    media: {near}
  - id: carrier
    realm: core
    role: carrier
    sources: [{callee}/32]
    targets: [{{ uri: "sip:{callee}:{SIP}" }}]
    media: {far}
routes:
  - {{ id: outbound, from: [customer], to: "*", trunks: [carrier] }}
  - {{ id: inbound, from: [carrier], to: "*", trunks: [customer] }}
"#
    )
}

/// A running edge and its two SIP peers.
pub(super) struct Edge {
    pub(super) net: Net,
    pub(super) caller: Peer,
    pub(super) callee: Peer,
    pub(super) control: Option<link::Peer>,
    process: Process,
    scratch: Scratch,
}

impl Edge {
    pub(super) fn start(net: Net, setup: &Setup<'_>) -> Self {
        Self::start_in(None, net, setup)
    }

    /// With namespaces the caller of this is in the one of the peers.
    pub(super) fn start_in(spaces: Option<&Spaces>, net: Net, setup: &Setup<'_>) -> Self {
        let scratch = Scratch::new();
        let node = spaces.map_or_else(|| "edge-1".to_owned(), |spaces| spaces.node());
        scratch.write("ravelin.yml", &config(&net, setup, &node));
        let control = setup.followed.then(|| link::Peer::listen(&socket(&scratch)));
        let process = launch(spaces, &scratch, setup.followed);
        let caller = Peer::new((net.caller, SIP).into(), (net.access, SIP).into());
        let callee = Peer::new((net.callee, SIP).into(), (net.core, SIP).into());
        Self { net, caller, callee, control, process, scratch }
    }

    /// The whole process stands still while `work` is done.
    pub(super) fn frozen<T>(&self, work: impl FnOnce() -> T) -> T {
        self.process.signal("STOP");
        let done = work();
        self.process.signal("CONT");
        done
    }

    /// `kill -9`, and nobody starts it again; gives where its data are.
    pub(super) fn kill(mut self) -> Scratch {
        self.process.signal("KILL");
        self.process.wait();
        self.scratch
    }

    pub(super) fn data(&self) -> PathBuf {
        self.scratch.data()
    }

    /// Waits until the edge has logged a line with these words so often.
    #[track_caller]
    pub(super) fn wait_for_line(&mut self, words: &str, times: usize) {
        self.process.wait_for_line(words, times);
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// `kill -9`, and the same edge again, with the one call that was up; gives what it has logged.
    pub(super) fn kill_and_start(&mut self, spaces: Option<&Spaces>, followed: bool) -> String {
        self.process.signal("KILL");
        self.process.wait();
        self.process = launch(spaces, &self.scratch, followed);
        self.process.wait_for_line("1 of its calls go on", 1);
        self.process.log()
    }

    /// Ends the edge at once and in order; gives its records of calls.
    pub(super) fn stop(self) -> Vec<Cdr> {
        let Self { mut process, scratch, .. } = self;
        process.signal("TERM");
        process.wait_for_line("taking no new calls", 1);
        process.signal("TERM");
        process.wait();
        let entries = chain(&scratch.data());
        let calls = entries.into_iter().filter_map(|entry| match entry {
            Entry::Cdr(cdr) if cdr.kind == CdrKind::Call => Some(cdr),
            _ => None,
        });
        calls.collect()
    }
}

/// Where an edge looks for its control plane.
fn socket(scratch: &Scratch) -> PathBuf {
    scratch.data().join("run/link.sock")
}

fn launch(spaces: Option<&Spaces>, scratch: &Scratch, followed: bool) -> Process {
    let start = || {
        let mut command = ravelin();
        command.args(["edge", "--drain-within", "24h", "--config"]);
        command.arg(scratch.path().join("ravelin.yml")).arg("--data").arg(scratch.data());
        if followed {
            command.arg("--control").arg(format!("unix:{}", socket(scratch).display()));
        }
        let mut process = Process::start(&mut command);
        process.wait_for_line("edge: ready", 1);
        process
    };
    spaces.map_or_else(start, |spaces| spaces.at_the_edge(start))
}

/// Where a description wants the RTP of its stream number `stream`.
#[track_caller]
pub(super) fn media_of(message: &str, stream: usize) -> SocketAddr {
    let address = message.lines().find_map(|line| line.strip_prefix("c=IN IP4 "));
    let line = message.lines().filter(|line| line.starts_with("m=")).nth(stream);
    let port = line.and_then(|line| line.split(' ').nth(1)).and_then(|port| port.parse().ok());
    let (Some(address), Some(port)) = (address, port) else {
        panic!("no stream {stream} in\n{message}")
    };
    SocketAddr::new(address.trim().parse().expect("an address"), port)
}

/// A session description with these lines after `t=`.
pub(super) fn description(ip: IpAddr, version: u32, streams: &str) -> String {
    let text = format!("v=0\no=- 1 {version} IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\n{streams}");
    text.replace('\n', "\r\n")
}
