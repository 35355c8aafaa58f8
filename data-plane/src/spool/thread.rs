//! The spool thread: collect, seal, sync, tell. When the disk refuses, records wait here and in the
//! rings; what finds no room is counted, and the count becomes a gap record when the disk is back.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use crossbeam::channel::{Receiver, Sender};
use ravelin_contract::{
    audit::Severity,
    chain::{Entry, Head},
};

use super::{
    BATCH_RECORDS, Command, GROUP_WINDOW, PENDING_RECORDS, RETRY_AFTER, SpoolOptions, Status,
    cdr_files::CdrFiles,
    chain_file::ChainFile,
    feed::{Drain, Wake, is_urgent},
    recover::{Recovered, STOPPED},
    segment,
};
use crate::telemetry::{event, log, unix_ms};

/// Everything the thread is given.
pub(super) struct Parts {
    pub(super) options: SpoolOptions,
    pub(super) wake: Arc<Wake>,
    pub(super) status: Arc<Status>,
    pub(super) commands: Receiver<Command>,
    pub(super) synced: Sender<()>,
}

pub(super) struct Worker {
    parts: Parts,
    drains: Vec<Drain>,
    chain: ChainFile,
    cdrs: CdrFiles,
    /// Taken from the rings, not yet durable.
    batch: Vec<Entry>,
    /// Given up since the last gap record.
    lost: u64,
    cdr_failing: bool,
}

impl Worker {
    pub(super) fn new(parts: Parts, recovered: Recovered) -> Self {
        let gap = recovered.gap.clone();
        let chain =
            ChainFile::new(&parts.options.data.join("audit"), parts.options.sizes, recovered);
        let cdrs = CdrFiles::new(&parts.options.data.join("cdr"));
        let mut batch = Vec::with_capacity(BATCH_RECORDS);
        if let Some(reason) = gap {
            log("warning", "spool", &format!("gap in the audit chain: {reason}"));
            batch.push(Entry::Gap { lost: None, reason, unix_ms: unix_ms() });
        }
        Self { parts, drains: Vec::new(), chain, cdrs, batch, lost: 0, cdr_failing: false }
    }

    pub(super) fn run(mut self) {
        let mut last_sync = None;
        let stop = loop {
            if let Some(stop) = self.collect() {
                break stop;
            }
            if self.batch.is_empty() {
                let (drains, commands) = (&self.drains, &self.parts.commands);
                self.parts.wake.sleep(RETRY_AFTER, || {
                    !commands.is_empty() || drains.iter().any(|drain| !drain.is_empty())
                });
                continue;
            }
            let since = last_sync.map(|at: Instant| at.elapsed());
            if let Some(since) = since
                && since < GROUP_WINDOW
                && self.batch.len() < BATCH_RECORDS
            {
                // More will come within the window: one sync for all of it.
                std::thread::sleep(GROUP_WINDOW - since);
                if let Some(stop) = self.collect() {
                    break stop;
                }
            }
            last_sync = Some(Instant::now());
            if self.write().is_err() {
                self.parts.wake.sleep(RETRY_AFTER, || !self.parts.commands.is_empty());
            }
        };
        self.finish(&stop);
    }

    /// Takes what has arrived. Returns the reason when the thread shall end.
    fn collect(&mut self) -> Option<String> {
        while let Ok(command) = self.parts.commands.try_recv() {
            match command {
                Command::Drain(drain) => self.drains.push(*drain),
                Command::Event(event) => self.keep(Entry::Audit(*event)),
                Command::Stored(seq) => self.stored(seq),
                Command::Rebase { head, reason, done } => {
                    let result = self.rebase(head, reason);
                    // Who asked may have gone away with its connection.
                    let _ = done.send(result);
                }
                Command::Stop { reason } => return Some(reason),
            }
        }
        for drain in &mut self.drains {
            let room = BATCH_RECORDS.saturating_sub(self.batch.len());
            drain.take(&mut self.batch, room);
            self.lost += drain.take_lost();
        }
        if self.lost > 0 {
            self.tell_loss("a ring or the disk was full");
        }
        None
    }

    /// One gap record for everything given up since the last one, at the place where it is missing.
    fn tell_loss(&mut self, reason: &str) {
        let lost = std::mem::take(&mut self.lost);
        self.parts.status.lost.fetch_add(lost, Ordering::Relaxed);
        match self.batch.last_mut() {
            Some(Entry::Gap { lost: Some(before), .. }) => *before += lost,
            _ => self.batch.push(Entry::Gap {
                lost: Some(lost),
                reason: reason.into(),
                unix_ms: unix_ms(),
            }),
        }
    }

    fn keep(&mut self, entry: Entry) {
        let room = if is_urgent(&entry) { 8 * PENDING_RECORDS } else { PENDING_RECORDS };
        if self.batch.len() < room {
            self.batch.push(entry);
        } else {
            self.lost += 1;
        }
    }

    /// The events of the batch that have words in the source documents, as log lines.
    fn say(&self) {
        for entry in &self.batch {
            let Entry::Audit(event) = entry else { continue };
            if let Some(line) = event.line() {
                let level = if event.severity >= Severity::Error { "error" } else { "warning" };
                log(level, "audit", &line);
            }
        }
    }

    /// Makes the batch durable and tells of it.
    fn write(&mut self) -> io::Result<()> {
        let status = &self.parts.status;
        if let Err(error) = self.chain.append(&self.batch) {
            status.write_errors.fetch_add(1, Ordering::Relaxed);
            if !status.failing.swap(true, Ordering::Relaxed) {
                let text = format!("audit spool cannot be written, calls go on: {error}");
                log("alarm", "spool", &text);
                let event = event("audit.write_failed", Severity::Alarm)
                    .field("error", error.to_string())
                    .into_event();
                self.keep(Entry::Audit(event));
            }
            return Err(error);
        }
        if status.failing.swap(false, Ordering::Relaxed) {
            log("info", "spool", "audit spool is written again");
        }
        let gaps = self.batch.iter().filter(|entry| matches!(entry, Entry::Gap { .. })).count();
        status.gaps.fetch_add(gaps as u64, Ordering::Relaxed);
        status.syncs.fetch_add(1, Ordering::Relaxed);
        let head = self.chain.head().seq;
        status.synced_seq.store(head, Ordering::Release);
        // Full means that a message is already waiting there.
        let _ = self.parts.synced.try_send(());
        self.write_cdrs();
        self.say();
        self.batch.clear();
        if !self.parts.options.collected {
            self.stored(head);
        }
        self.parts.status.bytes.store(self.chain.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn write_cdrs(&mut self) {
        let result = self.cdrs.append(&self.batch);
        if let Err(error) = &result
            && !self.cdr_failing
        {
            log("alarm", "spool", &format!("cdr files cannot be written: {error}"));
        }
        self.cdr_failing = result.is_err();
    }

    fn stored(&mut self, seq: u64) {
        self.parts.status.stored_seq.store(seq, Ordering::Relaxed);
        if let Err(error) = self.chain.forget(seq) {
            log("error", "spool", &format!("old audit segment cannot be removed: {error}"));
        }
    }

    /// See [`super::SpoolHandle::rebase`].
    fn rebase(&mut self, head: Head, reason: String) -> io::Result<()> {
        let now = unix_ms();
        let before = std::mem::take(&mut self.batch);
        let moved = self.chain.rebase(head, &format!("aside-{now}"))?;
        log("alarm", "spool", &format!("audit chain now follows record {}: {reason}", head.seq));
        let mut entries = vec![Entry::Gap { lost: None, reason, unix_ms: now }];
        for segment in &moved {
            segment::scan(segment, None, |record| {
                if let Ok(entry) = serde_json::from_str(record.entry.get()) {
                    entries.push(entry);
                }
                if entries.len() >= BATCH_RECORDS {
                    self.seal_again(&mut entries);
                }
            })?;
        }
        self.seal_again(&mut entries);
        self.batch.extend(before);
        self.parts.status.synced_seq.store(self.chain.head().seq, Ordering::Release);
        Ok(())
    }

    /// Appends `entries` at once, or, when the disk refuses, keeps them for the next write.
    fn seal_again(&mut self, entries: &mut Vec<Entry>) {
        if self.batch.is_empty() && self.chain.append(entries).is_ok() {
            entries.clear();
        } else {
            self.batch.append(entries);
        }
    }

    fn finish(mut self, reason: &str) {
        // The shards have ended before; what they left fits into a few batches.
        loop {
            for drain in &mut self.drains {
                drain.take(&mut self.batch, usize::MAX);
                self.lost += drain.take_lost();
            }
            if self.lost > 0 {
                self.tell_loss("a ring or the disk was full");
            }
            if self.drains.iter().all(Drain::is_empty) {
                break;
            }
        }
        let stopped = event(STOPPED, Severity::Info).field("reason", reason.to_owned());
        self.batch.push(Entry::Audit(stopped.into_event()));
        let count = self.batch.len();
        if let Err(error) = self.write() {
            log("error", "spool", &format!("{count} records could not be written: {error}"));
        }
    }
}
