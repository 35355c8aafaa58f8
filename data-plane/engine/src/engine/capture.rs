//! Keeps the messages of calls for `ravelin trace --pcap`, where the config asks for it. A message
//! belongs to the call that was worked on when it came or was written; what only transactions repeat
//! is not kept.

use std::net::SocketAddr;

use super::Engine;
use crate::{
    b2bua::{
        call::Call,
        capture::{Capture, Seen},
    },
    core::Core,
    limits::CAPTURED_BYTES_MAX,
    port::{Egress, ListenerId, Local, Meta, TxQueue},
    time::Now,
};

impl Engine {
    /// Keeps what came in, if anything did, and what went out behind place `before` of the queue.
    pub(super) fn capture(
        &mut self,
        now: Now,
        inbound: Option<(&Meta, &[u8])>,
        before: usize,
        out: &TxQueue,
    ) {
        let most = self.core.loadout.snapshot.limits.capture_bytes as usize;
        if most == 0 {
            return;
        }
        let Self { calls, core, worked, .. } = self;
        let Some(call) = worked.and_then(|slot| calls.get_mut(slot)) else { return };
        if call.is_emergency() {
            return;
        }
        let unix_ms = now.unix_ms;
        if let Some((meta, bytes)) = inbound
            && let Some((to, stream)) = arrived(core, meta)
        {
            keep(core, call, Seen { unix_ms, from: meta.source, to, stream, bytes }, most);
        }
        for place in before..out.len() {
            let Some(tx) = out.get(place) else { continue };
            let (listener, to, stream) = match tx.egress {
                Egress::Udp { listener, to } => (listener, to, false),
                Egress::Connect { listener, to, .. } => (listener, to, true),
                Egress::Flow { or_connect: Some((listener, to)), .. } => (listener, to, true),
                Egress::Flow { .. } | Egress::Media { .. } => continue,
            };
            let Some(from) = address(core, listener) else { continue };
            keep(core, call, Seen { unix_ms, from, to, stream, bytes: tx.bytes }, most);
        }
    }

    /// A call is gone with what was kept of it.
    pub(super) fn uncapture(&mut self, call: &Call) {
        let held = call.capture.as_ref().map_or(0, |capture| capture.bytes());
        self.core.captured = self.core.captured.saturating_sub(held);
    }
}

fn keep(core: &mut Core, call: &mut Call, seen: Seen<'_>, most: usize) {
    let capture = call.capture.get_or_insert_with(|| Box::new(Capture::default()));
    let room = CAPTURED_BYTES_MAX.saturating_sub(core.captured).saturating_add(capture.bytes());
    core.captured += capture.keep(seen, most.min(room));
}

fn arrived(core: &Core, meta: &Meta) -> Option<(SocketAddr, bool)> {
    match meta.local {
        Local::Signalling { listener } => Some((address(core, listener)?, false)),
        Local::Stream { listener, .. } => Some((address(core, listener)?, true)),
        Local::Media { .. } => None,
    }
}

fn address(core: &Core, listener: ListenerId) -> Option<SocketAddr> {
    core.listener(listener).map(|own| own.bind)
}
