//! What stands in the maps: the Rust side of the structures in `bpf/relay.c`, written and read octet
//! by octet. Numbers are in machine order but for what comes from the network.
//!
//! User space writes and reads all but the counts of verdicts through mappings of the maps, without
//! a call.

use super::table::HopKey;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Changes whenever a structure or map of `bpf/relay.c` does. Maps of another layout, left by
/// another release, are replaced.
pub(super) const LAYOUT: u32 = 3;

/// Entries of `ports`, and slots that may follow each other there: as in `bpf/relay.c`.
pub(super) const PLACES: u32 = 65_536;
pub(super) const CHAIN_MAX: usize = 16;

pub(super) const FLOW_BYTES: usize = 192;
pub(super) const COUNT_BYTES: usize = 64;

/// `FILL_CHECKSUM`, `KEEP_PARTIAL` and `ALWAYS_REDIRECT`.
pub(super) const FLAG_FILL_CHECKSUM: u8 = 1;
pub(super) const FLAG_KEEP_PARTIAL: u8 = 2;
pub(super) const FLAG_ALWAYS_REDIRECT: u8 = 4;

/// Names of `enum verdict`, in its order, as labels of a metric.
pub(super) const VERDICTS: [&str; 10] = [
    "delivered",
    "pass_no_flow",
    "pass_source",
    "pass_packet",
    "pass_ssrc",
    "pass_payload_type",
    "pass_next_hop",
    "pass_checksum",
    "failed",
    "pass_no_af_xdp",
];

fn words(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut words = [0; 16];
            words[..4].copy_from_slice(&v4.octets());
            words
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Where the program begins to look for a media port (`place_of` there).
pub(super) fn place(at: SocketAddr) -> u32 {
    let mixed = words(at.ip())
        .chunks_exact(4)
        .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .fold(0, |mixed, word| mixed ^ word)
        .wrapping_mul(0x9e37_79b1);
    ((mixed >> 16) + u32::from(at.port())) & (PLACES - 1)
}

/// Sum of the 16-bit words of an address, as they stand in memory.
fn sum(address: IpAddr) -> u32 {
    words(address).chunks_exact(2).map(|w| u32::from(u16::from_ne_bytes([w[0], w[1]]))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What happens to the packets of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Forward {
        source: SocketAddr,
        target: SocketAddr,
        tos: u8,
    },
    /// To the AF_XDP socket of this place and those behind it, by queue; what is made of the packets
    /// leaves by `out`.
    Deliver {
        socket: u16,
        out: HopKey,
    },
}

/// Who may send, and what happens then: the part that the engine decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) local: SocketAddr,
    pub(super) source: SocketAddr,
    pub(super) ssrc: u32,
    pub(super) clock_hz: u32,
    pub(super) user_types: [u8; 2],
    pub(super) action: Action,
}

/// Where packets arrive: the interface that has the local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ingress {
    pub(super) mac: [u8; 6],
    /// Zero: untagged.
    pub(super) vlan: u16,
    pub(super) flags: u8,
}

/// How packets leave, as far as the network decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) interface: u32,
    /// Zero: untagged.
    pub(super) vlan: u16,
    pub(super) target_mac: [u8; 6],
    pub(super) source_mac: [u8; 6],
    pub(super) mtu: u16,
    pub(super) ttl: u8,
}

/// Where the members of `struct flow` stand.
mod at {
    use std::ops::Range;

    const fn member(start: usize, bytes: usize) -> Range<usize> {
        start..start + bytes
    }
    pub(super) const NEXT: Range<usize> = member(4, 4);
    pub(super) const SOURCE4: Range<usize> = member(8, 4);
    pub(super) const LOCAL4: Range<usize> = member(12, 4);
    pub(super) const SOURCE_PORT: Range<usize> = member(16, 2);
    pub(super) const PORT: Range<usize> = member(18, 2);
    pub(super) const SSRC: Range<usize> = member(20, 4);
    pub(super) const MAC: Range<usize> = member(24, 6);
    pub(super) const VLAN: Range<usize> = member(30, 2);
    pub(super) const VERSION: Range<usize> = member(32, 1);
    pub(super) const KIND: Range<usize> = member(33, 1);
    pub(super) const FLAGS: Range<usize> = member(34, 1);
    pub(super) const USER_TYPES: Range<usize> = member(36, 2);
    pub(super) const SOCKET: Range<usize> = member(38, 2);
    pub(super) const GENERATION: Range<usize> = member(40, 4);
    pub(super) const TICKS: Range<usize> = member(44, 4);
    pub(super) const SUM_IN: Range<usize> = member(48, 2);
    pub(super) const SUM_OUT: Range<usize> = member(50, 2);
    pub(super) const DELTA: Range<usize> = member(52, 2);
    pub(super) const OUT_MTU: Range<usize> = member(54, 2);
    pub(super) const OUT_INTERFACE: Range<usize> = member(56, 4);
    pub(super) const OUT_VLAN: Range<usize> = member(60, 2);
    pub(super) const TOS: Range<usize> = member(62, 1);
    pub(super) const TTL: Range<usize> = member(63, 1);
    pub(super) const OUT_SOURCE4: Range<usize> = member(64, 4);
    pub(super) const OUT_TARGET4: Range<usize> = member(68, 4);
    pub(super) const OUT_SOURCE_PORT: Range<usize> = member(72, 2);
    pub(super) const OUT_TARGET_PORT: Range<usize> = member(74, 2);
    pub(super) const OUT_IP_SUM: Range<usize> = member(76, 2);
    pub(super) const OUT_TARGET_MAC: Range<usize> = member(80, 6);
    pub(super) const OUT_SOURCE_MAC: Range<usize> = member(86, 6);
    pub(super) const SOURCE6: Range<usize> = member(96, 16);
    pub(super) const LOCAL6: Range<usize> = member(112, 16);
    pub(super) const OUT_SOURCE6: Range<usize> = member(128, 16);
    pub(super) const OUT_TARGET6: Range<usize> = member(144, 16);

    /// What the engine decides; the rest is of the network, and changes with it.
    pub(super) const DECISION: [Range<usize>; 13] = [
        SOURCE4,
        SOURCE6,
        OUT_SOURCE4,
        OUT_SOURCE6,
        OUT_TARGET4,
        OUT_TARGET6,
        SSRC,
        TICKS,
        SOURCE_PORT,
        OUT_SOURCE_PORT,
        OUT_TARGET_PORT,
        KIND,
        USER_TYPES,
    ];
}

/// `struct flow` of a port that nobody may send to. `next`: the slot with the same place, or 0.
pub(super) fn empty(local: SocketAddr, next: u32) -> [u8; FLOW_BYTES] {
    let mut flow = [0; FLOW_BYTES];
    flow[at::NEXT].copy_from_slice(&next.to_ne_bytes());
    flow[at::PORT].copy_from_slice(&local.port().to_be_bytes());
    match local.ip() {
        IpAddr::V4(v4) => flow[at::LOCAL4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => flow[at::LOCAL6].copy_from_slice(&v6.octets()),
    }
    flow[at::VERSION].copy_from_slice(&[if local.is_ipv4() { 4 } else { 6 }]);
    flow
}

/// The media port of a slot; `None` if the slot was never used.
pub(super) fn port_of(flow: &[u8; FLOW_BYTES]) -> Option<SocketAddr> {
    let port = flow[at::PORT].try_into().map(u16::from_be_bytes).ok()?;
    let ip = match flow[at::VERSION] {
        [4] => IpAddr::from(*flow[at::LOCAL4].first_chunk::<4>()?),
        [6] => IpAddr::from(*flow[at::LOCAL6].first_chunk::<16>()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The slot after this one.
pub(super) fn next_of(flow: &[u8; FLOW_BYTES]) -> u32 {
    flow[at::NEXT].try_into().map_or(0, u32::from_ne_bytes)
}

/// `struct flow` of a port with its rule.
pub(super) fn flow(
    next: u32,
    generation: u32,
    decision: &Decision,
    ingress: &Ingress,
    hop: Option<&Hop>,
) -> [u8; FLOW_BYTES] {
    let mut flow = empty(decision.local, next);
    let mut put = |at: Range<usize>, octets: &[u8]| flow[at].copy_from_slice(octets);
    put(at::GENERATION, &generation.to_ne_bytes());
    match decision.source.ip() {
        IpAddr::V4(v4) => put(at::SOURCE4, &v4.octets()),
        IpAddr::V6(v6) => put(at::SOURCE6, &v6.octets()),
    }
    put(at::SOURCE_PORT, &decision.source.port().to_be_bytes());
    put(at::SSRC, &decision.ssrc.to_be_bytes());
    put(at::VLAN, &ingress.vlan.to_be_bytes());
    put(at::MAC, &ingress.mac);
    put(at::FLAGS, &[ingress.flags]);
    put(at::USER_TYPES, &decision.user_types);
    match decision.action {
        Action::Deliver { socket, .. } => {
            put(at::SOCKET, &socket.to_ne_bytes());
            put(at::KIND, &[2]);
        }
        Action::Forward { source, target, tos } => {
            match (source.ip(), target.ip()) {
                (IpAddr::V4(source), IpAddr::V4(target)) => {
                    put(at::OUT_SOURCE4, &source.octets());
                    put(at::OUT_TARGET4, &target.octets());
                }
                (source, target) => {
                    put(at::OUT_SOURCE6, &words(source));
                    put(at::OUT_TARGET6, &words(target));
                }
            }
            put(at::OUT_SOURCE_PORT, &source.port().to_be_bytes());
            put(at::OUT_TARGET_PORT, &target.port().to_be_bytes());
            put(at::TICKS, &ticks(decision.clock_hz).to_ne_bytes());
            let sum_in = sum(decision.source.ip()) + sum(decision.local.ip());
            let sum_out = sum(source.ip()) + sum(target.ip());
            put(at::SUM_IN, &fold(sum_in).to_ne_bytes());
            put(at::SUM_OUT, &fold(sum_out).to_ne_bytes());
            let ports = |from: SocketAddr, to: SocketAddr| {
                u32::from(from.port().to_be()) + u32::from(to.port().to_be())
            };
            // RFC 1624: HC' = ~(~HC + ~m + m'), of which this is ~m + m'.
            let old = fold(sum_in + ports(decision.source, decision.local));
            let new = fold(sum_out + ports(source, target));
            put(at::DELTA, &fold(u32::from(!old) + u32::from(new)).to_ne_bytes());
            put(at::KIND, &[1]);
            put(at::TOS, &[tos]);
            if let Some(hop) = hop {
                let words = [[0x45, tos], [0x40, 0], [hop.ttl, 17]];
                let header = words.map(|word| u32::from(u16::from_ne_bytes(word)));
                let sum = fold(sum_out + header.iter().sum::<u32>());
                put(at::OUT_IP_SUM, &sum.to_ne_bytes());
                put(at::OUT_INTERFACE, &hop.interface.to_ne_bytes());
                put(at::OUT_VLAN, &hop.vlan.to_be_bytes());
                put(at::OUT_MTU, &hop.mtu.to_ne_bytes());
                put(at::OUT_TARGET_MAC, &hop.target_mac);
                put(at::OUT_SOURCE_MAC, &hop.source_mac);
                put(at::TTL, &[hop.ttl]);
            }
        }
    }
    flow
}

/// Ticks of an RTP clock per nanosecond with 32 fractional bits. Clocks above 1 GHz do not exist.
fn ticks(clock_hz: u32) -> u32 {
    u32::try_from((u64::from(clock_hz) << 32) / 1_000_000_000).unwrap_or(u32::MAX)
}

/// The generation of a flow, if it is not empty.
pub(super) fn generation_of(flow: &[u8; FLOW_BYTES]) -> Option<u32> {
    let generation = flow[at::GENERATION].try_into().map(u32::from_ne_bytes).ok()?;
    (flow[at::KIND] != [0]).then_some(generation)
}

/// Whether a flow is for user space.
pub(super) fn delivers(flow: &[u8; FLOW_BYTES]) -> bool {
    flow[at::KIND] == [2]
}

/// The way that a flow had.
pub(super) fn hop_of(flow: &[u8; FLOW_BYTES]) -> Option<Hop> {
    let interface = flow[at::OUT_INTERFACE].try_into().map(u32::from_ne_bytes).ok()?;
    let hop = Hop {
        interface,
        vlan: flow[at::OUT_VLAN].try_into().map(u16::from_be_bytes).ok()?,
        target_mac: flow[at::OUT_TARGET_MAC].try_into().ok()?,
        source_mac: flow[at::OUT_SOURCE_MAC].try_into().ok()?,
        mtu: flow[at::OUT_MTU].try_into().map(u16::from_ne_bytes).ok()?,
        ttl: *flow[at::TTL].first()?,
    };
    (interface != 0).then_some(hop)
}

/// Whether two flows carry the same decision.
pub(super) fn same_decision(one: &[u8; FLOW_BYTES], other: &[u8; FLOW_BYTES]) -> bool {
    at::DECISION.iter().all(|range| one[range.clone()] == other[range.clone()])
}

/// `struct count` of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) last: u64,
    pub(super) seen: u64,
    pub(super) highest: i32,
    /// What the low half of a number is ahead of the sequence number.
    pub(super) shift: u16,
    pub(super) generation: u32,
    pub(super) first: i32,
    pub(super) jitter: u32,
}

impl Count {
    /// What stands there now. The CPU may be about to write more of it.
    pub(super) fn read(words: &[AtomicU64]) -> Self {
        let long = |at: usize| words.get(at).map_or(0, |word| word.load(Ordering::Relaxed));
        let pair = |at: usize| {
            let octets = long(at).to_ne_bytes();
            let half = |at: usize| [octets[at], octets[at + 1], octets[at + 2], octets[at + 3]];
            (u32::from_ne_bytes(half(0)), u32::from_ne_bytes(half(4)))
        };
        let (highest, shift) = pair(4);
        let (generation, first) = pair(5);
        Self {
            packets: long(0),
            bytes: long(1),
            last: long(2),
            seen: long(3),
            highest: highest.cast_signed(),
            shift: shift as u16,
            generation,
            first: first.cast_signed(),
            jitter: pair(7).1,
        }
    }

    /// Expected less seen, never below zero (RFC 3550 A.3).
    pub(super) fn lost(&self) -> u64 {
        let expected = i64::from(self.highest) - i64::from(self.first) + 1;
        u64::try_from(expected).unwrap_or(0).saturating_sub(self.seen)
    }

    /// The highest sequence number of the last row.
    pub(super) fn sequence(&self) -> u16 {
        (self.highest.cast_unsigned() as u16).wrapping_sub(self.shift)
    }
}
