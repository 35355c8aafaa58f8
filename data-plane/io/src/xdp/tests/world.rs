//! Two network namespaces and the wires between them: the peers', and that of the machine under
//! test.

use crate::sys::bpf;
use crate::sys::thread::enter_network_namespace;
use crate::xdp::probe::Prober;
use aya::programs::{ProgramFd, Xdp};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Runs `ip` and the like; the test ends where one fails.
pub(crate) fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Why a test that needs root, namespaces and XDP cannot run here. Tried once: two tests that try at
/// the same time would be in each other's way.
pub(crate) fn missing() -> Option<String> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING.get_or_init(look).clone()
}

fn look() -> Option<String> {
    for tool in ["ip", "ethtool", "tcpdump"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return Some(format!("{tool} is not installed (tools/setup test)"));
        }
    }
    let name = format!("rvl-xdp-try-{}", std::process::id());
    let made = Command::new("ip").args(["netns", "add", &name]).output();
    if !made.is_ok_and(|output| output.status.success()) {
        return Some("network namespaces need root".into());
    }
    run(&format!("ip netns del {name}"));
    None
}

/// Says by name that a test does not run.
pub(crate) fn skip(test: &str, why: &str) {
    println!("skipped: {test}: {why}");
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// `peer` has p0, p1, ...; `here` has d0, d1, ... at the other ends.
pub(crate) struct World {
    pub(crate) peer: String,
    pub(crate) here: String,
    pub(crate) node: String,
}

impl World {
    pub(crate) fn new(wires: u32) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{}-{number}", std::process::id());
        let world = Self {
            peer: format!("rvl-xdp-p-{tag}"),
            here: format!("rvl-xdp-d-{tag}"),
            node: format!("test-{tag}"),
        };
        for name in [&world.peer, &world.here] {
            run(&format!("ip netns add {name}"));
            run(&format!("ip -n {name} link set lo up"));
            for family in ["conf.all", "conf.default"] {
                let keys = format!("net.ipv6.{family}.accept_dad=0");
                run(&format!("ip netns exec {name} sysctl -qw {keys}"));
            }
        }
        let (peer, here) = (&world.peer, &world.here);
        for wire in 0..wires {
            run(&format!(
                "ip link add p{wire} netns {peer} type veth peer name d{wire} netns {here}"
            ));
            for (space, name) in [(peer, format!("p{wire}")), (here, format!("d{wire}"))] {
                run(&format!("ip -n {space} link set {name} up"));
                // Its receiving side is then ready for frames that bypass the stack; and what the
                // sockets send has its tags and checksums before it is recorded.
                let words = if name.starts_with('d') {
                    "gro on txvlan off tx off"
                } else {
                    "gro on txvlan off"
                };
                run(&format!("ip netns exec {space} ethtool -K {name} {words}"));
            }
        }
        world
    }

    /// Gives `here` an address, and a neighbour beyond the wire.
    pub(crate) fn address(&self, device: &str, ours: &str, theirs: &str, mac: [u8; 6]) {
        let here = &self.here;
        let nodad = if ours.contains(':') { "nodad" } else { "" };
        run(&format!("ip -n {here} addr add {ours} dev {device} {nodad}"));
        self.neighbour(device, theirs, mac);
    }

    pub(crate) fn neighbour(&self, device: &str, theirs: &str, mac: [u8; 6]) {
        let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
        let here = &self.here;
        run(&format!(
            "ip -n {here} neigh replace {theirs} lladdr {mac} dev {device} nud permanent"
        ));
    }

    /// Whether this kernel has VLAN devices.
    pub(crate) fn try_vlan(&self) -> Result<(), String> {
        let here = &self.here;
        let words = format!("ip -n {here} link add link d0 name d0.9 type vlan id 9");
        let output = Command::new("ip").args(words.split(' ').skip(1)).output().unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Runs on a thread inside a namespace.
    pub(crate) fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{name}")).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                enter_network_namespace(&namespace).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    pub(crate) fn here<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Self::inside(&self.here, work)
    }

    pub(crate) fn mac(space: &str, device: &str) -> [u8; 6] {
        let output = Command::new("ip").args(["-n", space, "-o", "link", "show", device]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let mac = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        let octets: Vec<u8> =
            mac.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
        octets.try_into().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in [&self.peer, &self.here] {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
        let _ = fs::remove_dir_all(format!("/sys/fs/bpf/ravelin/{}", self.node));
    }
}

/// Puts frames on a wire at the peers' end, as a card would: whole, and with their checksums.
pub(crate) struct Injector {
    program: ProgramFd,
    _object: aya::Ebpf,
    interfaces: BTreeMap<&'static str, u32>,
}

impl Injector {
    /// To be made and used inside the peers' namespace.
    pub(crate) fn new(devices: &[&'static str]) -> Self {
        let mut object = aya::EbpfLoader::new()
            .map_max_entries("flows", 1)
            .map_max_entries("counts", 1)
            .load(aya::include_bytes_aligned!("../../../bpf/relay.o"))
            .unwrap();
        let program: &mut Xdp = object.program_mut("probe").unwrap().try_into().unwrap();
        program.load().unwrap();
        let program = program.fd().unwrap().try_clone().unwrap();
        let links = super::super::netlink::Netlink::open().unwrap().links().unwrap();
        let interfaces = devices
            .iter()
            .map(|name| (*name, links.iter().find(|link| link.name == *name).unwrap().index))
            .collect();
        Self { program, _object: object, interfaces }
    }

    /// Tries interfaces, with no fast path around that does the same.
    pub(in crate::xdp) fn prober(&self) -> Prober {
        Prober::new(self.program.try_clone().unwrap())
    }

    pub(crate) fn send(&self, device: &str, frame: &[u8]) {
        bpf::run_frames(self.program.as_fd(), frame, self.interfaces[device], 1).unwrap();
    }
}

/// Longest frame that is recorded, and what the kernel keeps of them while tcpdump does not run. By
/// default it keeps eight frames of an interface with GRO, of the longest that there can be, and
/// records no more for as long as nobody reads them.
const SNAPLEN: &str = "2048";
const RING_KIB: &str = "16384";

/// What arrives at the peers' end of a wire, recorded by tcpdump.
pub(crate) struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    pub(crate) fn start(world: &World, device: &str) -> Self {
        let file = std::env::temp_dir().join(format!("{}-{device}.pcap", world.node));
        let name = file.to_str().unwrap();
        let mut child = Command::new("ip")
            .args(["netns", "exec", &world.peer, "tcpdump", "-i", device, "-Q", "in", "-U", "-n"])
            .args(["--immediate-mode", "-s", SNAPLEN, "-B", RING_KIB, "-Z", "root", "-w", name])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listening on")), "tcpdump ended");
        Self { child, file }
    }

    /// All frames up to one that `last` knows, which is waited for.
    pub(crate) fn frames_until(&self, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let mut frames = self.frames();
            if let Some(at) = frames.iter().position(|frame| last(frame)) {
                frames.truncate(at + 1);
                return frames;
            }
            assert!(Instant::now() < until, "the last one is not in {} frames", frames.len());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// All frames so far.
    fn frames(&self) -> Vec<Vec<u8>> {
        let octets = fs::read(&self.file).unwrap_or_default();
        let mut rest = octets.get(24..).unwrap_or_default();
        let mut frames = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<16>() {
            let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
            // The last one may be half written.
            let Some((frame, after)) = after.split_at_checked(length) else { break };
            frames.push(frame.to_vec());
            rest = after;
        }
        frames
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.file);
    }
}
