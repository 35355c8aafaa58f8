//! The AF_XDP path: RTP of streams whose contents must be touched (SRTP, interworking) comes from
//! the interface to the shard and goes back past the kernel's UDP path. The engine sees no
//! difference: what arrives is a datagram of a media port like any other, and what it sends leaves
//! from the same address with the same headers.
//!
//! The program of [`crate::xdp`] sends packets of known streams to the socket of their shard on the
//! queue where they arrived; where there is none (no such queue, process killed) it lets them pass to
//! the ordinary sockets. What cannot leave here (next hop not known, no room, too long) leaves
//! through these too: nothing is lost for want of this path.
//!
//! | Module | What it is |
//! |---|---|
//! | `crate::sys::xsk` | sockets, rings and memory shared with the kernel |
//! | `frame` | Ethernet, IP, UDP: read and written |
//! | `binding` | which sockets there are, and why not |
//! | `station` | the sockets of one shard |
//! | `ports` | which port has an address |
//!
//! Rings and memory are our own and not those of the `xdp` crate: that has one socket for each queue,
//! and here every shard needs one on every queue (`XDP_SHARED_UMEM`), because a card spreads packets
//! over its queues without regard to shards.

mod binding;
mod frame;
mod ports;
mod station;
#[cfg(test)]
mod tests;

pub use crate::sys::xsk::Mode;
pub(crate) use binding::{Bound, Short, Wanted, bind, bind_at, leave};
pub(crate) use station::Station;

/// The way of packets that leave, as far as the network decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) interface: u32,
    /// Zero: untagged.
    pub(crate) vlan: u16,
    pub(crate) target_mac: [u8; 6],
    pub(crate) source_mac: [u8; 6],
    /// Longest IP packet.
    pub(crate) mtu: u16,
    pub(crate) ttl: u8,
}
