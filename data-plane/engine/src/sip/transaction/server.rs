//! Server transactions (RFC 3261 17.2, RFC 6026 7.1).

use std::time::Duration;

use ravelin_wire::sip::{HeaderName, Message, Method};

use super::{
    Ctx, Full, IndexKey, Layer, NewRequest, Room, ServerEvent, ServerKey, TuEvent, TuKey,
    buffers::Buffer,
    client::{is_reliable, millis},
};
use crate::{
    counters::MethodLabel,
    ids::siphash,
    port::{Egress, Token},
    time::Instant,
    timer::{ServerTimer, Timer, TimerId},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Trying and Proceeding: no final response yet.
    Open,
    /// A final response that is no 2xx to an INVITE.
    Completed,
    /// The refusal of an INVITE has been acknowledged.
    Confirmed,
    /// 2xx to an INVITE (RFC 6026).
    Accepted,
}

/// Kept small: INVITE and BYE of a call stay here for 64*T1, so at 1,000 calls/s there are 64,000.
#[derive(Debug)]
pub(super) struct Server {
    key: IndexKey,
    merge: Option<IndexKey>,
    owner: TuKey,
    reply: Egress,
    /// The last response, as long as it may have to be sent again.
    response: Buffer,
    retransmit: TimerId,
    timeout: TimerId,
    generation: u32,
    interval_ms: u32,
    /// The last response's status; 0 before the first.
    code: u16,
    state: State,
    invite: bool,
    /// The 2xx has been acknowledged.
    acknowledged: bool,
}

impl Layer {
    /// A request, before anything is known of it but that it parsed. Retransmissions, and ACKs for
    /// refusals, end here.
    pub fn receive_request(
        &mut self,
        now: Instant,
        message: &Message<'_>,
        ctx: &mut Ctx<'_>,
    ) -> ServerEvent {
        let method = message.method().unwrap_or(Method::Other(b""));
        ctx.counters.request_received(MethodLabel::of(method.as_bytes()));
        if method == Method::Ack {
            return self.receive_ack(now, message, ctx);
        }
        let key = self.request_key(message, method.as_bytes());
        if let Some(slot) = self.by_request.get(&key).copied() {
            ctx.counters.request_retransmissions_received += 1;
            self.answer_again(slot, ctx);
            return ServerEvent::Retransmission;
        }
        if method == Method::Cancel {
            let invite = self.request_key(message, b"INVITE");
            let invite = self.by_request.get(&invite).copied().and_then(|slot| {
                let entry = self.servers.get(slot as usize)?;
                Some((ServerKey { slot, generation: entry.generation }, entry.owner))
            });
            return ServerEvent::Cancel { invite, cancel: NewRequest { key, merge: None } };
        }
        let merge = message.to().tag().is_none().then(|| self.origin_key(message));
        let new = NewRequest { key, merge };
        if merge.is_some_and(|merge| self.by_origin.contains_key(&merge)) {
            return ServerEvent::Merged(NewRequest { merge: None, ..new });
        }
        ServerEvent::New(new)
    }

    /// Whether there is a transaction of the INVITE that a request is, or is about; or of one that
    /// took another way here.
    pub(crate) fn knows_invite(&self, message: &Message<'_>) -> bool {
        self.by_request.contains_key(&self.request_key(message, b"INVITE"))
            || self.by_origin.contains_key(&self.origin_key(message))
    }

    fn receive_ack(
        &mut self,
        now: Instant,
        message: &Message<'_>,
        ctx: &mut Ctx<'_>,
    ) -> ServerEvent {
        let key = self.request_key(message, b"INVITE");
        let Some(slot) = self.by_request.get(&key).copied() else { return ServerEvent::AckFor2xx };
        let Some(entry) = self.servers.get_mut(slot as usize) else {
            return ServerEvent::AckFor2xx;
        };
        let invite = ServerKey { slot, generation: entry.generation };
        match entry.state {
            State::Open | State::Accepted => ServerEvent::AckFor2xx,
            State::Confirmed => ServerEvent::Retransmission,
            State::Completed => {
                entry.state = State::Confirmed;
                ctx.wheel.cancel(entry.retransmit);
                ctx.wheel.cancel(entry.timeout);
                self.buffers.give(std::mem::take(&mut entry.response));
                if is_reliable(entry.reply) {
                    self.remove_server(slot, ctx);
                } else {
                    self.linger(now + self.limits.t4, slot, ctx); // I
                }
                ServerEvent::Ack { invite }
            }
        }
    }

    /// Makes the transaction of a request. `reply` is where its answers go
    /// ([`crate::sip::reply::response_egress`]).
    ///
    /// # Errors
    /// [`Full`]; counted. The request is then to be answered without state.
    pub fn open(
        &mut self,
        new: NewRequest,
        method: Method<'_>,
        reply: Egress,
        room: Room,
        ctx: &mut Ctx<'_>,
    ) -> Result<ServerKey, Full> {
        let capacity = room.of(self.limits.server_transactions, self.limits.transactions_reserve);
        if self.servers.len() >= capacity {
            ctx.counters.transactions_refused += 1;
            return Err(Full);
        }
        let generation = self.next_generation();
        let slot = self.servers.insert(Server {
            key: new.key,
            merge: new.merge,
            owner: TuKey::NONE,
            reply,
            response: Buffer::default(),
            retransmit: TimerId::NEVER,
            timeout: TimerId::NEVER,
            generation,
            interval_ms: millis(self.limits.t1),
            code: 0,
            state: State::Open,
            invite: method == Method::Invite,
            acknowledged: false,
        });
        // The table is bounded far below 2^32.
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        self.by_request.insert(new.key, slot);
        if let Some(merge) = new.merge {
            self.by_origin.insert(merge, slot);
        }
        Ok(ServerKey { slot, generation })
    }

    /// Says whom events of this transaction, and CANCELs of it, are for.
    pub fn set_owner(&mut self, server: ServerKey, owner: TuKey) {
        if let Some(entry) = self.current_server(server) {
            entry.owner = owner;
        }
    }

    /// Status of the last response; 0 if there was none. `None`: the transaction is gone.
    #[must_use]
    pub fn answered_with(&self, server: ServerKey) -> Option<u16> {
        self.servers
            .get(server.slot as usize)
            .filter(|entry| entry.generation == server.generation)
            .map(|entry| entry.code)
    }

    /// Sends a response that `fill` writes, and keeps it for as long as it may be needed again. A
    /// 2xx to an INVITE is sent again until [`Self::ack_received`] or [`TuEvent::AckTimeout`]
    /// (13.3.1.4), over streams too. After a final response, nothing more is sent.
    ///
    /// # Errors
    /// What `fill` returned; nothing is sent then.
    pub fn respond<E>(
        &mut self,
        now: Instant,
        server: ServerKey,
        code: u16,
        ctx: &mut Ctx<'_>,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let limits = self.limits;
        let Some(entry) = self.servers.get_mut(server.slot as usize) else { return Ok(()) };
        if entry.generation != server.generation || entry.state != State::Open {
            return Ok(());
        }
        ctx.tx.try_write(entry.reply, Token::default(), fill)?;
        ctx.counters.response_sent(code);
        entry.code = code;
        self.buffers.give(std::mem::take(&mut entry.response));
        let reliable = is_reliable(entry.reply);
        if code < 200 {
            // Over a stream a request comes once and its answer arrives.
            if !reliable {
                entry.response = self.buffers.keep(ctx.tx.last_bytes());
            }
            return Ok(());
        }
        if let Some(merge) = entry.merge.take() {
            self.by_origin.remove(&merge);
        }
        let slot = server.slot;
        let timer = |kind| Timer::Server { slot, generation: server.generation, kind };
        if !entry.invite {
            entry.state = State::Completed;
            if reliable {
                self.remove_server(slot, ctx);
            } else {
                entry.response = self.buffers.keep(ctx.tx.last_bytes());
                self.linger(now + limits.timeout(), slot, ctx); // J
            }
            return Ok(());
        }
        let accepted = code < 300;
        entry.state = if accepted { State::Accepted } else { State::Completed };
        if accepted || !reliable {
            entry.response = self.buffers.keep(ctx.tx.last_bytes());
            entry.retransmit = ctx.wheel.insert(now + limits.t1, timer(ServerTimer::Retransmit)); // G
        }
        // H, and L: an accepted INVITE is remembered as long as its 2xx may be retransmitted.
        entry.timeout = ctx.wheel.insert(now + limits.timeout(), timer(ServerTimer::Timeout));
        Ok(())
    }

    /// The ACK for the 2xx of this INVITE has come: stop retransmitting it.
    pub fn ack_received(&mut self, server: ServerKey, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.servers.get_mut(server.slot as usize) else { return };
        if entry.generation != server.generation || entry.state != State::Accepted {
            return;
        }
        entry.acknowledged = true;
        ctx.wheel.cancel(entry.retransmit);
        self.buffers.give(std::mem::take(&mut entry.response));
    }

    /// Where the answers of a transaction go.
    #[must_use]
    pub fn reply_of(&self, server: ServerKey) -> Option<Egress> {
        let entry = self.servers.get(server.slot as usize)?;
        (entry.generation == server.generation).then_some(entry.reply)
    }

    /// Forgets a transaction without an answer.
    pub fn kill_server(&mut self, server: ServerKey, ctx: &mut Ctx<'_>) {
        if self.current_server(server).is_some() {
            self.remove_server(server.slot, ctx);
        }
    }

    pub(super) fn fire_server(
        &mut self,
        now: Instant,
        (slot, generation): (u32, u32),
        kind: ServerTimer,
        ctx: &mut Ctx<'_>,
    ) -> Option<TuEvent> {
        let t2 = self.limits.t2;
        let entry = self.servers.get_mut(slot as usize)?;
        if entry.generation != generation {
            return None;
        }
        match kind {
            ServerTimer::Retransmit => {
                ctx.tx.push(entry.reply, Token::default(), entry.response.bytes());
                ctx.counters.response_retransmissions_sent += 1;
                entry.interval_ms = entry.interval_ms.saturating_mul(2).min(millis(t2));
                let interval = Duration::from_millis(u64::from(entry.interval_ms));
                let timer = Timer::Server { slot, generation, kind };
                entry.retransmit = ctx.wheel.insert(now + interval, timer);
                None
            }
            ServerTimer::Timeout => {
                let (owner, code) = (entry.owner, entry.code);
                let lost = match entry.state {
                    State::Accepted => !entry.acknowledged,
                    State::Completed => true,
                    State::Open | State::Confirmed => false,
                };
                self.remove_server(slot, ctx);
                let server = ServerKey { slot, generation };
                lost.then(|| {
                    if code < 300 {
                        ctx.counters.unacknowledged_2xx += 1;
                    } else {
                        ctx.counters.ack_timeouts += 1;
                    }
                    TuEvent::AckTimeout { owner, server, code }
                })
            }
            ServerTimer::Linger => {
                self.remove_server(slot, ctx);
                None
            }
        }
    }

    /// A request came again: what was answered goes out again. In Accepted the TU's own
    /// retransmission does that (RFC 6026 7.1), in Confirmed there is nothing to say.
    fn answer_again(&mut self, slot: u32, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.servers.get(slot as usize) else { return };
        if matches!(entry.state, State::Open | State::Completed) && !entry.response.is_empty() {
            ctx.tx.push(entry.reply, Token::default(), entry.response.bytes());
            ctx.counters.response_retransmissions_sent += 1;
        }
    }

    fn linger(&mut self, until: Instant, slot: u32, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.servers.get_mut(slot as usize) else { return };
        let kind = ServerTimer::Linger;
        let timer = Timer::Server { slot, generation: entry.generation, kind };
        entry.timeout = ctx.wheel.insert(until, timer);
    }

    fn current_server(&mut self, server: ServerKey) -> Option<&mut Server> {
        let entry = self.servers.get_mut(server.slot as usize)?;
        (entry.generation == server.generation).then_some(entry)
    }

    fn remove_server(&mut self, slot: u32, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.servers.try_remove(slot as usize) else { return };
        self.by_request.remove(&entry.key);
        if let Some(merge) = entry.merge {
            self.by_origin.remove(&merge);
        }
        ctx.wheel.cancel(entry.retransmit);
        ctx.wheel.cancel(entry.timeout);
        self.buffers.give(entry.response);
    }

    /// What RFC 3261 17.2.3 compares: branch, sent-by, method (an ACK counts as its INVITE). For
    /// peers of RFC 2543, whose branch says nothing: Request-URI, From tag, Call-ID, CSeq number
    /// and the whole top Via. Their To tag is left out: an ACK has the one that we made.
    fn request_key(&self, message: &Message<'_>, method: &[u8]) -> IndexKey {
        let via = message.top_via();
        let mut hasher = self.key.hasher_128();
        hasher.write_field(method);
        hasher.write_field_ignoring_case(via.host);
        hasher.write(&via.port.unwrap_or(0).to_le_bytes());
        hasher.write_field(via.branch.unwrap_or_default());
        if !via.has_cookie() {
            self.add_old_style(message, &mut hasher);
        }
        IndexKey::of(hasher.finish_128())
    }

    fn add_old_style(&self, message: &Message<'_>, hasher: &mut siphash::Hasher) {
        hasher.write_field(message.request_uri().unwrap_or_default());
        hasher.write_field(message.from().tag().unwrap_or_default());
        hasher.write_field(message.call_id());
        hasher.write(&message.cseq().number.to_le_bytes());
        hasher.write_field(message.values(HeaderName::Via).next().unwrap_or_default());
    }

    /// What RFC 3261 8.2.2.2 compares: From tag, Call-ID, CSeq.
    fn origin_key(&self, message: &Message<'_>) -> IndexKey {
        let cseq = message.cseq();
        let mut hasher = self.key.hasher_128();
        hasher.write_field(message.from().tag().unwrap_or_default());
        hasher.write_field(message.call_id());
        hasher.write(&cseq.number.to_le_bytes());
        hasher.write_field(cseq.method.as_bytes());
        IndexKey::of(hasher.finish_128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 64,000 of them are to fit into a few megabytes.
    #[test]
    fn a_server_transaction_is_small() {
        assert!(size_of::<Server>() <= 160, "{}", size_of::<Server>());
    }
}
