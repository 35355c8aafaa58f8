//! `ravelin up`, `edge` and `control`: starting the planes. `up` starts the two others as processes
//! of this binary, restarts the one that dies, and stops both in order: the edge first, so that its
//! last records still find the control plane. SIGHUP is passed on to the control plane, which reads
//! the config file again.

use std::{
    io::Write,
    process::Stdio,
    time::{Duration, Instant},
};

use ravelin_control::ControlOptions;
use ravelin_edge::EdgeOptions;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use crate::{
    cli::{ControlArgs, EdgeArgs, UpArgs},
    exit::{Failure, Outcome},
};

/// A child that dies is started again at once, for its calls wait for it; one that dies again and
/// again, after this long. The pause doubles while it keeps dying.
const RESTART_AFTER: Duration = Duration::from_millis(200);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(10);
/// A child that ran this long came up: the pause starts anew.
const CAME_UP_AFTER: Duration = Duration::from_secs(2);
/// A child that ran this long was healthy.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// What a plane may take to stop besides draining and saying goodbye: it is ended when it hangs.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Exit code of a process that cannot run with what it was given: starting it again is no use.
const CANNOT_RUN: i32 = 2;
/// How long the planes may take until calls can be placed.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One line to standard error. It may be a terminal that was closed: nobody is left to be told then,
/// and the calls go on.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// Tells a child which process started it; see [`end_with_supervisor`].
const SUPERVISOR: &str = "RAVELIN_SUPERVISOR_PID";

/// A child of `up` drains and stops when its supervisor is gone, however that ended: nobody would
/// restart it, and its ports would be in the way of the next start.
fn end_with_supervisor() -> Result<(), Failure> {
    let Some(supervisor) = std::env::var_os(SUPERVISOR) else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| Failure::cannot_run(format!("death signal: {error}")))?;
    // It may have ended before the signal was asked for.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().to_string());
    if parent.as_deref() == supervisor.to_str() {
        Ok(())
    } else {
        Err(Failure::cannot_run("the supervisor has ended"))
    }
}

pub(crate) fn edge(args: EdgeArgs) -> Result<Outcome, Failure> {
    end_with_supervisor()?;
    if args.config.is_none() && args.control.is_none() {
        return Err(Failure::cannot_run(
            "give --config FILE, or --control URL to follow a control plane",
        ));
    }
    let options = EdgeOptions {
        config: args.config,
        data: args.data,
        control: args.control,
        drain_within: args.drain_within,
    };
    ravelin_edge::run(options).map_err(Failure::cannot_run)?;
    Ok(Outcome::Passed)
}

pub(crate) fn control(args: &ControlArgs) -> Result<Outcome, Failure> {
    end_with_supervisor()?;
    let options = ControlOptions { config: Some(args.config.clone()), data: args.data.clone() };
    ravelin_control::run(options).map_err(|error| Failure::cannot_run(error.to_string()))?;
    Ok(Outcome::Passed)
}

pub(crate) fn run(args: &UpArgs) -> Result<Outcome, Failure> {
    // Faults of the file are told here, once, and not by two children.
    let text = ravelin_edge::settings::read_document(&args.config).map_err(Failure::cannot_run)?;
    let compiled = ravelin_policy::compile(&text, 1).map_err(|errors| {
        Failure::cannot_run(format!(
            "{}: {}; `ravelin check` lists every fault",
            args.config.display(),
            ravelin_edge::settings::one_line(&errors)
        ))
    })?;
    drop(compiled);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::cannot_run(format!("cannot start: {error}")))?;
    runtime.block_on(supervise(args, api_address(&text)))
}

/// The signals that ask to stop.
struct Stops {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stops {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// One of the two planes.
struct Plane {
    name: &'static str,
    words: Vec<std::ffi::OsString>,
    child: Child,
    started: Instant,
    pause: Duration,
}

impl Plane {
    fn start(name: &'static str, words: Vec<std::ffi::OsString>) -> Result<Self, Failure> {
        let child = spawn(name, &words)?;
        Ok(Self { name, words, child, started: Instant::now(), pause: Duration::ZERO })
    }

    /// Starts the plane again after it died; says so on standard error.
    async fn restart(&mut self, status: std::process::ExitStatus) -> Result<(), Failure> {
        let ran = self.started.elapsed();
        if status.code() == Some(CANNOT_RUN) && ran < HEALTHY_AFTER {
            return Err(Failure::cannot_run(format!(
                "`ravelin {}` could not run; its last line above says why",
                self.name
            )));
        }
        if ran >= CAME_UP_AFTER {
            self.pause = Duration::ZERO;
        }
        say!(
            "ravelin: alarm: `ravelin {}` ended ({status}) after {} s; starting it again in {} ms",
            self.name,
            ran.as_secs(),
            self.pause.as_millis()
        );
        if !self.pause.is_zero() {
            sleep(self.pause).await;
        }
        self.pause = (self.pause * 2).clamp(RESTART_AFTER, RESTART_AFTER_MAX);
        self.child = spawn(self.name, &self.words)?;
        self.started = Instant::now();
        Ok(())
    }

    /// Asks the plane to drain and stop; ends it when it does not within `within`. A signal to us
    /// is passed on: to the edge the second one means at once.
    async fn stop(&mut self, within: Duration, signals: &mut Stops) {
        self.signal(Signal::TERM);
        let deadline = tokio::time::Instant::now() + within;
        loop {
            tokio::select! {
                _ = self.child.wait() => return,
                () = signals.next() => self.signal(Signal::TERM),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        say!(
            "ravelin: alarm: `ravelin {}` did not stop within {} s; ending it",
            self.name,
            within.as_secs()
        );
        let _ = self.child.kill().await;
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // An error here means that it has ended already.
            let _ = kill_process(pid, signal);
        }
    }
}

fn spawn(name: &str, words: &[std::ffi::OsString]) -> Result<Child, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::cannot_run(format!("this program's path: {error}")))?;
    Command::new(program)
        .arg(name)
        .args(words)
        .stdin(Stdio::null())
        .env(SUPERVISOR, std::process::id().to_string())
        // Not with us: a terminal's Ctrl-C must reach only the supervisor, who stops them in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::cannot_run(format!("`ravelin {name}` cannot start: {error}")))
}

async fn supervise(args: &UpArgs, api: Option<String>) -> Result<Outcome, Failure> {
    let failed = |error: std::io::Error| Failure::cannot_run(format!("signals: {error}"));
    let mut stops = Stops::new().map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let files = |flag: &str, path: &std::path::Path| [flag.into(), path.as_os_str().to_owned()];
    let config = files("--config", &args.config);
    let data = files("--data", &args.data);
    let mut link = std::ffi::OsString::from("unix:");
    link.push(args.data.join("run/link.sock"));
    let follow = [std::ffi::OsString::from("--control"), link];

    let words = config.iter().chain(&data).cloned().collect();
    let mut control = Plane::start("control", words)?;
    let drain =
        [std::ffi::OsString::from("--drain-within"), milliseconds(args.drain_within).into()];
    let words = config.iter().chain(&data).chain(&follow).chain(&drain).cloned().collect();
    let mut edge = Plane::start("edge", words)?;
    let mut announcement = std::pin::pin!(announce(args, api));
    let mut announced = false;
    let result = loop {
        tokio::select! {
            () = &mut announcement, if !announced => announced = true,
            status = control.child.wait() => {
                let status = status.map_err(failed)?;
                if let Err(failure) = control.restart(status).await { break Err(failure); }
            }
            status = edge.child.wait() => {
                let status = status.map_err(failed)?;
                if let Err(failure) = edge.restart(status).await { break Err(failure); }
            }
            () = stops.next() => break Ok(Outcome::Passed),
            _ = hangup.recv() => control.signal(Signal::HUP),
        }
    };
    edge.stop(args.drain_within + ravelin_edge::FAREWELL_WITHIN + STOP_WITHIN, &mut stops).await;
    control.stop(STOP_WITHIN, &mut stops).await;
    result
}

/// As the command line reads it.
fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// Waits until calls can be placed, and says where to look.
async fn announce(args: &UpArgs, api: Option<String>) {
    let Some(address) = api else { return };
    let url = format!("http://{address}");
    let Ok(client) = reqwest::Client::builder().timeout(Duration::from_secs(2)).build() else {
        return;
    };
    let end = Instant::now() + READY_WITHIN;
    loop {
        let nodes = match client.get(format!("{url}/api/health")).send().await {
            Ok(answer) => answer
                .json::<serde_json::Value>()
                .await
                .map(|health| health["nodes_connected"].as_u64().unwrap_or_default())
                .unwrap_or_default(),
            Err(_) => 0,
        };
        if nodes > 0 {
            say!(
                "ravelin: up. API and admin UI at {url}/, token in {}, metrics at {url}/metrics; \
                 stop with SIGTERM or Ctrl-C",
                args.data.join("admin.token").display()
            );
            return;
        }
        if Instant::now() >= end {
            say!(
                "ravelin: alarm: no edge is in service after {} s; the lines above say why",
                READY_WITHIN.as_secs()
            );
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Where the API listens, as the config file says.
fn api_address(text: &str) -> Option<String> {
    let document = ravelin_policy::Document::from_yaml(text).ok()?;
    document.config.control.as_ref().map(|control| control.listen.clone())
}
