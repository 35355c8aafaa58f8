//! The life of the process: start, signals, end.

mod documents;
mod stop;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use ravelin_contract::{audit::Severity, link::FieldError};
use ravelin_engine::{admission::Registry, checkpoint::Adoption};
use ravelin_io::xdp::FastPath;
use ravelin_policy::Snapshot;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    link::{Context, Identity, Link, Push, stream::Target},
    mailbox::Shards,
    settings::{self, EdgeOptions},
    snapshots::{Document, Snapshots},
    spool::{Sizes, Spool, SpoolOptions},
    start,
    survival::{Place, forget_others},
    telemetry::{
        self, event, expiry, log, pulse,
        report::{ProcessCounters, Sources},
    },
};

const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a stop waits for the parties to answer the BYEs and CANCELs that ended their calls: a
/// BYE over UDP goes out four times by then (RFC 3261 17.1.2.2).
pub const FAREWELL_WITHIN: Duration = Duration::from_secs(4);
/// The same after a second signal: who asked twice is in a hurry.
const FAREWELL_AT_ONCE: Duration = Duration::from_millis(200);

enum Event {
    Signal(i32),
    Push(Push),
    ShardEnded(usize),
}

/// Runs the data plane until a signal ends it.
///
/// # Errors
/// One line that says what to do.
pub fn run(options: EdgeOptions) -> Result<(), String> {
    let _lock = prepare_data(&options.data)?;
    let target = options.control.as_deref().map(Target::parse).transpose()?;
    let events = unbounded();
    forward_signals(events.0.clone())?;

    let spool = Spool::begin(&SpoolOptions {
        data: options.data.clone(),
        sizes: Sizes::DEFAULT,
        collected: target.is_some(),
    })
    .map_err(|error| format!("the thread of the spool cannot be started: {error}"))?;
    let mut edge = Edge::new(options, &spool)?;
    if !edge.survival.has_calls() {
        // Nobody waits: no call is taken whose records could not be kept.
        edge.spool.recovered()?;
    }
    let result = edge.live(target, &spool, events);
    let reason = match &result {
        Ok(()) => "stopped by a signal".to_owned(),
        Err(error) => error.clone(),
    };
    let link = edge.link.take();
    spool.stop(&reason);
    if let Some(link) = link {
        link.stop();
    }
    result
}

struct Edge {
    options: EdgeOptions,
    test_signals: Vec<String>,
    snapshots: Snapshots,
    registry: Registry,
    spool: crate::spool::SpoolHandle,
    process: Arc<ProcessCounters>,
    identity: Arc<Mutex<Identity>>,
    shards: Arc<Mutex<Option<Shards>>>,
    driver: Arc<Mutex<(String, String)>>,
    fast: Arc<Mutex<Option<Arc<FastPath>>>>,
    active: Option<(Document, Arc<Snapshot>)>,
    link: Option<Link>,
    told_warnings: Vec<FieldError>,
    /// Where calls are kept that outlive this process.
    survival: Place,
}

impl Edge {
    fn new(options: EdgeOptions, spool: &Spool) -> Result<Self, String> {
        Ok(Self {
            test_signals: settings::test_signals_here(options.config.as_deref()),
            snapshots: Snapshots::new(&options.data),
            registry: Registry::default(),
            spool: spool.handle(),
            process: Arc::default(),
            identity: Arc::new(Mutex::new(Identity { node: host_name(), ..Identity::default() })),
            shards: Arc::default(),
            driver: Arc::default(),
            fast: Arc::default(),
            active: None,
            link: None,
            told_warnings: Vec::new(),
            survival: Place::find(&options.data)?,
            options,
        })
    }

    fn live(
        &mut self,
        target: Option<Target>,
        spool: &Spool,
        (sender, events): (Sender<Event>, Receiver<Event>),
    ) -> Result<(), String> {
        let started = match self.first_document()? {
            Some((document, compiled)) => self.start_shards(document, compiled, &sender),
            None => Ok(()),
        };
        // Calls of our own first.
        forget_others();
        started?;
        self.spool.recovered()?;
        if let Some(target) = target {
            self.start_link(target, spool, sender.clone())?;
        }
        if self.active.is_none() {
            log("info", "edge", "no config yet: waiting for the control plane");
        }
        loop {
            match events.recv().map_err(|error| error.to_string())? {
                Event::Signal(SIGHUP) => self.reload(),
                Event::Signal(signal) => {
                    self.stop(&events, &format!("signal {signal}"));
                    return Ok(());
                }
                Event::Push(Push { document, result }) => {
                    let version = document.version;
                    let applied = self.apply(document, "control-plane", &sender);
                    // The connection may be gone; the control plane asks again.
                    let _ = result.send((version, applied));
                }
                Event::ShardEnded(shard) => {
                    let text = format!("shard {shard} ended by itself; see the lines before");
                    self.stop(&events, "a shard ended by itself");
                    return Err(text);
                }
            }
        }
    }

    /// What this start runs on: with a control plane the document kept on disk, else the file.
    fn first_document(&self) -> Result<Option<(Document, ravelin_policy::Compiled)>, String> {
        let kept = self.snapshots.candidates(|text| {
            log("alarm", "edge", &format!("damaged snapshot left out: {text}"));
            let told = event("config.snapshot_damaged", Severity::Alarm);
            self.spool.event(told.field("file", text).into_event());
        });
        let Some(file) = &self.options.config else {
            return self.first_that_compiles(kept);
        };
        if self.options.control.is_some() && !kept.is_empty() {
            return self.first_that_compiles(kept);
        }
        let text = settings::read_document(file)?;
        let newest = kept.iter().find(|document| document.origin != "control-plane");
        let version = match newest {
            // The bootstrap file of a followed control plane has no version of its own.
            _ if self.options.control.is_some() => 0,
            Some(kept) if kept.text == text => kept.version,
            Some(kept) => kept.version + 1,
            None => 1,
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let compiled = settings::compile(&text, version, &self.test_signals)
            .map_err(|errors| self.refuse_start(&file.display().to_string(), &errors))?;
        Ok(Some((Document::new(version, &name, text), compiled)))
    }

    fn first_that_compiles(
        &self,
        kept: Vec<Document>,
    ) -> Result<Option<(Document, ravelin_policy::Compiled)>, String> {
        let mut refusal = None;
        for document in kept {
            match settings::compile(&document.text, document.version, &self.test_signals) {
                Ok(compiled) => return Ok(Some((document, compiled))),
                Err(errors) => {
                    let name = format!("kept document of version {}", document.version);
                    let text = self.refuse_start(&name, &errors);
                    log("alarm", "edge", &text);
                    refusal.get_or_insert(text);
                }
            }
        }
        match refusal {
            Some(text) => Err(text),
            None if self.options.control.is_some() => Ok(None),
            None => Err("no config: give --config FILE, or --control URL to be sent one".into()),
        }
    }

    fn refuse_start(&self, what: &str, errors: &[FieldError]) -> String {
        let text = format!("{what}: {}", settings::one_line(errors));
        let told = event("config.refused", Severity::Alarm).field("errors", text.clone());
        self.spool.event(told.into_event());
        text
    }

    fn start_shards(
        &mut self,
        document: Document,
        compiled: ravelin_policy::Compiled,
        sender: &Sender<Event>,
    ) -> Result<(), String> {
        self.tell_warnings(compiled.warnings);
        let loadout = self.loadout(compiled.snapshot);
        let (cores, warning) = settings::cores(&loadout.snapshot);
        if let Some(warning) = warning {
            log("warning", "edge", &warning);
        }
        telemetry::set_active_snapshot(document.version);
        let started = start::shards(&loadout, &cores, &self.spool, random_seed()?, &self.survival)?;
        if let Err(error) = self.spool.recovered() {
            // The calls of the process before are still in their files.
            started.shards.stop();
            return Err(error);
        }
        pulse::watch(started.pulses, Arc::clone(&self.process), self.spool.clone())
            .and_then(|()| expiry::watch(Arc::clone(&self.process), self.spool.clone()))
            .map_err(|error| error.to_string())?;
        for (number, host) in started.hosts.into_iter().enumerate() {
            let sender = sender.clone();
            std::thread::Builder::new()
                .name(format!("join-{number}"))
                .spawn(move || {
                    if let Err(error) = host.join() {
                        log("critical", "shard", &error.to_string());
                    }
                    let _ = sender.send(Event::ShardEnded(number));
                })
                .map_err(|error| error.to_string())?;
        }
        let why = if started.reason.is_empty() {
            String::new()
        } else {
            format!(", because {}", started.reason)
        };
        log(
            "info",
            "edge",
            &format!(
                "ready: node {}, {} shards on cores {cores:?}, driver {}{why}, config version {}",
                loadout.snapshot.node,
                started.shards.count(),
                started.driver,
                document.version
            ),
        );
        if started.opening > 0 {
            let text = format!("{} media ports are still being opened", started.opening);
            log("info", "edge", &text);
        }
        {
            let mut identity = lock(&self.identity);
            identity.shards = u8::try_from(started.shards.count()).unwrap_or(u8::MAX);
            identity.driver = format!("{}{why}", started.driver);
        }
        *lock(&self.fast) = started.fast;
        *lock(&self.driver) = (started.driver.clone(), started.reason.clone());
        *lock(&self.shards) = Some(started.shards);
        self.process.media_pairs_missing.store(started.media.pairs_missing, Ordering::Relaxed);
        if started.media.pairs_missing > 0 {
            self.spool.event(
                event("edge.media_ports_short", Severity::Alarm)
                    .field("pairs_wanted", started.media.pairs_wanted)
                    .field("pairs_missing", started.media.pairs_missing)
                    .field("open_files_needed", started.media.needed)
                    .field("open_files_limit", started.media.limit)
                    .into_event(),
            );
        }
        self.tell_adoption(&started.adoption);
        let mode = documents::mode_name(loadout.snapshot.mode);
        self.spool.event(
            event("edge.started", Severity::Info)
                .field("version", document.version)
                .field("sha256", document.sha256.clone())
                .field("mode", mode)
                .field("mode_because", self.mode_because(loadout.snapshot.mode))
                .field("driver", started.driver)
                .field("driver_because", started.reason)
                .into_event(),
        );
        self.put_in_force(document, &loadout);
        Ok(())
    }
}

impl Edge {
    /// What became of the calls of the process before, for the operator and for the evidence.
    fn tell_adoption(&self, adoption: &Adoption) {
        if adoption.is_empty() {
            return;
        }
        let sum = |by: &BTreeMap<&'static str, usize>| by.values().sum::<usize>();
        let (ended, unreadable) = (sum(&adoption.ended), sum(&adoption.unreadable));
        log(
            if ended + unreadable > 0 { "alarm" } else { "warning" },
            "edge",
            &format!(
                "the process before ended without a word: {} of its calls go on, {} of them \
                 emergency calls; {} were ending, {ended} had to be ended, {unreadable} records \
                 could not be read",
                adoption.adopted, adoption.emergency, adoption.finishing
            ),
        );
        let severity = if ended + unreadable > 0 { Severity::Alarm } else { Severity::Warning };
        self.spool.event(
            event("edge.calls_adopted", severity)
                .field("adopted", adoption.adopted)
                .field("emergency", adoption.emergency)
                .field("finishing", adoption.finishing)
                .field("ended", serde_json::json!(adoption.ended))
                .field("unreadable", serde_json::json!(adoption.unreadable))
                .into_event(),
        );
    }

    fn start_link(
        &mut self,
        target: Target,
        spool: &Spool,
        sender: Sender<Event>,
    ) -> Result<(), String> {
        let (pushes, pushed) = bounded::<Push>(PUSHES_WAITING);
        let forward = std::thread::Builder::new().name("pushes".into()).spawn(move || {
            for push in pushed {
                if sender.send(Event::Push(push)).is_err() {
                    return;
                }
            }
        });
        forward.map_err(|error| error.to_string())?;
        let connected = Arc::new(AtomicBool::new(false));
        let sources = Sources {
            started_unix_ms: telemetry::unix_ms(),
            shards: Arc::clone(&self.shards),
            spool: self.spool.clone(),
            link_connected: Arc::clone(&connected),
            process: Arc::clone(&self.process),
            driver: Arc::clone(&self.driver),
            fast: Arc::clone(&self.fast),
        };
        let context = Context {
            target,
            certs: self.options.data.join("certs"),
            spool: self.spool.clone(),
            synced: spool.synced(),
            identity: Arc::clone(&self.identity),
            shards: Arc::clone(&self.shards),
            pushes,
            report: Arc::new(move || sources.report()),
            connected: Arc::clone(&connected),
        };
        self.link = Some(Link::start(context).map_err(|error| error.to_string())?);
        Ok(())
    }
}

/// Pushed documents that may wait to be applied.
const PUSHES_WAITING: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the data directory and holds `run/edge.pid` locked for as long as this process lives.
fn prepare_data(data: &Path) -> Result<File, String> {
    let run = data.join("run");
    fs::create_dir_all(&run)
        .map_err(|error| format!("data directory {} cannot be made: {error}", data.display()))?;
    let path = run.join("edge.pid");
    let fail = |error: std::io::Error| format!("{} cannot be written: {error}", path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(fail)?;
    if file.try_lock().is_err() {
        let pid = fs::read_to_string(&path).unwrap_or_default();
        return Err(format!(
            "another edge (pid {}) uses {}: stop it, or give another --data",
            pid.trim(),
            data.display()
        ));
    }
    file.set_len(0).map_err(fail)?;
    writeln!(file, "{}", std::process::id()).map_err(fail)?;
    Ok(file)
}

fn forward_signals(sender: Sender<Event>) -> Result<(), String> {
    let mut signals =
        Signals::new([SIGHUP, SIGTERM, SIGINT]).map_err(|error| format!("signals: {error}"))?;
    let forward = move || {
        for signal in signals.forever() {
            if sender.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(forward)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Keys every identifier that peers must not foresee. Straight from the kernel: the crypto library
/// gathers entropy of its own before its first octet, and calls of the process before would wait.
fn random_seed() -> Result<[u8; 32], String> {
    let mut seed = [0; 32];
    let fail = |error| format!("the kernel gives no random octets: {error}");
    let drawn = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    if drawn.map_err(fail)? < seed.len() {
        return Err("the kernel gives too few random octets".into());
    }
    Ok(seed)
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
