//! Two network namespaces and two wires between them: the peers', and the edge's. What a fast path
//! needs, and loopback has not.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::edge::Net;

/// Both go away with the test.
pub(super) struct Spaces {
    peers: String,
    edge: String,
}

fn run(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .output()
        .map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let space = File::open(format!("/run/netns/{name}")).expect("a namespace");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(space.as_fd(), kind).expect("entered");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Spaces {
    /// # Errors
    /// What this machine lacks: root, iproute2, ethtool, veth.
    pub(super) fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let spaces = Self { peers: format!("rvl-m-p-{tag}"), edge: format!("rvl-m-e-{tag}") };
        let Self { peers, edge } = &spaces;
        for name in [peers, edge] {
            run(&format!("ip netns add {name}"))?;
            run(&format!("ip -n {name} link set lo up"))?;
        }
        for wire in 0..2 {
            spaces.wire(wire)?;
        }
        Ok(spaces)
    }

    /// Makes a wire, with its addresses: 0 is the caller's, 1 the callee's.
    pub(super) fn wire(&self, wire: usize) -> Result<(), String> {
        let Self { peers, edge } = self;
        run(&format!(
            "ip link add p{wire} netns {peers} type veth peer name e{wire} netns {edge}"
        ))?;
        for (space, end) in [(peers, "p"), (edge, "e")] {
            // A veth takes frames natively if its other end has GRO; and sums are made before a
            // program sees the frame.
            run(&format!("ip netns exec {space} ethtool -K {end}{wire} gro on txvlan off tx off"))?;
            run(&format!("ip -n {space} link set {end}{wire} up"))?;
        }
        let net = Self::net();
        for (space, end, address) in [
            (peers, "p", net.parties()[wire]),
            (peers, "p", net.strangers[wire]),
            (edge, "e", net.ours()[wire]),
        ] {
            run(&format!("ip -n {space} addr add {address}/24 dev {end}{wire}"))?;
        }
        Ok(())
    }

    /// Deletes a wire.
    pub(super) fn cut(&self, wire: usize) {
        run(&format!("ip -n {} link del p{wire}", self.peers)).expect("a wire");
    }

    pub(super) fn net() -> Net {
        let at = |net: u8, host: u8| IpAddr::from([10, 14, net, host]);
        Net {
            access: at(1, 10),
            core: at(2, 20),
            caller: at(1, 7),
            callee: at(2, 1),
            strangers: [at(1, 66), at(2, 67)],
        }
    }

    /// A node's name of its own: programs are pinned by it.
    pub(super) fn node(&self) -> String {
        self.edge.clone()
    }

    pub(super) fn at_the_peers<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.peers, work)
    }

    pub(super) fn at_the_edge<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.edge, work)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in [&self.peers, &self.edge] {
            let _ = run(&format!("ip netns del {name}"));
        }
        let _ = std::fs::remove_dir_all(format!("/sys/fs/bpf/ravelin/{}", self.edge));
    }
}
