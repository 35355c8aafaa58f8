//! The link to the control plane. It connects again and again, sends what the spool holds until it
//! is stored, applies what is pushed, answers what is asked. Calls do not depend on it in any way.

pub mod stream;

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::{
    channel::{Receiver, Sender, bounded, never, tick},
    select,
};
use ravelin_contract::{
    PROTOCOL_VERSION,
    chain::{Hash, Head, hash_from_hex},
    link::{ApplyResult, Down, Peer, Up, other_protocol},
    metrics::MetricsReport,
};

use self::stream::{Target, read_frame, write_frame};
use crate::{
    mailbox::Shards,
    snapshots::Document,
    spool::{SpoolHandle, SpoolReader},
    telemetry::log,
};

/// First and longest pause between two attempts to connect.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
pub const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// Records on their way that the control plane has not yet answered.
pub const RECORDS_IN_FLIGHT: u64 = 8_192;
/// Records and octets of one frame.
pub const RECORDS_PER_FRAME: usize = 512;
pub const RECORD_BYTES_PER_FRAME: usize = 1024 * 1024;
/// How long the end of a run may wait for the control plane to store the last records.
pub const LAST_RECORDS_WITHIN: Duration = Duration::from_secs(2);
/// Time between two metrics reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Frames that the reader thread may be ahead.
const FRAMES_AHEAD: usize = 64;

/// What the edge says of itself when it connects. Changes with every applied document.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub node: String,
    pub active_version: u64,
    pub active_sha256: String,
    pub shards: u8,
    pub driver: String,
}

/// A pushed document, on its way to the thread that applies it.
#[derive(Debug)]
pub struct Push {
    pub document: Document,
    pub result: Sender<(u64, ApplyResult)>,
}

/// What the link works with.
pub struct Context {
    pub target: Target,
    /// `DIR/certs`.
    pub certs: PathBuf,
    pub spool: SpoolHandle,
    pub synced: Receiver<()>,
    pub identity: Arc<Mutex<Identity>>,
    pub shards: Arc<Mutex<Option<Shards>>>,
    /// Where pushed documents go.
    pub pushes: Sender<Push>,
    /// The metrics of this moment.
    pub report: Arc<dyn Fn() -> MetricsReport + Send + Sync>,
    /// Set while the control plane is there.
    pub connected: Arc<AtomicBool>,
}

/// The running link.
#[derive(Debug)]
pub struct Link {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Link {
    /// Starts the thread.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn start(context: Context) -> io::Result<Self> {
        let (stop, stopped) = bounded(1);
        let worker = Worker { context, stopped, stopping: None, told_failure: String::new() };
        let thread = std::thread::Builder::new().name("link".into()).spawn(|| worker.run())?;
        Ok(Self { stop, thread })
    }

    /// Sends what the spool still holds, waiting [`LAST_RECORDS_WITHIN`] at most, and ends.
    pub fn stop(self) {
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            log("error", "link", "the link thread ended in a panic");
        }
    }
}

struct Worker {
    context: Context,
    stopped: Receiver<()>,
    /// Set when the run ends: the last moment for the last records.
    stopping: Option<Instant>,
    told_failure: String,
}

/// One connection.
struct Talk {
    writer: Box<dyn Write + Send>,
    frames: Receiver<io::Result<Down>>,
    results: Receiver<(u64, ApplyResult)>,
    result_sender: Sender<(u64, ApplyResult)>,
    reader: SpoolReader,
    stored_seq: u64,
    sent_seq: u64,
}

impl Worker {
    fn run(mut self) {
        let mut pause = RETRY_FIRST;
        while !self.ending() {
            match self.connection() {
                // A connection that got as far as a welcome begins the pauses anew.
                Ok(()) => pause = RETRY_FIRST,
                Err(error) => self.tell_failure(&error),
            }
            if self.context.connected.swap(false, Ordering::Relaxed) {
                pause = RETRY_FIRST;
                if self.stopping.is_none() {
                    log("warning", "link", "control plane lost; calls go on");
                }
            }
            if self.stopping.is_none() && self.stopped.recv_timeout(pause).is_ok() {
                self.begin_stop();
            }
            if self.stopping.is_some() {
                // What is not stored stays in the spool for the next run.
                break;
            }
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    fn ending(&self) -> bool {
        self.stopping.is_some_and(|until| Instant::now() >= until)
    }

    fn begin_stop(&mut self) {
        self.stopping.get_or_insert_with(|| Instant::now() + LAST_RECORDS_WITHIN);
    }

    /// The same failure is told once, not at every attempt.
    fn tell_failure(&mut self, error: &io::Error) {
        let text = format!("{}: {error}", self.context.target);
        if text != self.told_failure {
            log("warning", "link", &format!("control plane not reached, trying again: {text}"));
            self.told_failure = text;
        }
    }

    fn connection(&mut self) -> io::Result<()> {
        let halves = self.context.target.connect(&self.context.certs)?;
        let closer = halves.closer;
        let (frame_sender, frames) = bounded(FRAMES_AHEAD);
        let mut reader = halves.reader;
        let reading = std::thread::Builder::new().name("link-rx".into()).spawn(move || {
            loop {
                let frame = read_frame(&mut *reader);
                let last = frame.is_err();
                if frame_sender.send(frame).is_err() || last {
                    return;
                }
            }
        })?;
        let result = self.greet(halves.writer, frames).and_then(|talk| self.serve(talk));
        closer.close();
        // The reader thread ends with the socket.
        let _ = reading.join();
        result
    }

    fn greet(
        &mut self,
        mut writer: Box<dyn Write + Send>,
        frames: Receiver<io::Result<Down>>,
    ) -> io::Result<Talk> {
        let spooled_seq = self.context.spool.status().synced_seq.load(Ordering::Acquire);
        let identity = self.context.identity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let hello = Up::Hello {
            protocol: PROTOCOL_VERSION,
            node: identity.node,
            software: env!("CARGO_PKG_VERSION").into(),
            active_version: identity.active_version,
            active_sha256: identity.active_sha256,
            spooled_seq,
            shards: identity.shards,
            driver: identity.driver,
            pid: std::process::id(),
        };
        write_frame(&mut *writer, &hello)?;
        let answer = frames.recv_timeout(stream::CONNECT_WITHIN);
        let (stored_seq, stored_hash) = match answer.map_err(io::Error::other)?? {
            Down::Welcome { protocol: PROTOCOL_VERSION, stored_seq, stored_hash } => {
                (stored_seq, stored_hash)
            }
            Down::Welcome { protocol, .. } => {
                return Err(io::Error::other(other_protocol(protocol, Peer::ControlPlane)));
            }
            Down::Refused { reason } => {
                return Err(io::Error::other(format!("it refuses this node: {reason}")));
            }
            other => return Err(io::Error::other(format!("a welcome was expected: {other:?}"))),
        };
        let hash = match (stored_seq, stored_hash.as_str()) {
            (0, _) => [0; 32],
            (_, text) => hash_from_hex(text)
                .ok_or_else(|| io::Error::other("the hash of the last stored record is no hash"))?,
        };
        self.align(Head { seq: stored_seq, hash })?;
        self.context.connected.store(true, Ordering::Relaxed);
        self.told_failure.clear();
        self.context.spool.stored(stored_seq);
        log("info", "link", &format!("connected to {}", self.context.target));
        let (result_sender, results) = bounded(FRAMES_AHEAD);
        let reader = SpoolReader::after(self.context.spool.audit_dir(), stored_seq);
        Ok(Talk {
            writer,
            frames,
            results,
            result_sender,
            reader,
            stored_seq,
            sent_seq: stored_seq,
        })
    }

    /// Makes sure that the spool goes on where the control plane's store ends. A spool that was
    /// lost, restored or mixed up is sealed again behind what is stored.
    fn align(&self, stored: Head) -> io::Result<()> {
        let reason = match self.hash_of(stored.seq) {
            Some(hash) if hash == stored.hash => return Ok(()),
            Some(_) => format!("record {} is another one than the stored one", stored.seq),
            None => format!("record {}, which is stored, is not in this spool", stored.seq),
        };
        self.context.spool.rebase(stored, reason)
    }

    /// Hash of record `seq` of the spool: its own, or what its successor says of it.
    fn hash_of(&self, seq: u64) -> Option<Hash> {
        if seq == 0 {
            let empty = self.context.spool.status().synced_seq.load(Ordering::Acquire) == 0;
            if empty {
                return Some([0; 32]);
            }
        }
        let read = |after: u64| {
            SpoolReader::after(self.context.spool.audit_dir(), after)
                .read(after + 1, 1, usize::MAX)
                .ok()?
                .pop()
        };
        if let Some(next) = read(seq) {
            return hash_from_hex(&next.prev);
        }
        hash_from_hex(&read(seq.checked_sub(1)?)?.hash)
    }

    fn serve(&mut self, mut talk: Talk) -> io::Result<()> {
        let ticks = tick(REPORT_EVERY);
        let mut synced_signal = self.context.synced.clone();
        loop {
            talk.send_records(&self.context.spool)?;
            let synced = self.context.spool.status().synced_seq.load(Ordering::Acquire);
            if self.stopping.is_some() && (talk.stored_seq >= synced || self.ending()) {
                return Ok(());
            }
            let stop = if self.stopping.is_some() { never() } else { self.stopped.clone() };
            select! {
                recv(talk.frames) -> frame => {
                    let frame = frame.map_err(io::Error::other)??;
                    self.take(&mut talk, frame)?;
                }
                recv(talk.results) -> result => {
                    if let Ok((version, result)) = result {
                        talk.send(&Up::Applied { version, result })?;
                    }
                }
                recv(synced_signal) -> signal => if signal.is_err() {
                    // The spool has sealed its last record.
                    synced_signal = never();
                },
                recv(ticks) -> _ => self.report(&mut talk)?,
                recv(stop) -> _ => self.begin_stop(),
                default(REPORT_EVERY) => {}
            }
        }
    }

    fn take(&self, talk: &mut Talk, frame: Down) -> io::Result<()> {
        match frame {
            Down::Config { version, sha256, document } => {
                let document = Document::new(version, "control-plane", document);
                if document.sha256 != sha256 {
                    return Err(io::Error::other(format!("document {version} arrived altered")));
                }
                let push = Push { document, result: talk.result_sender.clone() };
                self.context.pushes.send(push).map_err(io::Error::other)
            }
            Down::Stored { seq } => {
                if seq > talk.sent_seq {
                    let text = format!("record {seq} is said to be stored and was never sent");
                    return Err(io::Error::other(text));
                }
                talk.stored_seq = talk.stored_seq.max(seq);
                self.context.spool.stored(talk.stored_seq);
                Ok(())
            }
            Down::QueryCalls { query, limit } => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let (calls, more) = self.ask(|shards| shards.calls(limit))?.unwrap_or_default();
                talk.send(&Up::Calls { query, calls, more })
            }
            Down::QueryCall { query, call } => {
                let call = self.ask(|shards| shards.call(&call))?.flatten().map(Box::new);
                talk.send(&Up::Call { query, call })
            }
            Down::QueryLadder { query, call } => {
                let ladder = self.ask(|shards| shards.ladder(&call))?.flatten();
                talk.send(&Up::Ladder { query, ladder })
            }
            Down::Ping { nonce } => talk.send(&Up::Pong { nonce }),
            Down::Refused { reason } => {
                Err(io::Error::other(format!("it refuses this node: {reason}")))
            }
            Down::Welcome { .. } => Err(io::Error::other("a second welcome")),
        }
    }

    /// `None` before shards run.
    fn ask<T>(
        &self,
        question: impl FnOnce(&Shards) -> Result<T, crate::mailbox::Silent>,
    ) -> io::Result<Option<T>> {
        let shards = self.context.shards.lock().unwrap_or_else(PoisonError::into_inner).clone();
        shards.map(|shards| question(&shards).map_err(io::Error::other)).transpose()
    }

    fn report(&self, talk: &mut Talk) -> io::Result<()> {
        talk.send(&Up::Metrics(Box::new((self.context.report)())))?;
        let trunks = self.ask(Shards::trunks)?.unwrap_or_default();
        talk.send(&Up::Trunks { trunks })
    }
}

impl Talk {
    fn send(&mut self, frame: &Up) -> io::Result<()> {
        write_frame(&mut *self.writer, frame)
    }

    fn send_records(&mut self, spool: &SpoolHandle) -> io::Result<()> {
        let synced = spool.status().synced_seq.load(Ordering::Acquire);
        while self.sent_seq < synced && self.sent_seq - self.stored_seq < RECORDS_IN_FLIGHT {
            let records = self.reader.read(synced, RECORDS_PER_FRAME, RECORD_BYTES_PER_FRAME)?;
            let Some(last) = records.last() else { break };
            self.sent_seq = last.seq;
            self.send(&Up::Records { records })?;
        }
        Ok(())
    }
}
