//! Loads the program, finds what an earlier process left, attaches, and takes everything away again.

use super::interfaces::{Attached, Interfaces, Mode, Reason};
use super::layout::{COUNT_BYTES, FLOW_BYTES, LAYOUT, PLACES, VERDICTS};
use super::netlink::{AttachedAs, Link, Netlink};
use super::owner::{Held, Owner};
use super::polling::undo_left_at;
use super::probe::Prober;
use super::shared::Flows;
use super::table::MARK_SLOT;
use crate::sys::bpf::{self, Map};
use aya::maps::{MapData, MapInfo};
use aya::programs::{ProgramFd, ProgramInfo, Xdp, loaded_programs};
use aya::{Ebpf, EbpfLoader};
use std::ffi::CStr;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/relay.o");

const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";
const BPF_FS: &CStr = c"/sys/fs/bpf";
const BPF_FS_PATH: &str = "/sys/fs/bpf";
const OURS: &str = "ravelin";
const PROGRAM: &str = "relay";
const MAPS: [&str; 6] = ["ports", "flows", "counts", "verdicts", "interfaces", "sockets"];

/// First word of the owner's mark in the flows' slot 0; the second is drawn from the node's name.
const MARK: u64 = u64::from_ne_bytes(*b"RAVELIN\0");
/// A number that moves and the layout, then the mark: what stands there in every layout.
const MARK_BYTES: usize = 24;

/// The maps, shared by whoever reads and writes them.
#[derive(Clone)]
pub(super) struct Maps {
    pub(super) ports: Arc<Map>,
    pub(super) flows: Arc<Map>,
    pub(super) counts: Arc<Map>,
    pub(super) verdicts: Arc<Map>,
    pub(super) interfaces: Arc<Map>,
    /// AF_XDP sockets.
    pub(super) sockets: Arc<Map>,
    /// Counts of each flow.
    pub(super) cpus: u32,
}

/// The program in the kernel.
pub(super) struct Loaded {
    pub(super) maps: Maps,
    /// Keeps maps and programs where there are no pins.
    _object: Ebpf,
    relay: ProgramFd,
    relay_id: u32,
    pub(super) prober: Arc<Prober>,
    /// Programs that this node had pinned before.
    before: Vec<u32>,
    /// Where it is pinned.
    folder: Option<PathBuf>,
    mark: [u8; 16],
    /// Last of all: the pins are this process's until they are gone.
    _owner: Option<Owner>,
}

/// Where the program can be attached for one interface, and why not better.
pub(super) struct Attachment {
    pub(super) attached: Option<Attached>,
    pub(super) reasons: Vec<Reason>,
}

fn kernel(what: &'static str) -> impl Fn(String) -> Reason {
    move |error| Reason::Kernel { what, error }
}

/// Where a node's pins are, if there is a BPF file system.
pub(super) fn pins_of(node: &str) -> PathBuf {
    // Such a file system takes no dots; what is replaced is told apart by the hash.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut name: String = node.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if name != node || name.is_empty() {
        name = format!("{name}-{:016x}", hash(node));
    }
    Path::new(BPF_FS_PATH).join(OURS).join(name)
}

/// Programs that stand pinned in the folders of a node's layouts.
pub(super) fn pinned_programs(node: &Path) -> Vec<u32> {
    let folders = fs::read_dir(node).into_iter().flatten().flatten();
    let programs =
        folders.filter_map(|entry| ProgramInfo::from_pin(entry.path().join(PROGRAM)).ok());
    programs.map(|program| program.id()).collect()
}

/// What this process may use of a BPF file system.
fn node_folder(node: &str) -> Result<PathBuf, Reason> {
    let refused = |error: std::io::Error| Reason::NotPinned {
        error: format!("no BPF file system at {BPF_FS_PATH}, and it cannot be mounted: {error}"),
    };
    if !bpf::is_bpf_fs(BPF_FS) {
        bpf::mount_bpf_fs(BPF_FS).map_err(refused)?;
    }
    Ok(pins_of(node))
}

/// FNV-1a: the same in every process, since it stands in maps that outlive this one.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Loads the program for a node with room for `slots` flows. What an earlier process of this node
/// left, pinned or attached, is taken over if it has the same layout, else it is replaced.
///
/// # Errors
/// bpf(2) is not there for us, or a living process has the node's name.
pub(super) fn load(
    node: &str,
    slots: u32,
    links: &[&Link],
    warnings: &mut Vec<Reason>,
) -> Result<Loaded, Reason> {
    let mark = mark(node);
    let before = pinned_programs(&pins_of(node));
    let mut owner = None;
    let folder = match node_folder(node) {
        Ok(pins) => {
            owner = own(node, &pins)?;
            layout_folder(&pins, slots)
        }
        Err(reason) => Err(reason),
    };
    let folder = folder.map_err(|reason| warnings.push(reason)).ok();
    if let Some(folder) = &folder {
        for link in links {
            pin_attached(link, mark, slots, folder);
        }
    }
    let object = match create(slots, folder.as_deref()) {
        Ok(object) => object,
        // What is pinned may be of another shape than its name says.
        Err(first) => match &folder {
            Some(folder) => {
                unpin(folder);
                create(slots, Some(folder)).map_err(|_| first)?
            }
            None => return Err(first),
        },
    };
    finish(object, folder, mark, before, owner)
}

/// Holds a node's pins, which are there then if they can be.
fn own(node: &str, pins: &Path) -> Result<Option<Owner>, Reason> {
    // Where it cannot be made, that is told when it is to be used.
    let _ = fs::create_dir_all(pins);
    Owner::take(pins).map_err(|Held(process)| Reason::NodeInUse { node: node.into(), process })
}

pub(super) fn mark(node: &str) -> [u8; 16] {
    let mut mark = [0; 16];
    mark[..8].copy_from_slice(&MARK.to_ne_bytes());
    mark[8..].copy_from_slice(&hash(node).to_ne_bytes());
    mark
}

/// The folder of this layout; those of others are removed.
fn layout_folder(node: &Path, slots: u32) -> Result<PathBuf, Reason> {
    let refused = |error: std::io::Error| Reason::NotPinned {
        error: format!("{} cannot be used: {error}", node.display()),
    };
    fs::create_dir_all(node).map_err(refused)?;
    let ours = node.join(format!("layout-{LAYOUT}-{slots}"));
    for entry in fs::read_dir(node).map_err(refused)?.flatten() {
        if entry.path() != ours {
            unpin(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
    fs::create_dir_all(&ours).map_err(refused)?;
    Ok(ours)
}

/// Removes all pins of a folder, which stays.
pub(super) fn unpin(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // What cannot be removed is met again when it is to be made anew.
        let _ = fs::remove_file(entry.path());
    }
}

fn program_info(id: u32) -> Option<ProgramInfo> {
    loaded_programs().flatten().find(|program| program.id() == id)
}

fn maps_of(program: &ProgramInfo) -> Vec<(String, u32)> {
    let ids = program.map_ids().ok().flatten().unwrap_or_default();
    let named = ids.into_iter().filter_map(|id| {
        let info = MapInfo::from_id(id).ok()?;
        Some((info.name_as_str()?.to_owned(), id))
    });
    named.collect()
}

/// Layout and number of slots of a program that this node attached, of whatever release.
fn attached_by_us(program: &ProgramInfo, mark: [u8; 16]) -> Option<(u32, u32)> {
    if program.name_as_str() != Some(PROGRAM) {
        return None;
    }
    let (_, id) = maps_of(program).into_iter().find(|(name, _)| name == "flows")?;
    let fd = MapData::from_id(id).ok()?.fd().as_fd().try_clone_to_owned().ok()?;
    let map = Map::new(fd).ok()?;
    let mut value = vec![0; map.lookup_bytes()];
    map.lookup(&MARK_SLOT.to_ne_bytes(), &mut value, 0).ok()?;
    let head = value.first_chunk::<MARK_BYTES>()?;
    let layout = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
    (head[8..] == mark).then_some((layout, map.max_entries()))
}

/// Whether a program that is attached is one of this node: pinned by it, or by its maps, which takes
/// `CAP_SYS_ADMIN` to see.
pub(super) fn is_ours(id: u32, pinned: &[u32], mark: [u8; 16]) -> bool {
    pinned.contains(&id)
        || program_info(id).is_some_and(|program| attached_by_us(&program, mark).is_some())
}

/// Pins the maps of a program that is attached, where they are not: a mount of its own, as a process
/// in a network namespace often has, ended with the process that pinned them.
fn pin_attached(link: &Link, mark: [u8; 16], slots: u32, folder: &Path) {
    let Some((_, id)) = link.xdp else { return };
    let Some(program) = program_info(id) else { return };
    if attached_by_us(&program, mark) != Some((LAYOUT, slots)) {
        return;
    }
    for (name, id) in maps_of(&program) {
        let path = folder.join(&name);
        if MAPS.contains(&name.as_str())
            && !path.exists()
            && let Ok(map) = MapData::from_id(id)
        {
            // Without its pin the map is made anew, and streams go through the sockets a while.
            let _ = map.pin(path);
        }
    }
}

fn create(slots: u32, folder: Option<&Path>) -> Result<Ebpf, Reason> {
    let cpus = cpus()?;
    let counts = slots.saturating_mul(cpus);
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("flows", slots).map_max_entries("counts", counts);
    loader.override_global("cpus", &cpus, true);
    if let Some(folder) = folder {
        for map in MAPS {
            loader.map_pin_path(map, folder.join(map));
        }
    }
    let mut object = loader
        .load(OBJECT)
        .map_err(|error| kernel("the maps of the XDP program cannot be made")(chain(&error)))?;
    for name in [PROGRAM, "probe"] {
        program(&mut object, name)?
            .load()
            .map_err(|error| kernel("the XDP program cannot be loaded")(chain(&error)))?;
    }
    for (name, value, entries) in [
        ("ports", 4, PLACES),
        ("flows", FLOW_BYTES, slots),
        ("counts", COUNT_BYTES, counts),
        ("verdicts", 8, VERDICTS.len() as u32),
    ] {
        let map = map(&object, name)?;
        if map.sizes() != (4, value) || map.max_entries() != entries {
            return Err(kernel("a pinned map has another shape")(name.into()));
        }
    }
    Ok(object)
}

/// One more than the highest number of a CPU.
fn cpus() -> Result<u32, Reason> {
    if !cfg!(target_arch = "x86_64") {
        let error = "only x86-64 keeps loads in the order that the program needs".to_owned();
        return Err(Reason::Kernel { what: "the XDP program is not for this machine", error });
    }
    let unknown = kernel("the CPUs cannot be counted");
    let text = fs::read_to_string(POSSIBLE_CPUS).map_err(|error| unknown(error.to_string()))?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<u32>().ok());
    last.map(|last| last + 1).ok_or_else(|| unknown(text))
}

/// An error and its causes in one line; of a verifier's log only the end.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    const WORDS_MAX: usize = 400;
    match text.char_indices().rev().nth(WORDS_MAX) {
        Some((start, _)) => format!("...{}", text.get(start..).unwrap_or_default()),
        None => text,
    }
}

fn program<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut Xdp, Reason> {
    let missing = || kernel("the XDP object has no such program")(name.to_owned());
    object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(missing)
}

pub(super) fn map(object: &Ebpf, name: &str) -> Result<Map, Reason> {
    use aya::maps::Map as Kind;
    let fail = kernel("a map of the XDP program cannot be opened");
    let Some(
        Kind::HashMap(data)
        | Kind::Array(data)
        | Kind::PerCpuArray(data)
        | Kind::DevMapHash(data)
        | Kind::XskMap(data)
        | Kind::Unsupported(data),
    ) = object.map(name)
    else {
        return Err(fail(name.to_owned()));
    };
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(|error| fail(error.to_string()))?;
    Map::new(fd).map_err(|error| fail(error.to_string()))
}

fn finish(
    mut object: Ebpf,
    folder: Option<PathBuf>,
    mark: [u8; 16],
    before: Vec<u32>,
    owner: Option<Owner>,
) -> Result<Loaded, Reason> {
    let maps = Maps {
        ports: Arc::new(map(&object, "ports")?),
        flows: Arc::new(map(&object, "flows")?),
        counts: Arc::new(map(&object, "counts")?),
        verdicts: Arc::new(map(&object, "verdicts")?),
        interfaces: Arc::new(map(&object, "interfaces")?),
        sockets: Arc::new(map(&object, "sockets")?),
        cpus: cpus()?,
    };
    let mut marked = [0; FLOW_BYTES];
    marked[4..8].copy_from_slice(&LAYOUT.to_ne_bytes());
    marked[8..MARK_BYTES].copy_from_slice(&mark);
    Flows::new(&maps.ports, &maps.flows)
        .map_err(|error| kernel("the flows cannot be written")(error.to_string()))?
        .write(MARK_SLOT, &marked);
    let opened = kernel("the XDP program cannot be opened");
    let mut fd = |name| {
        let program = program(&mut object, name)?;
        let fd = program.fd().map_err(|error| opened(error.to_string()))?;
        fd.try_clone().map_err(|error| opened(error.to_string()))
    };
    let (relay, probe) = (fd(PROGRAM)?, fd("probe")?);
    let relay_id =
        program(&mut object, PROGRAM)?.info().map_err(|error| opened(error.to_string()))?.id();
    if let Some(folder) = &folder {
        let path = folder.join(PROGRAM);
        let _ = fs::remove_file(&path);
        let pinned = program(&mut object, PROGRAM)?.pin(&path);
        pinned.map_err(|error| kernel("the XDP program cannot be pinned")(chain(&error)))?;
    }
    let prober = Arc::new(Prober::new(probe));
    Ok(Loaded {
        maps,
        _object: object,
        relay,
        relay_id,
        prober,
        before,
        folder,
        mark,
        _owner: owner,
    })
}

impl Loaded {
    /// Attaches to one interface: in its driver, else in generic mode, else not. `within`: how long the
    /// driver may take to send test frames.
    pub(super) fn attach(
        &self,
        netlink: &mut Netlink,
        link: &Link,
        native_only: bool,
        within: Duration,
    ) -> Attachment {
        let mut reasons = Vec::new();
        let interface = || link.name.clone();
        if let Some((_, id)) = link.xdp
            && !self.is_attached(link)
            && !is_ours(id, &self.before, self.mark)
        {
            let program = program_info(id);
            let name = program.as_ref().and_then(|program| program.name_as_str());
            let program = format!("{}, id {id}", name.unwrap_or("its name may not be read"));
            reasons.push(Reason::Occupied { interface: interface(), program });
            return Attachment { attached: None, reasons };
        }
        let attached = |mode| {
            // The other end of a veth is on this machine: it leaves checksums to the hardware that
            // is not there. Generic mode meets such packets on every kind of virtual interface.
            let partial = mode == Mode::Generic || link.kind == "veth";
            Some(Attached { name: link.name.clone(), mode, partial, stalled: false })
        };
        if matches!(link.xdp, Some((AttachedAs::Generic, _))) {
            // What stands in generic mode keeps the driver's mode out: replaced in place.
            let replaced = netlink.set_xdp(link.index, Some(self.relay.as_fd()), true);
            if replaced.is_ok() {
                let error = "an earlier process found so, and its streams go on".to_owned();
                reasons.push(Reason::NoNative { interface: interface(), error });
                return Attachment { attached: attached(Mode::Generic), reasons };
            }
        }
        match netlink.set_xdp(link.index, Some(self.relay.as_fd()), false) {
            Ok(()) => match self.prober.try_link(netlink, link, within) {
                Ok(()) => return Attachment { attached: attached(Mode::Native), reasons },
                Err(error) => {
                    // Nothing that was attached here is of use.
                    let _ = netlink.set_xdp(link.index, None, false);
                    reasons.push(Reason::NoNative { interface: interface(), error });
                }
            },
            Err(error) => {
                let error = error.to_string();
                reasons.push(Reason::NoNative { interface: interface(), error });
            }
        }
        if native_only {
            return Attachment { attached: None, reasons };
        }
        match netlink.set_xdp(link.index, Some(self.relay.as_fd()), true) {
            Ok(()) => Attachment { attached: attached(Mode::Generic), reasons },
            Err(error) => {
                let error = error.to_string();
                reasons.push(Reason::NoGeneric { interface: interface(), error });
                Attachment { attached: None, reasons }
            }
        }
    }

    /// Whether the program of this process is at an interface.
    pub(super) fn is_attached(&self, link: &Link) -> bool {
        // With two at once the kernel names neither.
        link.xdp.is_some_and(|(how, id)| id == self.relay_id || how == AttachedAs::Other)
    }

    /// Has packets of other interfaces leave by this one.
    pub(super) fn open_way(&self, index: u32) -> std::io::Result<()> {
        let key = index.to_ne_bytes();
        // Behind the index there is room for a program that we do not use.
        let mut value = key.to_vec();
        value.resize(self.maps.interfaces.sizes().1, 0);
        self.maps.interfaces.update(&key, &value, 0)
    }

    /// Undoes [`Self::open_way`].
    pub(super) fn close_way(&self, index: u32) {
        // The kernel has done it when the interface is gone.
        let _ = self.maps.interfaces.delete(&index.to_ne_bytes());
    }

    /// Detaches what an earlier process of this node left at interfaces that are served no more.
    pub(super) fn leave(&self, netlink: &mut Netlink, served: &[u32]) {
        for link in netlink.links().unwrap_or_default() {
            if let Some((how, id)) = link.xdp
                && !served.contains(&link.index)
                && is_ours(id, &self.before, self.mark)
            {
                // What cannot be detached finds no flow in its maps.
                let _ = netlink.set_xdp(link.index, None, how == AttachedAs::Generic);
                let _ = undo_left_at(&[link.index]);
            }
        }
    }

    /// Detaches and removes everything: an orderly stop leaves nothing behind.
    pub(super) fn remove(&self, netlink: &mut Netlink, interfaces: &Interfaces) {
        let links = netlink.links().unwrap_or_default();
        for (index, attached) in &interfaces.attached {
            let ours = links.iter().any(|link| {
                link.index == *index && link.xdp.is_some_and(|(_, id)| id == self.relay_id)
            });
            if ours {
                // An interface that is gone has nothing attached.
                let _ = netlink.set_xdp(*index, None, attached.mode == Mode::Generic);
            }
        }
        if let Some(folder) = &self.folder {
            unpin(folder);
            let _ = fs::remove_dir(folder);
            let _ = folder.parent().map(fs::remove_dir);
        }
    }

    /// Whether a process that is killed leaves its streams running.
    pub(super) fn is_pinned(&self) -> bool {
        self.folder.is_some()
    }
}
