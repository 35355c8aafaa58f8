//! Transactions: RFC 3261 17 with the corrections of RFC 6026 (states Accepted, timers L and M).
//!
//! The [`Layer`] owns both tables of one shard. It retransmits what it has been given, absorbs what
//! it has seen, acknowledges refused INVITEs, cancels, and gives up in time. The transaction user
//! (TU: the B2BUA, the OPTIONS prober) hears of the rest. A client transaction is found by the slot
//! and nonce in our own branch, without hashing; a server transaction by a keyed 128-bit hash of
//! what RFC 3261 17.2.3 compares.

mod buffers;
mod client;
mod flows;
mod server;
mod size;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::SocketAddr};

use foldhash::fast::FixedState;
use slab::Slab;

use crate::{
    counters::Counters,
    ids::{BranchText, Generator, Handle, Seed, siphash},
    limits::Limits,
    port::{Egress, ListenerId, ShardId, Token, TxQueue},
    time::Instant,
    timer::{Timer, Wheel},
};

use buffers::Buffers;
use client::Client;
use flows::Waiting;
use server::Server;
use size::RefusedTargets;

/// Names a client transaction. It is what the branch says; of no use once the transaction is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey {
    slot: u32,
    nonce: u64,
}

/// Names a server transaction; of no use once the transaction is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerKey {
    slot: u32,
    generation: u32,
}

impl ServerKey {
    /// No transaction: one of a process that is gone.
    pub(crate) const NONE: Self = Self { slot: u32::MAX, generation: 0 };
}

/// Whom events of a transaction are for. Opaque here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TuKey(pub u64);

impl TuKey {
    /// Nobody.
    pub const NONE: Self = Self(u64::MAX);
    const PROBE: u64 = 1 << 63;

    /// The OPTIONS prober's target `index`.
    #[must_use]
    pub const fn probe(index: u32, generation: u32) -> Self {
        Self(Self::PROBE | (generation as u64 & 0x7fff_ffff) << 32 | index as u64)
    }

    /// Index and the low 31 bits of the generation of [`Self::probe`]; `None` for any other key.
    #[must_use]
    pub fn as_probe(self) -> Option<(u32, u32)> {
        if self == Self::NONE || self.0 & Self::PROBE == 0 {
            return None;
        }
        let index = u32::try_from(self.0 & 0xffff_ffff).ok()?;
        let generation = u32::try_from(self.0 >> 32 & 0x7fff_ffff).ok()?;
        Some((index, generation))
    }
}

/// What every operation works on besides the layer's own tables.
pub struct Ctx<'a> {
    pub wheel: &'a mut Wheel,
    pub tx: &'a mut TxQueue,
    pub counters: &'a mut Counters,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// How the top Via says it, for requests of ordinary size.
    pub egress: Egress,
    /// The way by TCP for requests that are too large for UDP, if the target has one.
    pub tcp: Option<(ListenerId, SocketAddr)>,
}

/// How much right a request has to the room of a nearly full table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A new call or an out-of-dialog request: not the reserve.
    Ordinary,
    /// A request of a call that exists, or one of ours: the reserve too.
    Reserved,
    /// A request of an emergency call: beyond the table, as much again as the reserve, where
    /// nothing else may go.
    Emergency,
}

impl Room {
    /// How many transactions a table of `capacity` may hold for a request to find room.
    fn of(self, capacity: u32, reserve: u32) -> usize {
        let bound = match self {
            Self::Ordinary => capacity.saturating_sub(reserve),
            Self::Reserved => capacity,
            Self::Emergency => capacity.saturating_add(reserve),
        };
        bound as usize
    }
}

/// What became of a request.
#[derive(Debug)]
pub enum ServerEvent {
    /// Not seen before. [`Layer::open`] makes its transaction, or refuses.
    New(NewRequest),
    /// A CANCEL not seen before, with the INVITE transaction that it names, if there is one. The
    /// TU opens the CANCEL's own transaction and answers 200 or 481 (RFC 3261 9.2).
    Cancel { invite: Option<(ServerKey, TuKey)>, cancel: NewRequest },
    /// The same request reached us on another way and is under way (RFC 3261 8.2.2.2): answer 482.
    Merged(NewRequest),
    /// Seen before; what had been answered was sent again.
    Retransmission,
    /// An ACK for a response that was no 2xx; absorbed.
    Ack { invite: ServerKey },
    /// An ACK that no transaction claims: for a 2xx, or stray. The dialog decides.
    AckFor2xx,
}

/// A request that has no transaction yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a request without a transaction gets no answer"]
pub struct NewRequest {
    key: IndexKey,
    merge: Option<IndexKey>,
}

/// What became of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// 1xx.
    Provisional { owner: TuKey, client: ClientKey },
    /// The first final response. An ACK for a non-2xx has been sent.
    Final { owner: TuKey, client: ClientKey },
    /// A further 2xx to an INVITE, for up to 64*T1 after the first (RFC 6026): a retransmission,
    /// which needs the TU's ACK again, or another branch of a fork, told by its To tag.
    Further2xx { owner: TuKey, client: ClientKey },
    /// Seen before, or of a CANCEL; dealt with here.
    Absorbed,
    /// No transaction of ours. Not counted here.
    Stray,
}

/// What a transaction tells its user apart from messages. Each ends the transaction, except
/// `AckTimeout`, whose transaction was to end anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TuEvent {
    /// Timer B or F, or nothing came after a CANCEL for 64*T1: as if 408 had come.
    Timeout { owner: TuKey, client: ClientKey },
    /// Could not be sent: as if 503 had come (RFC 3261 8.1.3.1).
    TransportError { owner: TuKey, client: ClientKey },
    /// A 2xx to an INVITE was retransmitted for 64*T1 and never acknowledged (13.3.1.4), or a
    /// refusal was not (timer H; for information).
    AckTimeout { owner: TuKey, server: ServerKey, code: u16 },
}

/// A table has no room. Counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("transaction table full")
    }
}

impl std::error::Error for Full {}

/// A keyed 128-bit hash: nothing that a peer sends can make two collide. In two halves, which are
/// stored without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct IndexKey([u64; 2]);

impl IndexKey {
    fn of(hash: u128) -> Self {
        let low = u64::try_from(hash & u128::from(u64::MAX)).unwrap_or(0);
        Self([low, u64::try_from(hash >> 64).unwrap_or(0)])
    }
}

type Index = HashMap<IndexKey, u32, FixedState>;

/// The transactions of one shard.
pub struct Layer {
    limits: Limits,
    identifiers: Generator,
    clients: Slab<Client>,
    servers: Slab<Server>,
    /// By what RFC 3261 17.2.3 compares.
    by_request: Index,
    /// By what 8.2.2.2 compares: requests outside a dialog that have no final response yet.
    by_origin: Index,
    key: siphash::Key,
    generation: u32,
    /// Clients over UDP that have had no response yet: whom an ICMP error may concern.
    unanswered: Vec<u32>,
    /// Clients whose answer comes through a stream connection, or never if that ends.
    waiting: Waiting,
    buffers: Buffers,
    refused_tcp: RefusedTargets,
}

impl Layer {
    #[must_use]
    pub fn new(limits: Limits, seed: &Seed, shard: ShardId) -> Self {
        Self {
            limits,
            identifiers: Generator::new(seed, shard),
            clients: Slab::new(),
            servers: Slab::new(),
            by_request: Index::default(),
            by_origin: Index::default(),
            key: seed.shard_key(b"server transactions", shard),
            generation: 0,
            unanswered: Vec::new(),
            waiting: Waiting::default(),
            buffers: Buffers::default(),
            refused_tcp: RefusedTargets::default(),
        }
    }

    /// Client transactions that exist.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Server transactions that exist.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Message buffers that transactions hold.
    #[must_use]
    pub fn buffers(&self) -> usize {
        self.buffers.in_use()
    }

    /// Whether one more transaction of each kind finds room.
    #[must_use]
    pub fn has_room(&self, room: Room) -> bool {
        let reserve = self.limits.transactions_reserve;
        self.clients.len() < room.of(self.limits.client_transactions, reserve)
            && self.servers.len() < room.of(self.limits.server_transactions, reserve)
    }

    /// Nonces, tags and Call-IDs come from the same generator as branches.
    pub fn identifiers(&mut self) -> &mut Generator {
        &mut self.identifiers
    }

    /// A branch for a request without a transaction: the ACK of a 2xx.
    pub fn loose_branch(&mut self) -> BranchText {
        self.identifiers.loose_branch()
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }
}

impl ClientKey {
    /// What a driver reports when the send fails. Never zero, which means nobody.
    #[must_use]
    pub fn token(self) -> Token {
        Token(u64::from(self.slot) << 32 | (self.nonce & 0xffff_ffff) | 1)
    }

    /// What our branch in a response says.
    #[must_use]
    pub fn of_branch(branch: &[u8]) -> Option<Self> {
        Handle::from_branch(branch).map(|handle| Self { slot: handle.slot, nonce: handle.nonce })
    }
}

impl Layer {
    /// A timer of a transaction fired. Timers of others are ignored.
    pub fn fire(&mut self, now: Instant, timer: Timer, ctx: &mut Ctx<'_>) -> Option<TuEvent> {
        match timer {
            Timer::Client { slot, generation, kind } => {
                self.fire_client(now, (slot, generation), kind, ctx)
            }
            Timer::Server { slot, generation, kind } => {
                self.fire_server(now, (slot, generation), kind, ctx)
            }
            _ => None,
        }
    }
}
