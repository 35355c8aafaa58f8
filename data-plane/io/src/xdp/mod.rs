//! The fast path: RTP streams that the engine has decided are forwarded by a program in the kernel
//! ([XDP](https://docs.kernel.org/bpf/)), before the sockets. It decides nothing and only narrows
//! what the sockets would do; whatever it does not know goes on to them.
//!
//! One [`FastPath`] serves the process, and each shard's driver is wrapped by [`FastPath::around`].
//! Program and maps live in the kernel and outlive a process that is killed: the next one of the
//! same node takes them over ([`FastPath::start`]). Dropped in order, it takes them away.
//!
//! | Module | What it is |
//! |---|---|
//! | `bpf/relay.c` | the program |
//! | `layout` | the octets of the maps |
//! | `loader` | load, adopt, attach, remove |
//! | `owner` | one living process of a node at a time |
//! | `leftover` | remove what an earlier process left, without a fast path |
//! | `probe` | whether an interface really sends |
//! | `interfaces` | which interface has which media address |
//! | `follow` | interfaces that go and come |
//! | `places` | AF_XDP sockets by interface |
//! | `netlink` | what the kernel knows of links, routes, neighbours |
//! | `hops` | next hops, followed |
//! | `polling` | shards that look by themselves, and the kernel's own look put off meanwhile |
//! | `netdev` | when the kernel looks at a queue |
//! | `shared` | ports, flows and counts as this process has them in its memory |
//! | `table` | ports, flows, and who asked for them |
//! | `shard` | the driver of one shard with the fast path around it |

mod follow;
mod hops;
mod interfaces;
mod layout;
mod leftover;
mod loader;
mod netdev;
mod netlink;
mod owner;
mod places;
mod polling;
mod probe;
mod shard;
mod shared;
mod table;
#[cfg(test)]
pub(crate) mod tests;

pub use crate::af_xdp::Mode as AfXdpMode;
pub use interfaces::{Mode, Reason};
pub use leftover::{TakenDown, take_down};

use crate::af_xdp::{Short, Wanted};
use crate::driver::Driver;
use crossbeam::channel::{Sender, bounded};
use follow::{Comings, Follower, Lost};
use hops::Message;
use interfaces::{Attached, Interfaces};
use loader::Loaded;
use netlink::{Changes, Link, Netlink};
use places::Places;
use polling::{Polling, Why};
use ravelin_engine::port::ShardId;
use shared::{Counts, Flows};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use table::{HopChanges, Refused, Table};

/// Questions and changes that may wait for the resolver.
const MESSAGES_MAX: usize = 4_096;
/// How soon a listener sees that it is to end.
const LISTEN_FOR: Duration = Duration::from_millis(250);
/// Fewest flows that there is room for: a narrow port range that is widened keeps its maps.
const SLOTS_MIN: u32 = 1_024;

/// Interfaces whose packets arrive at others.
const MADE_OF_OTHERS: [&str; 3] = ["bond", "team", "bridge"];

/// What the fast path is to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names the pins; a node has one edge process at a time.
    pub node: String,
    /// Addresses of the media ports.
    pub addresses: Vec<IpAddr>,
    /// Media ports of all shards.
    pub ports: u32,
    /// Shards, each of which has AF_XDP sockets; 0: none has.
    pub shards: u8,
    /// Only where an interface's driver runs the program: generic mode costs each packet of the
    /// interface, and is for who asks for it.
    pub native_only: bool,
    /// Hears what becomes known while it runs, for the log: how grave it is, and a line. Called from a
    /// thread of the fast path, never from a shard's.
    pub note: fn(level: &'static str, text: &str),
}

/// One interface that has the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    pub interface: String,
    pub mode: Mode,
    /// Queues with AF_XDP sockets, and how these are bound; `None`: no queue has.
    pub af_xdp: Option<(u32, AfXdpMode)>,
}

/// A count or state of the fast path, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastSample {
    pub name: &'static str,
    pub help: &'static str,
    pub label: Option<(&'static str, &'static str)>,
    /// Of one shard alone.
    pub shard: Option<usize>,
    pub value: u64,
    /// It only grows.
    pub total: bool,
}

/// The fast path of this process.
pub struct FastPath {
    loaded: Arc<Loaded>,
    table: Arc<Mutex<Table>>,
    counts: Counts,
    refused: [AtomicU64; Refused::ALL.len()],
    messages: Sender<Message>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    serving: Vec<Serving>,
    reasons: Vec<Reason>,
    adopted: usize,
    places: Arc<Places>,
    comings: Arc<Comings>,
    /// Flows that shards set again when interfaces change.
    waiting: AtomicI64,
    hops: Arc<HopChanges>,
    polling: Arc<Polling>,
}

impl FastPath {
    /// Loads the program and attaches it wherever a media address is.
    ///
    /// # Errors
    /// Why no address has a fast path: one reason for each, or one for all. With
    /// [`Reason::NodeInUse`] nothing was touched, and nobody of this name should start.
    pub fn start(options: &Options) -> Result<Self, Vec<Reason>> {
        let kernel = |what| {
            move |error: std::io::Error| vec![Reason::Kernel { what, error: error.to_string() }]
        };
        let mut netlink = Netlink::open().map_err(kernel("netlink cannot be opened"))?;
        let mut interfaces =
            Interfaces::read(&mut netlink).map_err(kernel("interfaces cannot be listed"))?;
        let mut reasons = Vec::new();
        let mut links = BTreeMap::new();
        for &address in &options.addresses {
            match interfaces.behind(address) {
                Ok(link) => drop(links.insert(link.index, link.clone())),
                Err(reason) if reasons.contains(&reason) => {}
                Err(reason) => reasons.push(reason),
            }
        }
        if links.is_empty() {
            return Err(reasons);
        }
        let slots = options.ports.saturating_add(1).next_power_of_two().max(SLOTS_MIN);
        let found: Vec<_> = links.values().collect();
        let loaded = match loader::load(&options.node, slots, &found, &mut reasons) {
            Ok(loaded) => loaded,
            Err(reason) => {
                reasons.push(reason);
                return Err(reasons);
            }
        };
        loaded.leave(&mut netlink, &links.keys().copied().collect::<Vec<_>>());
        for link in links.values() {
            let attachment =
                loaded.attach(&mut netlink, link, options.native_only, probe::AT_START);
            reasons.extend(attachment.reasons);
            let Some(attached) = attachment.attached else { continue };
            match loaded.open_way(link.index) {
                Ok(()) => drop(interfaces.attached.insert(link.index, attached)),
                Err(error) => {
                    let error = error.to_string();
                    reasons.push(Reason::NoGeneric { interface: link.name.clone(), error });
                }
            }
        }
        if interfaces.attached.is_empty() {
            loaded.remove(&mut netlink, &interfaces);
            return Err(reasons);
        }
        Self::run(loaded, netlink, interfaces, reasons, options).map_err(kernel("threads or maps"))
    }

    fn run(
        loaded: Loaded,
        netlink: Netlink,
        interfaces: Interfaces,
        mut reasons: Vec<Reason>,
        options: &Options,
    ) -> std::io::Result<Self> {
        let loaded = Arc::new(loaded);
        let attached: Vec<_> = interfaces.attached.clone().into_iter().collect();
        let wanted: Vec<_> = attached
            .iter()
            .map(|(index, attached)| af_xdp_wanted(*index, interfaces.link(*index), attached))
            .collect();
        let changes = Changes::open(LISTEN_FOR)?;
        let (messages, received) = bounded(MESSAGES_MAX);
        let maps = &loaded.maps;
        let flows = Flows::new(&maps.ports, &maps.flows)?;
        let counts = Counts::new(&maps.counts, maps.cpus)?;
        let table = Table::adopt(flows, interfaces.clone(), messages.clone());
        let adopted = table.left();
        let hops = table.changes();
        // Only now: what an earlier process had delivered to its sockets has ended.
        let places = Arc::new(Places::bind(&wanted, options.shards, &maps.sockets));
        let bound = places.bound();
        let faults = bound.iter().filter_map(|bound| {
            let (_, error) = bound.short.clone()?;
            Some(Reason::NoAfXdp { interface: bound.name.clone(), error })
        });
        reasons.extend(faults);
        let serving = attached.iter().map(|(_, attached)| {
            let bound = bound.iter().find(|bound| bound.name == attached.name);
            Serving {
                interface: attached.name.clone(),
                mode: attached.mode,
                af_xdp: bound.and_then(|bound| Some((bound.queues, bound.mode?))),
            }
        });
        let serving = serving.collect();
        let table = Arc::new(Mutex::new(table));
        let stopping = Arc::new(AtomicBool::new(false));
        let polling = Arc::new(Polling::new(options.shards.into()));
        for shard in (0..options.shards).filter(|shard| places.is_without(ShardId(*shard))) {
            polling.set(shard.into(), Why::NoSocket);
        }
        let follower = Follower::new(
            Arc::clone(&loaded),
            Arc::clone(&places),
            (options.addresses.clone(), options.native_only),
            options.note,
            &interfaces,
        );
        // What changed since the interfaces were read is found with the first tick.
        let missed = Arc::new(AtomicBool::new(true));
        let mut fast = Self {
            loaded,
            table: Arc::clone(&table),
            counts,
            refused: Default::default(),
            messages: messages.clone(),
            stopping: Arc::clone(&stopping),
            threads: Vec::new(),
            serving,
            reasons,
            adopted,
            places: Arc::clone(&places),
            comings: Arc::clone(&follower.comings),
            waiting: AtomicI64::new(0),
            hops,
            polling: Arc::clone(&polling),
        };
        let heard = Arc::clone(&missed);
        let resolver = thread::Builder::new().name("xdp-hops".into());
        fast.threads.push(resolver.spawn(move || {
            hops::run(netlink, &table, &received, &heard, &polling, follower);
        })?);
        let listener = thread::Builder::new().name("xdp-changes".into());
        let listen = move || hops::listen(changes, &messages, &missed, &stopping);
        fast.threads.push(listener.spawn(listen)?);
        Ok(fast)
    }

    /// Interfaces that had the program at the start.
    #[must_use]
    pub fn serving(&self) -> &[Serving] {
        &self.serving
    }

    /// Why it was not everywhere then, or not native, or not pinned.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Whether streams go on when this process is killed.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.loaded.is_pinned()
    }

    /// Flows that were found running at the start.
    #[must_use]
    pub fn adopted(&self) -> usize {
        self.adopted
    }

    /// Ends the flows that an earlier process left and that nobody has claimed: for when every shard
    /// has told of the calls that it took over. Gives how many there were. Until then they go on,
    /// however long the start takes.
    pub fn end_unclaimed(&self) -> usize {
        let mut table = self.table();
        let left = table.left();
        table.end_unclaimed();
        left
    }

    /// One shard's driver with the fast path around it. To be called before its ports are opened.
    #[must_use]
    pub fn around(self: &Arc<Self>, driver: Box<dyn Driver>, shard: ShardId) -> Box<dyn Driver> {
        Box::new(shard::Shard::new(Arc::clone(self), driver, shard))
    }

    /// Where the program looks for AF_XDP sockets.
    #[cfg(test)]
    pub(crate) fn sockets_map(&self) -> Arc<crate::sys::bpf::Map> {
        Arc::clone(&self.loaded.maps.sockets)
    }

    /// Flows whose next hop is not known.
    #[cfg(test)]
    pub(crate) fn without_next_hop(&self) -> usize {
        self.table().without_hop()
    }

    /// Changes when interfaces got or lost the program, or a media address.
    fn interface_changes(&self) -> u64 {
        self.hops.interfaces.load(Ordering::Acquire)
    }

    /// How many next hops became known so far, and how many moved.
    pub(crate) fn hop_changes(&self) -> (u64, u64) {
        (self.hops.found.load(Ordering::Acquire), self.hops.moved.load(Ordering::Acquire))
    }

    /// So many more flows wait for an interface, or fewer.
    fn wait_for_interface(&self, more: i64) {
        self.waiting.fetch_add(more, Ordering::Relaxed);
    }

    /// A shard began or ended to poll.
    fn tell_polling(&self) {
        // A full channel: it is seen with the next tick.
        let _ = self.messages.try_send(Message::Polling);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, refused: Refused) {
        if let Some(count) = self.refused.get(refused as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands over what it counts.
    pub fn samples(&self, sink: &mut dyn FnMut(FastSample)) {
        let (flows, waiting, without, left, stalled, modes) = {
            let table = self.table();
            let attached = table.interfaces().attached.values();
            let stalled = attached.filter(|attached| attached.stalled).count();
            let modes = [Mode::Native, Mode::Generic]
                .map(|mode| (mode, follow::count_of(table.interfaces(), mode)));
            let asleep = usize::try_from(self.waiting.load(Ordering::Relaxed)).unwrap_or(0);
            let (waiting, without) = (table.without_hop(), table.lost() + asleep);
            (table.flows_in_use(), waiting, without, table.left(), stalled, modes)
        };
        for (name, help, value) in [
            ("fast_flows", "Streams that the fast path has", flows),
            ("fast_flows_without_next_hop", "Of these, left to the sockets: no next hop", waiting),
            (
                "fast_flows_without_interface",
                "Streams left to the sockets until an interface is back",
                without,
            ),
            ("fast_flows_unclaimed", "Streams of a process before, not claimed so far", left),
            ("fast_interfaces_stalled", "Interfaces whose other end takes no frames", stalled),
        ] {
            let value = value as u64;
            sink(FastSample { name, help, label: None, shard: None, value, total: false });
        }
        for (mode, label) in [AfXdpMode::ZeroCopy, AfXdpMode::Copy].map(|mode| (mode, mode.label()))
        {
            let bound = self.places.bound();
            let those = bound.iter().filter(|bound| bound.mode == Some(mode));
            let (queues, frames, bytes) = those.fold((0, 0, 0), |sum, bound| {
                (sum.0 + u64::from(bound.queues), sum.1 + bound.frames, sum.2 + bound.bytes)
            });
            for (name, help, value) in [
                ("af_xdp_queues", "Queues with AF_XDP sockets of all shards, by mode", queues),
                ("af_xdp_frames", "Frames of memory of AF_XDP, by mode", frames),
                ("af_xdp_memory_bytes", "Memory of AF_XDP, by mode", bytes),
            ] {
                let label = Some(("mode", label));
                sink(FastSample { name, help, label, shard: None, value, total: false });
            }
        }
        let bound = self.places.bound();
        for (short, label) in Short::ALL {
            let those = bound.iter().filter_map(|bound| bound.short.as_ref());
            sink(FastSample {
                name: "af_xdp_interfaces_short",
                help: "Interfaces of which not every queue has AF_XDP sockets, by reason",
                label: Some(("reason", label)),
                shard: None,
                value: those.filter(|(reason, _)| *reason == short).count() as u64,
                total: false,
            });
        }
        for (shard, why) in self.polling.each().into_iter().enumerate() {
            sink(FastSample {
                name: "af_xdp_polling",
                help: "1: the shard polls its AF_XDP queues itself; else the reason why not",
                label: Some(("reason", why.label())),
                shard: Some(shard),
                value: u64::from(why == Why::Polls),
                total: false,
            });
        }
        for (mode, value) in modes {
            sink(FastSample {
                name: "fast_interfaces",
                help: "Interfaces that have the program, by mode",
                label: Some(("mode", mode.label())),
                shard: None,
                value: value as u64,
                total: false,
            });
        }
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        for (name, help, count, total) in [
            (
                "fast_interfaces_attached_total",
                "Interfaces that got the program while the edge ran",
                &self.comings.attached,
                true,
            ),
            (
                "fast_addresses_without_interface",
                "Media addresses whose interface has no program",
                &self.comings.without,
                false,
            ),
            (
                "fast_interfaces_down",
                "Interfaces with the program that are down, or have nothing at their other end",
                &self.comings.down,
                false,
            ),
        ] {
            sink(FastSample { name, help, label: None, shard: None, value: load(count), total });
        }
        for ((_, label), count) in Lost::ALL.into_iter().zip(&self.comings.lost) {
            sink(FastSample {
                name: "fast_interfaces_lost_total",
                help: "Interfaces that serve the fast path no more, by reason",
                label: Some(("reason", label)),
                shard: None,
                value: load(count),
                total: true,
            });
        }
        for (refused, label) in Refused::ALL {
            sink(FastSample {
                name: "fast_flows_refused_total",
                help: "Streams that stay with the sockets",
                label: Some(("reason", label)),
                shard: None,
                value: self.refused[refused as usize].load(Ordering::Relaxed),
                total: true,
            });
        }
        let mut values = vec![0; self.loaded.maps.verdicts.lookup_bytes()];
        for (verdict, label) in (0_u32..).zip(layout::VERDICTS) {
            // An array has every index that it should; what cannot be read counts as zero.
            let read = self.loaded.maps.verdicts.lookup(&verdict.to_ne_bytes(), &mut values, 0);
            let cpus = values.chunks_exact(8).filter_map(|value| value.try_into().ok());
            let sum = cpus.map(u64::from_ne_bytes).fold(0, u64::wrapping_add);
            sink(FastSample {
                name: "fast_packets_left_total",
                help: "Packets of known media ports that the fast path did not forward, by reason",
                label: Some(("reason", label)),
                shard: None,
                value: if read.is_ok() { sum } else { 0 },
                total: true,
            });
        }
    }
}

/// What AF_XDP needs to know of an interface.
fn af_xdp_wanted(index: u32, link: Option<&Link>, attached: &Attached) -> Wanted {
    Wanted {
        interface: index,
        name: attached.name.clone(),
        mtu: link.map_or(u32::MAX, |link| link.mtu),
        partial: attached.partial,
        is_made_of_others: link.is_some_and(|link| MADE_OF_OTHERS.contains(&link.kind.as_str())),
    }
}

impl Drop for FastPath {
    /// Detaches and unpins. A process that is killed does not come here, and its streams go on.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // A full queue: the resolver ends when it has read this far, or with the process.
        let _ = self.messages.send_timeout(Message::Stop, Duration::from_secs(1));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Ok(mut netlink) = Netlink::open() {
            let interfaces = self.table().interfaces().clone();
            self.loaded.remove(&mut netlink, &interfaces);
        }
    }
}
