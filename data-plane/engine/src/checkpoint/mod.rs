//! Records of confirmed calls, so that a restarted process takes its calls over (design 8).
//!
//! The engine hands out a record whenever a confirmed call has changed ([`Engine::checkpoints`]);
//! the shard puts it, before anything of that turn is sent, where the end of the process does not
//! reach it. A new engine takes the records at its start ([`Engine::adopt`]): dialogs, ports,
//! permits and times are as before. Transactions are not: a request that was under way is answered
//! by its retransmission or ends as RFC 3261 has it. A call is confirmed when both legs have their
//! 2xx and its description; what was being set up vanishes.
//!
//! [`Engine::checkpoints`]: crate::engine::Engine::checkpoints
//! [`Engine::adopt`]: crate::engine::Engine::adopt

mod capture;
mod layout;
mod record;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ravelin_contract::cdr::MediaCount;

use crate::b2bua::{
    call::Call,
    leg::{Goodbye, Leg, Side},
};

pub use layout::{HEADER_BYTES as RECORD_HEAD_BYTES, LAYOUT, RECORD_BYTES_MAX};
pub(crate) use {
    capture::{Scribe, Written, packets_now},
    restore::{Restored, restore, take_up},
};

/// How often the media counters of a call find their way into its record: what a bill may miss of
/// them after a crash.
pub const COUNTERS_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
/// Calls whose counters one turn looks at.
pub(crate) const COUNTERS_PER_TURN: usize = 128;

/// What is to be done to the records of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// This is what is known of the call in `slot`. `sequence` grows by one with each record of a
    /// call: where two copies are kept, its lowest bit says which is the older one.
    Put { slot: u32, sequence: u64, bytes: &'a [u8] },
    /// The call in `slot` is over. There may be no record of it.
    Remove { slot: u32 },
}

/// Why octets are no record that this engine reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Shorter than its header says.
    Truncated,
    /// Never was one, or was removed.
    NoRecord,
    /// Of another version of the layout: this one.
    Layout(u16),
    /// Torn, or damaged.
    Checksum,
    /// The checksum holds and the fields make no sense: written by a faulty version.
    Content,
}

impl Refused {
    /// Stable name for logs, records and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::NoRecord => "no_record",
            Self::Layout(_) => "other_layout",
            Self::Checksum => "checksum",
            Self::Content => "content",
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => f.write_str("the record is cut off"),
            Self::NoRecord => f.write_str("there is no record"),
            Self::Layout(layout) => write!(f, "the record has layout {layout}, not {LAYOUT}"),
            Self::Checksum => f.write_str("the record is damaged"),
            Self::Content => f.write_str("the record contradicts itself"),
        }
    }
}

impl std::error::Error for Refused {}

/// Whether octets are a whole record, and which of its call's they are.
///
/// # Errors
/// Why they are none.
pub fn sequence(bytes: &[u8]) -> Result<u64, Refused> {
    layout::open(bytes).map(|(header, _)| header.sequence)
}

/// A record without anything secret, of the same length or shorter: its call can be ended in order,
/// and go on no more. Of what cannot be read as a record the head stays, so that it is still counted.
#[must_use]
pub fn without_keys(bytes: &[u8]) -> Vec<u8> {
    let Ok(mut record) = record::Record::decode(bytes) else {
        return bytes.get(..layout::HEADER_BYTES).unwrap_or_default().to_vec();
    };
    record.forget_keys();
    let mut out = vec![0; layout::HEADER_BYTES];
    record.write(&mut layout::Writer(&mut out));
    let hash = layout::body_hash(out.get(layout::HEADER_BYTES..).unwrap_or_default());
    layout::seal(&mut out, record.header, hash);
    out
}

/// A record with any body, for tests of what keeps records.
#[doc(hidden)]
#[must_use]
pub fn sealed_for_test(slot: u32, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; layout::HEADER_BYTES];
    bytes.extend_from_slice(body);
    let header = layout::Header { shard: 0, slot, sequence, written: crate::time::Now::default() };
    layout::seal(&mut bytes, header, layout::body_hash(body));
    bytes
}

/// Why a call whose record can be read is not taken over. It ends: its records are written, and its
/// parties get a BYE where there is a way to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdopted {
    /// The number of shards is another: tags and ports belong to other shards now.
    Shards,
    /// The process before ended long ago.
    TooLate,
    /// The machine was started anew: nobody kept the media for longer than a moment.
    Rebooted,
    /// A listener of the call is not in the config any more.
    Listener,
    /// A media port of the call is not in the config any more, or could not be had.
    Ports,
    /// What its record says of SRTP, ICE or DTLS is of a kind that this version does not know.
    Media,
    /// Another call has its place in the table, or the table is too small now.
    Slot,
}

impl NotAdopted {
    /// Stable name for logs, records and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Shards => "shards_changed",
            Self::TooLate => "too_late",
            Self::Rebooted => "machine_restarted",
            Self::Listener => "listener_gone",
            Self::Ports => "ports_gone",
            Self::Media => "media_unknown",
            Self::Slot => "no_place",
        }
    }
}

/// One record of the process before.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    pub bytes: &'a [u8],
    /// Known already: the call cannot go on, and why.
    pub condemned: Option<NotAdopted>,
    /// When the process before was last known to be alive, by the clock of the record.
    pub alive: crate::time::Instant,
}

/// What became of the records of the process before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adoption {
    /// Calls that go on.
    pub adopted: usize,
    /// Of these, emergency calls.
    pub emergency: usize,
    /// Calls that had ended and whose parties get their BYE again.
    pub finishing: usize,
    /// Calls that were ended, by the reason's label.
    pub ended: BTreeMap<&'static str, usize>,
    /// Records that could not be read, by the reason's label. Nothing is known of their calls.
    pub unreadable: BTreeMap<&'static str, usize>,
}

impl Adoption {
    /// Sums up what several shards did.
    pub fn add(&mut self, other: &Self) {
        self.adopted += other.adopted;
        self.emergency += other.emergency;
        self.finishing += other.finishing;
        for (into, from) in
            [(&mut self.ended, &other.ended), (&mut self.unreadable, &other.unreadable)]
        {
            for (label, count) in from {
                *into.entry(label).or_default() += count;
            }
        }
    }

    /// Whether there was anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a call stands with its record.
#[derive(Debug, Default)]
pub(crate) struct Survival {
    /// To be looked at at the end of the turn.
    pub marked: bool,
    /// A record of it is out.
    pub stored: bool,
    /// It does not fit; said once.
    pub too_long: bool,
    /// Of the last record.
    pub sequence: u64,
    /// Hash of the last record's body.
    pub hash: u64,
    /// Packets that the last record counts.
    pub packets: u64,
    /// Restarts that it has lived through.
    pub adopted: u16,
    /// What is known of the time before the last restart.
    pub before: Option<Box<Before>>,
}

/// What a call brought over a restart and no table of this process knows.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// Config version that decided.
    pub snapshot: u64,
    /// What came from caller and callee.
    pub counts: [MediaCount; 2],
    /// Names for records, of what is not in the config any more.
    pub inbound: Option<String>,
    pub outbound: Option<String>,
    pub route: Option<String>,
    pub site: Option<String>,
}

impl Survival {
    /// What came from `side` before the restart.
    pub(crate) fn count(&self, side: Side) -> MediaCount {
        let [caller, callee] = self.before.as_ref().map(|before| before.counts).unwrap_or_default();
        match side {
            Side::Caller => caller,
            Side::Callee => callee,
        }
    }
}

/// The sum of two counts of packets.
pub(crate) fn sum(one: MediaCount, other: MediaCount) -> MediaCount {
    MediaCount {
        packets: one.packets.saturating_add(other.packets),
        bytes: one.bytes.saturating_add(other.bytes),
        rtcp_packets: one.rtcp_packets.saturating_add(other.rtcp_packets),
        dropped: one.dropped.saturating_add(other.dropped),
    }
}

/// Whether a restart should know of the call: it is confirmed, and not both parties know of its end.
/// An offer that came in the 2xx has to be answered before the call counts as confirmed.
pub(crate) fn is_worth_keeping(call: &Call) -> bool {
    let Some(winner) = call.winner.and_then(|at| call.attempts.get(at)) else { return false };
    if call.answer_at.is_none() || call.pending.is_some() {
        return false;
    }
    if call.end.is_some() {
        let waits = |leg: &Leg| matches!(leg.goodbye, Goodbye::Sent(_) | Goodbye::WhenAcknowledged);
        return call.survival.stored && (waits(&call.caller) || waits(&winner.leg));
    }
    call.survival.stored || (call.caller.ack_due.is_none() && winner.leg.ack_due.is_none())
}
