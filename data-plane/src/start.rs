//! From a snapshot to running shards: sockets, engines, threads.

mod fast_path;
mod opening;
mod vacancy;

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
};

use crossbeam::channel::{Receiver, bounded};
use ravelin_engine::{
    checkpoint::{Adoption, Kept},
    engine::{DtlsIdentity, Engine, EngineConfig},
    limits::Limits,
    loadout::Loadout,
    port::{self, FastChange, ListenerId, Local, MediaPortId, ShardId, TxQueue},
};
use ravelin_io::{
    clock,
    cross::{self, CrossShard},
    driver::{self, Choice, Driver, Options},
    host::{self, Host, HostOptions, HostedBy},
    probe,
    stream::{StreamLimits, Streams},
    xdp::FastPath,
};
use ravelin_policy::{Driver as MediaDriver, Snapshot, Transport};

use crate::{
    crypto::{Crypto, Helpers},
    mailbox::{MAILBOX_MESSAGES, Mailbox, Message, Shards},
    open_files::{self, MediaFiles},
    retire::{Janitor, Retired},
    shard::Shard,
    spool::{Feed, SpoolHandle},
    survival::{Left, Place, Slots},
    takeover::Takeover,
    telemetry::{log, pulse::Pulse},
};
pub(crate) use opening::Opening;
use vacancy::Vacancy;

/// Datagrams that may be on their way from one shard to another.
pub(crate) const CROSS_SLOTS: usize = 4_096;
/// Running shards and what was found while starting them.
pub(crate) struct Started {
    pub(crate) shards: Shards,
    pub(crate) hosts: Vec<Host>,
    pub(crate) pulses: Vec<Arc<Pulse>>,
    /// `xdp`, `uring` or `mmsg`.
    pub(crate) driver: String,
    /// Why it is not a better one; empty if there is none.
    pub(crate) reason: String,
    /// Media ports that the process may open.
    pub(crate) media: MediaFiles,
    /// Streams below the sockets; the last owner that drops it takes it out of the kernel.
    pub(crate) fast: Option<Arc<FastPath>>,
    /// What became of the calls of the process before.
    pub(crate) adoption: Adoption,
    /// Media ports that are still being opened.
    pub(crate) opening: usize,
}

/// What a shard's thread tells when it has opened its sockets.
struct Opened {
    mailbox: Mailbox,
    driver: String,
    reason: String,
    adoption: Adoption,
    opening: usize,
}

/// One shard to be built on its own thread.
struct Plan {
    config: EngineConfig,
    loadout: Arc<Loadout>,
    cross: CrossShard,
    feed: Feed,
    pulse: Arc<Pulse>,
    helpers: Arc<Helpers>,
    choice: Choice,
    fast: Option<Arc<FastPath>>,
    vacancy: Arc<Vacancy>,
    retired: Retired,
    dtls: Arc<DtlsIdentity>,
    /// Where the records of calls are kept, and what the process before left there.
    place: Place,
    left: Vec<Left>,
    /// It left calls, on this shard or another.
    killed: bool,
    opened: mpsc::Sender<Opened>,
}

/// Starts one shard per core.
///
/// # Errors
/// One line that says what to do, for example that a port is taken.
pub(crate) fn shards(
    loadout: &Arc<Loadout>,
    cores: &[usize],
    spool: &SpoolHandle,
    seed: [u8; 32],
    place: &Place,
) -> Result<Started, String> {
    let count = u8::try_from(cores.len()).map_err(|_| "too many cores".to_owned())?;
    let snapshot = &loadout.snapshot;
    let all_left = place.left(count, clock::now().mono);
    let killed = all_left.iter().any(|left| !left.is_empty());
    let vacancy = Arc::new(if killed { Vacancy::after_kill() } else { Vacancy::new() });
    for listener in &snapshot.listeners {
        let transport = match listener.transport {
            Transport::Udp => port::Transport::Udp,
            Transport::Tcp => port::Transport::Tcp,
            Transport::Tls => port::Transport::Tls,
        };
        // Shards share a port among themselves, and with nobody else.
        vacancy
            .wait(&listener.bind.to_string(), || probe::take_alone(transport, listener.bind))
            .map_err(|error| name_listener(&listener.id, &listener.bind, &error).to_string())?;
    }
    let media = open_files::media(snapshot, count)?;
    let fast_path::Outcome { fast, line } = fast_path::start(snapshot, count, &vacancy)?;
    let janitor = Janitor::start().map_err(|error| error.to_string())?;
    let helpers = Helpers::start(cores.len().min(4)).map_err(|error| error.to_string())?;
    let helpers = Arc::new(helpers);
    let started_unix_ms = clock::now().unix_ms;
    // One certificate for all shards, as long as the process runs. Calls that were adopted have their
    // keys: it is made after them, or for the first new stream that wants it.
    let dtls = Arc::new(DtlsIdentity::deferred(clock::origin()));
    let mut started = Started {
        shards: Shards::new(Vec::new()),
        hosts: Vec::new(),
        pulses: Vec::new(),
        driver: String::new(),
        reason: String::new(),
        media,
        fast,
        adoption: Adoption::default(),
        opening: 0,
    };
    let mut opening = Vec::new();
    let mut mailboxes = Vec::new();
    let meshes = cross::mesh(cores.len(), CROSS_SLOTS);
    for (((shard, &core), cross), left) in (0..count).zip(cores).zip(meshes).zip(all_left) {
        let (opened_sender, opened) = mpsc::channel();
        let pulse = Arc::new(Pulse::default());
        let plan = Plan {
            config: EngineConfig {
                shard: ShardId(shard),
                shards: count,
                node: snapshot.node.clone(),
                limits: Limits { media_pairs: media.pairs_per_shard, ..limits(snapshot, count) },
                seed,
                started_unix_ms,
            },
            loadout: Arc::clone(loadout),
            cross,
            feed: spool.feed(),
            pulse: Arc::clone(&pulse),
            helpers: Arc::clone(&helpers),
            choice: choice(snapshot),
            fast: started.fast.clone(),
            vacancy: Arc::clone(&vacancy),
            retired: janitor.shard(),
            dtls: Arc::clone(&dtls),
            place: place.clone(),
            left,
            killed,
            opened: opened_sender,
        };
        let options = HostOptions::new(format!("shard-{shard}"), Some(core));
        // All at once: each has thousands of ports to open, and calls that wait for theirs.
        let host = thread::Builder::new()
            .name(format!("open-{shard}"))
            .spawn(move || host::spawn(options, move |_tasks| build(plan)))
            .map_err(|error| error.to_string())?;
        opening.push((host, opened));
        started.pulses.push(pulse);
    }
    let mut fault = None;
    for (shard, (host, opened)) in opening.into_iter().enumerate() {
        let host = match host.join() {
            Ok(Ok(host)) => host,
            Ok(Err(error)) => {
                fault.get_or_insert_with(|| error.to_string());
                continue;
            }
            Err(_) => {
                fault.get_or_insert_with(|| "a shard ended while starting".to_owned());
                continue;
            }
        };
        if let HostedBy::Thread { reason } = host.hosted_by() {
            log("warning", "start", &format!("shard {shard} runs without glommio: {reason}"));
        }
        match opened.recv() {
            Ok(opened) => {
                mailboxes.push(opened.mailbox);
                started.driver = opened.driver;
                started.reason = [line.as_str(), &opened.reason]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join("; ");
                started.adoption.add(&opened.adoption);
                started.opening += opened.opening;
                started.hosts.push(host);
            }
            Err(_) => {
                fault.get_or_insert_with(|| "a shard ended while starting".to_owned());
            }
        }
    }
    if let Some(fault) = fault {
        // The shards that run already are told to end; their sockets close with them.
        Shards::new(mailboxes).stop();
        return Err(fault);
    }
    if let Err(error) = dtls.make() {
        Shards::new(mailboxes).stop();
        return Err(error.to_string());
    }
    log("info", "start", "the certificate for DTLS is made");
    // Every call of the process before is in the new files, or has ended.
    place.remove_from(count);
    if let Some(fast) = &started.fast {
        let left = fast.end_unclaimed();
        if left > 0 {
            let text = format!("{left} streams that no call has any more are ended");
            log("warning", "xdp", &text);
        }
    }
    started.shards = Shards::new(mailboxes);
    Ok(started)
}

/// The node's capacities, split between its shards.
fn limits(snapshot: &Snapshot, shards: u8) -> Limits {
    let defaults = Limits::default();
    let calls = snapshot.limits.calls.div_ceil(u32::from(shards)).min(defaults.calls);
    Limits {
        calls,
        calls_emergency_reserve: defaults.calls_emergency_reserve.min(calls / 10 + 1),
        ..defaults
    }
}

/// The slowest driver that a media range asks for serves the whole shard: sockets of one shard
/// wait in one place.
fn choice(snapshot: &Snapshot) -> Choice {
    let asked = |wanted| snapshot.media.iter().any(|range| range.driver == wanted);
    if asked(MediaDriver::Mmsg) {
        Choice::Mmsg
    } else if asked(MediaDriver::Uring) {
        Choice::Uring
    } else {
        Choice::Auto
    }
}

/// Runs on the shard's own thread.
fn build(plan: Plan) -> io::Result<Shard> {
    let id = plan.config.shard;
    let snapshot = Arc::clone(&plan.loadout.snapshot);
    let shards = plan.config.shards;
    let mut engine = Engine::new(plan.config, plan.loadout);
    engine.set_dtls_identity(plan.dtls);
    engine.begin_checkpoints();
    if !plan.place.is_in_memory() {
        engine.keep_no_keys();
    }
    let ports = engine.media_ports().len();
    // First of all: which ports are to be opened first depends on it.
    let mut out = TxQueue::default();
    let adoption = adopt(&mut engine, &plan.left, &mut out);
    let goes_on = (adoption.adopted > 0).then(|| {
        let (shard, calls) = (id.0, adoption.adopted);
        format!("shard {shard}: media of {calls} calls of the process before flows again")
    });

    let options = Options {
        media_ports_max: u32::try_from(ports).unwrap_or(u32::MAX).max(1),
        ..Options::default()
    };
    let opened = driver::open(plan.choice, &options).map_err(io::Error::other)?;
    let mut driver = opened.driver;
    let mut reason = opened.fallback.map_or_else(String::new, |missing| missing.to_string());
    if let Some(fast) = plan.fast {
        let sockets = driver.kind().label();
        reason = match reason.as_str() {
            "" => format!("sockets by {sockets}"),
            why => format!("sockets by {sockets}, because {why}"),
        };
        driver = fast.around(driver, id);
    }
    let mut streams = Streams::new(id, stream_limits(&snapshot));

    for (index, listener) in (0..).zip(&snapshot.listeners) {
        let result = match listener.transport {
            Transport::Udp => driver.open_listener(ListenerId(index), listener.bind),
            Transport::Tls => Err(io::Error::other("TLS listeners are not supported")),
            Transport::Tcp => streams.listen(&mut *driver, ListenerId(index), listener.bind),
        };
        let marked = result.and_then(|_| match (listener.dscp, listener.transport) {
            (None, _) => Ok(()),
            (Some(dscp), Transport::Udp) => {
                driver.mark(Local::Signalling { listener: ListenerId(index) }, dscp)
            }
            (Some(dscp), _) => streams.mark(ListenerId(index), dscp),
        });
        marked.map_err(|error| name_listener(&listener.id, &listener.bind, &error))?;
    }
    let mut opening = Opening::new(id, &mut engine, plan.vacancy);
    if plan.killed {
        opening.first(&mut engine, &mut *driver)?;
    } else {
        opening.all(&mut engine, &mut *driver)?;
    }
    if driver.kind() == driver::Kind::Xdp {
        engine.use_fast_path();
        claim(&mut engine, &mut *driver);
        end_strays(&engine, &mut *driver, ports);
    }
    let slots = keep_records(&mut engine, &plan.place, id, shards);

    let waker = driver.waker();
    let cross = plan.cross;
    cross.attach(waker.clone());
    let (messages, mailbox): (_, Receiver<Message>) = bounded(MAILBOX_MESSAGES);
    let opened = Opened {
        mailbox: Mailbox { messages, waker: waker.clone() },
        driver: driver.kind().label().into(),
        reason,
        adoption,
        opening: opening.left(),
    };
    if let Some(goes_on) = goes_on {
        log("info", "start", &goes_on);
    }
    plan.opened.send(opened).map_err(io::Error::other)?;
    Ok(Shard {
        id,
        engine,
        driver,
        streams,
        cross,
        crypto: Crypto::new(plan.helpers, waker),
        mailbox,
        feed: plan.feed,
        pulse: plan.pulse,
        takeover: Takeover::default(),
        out,
        sending: TxQueue::default(),
        notices: Vec::new(),
        placing: Vec::new(),
        records: Vec::new(),
        turns: Shard::time_histogram(),
        ended: clock::monotonic(),
        added: Shard::time_histogram(),
        waited: Vec::new(),
        retired: plan.retired,
        ending: None,
        slots,
        opening,
    })
}

/// Streams that were in the kernel go on there, under the calls that were taken over: the driver finds
/// what the engine asks for, and leaves it as it is.
fn claim(engine: &mut Engine, driver: &mut dyn Driver) {
    let mut claims = Vec::new();
    engine.take_fast_changes(&mut claims);
    driver.program(&claims);
}

/// What the process before left in the kernel goes on for calls that were taken over, and for no
/// others: their ports may be drawn again.
fn end_strays(engine: &Engine, driver: &mut dyn Driver, ports: usize) {
    let free = (0..).map(MediaPortId).take(ports).filter(|port| !engine.is_media_port_held(*port));
    let strays: Vec<_> = free.map(|port| FastChange::Clear { port }).collect();
    driver.program(&strays);
}

/// Takes over what the process before left.
fn adopt(engine: &mut Engine, left: &[Left], out: &mut TxQueue) -> Adoption {
    let kept: Vec<Kept<'_>> = left
        .iter()
        .flat_map(|left| {
            let Left { condemned, alive, .. } = *left;
            left.records.iter().map(move |bytes| Kept { bytes, condemned, alive })
        })
        .collect();
    if kept.is_empty() {
        return Adoption::default();
    }
    engine.adopt(clock::now(), &kept, out)
}

/// Makes the file that the next process finds if this one is killed. The one before stays until all
/// of its calls are in the new one. Without a file calls go on, and would not outlive a crash.
fn keep_records(engine: &mut Engine, place: &Place, id: ShardId, shards: u8) -> Option<Slots> {
    let made = place.create(id.0, shards).and_then(|mut slots| {
        let now = clock::now();
        engine.checkpoints(now, &mut |change| slots.apply(change));
        // It may be killed before its first turn.
        slots.alive(now.mono);
        slots.publish().map(|()| slots)
    });
    made.inspect_err(|error| {
        let dir = place.dir().display();
        let text =
            format!("{dir}: no record of calls can be kept, a crash would end them: {error}");
        log("alarm", "start", &text);
    })
    .ok()
}

fn stream_limits(snapshot: &Snapshot) -> StreamLimits {
    StreamLimits {
        connections_max: usize::try_from(snapshot.limits.connections).unwrap_or(usize::MAX),
        idle_deadline: snapshot.limits.connection_idle,
        ..StreamLimits::default()
    }
}

fn name_listener(id: &str, bind: &std::net::SocketAddr, error: &io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process uses it: stop that one or change edge.listeners"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: add it or change edge.listeners"
        }
        io::ErrorKind::PermissionDenied => "grant CAP_NET_BIND_SERVICE or use a port above 1023",
        _ => "change edge.listeners",
    };
    io::Error::new(error.kind(), format!("listener {id} cannot open {bind}: {error}; {advice}"))
}
