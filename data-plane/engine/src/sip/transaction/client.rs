//! Client transactions (RFC 3261 17.1, RFC 6026 7.2).

mod broken;

use std::{net::SocketAddr, time::Duration};

use ravelin_wire::sip::{Framing, HeaderName, Message, Method, Writer};

use super::{
    ClientEvent, ClientKey, Ctx, Full, Hop, Layer, Room, TuEvent, TuKey, buffers::Buffer,
    size::set_via_transport,
};
use crate::{
    counters::MethodLabel,
    ids::BranchText,
    limits::UDP_REQUEST_BYTES_MAX,
    port::{Egress, ListenerId, Token},
    sip::reply::write_cseq,
    time::Instant,
    timer::{ClientTimer, Timer, TimerId},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Has a branch, and nothing was sent.
    Reserved,
    /// Calling or Trying: no response yet.
    Unanswered,
    Proceeding,
    /// A final response that is no 2xx to an INVITE.
    Completed,
    /// 2xx to an INVITE (RFC 6026).
    Accepted,
}

/// How far the cancelling of an INVITE is, or which INVITE a CANCEL cancels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    No,
    /// Asked for before a provisional response came (9.1).
    Wanted,
    /// Sent, by the client transaction in this slot.
    Sent(u32),
    /// This is the CANCEL of the INVITE in this slot. Both have the same branch.
    Of(u32),
}

/// Kept small: an answered INVITE stays here for 64*T1, so at 1,000 calls/s there are 32,000.
#[derive(Debug)]
pub(super) struct Client {
    nonce: u64,
    owner: TuKey,
    egress: Egress,
    /// The request; from `Completed` of an INVITE on, its ACK.
    message: Buffer,
    rare: Option<Box<Rare>>,
    retransmit: TimerId,
    timeout: TimerId,
    generation: u32,
    interval_ms: u32,
    /// Place in `Layer::unanswered` (UDP) or in the list of its connection, or [`NOWHERE`].
    listed_at: u32,
    cancel: Cancel,
    state: State,
    method: MethodLabel,
}

/// What few transactions have.
#[derive(Debug, Default)]
struct Rare {
    /// UDP way to fall back to when a large request cannot go over TCP.
    fallback: Option<(ListenerId, SocketAddr)>,
    /// Reason header value for a CANCEL that waits.
    reason: Vec<u8>,
}

const NOWHERE: u32 = u32::MAX;

impl Client {
    fn is_invite(&self) -> bool {
        self.method == MethodLabel::Invite
    }

    fn reliable(&self) -> bool {
        is_reliable(self.egress)
    }

    /// Whether this is a CANCEL that the layer sent itself: nobody is told of it.
    fn is_internal(&self) -> bool {
        matches!(self.cancel, Cancel::Of(_))
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.interval_ms))
    }
}

/// Milliseconds of a protocol timer, which is far below 49 days.
pub(super) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Whether the transport itself retransmits.
pub(super) fn is_reliable(egress: Egress) -> bool {
    !matches!(egress, Egress::Udp { .. } | Egress::Media { .. })
}

impl Layer {
    /// A client transaction that has only its branch, for the top Via of the request. It must be
    /// used by [`Self::request`] or given up by [`Self::kill_client`].
    ///
    /// # Errors
    /// [`Full`]; counted.
    pub fn reserve_branch(
        &mut self,
        room: Room,
        ctx: &mut Ctx<'_>,
    ) -> Result<(ClientKey, BranchText), Full> {
        let capacity = room.of(self.limits.client_transactions, self.limits.transactions_reserve);
        if self.clients.len() >= capacity {
            ctx.counters.transactions_refused += 1;
            return Err(Full);
        }
        let (slot, handle) = self.insert_client(None);
        Ok((ClientKey { slot, nonce: handle.nonce }, handle.branch()))
    }

    fn insert_client(&mut self, cancels: Option<(u32, u64)>) -> (u32, crate::ids::Handle) {
        let generation = self.next_generation();
        let entry = self.clients.vacant_entry();
        // The table is bounded far below 2^32.
        let slot = u32::try_from(entry.key()).unwrap_or(crate::ids::Handle::NO_SLOT);
        let mut handle = self.identifiers.handle(slot);
        if let Some((_, nonce)) = cancels {
            handle.nonce = nonce;
        }
        entry.insert(Client {
            nonce: handle.nonce,
            owner: TuKey::NONE,
            egress: Egress::Udp { listener: ListenerId(0), to: UNSPECIFIED },
            message: Buffer::default(),
            rare: None,
            retransmit: TimerId::NEVER,
            timeout: TimerId::NEVER,
            generation,
            interval_ms: millis(self.limits.t1),
            listed_at: NOWHERE,
            cancel: cancels.map_or(Cancel::No, |(slot, _)| Cancel::Of(slot)),
            state: State::Reserved,
            method: MethodLabel::Other,
        });
        (slot, handle)
    }

    /// Sends a request that `fill` writes, with the branch of `client` in its top Via, and keeps
    /// at it until an answer or a timeout.
    ///
    /// # Errors
    /// What `fill` returned; nothing is sent then and the branch is still reserved.
    #[allow(clippy::too_many_arguments)] // a request is all of these
    pub fn request<E>(
        &mut self,
        now: Instant,
        client: ClientKey,
        method: Method<'_>,
        hop: Hop,
        owner: TuKey,
        ctx: &mut Ctx<'_>,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        ctx.tx.try_write(hop.egress, client.token(), fill)?;
        let Some((egress, bytes)) = ctx.tx.last_mut() else { return Ok(()) };
        let mut fallback = None;
        if let (Egress::Udp { listener, to }, Some((tcp, target))) = (hop.egress, hop.tcp)
            && bytes.len() > UDP_REQUEST_BYTES_MAX
            && !self.refused_tcp.contains(now, target)
            && set_via_transport(bytes, b"TCP")
        {
            *egress = Egress::Connect {
                listener: tcp,
                to: target,
                transport: crate::port::Transport::Tcp,
            };
            fallback = Some((listener, to));
            ctx.counters.tcp_for_size += 1;
        }
        let egress = *egress;
        let label = MethodLabel::of(method.as_bytes());
        ctx.counters.request_sent(label);
        let Some(entry) = self.clients.get_mut(client.slot as usize) else { return Ok(()) };
        if entry.nonce != client.nonce {
            return Ok(());
        }
        entry.state = State::Unanswered;
        entry.method = label;
        entry.owner = owner;
        entry.egress = egress;
        if fallback.is_some() {
            entry.rare = Some(Box::new(Rare { fallback, reason: Vec::new() }));
        }
        // What is needed again: to retransmit, to fall back, to build ACK and CANCEL from.
        if !is_reliable(egress) || fallback.is_some() || label == MethodLabel::Invite {
            entry.message = self.buffers.keep(bytes);
        }
        self.start(now, client.slot, ctx);
        Ok(())
    }

    /// Starts timers A and B, or E and F.
    fn start(&mut self, now: Instant, slot: u32, ctx: &mut Ctx<'_>) {
        let limits = self.limits;
        let Some(entry) = self.clients.get_mut(slot as usize) else { return };
        let timer = |kind| Timer::Client { slot, generation: entry.generation, kind };
        ctx.wheel.cancel(entry.timeout);
        entry.timeout = ctx.wheel.insert(now + limits.timeout(), timer(ClientTimer::Timeout));
        if !entry.reliable() {
            entry.interval_ms = millis(limits.t1);
            entry.retransmit = ctx.wheel.insert(now + limits.t1, timer(ClientTimer::Retransmit));
            entry.listed_at = u32::try_from(self.unanswered.len()).unwrap_or(NOWHERE);
            self.unanswered.push(slot);
        } else if let Egress::Flow { flow, .. } = entry.egress {
            entry.listed_at = self.waiting.add(flow, slot);
        }
    }

    /// A response. Its top Via has been found to carry a branch of this shard.
    pub fn receive_response(
        &mut self,
        now: Instant,
        message: &Message<'_>,
        ctx: &mut Ctx<'_>,
    ) -> ClientEvent {
        let Some(code) = message.code() else { return ClientEvent::Stray };
        ctx.counters.response_received(code);
        let key = message.top_via().branch.and_then(ClientKey::of_branch);
        let Some(key) = key else { return ClientEvent::Stray };
        let method = MethodLabel::of(message.cseq().method.as_bytes());
        let Some(slot) = self.find_for_response(key, method) else { return ClientEvent::Stray };
        let Some(entry) = self.clients.get_mut(slot as usize) else { return ClientEvent::Stray };
        let (owner, client) = (entry.owner, ClientKey { slot, nonce: entry.nonce });
        let internal = entry.is_internal();
        match (entry.state, code) {
            (State::Unanswered | State::Proceeding, 100..=199) => {
                self.provisional(now, slot, code, ctx);
                if internal {
                    ClientEvent::Absorbed
                } else {
                    ClientEvent::Provisional { owner, client }
                }
            }
            (State::Unanswered | State::Proceeding, _) => {
                self.last(now, slot, code, message, ctx);
                if internal { ClientEvent::Absorbed } else { ClientEvent::Final { owner, client } }
            }
            (State::Accepted, 200..=299) => {
                ctx.counters.response_retransmissions_received += 1;
                ClientEvent::Further2xx { owner, client }
            }
            (State::Completed, 300..) if entry.is_invite() => {
                ctx.counters.response_retransmissions_received += 1;
                ctx.counters.request_retransmissions_sent += 1;
                ctx.tx.push(entry.egress, Token::default(), entry.message.bytes());
                ClientEvent::Absorbed
            }
            (State::Reserved, _) => ClientEvent::Stray,
            _ => {
                ctx.counters.response_retransmissions_received += 1;
                ClientEvent::Absorbed
            }
        }
    }

    /// RFC 3261 17.1.3: the branch and the method of the CSeq. A CANCEL has the branch of its
    /// INVITE and is found through it.
    fn find_for_response(&self, key: ClientKey, method: MethodLabel) -> Option<u32> {
        let entry = self.clients.get(key.slot as usize)?;
        if entry.nonce != key.nonce {
            return None;
        }
        if entry.method == method {
            return Some(key.slot);
        }
        match (method, entry.cancel) {
            (MethodLabel::Cancel, Cancel::Sent(slot)) => {
                let cancel = self.clients.get(slot as usize)?;
                (cancel.cancel == Cancel::Of(key.slot) && cancel.nonce == key.nonce).then_some(slot)
            }
            _ => None,
        }
    }

    fn provisional(&mut self, now: Instant, slot: u32, code: u16, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.clients.get(slot as usize) else { return };
        // Who rings may answer through a connection of its own when ours has ended (RFC 3261
        // 18.2.2); who only said 100 is left for the next target then.
        if !entry.reliable() || entry.is_invite() && code > 100 {
            self.unlist(slot);
        }
        let Some(entry) = self.clients.get_mut(slot as usize) else { return };
        let first = entry.state == State::Unanswered;
        entry.state = State::Proceeding;
        if !entry.is_invite() || !first {
            return;
        }
        ctx.wheel.cancel(entry.retransmit);
        ctx.wheel.cancel(entry.timeout);
        if entry.cancel == Cancel::Wanted {
            let reason = entry.rare.take().map(|rare| rare.reason).unwrap_or_default();
            self.send_cancel(now, slot, &reason, ctx);
        }
    }

    fn last(
        &mut self,
        now: Instant,
        slot: u32,
        code: u16,
        response: &Message<'_>,
        ctx: &mut Ctx<'_>,
    ) {
        self.unlist(slot);
        let limits = self.limits;
        let Some(entry) = self.clients.get_mut(slot as usize) else { return };
        ctx.wheel.cancel(entry.retransmit);
        ctx.wheel.cancel(entry.timeout);
        let request = std::mem::take(&mut entry.message);
        entry.rare = None;
        let reliable = entry.reliable();
        let linger = if !entry.is_invite() {
            entry.state = State::Completed;
            if reliable { Duration::ZERO } else { limits.t4 } // K
        } else if code < 300 {
            entry.state = State::Accepted;
            limits.timeout() // M
        } else {
            entry.state = State::Completed;
            let sent = ctx.tx.try_write(entry.egress, Token::default(), |out| {
                write_ack(request.bytes(), response, out).ok_or(())
            });
            if sent.is_ok() {
                ctx.counters.request_sent(MethodLabel::Ack);
                if !reliable {
                    entry.message = self.buffers.keep(ctx.tx.last_bytes());
                }
            }
            let cancelling = matches!(entry.cancel, Cancel::Sent(_));
            if reliable && !cancelling { Duration::ZERO } else { limits.timeout() } // D
        };
        self.buffers.give(request);
        if linger.is_zero() {
            self.remove_client(slot, ctx);
        } else {
            let kind = ClientTimer::Linger;
            let timer = Timer::Client { slot, generation: entry.generation, kind };
            entry.timeout = ctx.wheel.insert(now + linger, timer);
        }
    }

    /// Cancels an INVITE: now if a provisional response has come, else when the first one comes.
    /// No effect after a final response. `reason` is the value of a Reason header for the CANCEL,
    /// or empty. After the CANCEL a final response is waited for 64*T1 (9.1), then
    /// [`TuEvent::Timeout`].
    pub fn cancel(&mut self, now: Instant, client: ClientKey, reason: &[u8], ctx: &mut Ctx<'_>) {
        let Some(entry) = self.clients.get_mut(client.slot as usize) else { return };
        if entry.nonce != client.nonce || !entry.is_invite() || entry.cancel != Cancel::No {
            return;
        }
        match entry.state {
            State::Unanswered => {
                entry.cancel = Cancel::Wanted;
                if !reason.is_empty() {
                    entry.rare.get_or_insert_default().reason = reason.to_vec();
                }
            }
            State::Proceeding => self.send_cancel(now, client.slot, reason, ctx),
            State::Reserved | State::Completed | State::Accepted => {}
        }
    }

    fn send_cancel(&mut self, now: Instant, invite: u32, reason: &[u8], ctx: &mut Ctx<'_>) {
        // A CANCEL takes room beyond the bound of the table: it is what makes room again, and
        // there is at most one for each INVITE.
        let Some(nonce) = self.clients.get(invite as usize).map(|entry| entry.nonce) else {
            return;
        };
        let (slot, _) = self.insert_client(Some((invite, nonce)));
        let timeout = now + self.limits.timeout();
        let Some(entry) = self.clients.get_mut(invite as usize) else { return };
        entry.cancel = Cancel::Sent(slot);
        let kind = ClientTimer::Timeout;
        let timer = Timer::Client { slot: invite, generation: entry.generation, kind };
        entry.timeout = ctx.wheel.insert(timeout, timer);
        let egress = entry.egress;
        let written = ctx.tx.try_write(egress, Token::default(), |out| {
            write_cancel(entry.message.bytes(), reason, out).ok_or(())
        });
        if written.is_err() {
            self.remove_client(slot, ctx);
            return;
        }
        ctx.counters.request_sent(MethodLabel::Cancel);
        let copy = if is_reliable(egress) {
            Buffer::default()
        } else {
            self.buffers.keep(ctx.tx.last_bytes())
        };
        let Some(entry) = self.clients.get_mut(slot as usize) else { return };
        entry.state = State::Unanswered;
        entry.method = MethodLabel::Cancel;
        entry.egress = egress;
        entry.message = copy;
        self.start(now, slot, ctx);
    }

    /// Forgets a transaction without a word: a branch that is not used, or a TU that is gone.
    pub fn kill_client(&mut self, client: ClientKey, ctx: &mut Ctx<'_>) {
        if self.client_is_current(client) {
            self.remove_client(client.slot, ctx);
        }
    }

    /// Whose transaction a response with this branch would be for.
    #[must_use]
    pub fn owner_of(&self, branch: &[u8]) -> Option<TuKey> {
        let key = ClientKey::of_branch(branch)?;
        let entry = self.clients.get(key.slot as usize)?;
        (entry.nonce == key.nonce).then_some(entry.owner)
    }

    /// Whether the transaction still exists.
    #[must_use]
    pub fn client_is_current(&self, client: ClientKey) -> bool {
        self.clients.get(client.slot as usize).is_some_and(|entry| entry.nonce == client.nonce)
    }

    pub(super) fn fire_client(
        &mut self,
        now: Instant,
        (slot, generation): (u32, u32),
        kind: ClientTimer,
        ctx: &mut Ctx<'_>,
    ) -> Option<TuEvent> {
        let limits = self.limits;
        let entry = self.clients.get_mut(slot as usize)?;
        if entry.generation != generation {
            return None;
        }
        match kind {
            ClientTimer::Retransmit => {
                ctx.tx.push(entry.egress, entry_token(slot, entry), entry.message.bytes());
                ctx.counters.request_retransmissions_sent += 1;
                let doubled = entry.interval_ms.saturating_mul(2);
                entry.interval_ms = if entry.is_invite() {
                    doubled // A
                } else if entry.state == State::Proceeding {
                    millis(limits.t2) // E
                } else {
                    doubled.min(millis(limits.t2)) // E
                };
                let timer = Timer::Client { slot, generation, kind };
                entry.retransmit = ctx.wheel.insert(now + entry.interval(), timer);
                None
            }
            ClientTimer::Timeout => {
                let (owner, internal) = (entry.owner, entry.is_internal());
                let client = ClientKey { slot, nonce: entry.nonce };
                self.remove_client(slot, ctx);
                if internal {
                    return None;
                }
                ctx.counters.client_timeouts += 1;
                Some(TuEvent::Timeout { owner, client })
            }
            ClientTimer::Linger => {
                self.remove_client(slot, ctx);
                None
            }
        }
    }

    fn remove_client(&mut self, slot: u32, ctx: &mut Ctx<'_>) {
        self.unlist(slot);
        let Some(entry) = self.clients.try_remove(slot as usize) else { return };
        ctx.wheel.cancel(entry.retransmit);
        ctx.wheel.cancel(entry.timeout);
        self.buffers.give(entry.message);
        // An INVITE that is gone leaves its CANCEL nobody to be found through.
        if let Cancel::Sent(cancel) = entry.cancel
            && self
                .clients
                .get(cancel as usize)
                .is_some_and(|child| child.cancel == Cancel::Of(slot) && child.nonce == entry.nonce)
        {
            self.remove_client(cancel, ctx);
        }
    }
}

const UNSPECIFIED: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn entry_token(slot: u32, entry: &Client) -> Token {
    ClientKey { slot, nonce: entry.nonce }.token()
}

/// ACK for a response that is no 2xx (RFC 3261 17.1.1.3).
fn write_ack(invite: &[u8], response: &Message<'_>, out: &mut Vec<u8>) -> Option<()> {
    let invite = Message::parse(invite, Framing::Datagram).ok()?;
    write_like(&invite, b"ACK", response.header(HeaderName::To)?, &[], out)
}

/// CANCEL (RFC 3261 9.1).
fn write_cancel(invite: &[u8], reason: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let invite = Message::parse(invite, Framing::Datagram).ok()?;
    write_like(&invite, b"CANCEL", invite.header(HeaderName::To)?, reason, out)
}

/// A request of the same transaction as `invite`: Request-URI, top Via, Route, From, Call-ID and
/// CSeq number are its. `None` if it cannot be written, which nothing that we wrote ourselves is.
fn write_like(
    invite: &Message<'_>,
    method: &[u8],
    to: &[u8],
    reason: &[u8],
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut writer = Writer::new(out);
    writer
        .request_line(method, invite.request_uri()?)
        .header(HeaderName::Via, invite.header(HeaderName::Via)?);
    for header in invite.headers().filter(|header| header.name == HeaderName::Route) {
        writer.header(HeaderName::Route, header.value);
    }
    writer
        .header(HeaderName::From, invite.header(HeaderName::From)?)
        .header(HeaderName::To, to)
        .header(HeaderName::CallId, invite.call_id())
        .header_with(HeaderName::CSeq, |out| {
            write_cseq(out, invite.cseq().number, method);
        })
        .header_number(HeaderName::MaxForwards, 70);
    if !reason.is_empty() {
        writer.header(HeaderName::Reason, reason);
    }
    writer.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 32,000 of them are to fit into a few megabytes.
    #[test]
    fn a_client_transaction_is_small() {
        assert!(size_of::<Client>() <= 152, "{}", size_of::<Client>());
    }
}
