//! What an operator, a test or a metric asks the engine. Off the packet path: it allocates.

use ravelin_contract::{
    chain::Entry,
    metrics::Sample,
    view::{CallState, CallView, Ladder, TargetView, TrunkView},
};

use super::Engine;
use crate::{
    b2bua::{
        call::{CALL_ID_LEN, Call, Phase},
        cdr,
        ladder::elapsed_ms,
        leg::Side,
    },
    counters::gauge,
    records::text,
    time::Now,
};

/// How full the tables of one shard are. All zero after the last call, quarantine apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub calls: usize,
    pub legs: usize,
    pub client_txns: usize,
    pub server_txns: usize,
    /// Those of the prober apart.
    pub timers: usize,
    pub media_streams: usize,
    pub ports_in_use: usize,
    pub ports_quarantined: usize,
    /// Held by calls of this shard.
    pub permits: usize,
    /// MESSAGE requests outside calls that wait for their answer.
    pub messages: usize,
    /// Messages that transactions keep.
    pub buffers: usize,
    /// Records that nobody has taken.
    pub records: usize,
}

impl Tables {
    /// What is not zero and should be when no call and no transaction is left: name and number.
    /// Quarantined ports and waiting records are not counted.
    #[must_use]
    pub fn left_over(&self) -> Vec<(&'static str, usize)> {
        [
            ("calls", self.calls),
            ("legs", self.legs),
            ("client_txns", self.client_txns),
            ("server_txns", self.server_txns),
            ("timers", self.timers),
            ("media_streams", self.media_streams),
            ("ports_in_use", self.ports_in_use),
            ("permits", self.permits),
            ("messages", self.messages),
            ("buffers", self.buffers),
        ]
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .collect()
    }
}

impl Engine {
    #[must_use]
    pub fn tables(&self) -> Tables {
        let core = &self.core;
        let mut tables = Tables {
            calls: self.calls.len(),
            client_txns: core.layer.clients(),
            server_txns: core.layer.servers(),
            timers: core.wheel.len().saturating_sub(self.prober.len()),
            media_streams: core.media.streams(),
            ports_in_use: core.media.ports_in_use(),
            ports_quarantined: core.media.ports_quarantined(),
            messages: self.messages.len(),
            buffers: core.layer.buffers(),
            records: core.records.waiting(),
            ..Tables::default()
        };
        for (_, call) in &self.calls {
            tables.legs += 1 + call.attempts.len();
            tables.permits += usize::from(call.permits.trunk.is_some())
                + usize::from(call.permits.node.is_some())
                + call.attempts.iter().filter(|attempt| attempt.permit.is_some()).count();
        }
        tables
    }

    /// Moves the records that wait, oldest first, behind `into`. The counts that the fast path had of
    /// flows that ended in this turn were to come before ([`Engine::fast_counts`]).
    pub fn take_records(&mut self, now: Now, into: &mut Vec<Entry>) {
        while let Some(key) = self.core.uncounted.last().map(|one| one.call) {
            let slot = usize::try_from(key.slot).ok();
            match slot.and_then(|slot| self.calls.get(slot)).filter(|call| call.key == key) {
                Some(call) => cdr::write_late(&mut self.core, call),
                // Its records were written when it went.
                None => drop(self.core.uncounted.pop()),
            }
        }
        self.core.records.take(now.unix_ms, into);
    }

    /// At most `limit` calls.
    #[must_use]
    pub fn calls(&self, now: Now, limit: usize) -> Vec<CallView> {
        self.calls.iter().take(limit).map(|(_, call)| self.view(call, now)).collect()
    }

    /// The call with this id, or with this Call-ID on either leg, with the quality of its streams;
    /// `None` if it is not a call of this shard.
    #[must_use]
    pub fn call(&self, now: Now, id: &str) -> Option<CallView> {
        let call = self.call_named(id)?;
        let mut view = self.view(call, now);
        if let Some(anchor) = &call.anchor {
            view.streams = self.core.media.qualities(anchor);
        }
        Some(view)
    }

    fn view(&self, call: &Call, now: Now) -> CallView {
        let core = &self.core;
        let snapshot = &call.loadout.snapshot;
        let shown =
            call.winner.and_then(|at| call.attempts.get(at)).or_else(|| call.attempts.last());
        // A call that was taken over has those of the process before.
        let packets = |side| {
            let now = call.anchor.as_ref().map(|anchor| core.media.count(anchor, side).packets);
            call.survival.count(side).packets.saturating_add(now.unwrap_or_default())
        };
        CallView {
            id: call.id_text(),
            node: core.node.clone(),
            shard: core.shard.0,
            state: match call.phase {
                Phase::Verifying | Phase::Routing => CallState::Trying,
                Phase::Ringing => CallState::Ringing,
                Phase::Answered => CallState::Answered,
                Phase::Ending => CallState::Ending,
            },
            from: text(&call.from),
            to: text(&call.to),
            inbound_trunk: call
                .inbound
                .and_then(|id| snapshot.trunk(id))
                .map(|trunk| trunk.id.clone()),
            outbound_trunk: shown
                .and_then(|attempt| snapshot.trunk(attempt.trunk))
                .map(|trunk| trunk.id.clone()),
            inbound_call_id: text(call.caller.dialog.call_id()),
            outbound_call_id: shown.map(|attempt| text(attempt.leg.dialog.call_id())),
            class: call.class.as_str().to_owned(),
            site: call
                .location
                .and_then(|found| snapshot.site_settings(found.site))
                .map(|site| site.name.clone()),
            start_unix_ms: call.started.unix_ms,
            age_ms: elapsed_ms(call.started.mono, now.mono),
            answered_ms: call.answer_at.map(|at| elapsed_ms(call.started.mono, at)),
            packets_from_caller: packets(Side::Caller),
            packets_from_callee: packets(Side::Callee),
            streams: Vec::new(),
            snapshot: snapshot.version,
        }
    }

    /// The messages of the call with this id, or with this Call-ID on either leg; `None` if it is not
    /// a call of this shard.
    #[must_use]
    pub fn ladder(&self, id: &str) -> Option<Ladder> {
        let call = self.call_named(id)?;
        let callee = |number: u16| {
            call.attempts
                .iter()
                .find(|attempt| attempt.number == number)
                .and_then(|attempt| call.loadout.snapshot.trunk(attempt.trunk))
                .map_or_else(|| "callee".to_owned(), |trunk| trunk.id.clone())
        };
        let mut ladder = call.steps.render(call.id_text(), callee);
        if let Some(capture) = &call.capture {
            (ladder.packets, ladder.packets_omitted) = capture.render();
        }
        Some(ladder)
    }

    fn call_named(&self, id: &str) -> Option<&Call> {
        self.call_with_id(id).or_else(|| {
            let known = |call: &Call| {
                let mut legs =
                    call.attempts.iter().map(|attempt| &attempt.leg).chain([&call.caller]);
                legs.any(|leg| leg.dialog.call_id() == id.as_bytes())
            };
            self.calls.iter().find(|(_, call)| known(call)).map(|(_, call)| &**call)
        })
    }

    fn call_with_id(&self, id: &str) -> Option<&Call> {
        if id.len() != CALL_ID_LEN {
            return None;
        }
        let slot = usize::from_str_radix(id.get(14..22)?, 16).ok()?;
        self.calls.get(slot).map(|call| &**call).filter(|call| call.id == id.as_bytes())
    }

    /// The trunks as this node sees them: calls and refusals are those of all shards.
    #[must_use]
    pub fn trunks(&self) -> Vec<TrunkView> {
        let snapshot = &self.core.loadout.snapshot;
        snapshot
            .trunks
            .iter()
            .zip(&self.core.loadout.gauges)
            .map(|(trunk, gauge)| {
                let targets: Vec<TargetView> = trunk
                    .targets
                    .iter()
                    .zip(gauge.targets())
                    .map(|(target, health)| TargetView {
                        uri: target.uri.clone(),
                        state: health.state().as_str().to_owned(),
                        failures: health.failures(),
                    })
                    .collect();
                let is = |state: &str| targets.iter().any(|target| target.state == state);
                let state = match (is("up"), is("unprobed")) {
                    (true, _) => "up",
                    (false, true) => "unprobed",
                    (false, false) if targets.is_empty() => "unprobed",
                    (false, false) => "down",
                };
                let (calls, rate) = gauge.refused();
                TrunkView {
                    id: trunk.id.clone(),
                    node: self.core.node.clone(),
                    role: format!("{:?}", trunk.role).to_lowercase(),
                    state: state.to_owned(),
                    calls: u64::from(gauge.calls()),
                    calls_limit: trunk.limits.calls.map(u64::from),
                    cps_limit: trunk.limits.cps.map(u64::from),
                    refused_total: calls.saturating_add(rate),
                    targets,
                }
            })
            .collect()
    }

    /// How good the streams of ended calls were, by trunk.
    pub fn buckets(&self, into: &mut Vec<ravelin_contract::metrics::Buckets>) {
        self.core.scores.buckets(into);
    }

    /// Counters and gauges of this shard.
    pub fn samples(&self, into: &mut Vec<Sample>) {
        self.core.counters.samples(into);
        let tables = self.tables();
        let core_retired = self.core.retired.len();
        for (name, help, value) in [
            ("calls", "Calls", tables.calls),
            ("legs", "Legs of calls", tables.legs),
            ("client_transactions", "Client transactions", tables.client_txns),
            ("server_transactions", "Server transactions", tables.server_txns),
            ("timers", "Running timers", tables.timers),
            ("media_streams", "Relayed media streams", tables.media_streams),
            ("media_ports_in_use", "Media ports of calls", tables.ports_in_use),
            ("media_ports_quarantined", "Media ports that rest", tables.ports_quarantined),
            ("media_ports_free", "Media ports that can be drawn", self.core.media.ports_free()),
            (
                "media_ports_reserved",
                "Media ports that ordinary calls leave to emergency calls",
                self.core.media.ports_reserved(),
            ),
            ("placements", "Calls remembered to be on another shard", self.placements()),
            (
                "media_sprayers",
                "Sources that sent to closed media ports",
                self.core.media.sprayers(),
            ),
            ("permits", "Trunk permits held by calls", tables.permits),
            ("records_waiting", "Records not yet taken by the shard", tables.records),
            ("captured_bytes", "Octets of messages kept for traces", self.core.captured),
            ("config_versions_held", "Old config versions that calls hold", core_retired),
        ] {
            into.push(gauge(name, help, None, value as u64));
        }
        self.peering_samples(into);
        into.push(crate::counters::counter(
            "media_ports_reused_early_total",
            "Port pairs taken before the end of their rest because none was free",
            None,
            self.core.media.ports_reused_early(),
        ));
        into.push(crate::counters::counter(
            "media_sprayers_displaced_total",
            "Sources that sent to closed media ports, forgotten before their time",
            None,
            self.core.media.sprayers_displaced(),
        ));
        into.push(crate::counters::counter(
            "records_lost_total",
            "Records lost because the shard did not take them",
            None,
            self.core.records.lost_total,
        ));
    }

    /// How ICE, DTLS and the keys of SRTP fare.
    fn peering_samples(&self, into: &mut Vec<Sample>) {
        let media = &self.core.media;
        let (dtls, totals) = (media.dtls_outcomes(), media.totals());
        for (outcome, value) in [
            ("done", dtls.done),
            ("fingerprint", dtls.fingerprint),
            ("no_profile", dtls.no_profile),
            ("timeout", dtls.timeout),
            ("protocol", dtls.protocol),
        ] {
            into.push(crate::counters::counter(
                "dtls_handshakes_total",
                "DTLS handshakes that ended, by outcome",
                Some(("outcome", outcome)),
                value,
            ));
        }
        into.push(gauge(
            "dtls_handshakes",
            "DTLS handshakes under way",
            None,
            media.dtls_handshakes() as u64,
        ));
        for (outcome, value) in [
            ("nominated", totals.ice_nominated),
            ("failed", totals.ice_failed),
            ("consent_lost", totals.ice_consent_lost),
        ] {
            into.push(crate::counters::counter(
                "ice_total",
                "Pairs nominated, streams that ended without one, parties whose checks ended",
                Some(("outcome", outcome)),
                value,
            ));
        }
        for (state, value) in [("ending", totals.keys_ending), ("spent", totals.keys_spent)] {
            into.push(crate::counters::counter(
                "srtp_keys_total",
                "SRTP master keys near the end of what they may protect, and at it",
                Some(("state", state)),
                value,
            ));
        }
    }
}
