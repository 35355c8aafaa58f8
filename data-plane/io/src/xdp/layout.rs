//! What stands in the maps: the Rust side of the structures in `bpf/relay.c`, written and read octet
//! by octet. Numbers are in machine order but for what comes from the network.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Changes whenever a structure or map of `bpf/relay.c` does. Maps of another layout, left by
/// another release, are replaced.
pub(super) const LAYOUT: u32 = 1;

pub(super) const PORT_KEY_BYTES: usize = 20;
pub(super) const RULE_BYTES: usize = 112;
pub(super) const FLOW_BYTES: usize = 8 + RULE_BYTES;
pub(super) const COUNT_BYTES: usize = 64;

/// `FILL_CHECKSUM`, `KEEP_PARTIAL` and `ALWAYS_REDIRECT`.
pub(super) const FLAG_FILL_CHECKSUM: u8 = 1;
pub(super) const FLAG_KEEP_PARTIAL: u8 = 2;
pub(super) const FLAG_ALWAYS_REDIRECT: u8 = 4;

/// Names of `enum verdict`, in its order, as labels of a metric.
pub(super) const VERDICTS: [&str; 9] = [
    "delivered",
    "pass_no_flow",
    "pass_source",
    "pass_packet",
    "pass_ssrc",
    "pass_payload_type",
    "pass_next_hop",
    "pass_checksum",
    "failed",
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

/// Key of a media port.
pub(super) fn port_key(at: SocketAddr) -> [u8; PORT_KEY_BYTES] {
    let mut key = [0; PORT_KEY_BYTES];
    key[..16].copy_from_slice(&words(at.ip()));
    key[16..18].copy_from_slice(&at.port().to_be_bytes());
    let version: u16 = if at.is_ipv4() { 4 } else { 6 };
    key[18..20].copy_from_slice(&version.to_ne_bytes());
    key
}

/// The media port of a key; `None` if it is none.
pub(super) fn port_of(key: &[u8]) -> Option<SocketAddr> {
    let key: &[u8; PORT_KEY_BYTES] = key.try_into().ok()?;
    let (address, rest) = key.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes([rest[0], rest[1]]);
    let ip = match u16::from_ne_bytes([rest[2], rest[3]]) {
        4 => IpAddr::from(*address.first_chunk::<4>()?),
        6 => IpAddr::from(*address),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
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
    Forward { source: SocketAddr, target: SocketAddr, tos: u8 },
    Deliver { socket: u16 },
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

/// Where the members of `struct rule` stand in `struct flow`.
mod at {
    use std::ops::Range;

    pub(super) const GENERATION: Range<usize> = 4..8;
    const RULE: usize = 8;
    const fn member(start: usize, bytes: usize) -> Range<usize> {
        RULE + start..RULE + start + bytes
    }
    pub(super) const SOURCE: Range<usize> = member(0, 16);
    pub(super) const OUT_SOURCE: Range<usize> = member(16, 16);
    pub(super) const OUT_TARGET: Range<usize> = member(32, 16);
    pub(super) const SSRC: Range<usize> = member(48, 4);
    pub(super) const OUT_INTERFACE: Range<usize> = member(52, 4);
    pub(super) const TICKS: Range<usize> = member(56, 4);
    pub(super) const SUM_IN: Range<usize> = member(60, 4);
    pub(super) const SUM_OUT: Range<usize> = member(64, 4);
    pub(super) const SOURCE_PORT: Range<usize> = member(68, 2);
    pub(super) const OUT_SOURCE_PORT: Range<usize> = member(70, 2);
    pub(super) const OUT_TARGET_PORT: Range<usize> = member(72, 2);
    pub(super) const VLAN: Range<usize> = member(74, 2);
    pub(super) const OUT_VLAN: Range<usize> = member(76, 2);
    pub(super) const DELTA: Range<usize> = member(78, 2);
    pub(super) const OUT_MTU: Range<usize> = member(80, 2);
    pub(super) const SOCKET: Range<usize> = member(82, 2);
    pub(super) const MAC: Range<usize> = member(84, 6);
    pub(super) const OUT_TARGET_MAC: Range<usize> = member(90, 6);
    pub(super) const OUT_SOURCE_MAC: Range<usize> = member(96, 6);
    pub(super) const KIND: Range<usize> = member(102, 1);
    pub(super) const FLAGS: Range<usize> = member(103, 1);
    pub(super) const TOS: Range<usize> = member(104, 1);
    pub(super) const TTL: Range<usize> = member(105, 1);
    pub(super) const USER_TYPES: Range<usize> = member(106, 2);

    /// What the engine decides; the rest is of the network, and changes with it.
    pub(super) const DECISION: [Range<usize>; 10] = [
        SOURCE,
        OUT_SOURCE,
        OUT_TARGET,
        SSRC,
        TICKS,
        SOURCE_PORT,
        OUT_SOURCE_PORT,
        OUT_TARGET_PORT,
        KIND,
        USER_TYPES,
    ];
}

/// `struct flow` with its lock free.
pub(super) fn flow(
    generation: u32,
    decision: &Decision,
    ingress: &Ingress,
    hop: Option<&Hop>,
) -> [u8; FLOW_BYTES] {
    let mut flow = [0; FLOW_BYTES];
    let mut put = |at: Range<usize>, octets: &[u8]| flow[at].copy_from_slice(octets);
    put(at::GENERATION, &generation.to_ne_bytes());
    put(at::SOURCE, &words(decision.source.ip()));
    put(at::SOURCE_PORT, &decision.source.port().to_be_bytes());
    put(at::SSRC, &decision.ssrc.to_be_bytes());
    put(at::VLAN, &ingress.vlan.to_be_bytes());
    put(at::MAC, &ingress.mac);
    put(at::FLAGS, &[ingress.flags]);
    put(at::USER_TYPES, &decision.user_types);
    match decision.action {
        Action::Deliver { socket } => {
            put(at::SOCKET, &socket.to_ne_bytes());
            put(at::KIND, &[2]);
        }
        Action::Forward { source, target, tos } => {
            put(at::OUT_SOURCE, &words(source.ip()));
            put(at::OUT_TARGET, &words(target.ip()));
            put(at::OUT_SOURCE_PORT, &source.port().to_be_bytes());
            put(at::OUT_TARGET_PORT, &target.port().to_be_bytes());
            put(at::TICKS, &ticks(decision.clock_hz).to_ne_bytes());
            let sum_in = sum(decision.source.ip()) + sum(decision.local.ip());
            let sum_out = sum(source.ip()) + sum(target.ip());
            put(at::SUM_IN, &sum_in.to_ne_bytes());
            put(at::SUM_OUT, &sum_out.to_ne_bytes());
            let ports = |from: SocketAddr, to: SocketAddr| {
                u32::from(from.port().to_be()) + u32::from(to.port().to_be())
            };
            // RFC 1624: HC' = ~(~HC + ~m + m'), of which this is ~m + m'.
            let old = fold(sum_in + ports(decision.source, decision.local));
            let new = fold(sum_out + ports(source, target));
            put(at::DELTA, &fold(u32::from(!old) + u32::from(new)).to_ne_bytes());
            put(at::KIND, &[1]);
            put(at::TOS, &[tos]);
        }
    }
    if let (Some(hop), Action::Forward { .. }) = (hop, decision.action) {
        put(at::OUT_INTERFACE, &hop.interface.to_ne_bytes());
        put(at::OUT_VLAN, &hop.vlan.to_be_bytes());
        put(at::OUT_MTU, &hop.mtu.to_ne_bytes());
        put(at::OUT_TARGET_MAC, &hop.target_mac);
        put(at::OUT_SOURCE_MAC, &hop.source_mac);
        put(at::TTL, &[hop.ttl]);
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
    pub(super) lost: u64,
    pub(super) seen: u64,
    pub(super) generation: u32,
    pub(super) first: i32,
    pub(super) highest: i32,
    pub(super) jitter: u32,
}

impl Count {
    pub(super) fn read(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; COUNT_BYTES] = octets.first_chunk()?;
        let word = |at: usize| {
            let word = octets.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_ne_bytes(word))
        };
        let long = |at: usize| {
            let long = octets.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_ne_bytes(long))
        };
        Some(Self {
            packets: long(0)?,
            bytes: long(8)?,
            last: long(16)?,
            lost: long(24)?,
            seen: long(32)?,
            generation: word(40)?,
            first: word(44)?.cast_signed(),
            highest: word(48)?.cast_signed(),
            jitter: word(60)?,
        })
    }

    /// Expected since the last leap less seen, never below zero (RFC 3550 A.3), and what was lost
    /// before.
    pub(super) fn lost(&self) -> u64 {
        let expected = i64::from(self.highest) - i64::from(self.first) + 1;
        self.lost + u64::try_from(expected).unwrap_or(0).saturating_sub(self.seen)
    }
}
