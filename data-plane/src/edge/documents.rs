//! Config documents while the edge runs: pushed by the control plane or read again from the file, put
//! in force on every shard or refused whole, and kept on disk.

use std::sync::{Arc, atomic::Ordering};

use crossbeam::channel::{Sender, unbounded};
use ravelin_contract::{
    audit::Severity,
    link::{ApplyResult, FieldError},
};
use ravelin_engine::loadout::Loadout;
use ravelin_policy::{Mode, Snapshot};

use super::{Edge, Event, lock};
use crate::{
    settings,
    snapshots::Document,
    telemetry::{self, event, log},
};

impl Edge {
    /// Puts a document in force on every shard, or refuses it whole.
    pub(super) fn apply(
        &mut self,
        document: Document,
        actor: &str,
        sender: &Sender<Event>,
    ) -> ApplyResult {
        match self.try_apply(document, actor, sender) {
            Ok(()) => {
                self.process.documents_applied.fetch_add(1, Ordering::Relaxed);
                ApplyResult::Active
            }
            Err((version, errors)) => {
                self.process.documents_refused.fetch_add(1, Ordering::Relaxed);
                let text = settings::one_line(&errors);
                log("warning", "edge", &format!("config version {version} refused: {text}"));
                self.spool.event(
                    event("config.refused", Severity::Warning)
                        .actor(actor)
                        .field("version", version)
                        .field("errors", text)
                        .into_event(),
                );
                ApplyResult::Refused { errors }
            }
        }
    }

    fn try_apply(
        &mut self,
        document: Document,
        actor: &str,
        sender: &Sender<Event>,
    ) -> Result<(), (u64, Vec<FieldError>)> {
        let version = document.version;
        let refuse = |path: &str, reason: String| {
            (version, vec![FieldError { path: path.into(), line: None, reason }])
        };
        let compiled = settings::compile(&document.text, version, &self.test_signals)
            .map_err(|errors| (version, errors))?;
        let Some((_, running)) = &self.active else {
            return self
                .start_shards(document, compiled, sender)
                .map_err(|error| refuse("edge", error));
        };
        let restart = ravelin_policy::restart_needed(running, &compiled.snapshot);
        if !restart.is_empty() {
            if let Err(error) = self.snapshots.save_next(&document) {
                log("alarm", "edge", &format!("snapshots/next.json cannot be written: {error}"));
            }
            let reason = "needs a restart of the edge; it is kept and takes effect then";
            let error = |path| FieldError { path, line: None, reason: reason.into() };
            return Err((version, restart.into_iter().map(error).collect()));
        }
        let mode_before = running.mode;
        self.tell_warnings(compiled.warnings);
        let loadout = self.loadout(compiled.snapshot);
        let shards = lock(&self.shards).clone();
        if let Some(shards) = shards {
            shards.install(&loadout).map_err(|silent| refuse("", silent.to_string()))?;
        }
        telemetry::set_active_snapshot(version);
        self.spool.event(
            event("config.activated", Severity::Info)
                .actor(actor)
                .field("version", version)
                .field("sha256", document.sha256.clone())
                .into_event(),
        );
        if mode_before != loadout.snapshot.mode {
            let mode = loadout.snapshot.mode;
            self.spool.event(
                event("deployment.mode_changed", Severity::Alarm)
                    .actor(actor)
                    .field("mode", mode_name(mode))
                    .field("mode_because", self.mode_because(mode))
                    .into_event(),
            );
        }
        log("info", "edge", &format!("config version {version} is in force"));
        self.put_in_force(document, &loadout);
        Ok(())
    }

    /// Settings and credentials for the shards. Unusable credentials are alarms.
    pub(super) fn loadout(&self, snapshot: Snapshot) -> Arc<Loadout> {
        let now_unix = telemetry::unix_ms() / 1_000;
        let credentials = settings::credentials(&snapshot.stir, &self.options.data, now_unix);
        for fault in &credentials.faults {
            log("alarm", "stir", &format!("{}: {}", fault.path, fault.reason));
        }
        if snapshot.stir.signing && credentials.signer.is_none() {
            log("alarm", "stir", "there is no usable certificate: calls go out unsigned");
        }
        let not_after = credentials.signer.as_ref().map_or(0, |signer| signer.not_after());
        self.process.certificate_not_after.store(not_after, Ordering::Relaxed);
        credentials.alarms().for_each(|alarm| self.spool.event(alarm));
        self.process.stir_faults.store(credentials.faults.len() as u64, Ordering::Relaxed);
        let loadout = Loadout::new(Arc::new(snapshot), &self.registry);
        Arc::new(loadout.with_identity(credentials.signer, credentials.trust))
    }

    /// Keeps what is now in force, in memory and on disk.
    pub(super) fn put_in_force(&mut self, document: Document, loadout: &Arc<Loadout>) {
        {
            let mut identity = lock(&self.identity);
            identity.node.clone_from(&loadout.snapshot.node);
            identity.active_version = document.version;
            identity.active_sha256.clone_from(&document.sha256);
        }
        let test = loadout.snapshot.mode == Mode::Test;
        if test {
            log("warning", "edge", "test mode: all emergency calls will be blocked");
        }
        self.process.test_mode.store(test, Ordering::Relaxed);
        self.process.snapshot_version.store(document.version, Ordering::Relaxed);
        match self.snapshots.save_good(&document) {
            Ok(()) => self.snapshots.clear_next(),
            Err(error) => {
                let text = format!("snapshots/last-good.json cannot be written: {error}");
                log("alarm", "edge", &text);
                let told = event("config.snapshot_not_saved", Severity::Alarm);
                self.spool.event(told.field("error", error.to_string()).into_event());
            }
        }
        self.active = Some((document, Arc::clone(&loadout.snapshot)));
    }

    /// SIGHUP: the file again. With a control plane the file no longer counts.
    pub(super) fn reload(&mut self) {
        let Some(file) = self.options.config.clone().filter(|_| self.options.control.is_none())
        else {
            log("info", "edge", "SIGHUP ignored: the control plane decides on the config");
            return;
        };
        let text = match settings::read_document(&file) {
            Ok(text) => text,
            Err(error) => return log("warning", "edge", &error),
        };
        let version = self.active.as_ref().map_or(1, |(document, _)| document.version + 1);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let (nobody, _) = unbounded();
        self.apply(Document::new(version, &name, text), "config-file", &nobody);
    }

    /// What the author of a document should know, once and not with every version.
    pub(super) fn tell_warnings(&mut self, warnings: Vec<FieldError>) {
        if warnings != self.told_warnings {
            for warning in &warnings {
                log("warning", "config", &format!("{}: {}", warning.path, warning.reason));
            }
            self.told_warnings = warnings;
        }
    }

    pub(super) fn mode_because(&self, mode: Mode) -> String {
        match (mode, self.test_signals.is_empty()) {
            (Mode::Production, _) => "deployment.mode is production or not given".into(),
            (Mode::Test, true) => "deployment.mode is test".into(),
            (Mode::Test, false) => {
                format!("deployment.mode is test, and {}", self.test_signals.join(", and "))
            }
        }
    }
}

pub(super) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Production => "production",
        Mode::Test => "test",
    }
}
