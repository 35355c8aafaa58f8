//! Ways that break: a send that failed, a host that cannot be reached, a connection that ended
//! (RFC 3261 17.1.4, 18.4). What waits for an answer that way hears of it at once.

use std::net::SocketAddr;

use super::{NOWHERE, State, entry_token};
use crate::{
    port::{Egress, FlowId, ListenerId, Token},
    sip::transaction::{ClientKey, Ctx, Layer, TuEvent, size::set_via_transport},
    time::Instant,
};

impl Layer {
    /// The driver could not send what carried `token`. A large request that could not go over TCP
    /// goes over UDP; any other ends in [`TuEvent::TransportError`].
    pub fn send_failed(
        &mut self,
        now: Instant,
        token: Token,
        ctx: &mut Ctx<'_>,
    ) -> Option<TuEvent> {
        let slot = u32::try_from(token.0 >> 32).ok()?;
        let entry = self.clients.get_mut(slot as usize)?;
        if entry_token(slot, entry) != token || entry.state != State::Unanswered {
            return None;
        }
        self.undelivered(now, slot, ctx)
    }

    /// The way of a transaction broke: the other one is taken if there is one.
    fn undelivered(&mut self, now: Instant, slot: u32, ctx: &mut Ctx<'_>) -> Option<TuEvent> {
        self.unlist(slot);
        let entry = self.clients.get_mut(slot as usize)?;
        let fallback = entry
            .rare
            .as_mut()
            .filter(|_| entry.state == State::Unanswered)
            .and_then(|rare| rare.fallback.take());
        let Some((listener, to)) = fallback else {
            return self.transport_error(slot, ctx);
        };
        if let Egress::Connect { to: refused, .. }
        | Egress::Flow { or_connect: Some((_, refused)), .. } = entry.egress
        {
            self.refused_tcp.add(now, refused);
        }
        ctx.counters.tcp_for_size_failed += 1;
        entry.egress = Egress::Udp { listener, to };
        if !set_via_transport(entry.message.bytes_mut(), b"UDP") {
            return self.transport_error(slot, ctx);
        }
        ctx.tx.push(entry.egress, entry_token(slot, entry), entry.message.bytes());
        self.start(now, slot, ctx);
        None
    }

    /// The stream connection that took the request with `token`: its answer comes through there.
    pub fn sent_through(&mut self, token: Token, flow: FlowId) {
        let Ok(slot) = u32::try_from(token.0 >> 32) else { return };
        let Some(entry) = self.clients.get(slot as usize) else { return };
        let waits = matches!(entry.state, State::Unanswered | State::Proceeding);
        if !waits || entry_token(slot, entry) != token {
            return;
        }
        let or_connect = match entry.egress {
            Egress::Connect { listener, to, .. } => Some((listener, to)),
            Egress::Flow { flow: known, .. } if known == flow => return,
            Egress::Flow { or_connect, .. } => or_connect,
            Egress::Udp { .. } | Egress::Media { .. } => return,
        };
        self.unlist(slot);
        let Some(entry) = self.clients.get_mut(slot as usize) else { return };
        entry.egress = Egress::Flow { flow, or_connect };
        entry.listed_at = self.waiting.add(flow, slot);
    }

    /// Nothing more comes from a stream connection: ends what waits for an answer on it.
    pub fn flow_closed(
        &mut self,
        now: Instant,
        flow: FlowId,
        ctx: &mut Ctx<'_>,
        events: &mut Vec<TuEvent>,
    ) {
        while let Some(slot) = self.waiting.pop(flow) {
            if let Some(entry) = self.clients.get_mut(slot as usize) {
                entry.listed_at = NOWHERE;
            }
            events.extend(self.undelivered(now, slot, ctx));
        }
    }

    /// `to` cannot be reached from `listener` by UDP (an ICMP error): ends what waits for a first
    /// answer from there.
    pub fn unreachable(
        &mut self,
        listener: ListenerId,
        to: SocketAddr,
        ctx: &mut Ctx<'_>,
        events: &mut Vec<TuEvent>,
    ) {
        let gone = Egress::Udp { listener, to };
        let mut at = 0;
        while let Some(slot) = self.unanswered.get(at).copied() {
            if self.clients.get(slot as usize).is_some_and(|entry| entry.egress == gone) {
                // Takes the slot off the list and puts the last one in its place.
                events.extend(self.transport_error(slot, ctx));
            } else {
                at += 1;
            }
        }
    }

    fn transport_error(&mut self, slot: u32, ctx: &mut Ctx<'_>) -> Option<TuEvent> {
        let entry = self.clients.get(slot as usize)?;
        let (owner, internal) = (entry.owner, entry.is_internal());
        let client = ClientKey { slot, nonce: entry.nonce };
        self.remove_client(slot, ctx);
        ctx.counters.transport_errors += 1;
        (!internal).then_some(TuEvent::TransportError { owner, client })
    }

    /// Takes a transaction off the list of those that a broken way concerns.
    pub(super) fn unlist(&mut self, slot: u32) {
        let Some(entry) = self.clients.get_mut(slot as usize) else { return };
        let at = std::mem::replace(&mut entry.listed_at, NOWHERE);
        if at == NOWHERE {
            return;
        }
        let moved = if let Egress::Flow { flow, .. } = entry.egress {
            self.waiting.remove(flow, at)
        } else if (at as usize) < self.unanswered.len() {
            self.unanswered.swap_remove(at as usize);
            self.unanswered.get(at as usize).copied()
        } else {
            None
        };
        if let Some(moved) = moved.and_then(|slot| self.clients.get_mut(slot as usize)) {
            moved.listed_at = at;
        }
    }
}
