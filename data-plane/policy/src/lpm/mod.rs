//! Read-only table from addresses to numbers: built once from inclusive ranges, then only read.
//!
//! Ranges are flattened to disjoint segments first (the smaller range wins, EM-23): after ranges
//! have been split into prefixes, "longest prefix wins" would give wrong answers at the edges. The
//! segments are kept sorted, and a multibit trie with a root of about 16 bits and 8-bit strides leads
//! to them. The root begins behind the bits that all ranges have in common: sites of one provider
//! block, IPv6 above all, do not pay for the block at each lookup. Answers are pushed down into the trie wherever a node's whole region has one answer. A
//! region with only a few segment borders gets no node: its entry names the borders, and the last
//! step is a search among them. So a lookup in a table of office networks costs two or three
//! dependent loads, and memory stays proportional to the number of ranges, which a table of 1 KiB
//! chunks down to the last octet does not.

mod flatten;
#[cfg(test)]
mod tests;

use std::{
    fmt::Debug,
    net::{IpAddr, Ipv6Addr},
};

pub use flatten::{Overlap, Range};
use flatten::{Segment, flatten};

/// Segments per table; an entry of the trie has 22 bits to name one. Two per range and one more.
pub const SEGMENTS_MAX: usize = 1 << 22;

/// Ranges per table that always fit.
pub const RANGES_MAX: usize = SEGMENTS_MAX / 2 - 1;

/// Largest value that can be stored.
pub const VALUE_MAX: u32 = (1 << 30) - 2;

/// From this many segments on a table has a wide root, below it a narrow one, so that thousands of
/// realms with a few sites each stay small.
const WIDE_ROOT_SEGMENTS: usize = 4096;
/// What is left below the root is a multiple of eight bits, so its width is near the one wanted: up
/// to the second number more (512 KiB and 8 KiB at most), else fewer.
const WIDE_ROOT_BITS: (u32, u32) = (16, 1);
const NARROW_ROOT_BITS: (u32, u32) = (8, 3);

/// Up to this many borders a region is searched without a node, tried in this order until the nodes
/// keep within [`node_budget_bytes`].
const BORDERS_WITHOUT_NODE: [usize; 5] = [8, 16, 32, 64, 255];

/// Up to this many borders counting them all beats a binary search (measured: 5-10 % in tables of
/// office networks, where a region has two or three; with eight it loses 20 %).
const BORDERS_COUNTED: usize = 4;

/// Memory for trie nodes: one cache line for each segment, at least 1 MiB.
const fn node_budget_bytes(segments: usize) -> usize {
    let proportional = segments * 64;
    if proportional > 1 << 20 { proportional } else { 1 << 20 }
}

const VALUE_NONE: u32 = VALUE_MAX + 1;
const PAYLOAD_BITS: u32 = 30;
const PAYLOAD: u32 = (1 << PAYLOAD_BITS) - 1;
const TAG_LEAF: u32 = 0;
const TAG_NODE: u32 = 1;
const TAG_BORDERS: u32 = 2;
const BORDER_COUNT_BITS: u32 = 8;

const _: () = assert!(SEGMENTS_MAX <= 1 << (PAYLOAD_BITS - BORDER_COUNT_BITS));
const _: () = assert!(BORDERS_WITHOUT_NODE[4] < 1 << BORDER_COUNT_BITS);
const _: () = assert!(VALUE_NONE <= PAYLOAD);
/// The last threshold always keeps the budget: below a wide root there are at most 14 levels
/// (IPv6), and each node of a level has more than 255 borders of its own inside.
const _: () = assert!(14 * size_of::<[u32; 256]>() / (BORDERS_WITHOUT_NODE[4] + 1) <= 64);

/// An address as a number: `u32` or `u128`.
pub trait Key: Copy + Ord + Debug + Send + Sync + 'static {
    const BITS: u32;
    const MIN: Self;
    const MAX: Self;
    /// The next address, `None` after the last one.
    fn next(self) -> Option<Self>;
    /// `self - start`.
    fn distance(self, start: Self) -> u128;
    /// The lowest bits of those above the lowest `shift`: as many as a root can have, or more.
    fn above(self, shift: u32) -> usize;
    /// How many of the highest bits are the same in `other`.
    fn common_bits(self, other: Self) -> u32;
    /// Eight bits, the lowest of them at `shift`.
    fn octet(self, shift: u32) -> u8;
    /// `self` with the eight bits at `shift` set to `octet` and everything below set to `fill`.
    fn child(self, shift: u32, octet: u8, fill: bool) -> Self;
    /// `self` with `top` above the lowest `shift` bits, which become all `fill`.
    fn with_top(self, top: usize, shift: u32, fill: bool) -> Self;
}

macro_rules! key {
    ($int:ty) => {
        impl Key for $int {
            const BITS: u32 = <$int>::BITS;
            const MIN: Self = 0;
            const MAX: Self = <$int>::MAX;

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn distance(self, start: Self) -> u128 {
                u128::from(self.saturating_sub(start))
            }

            #[inline]
            fn above(self, shift: u32) -> usize {
                // The root is not wider.
                (self.checked_shr(shift).unwrap_or(0) & 0xf_ffff) as usize
            }

            fn common_bits(self, other: Self) -> u32 {
                (self ^ other).leading_zeros()
            }

            #[inline]
            fn octet(self, shift: u32) -> u8 {
                (self.checked_shr(shift).unwrap_or(0) & 0xff) as u8
            }

            fn child(self, shift: u32, octet: u8, fill: bool) -> Self {
                let low = (1 as Self).checked_shl(shift).map_or(<$int>::MAX, |bit| bit - 1);
                let keep = !(low | ((0xff as Self) << shift));
                (self & keep) | (Self::from(octet) << shift) | if fill { low } else { 0 }
            }

            fn with_top(self, top: usize, shift: u32, fill: bool) -> Self {
                let low = (1 as Self).checked_shl(shift).map_or(<$int>::MAX, |bit| bit - 1);
                let high = (top as Self).checked_shl(shift).unwrap_or(0);
                self | high | if fill { low } else { 0 }
            }
        }
    };
}

key!(u32);
key!(u128);

/// Table of one address family.
#[derive(Debug)]
pub struct Lpm<K> {
    /// The addresses that share their highest bits with all ranges. No other is in any.
    first: K,
    last: K,
    /// As many entries as a power of two.
    root: Vec<u32>,
    root_shift: u32,
    nodes: Vec<[u32; 256]>,
    segments: Vec<Segment<K>>,
}

impl<K: Key> Lpm<K> {
    fn empty() -> Self {
        let segments = vec![Segment { start: K::MIN, value: VALUE_NONE }];
        Self {
            first: K::MIN,
            last: K::MAX,
            root: vec![VALUE_NONE],
            root_shift: K::BITS,
            nodes: Vec::new(),
            segments,
        }
    }

    /// Builds the table.
    ///
    /// # Errors
    /// Pairs of ranges of equal size that overlap: neither is the smaller one. At most
    /// [`flatten::OVERLAPS_MAX`] are reported.
    ///
    /// # Panics
    /// If there are more than [`RANGES_MAX`] ranges or a value above [`VALUE_MAX`]: the caller has
    /// limits of its own far below.
    pub fn build(ranges: &[Range<K>]) -> Result<Self, Vec<Overlap>> {
        assert!(ranges.len() <= RANGES_MAX, "too many ranges for one table");
        assert!(ranges.iter().all(|range| range.value <= VALUE_MAX), "value too large");
        let segments = flatten(ranges, VALUE_NONE)?;
        let bits = own_bits(&segments);
        let some = segments.get(1).map_or(K::MIN, |segment| segment.start);
        let first = clear_low(some, bits);
        let last = first.with_top(0, bits, true);
        let (root_bits, threshold) = plan(&segments, bits);
        let root_shift = bits - root_bits;
        let mut nodes = Vec::new();
        let mut cursor = Cursor { segments: &segments, threshold };
        let root = (0..1_usize << root_bits)
            .map(|top| {
                let from = first.with_top(top, root_shift, false);
                let to = first.with_top(top, root_shift, true);
                cursor.entry(from, to, root_shift, &mut nodes)
            })
            .collect();
        nodes.shrink_to_fit();
        Ok(Self { first, last, root, root_shift, nodes, segments })
    }

    /// The value of the smallest range that contains `key`.
    #[inline]
    #[must_use]
    pub fn get(&self, key: K) -> Option<u32> {
        if key < self.first || key > self.last {
            return None;
        }
        let mut shift = self.root_shift;
        let mut entry = *self.root.get(key.above(shift) & (self.root.len() - 1))?;
        while entry >> PAYLOAD_BITS == TAG_NODE {
            shift -= 8;
            let node = self.nodes.get((entry & PAYLOAD) as usize)?;
            entry = node[usize::from(key.octet(shift))];
        }
        let value = if entry >> PAYLOAD_BITS == TAG_LEAF {
            entry & PAYLOAD
        } else {
            let first = ((entry & PAYLOAD) >> BORDER_COUNT_BITS) as usize;
            let count = (entry & ((1 << BORDER_COUNT_BITS) - 1)) as usize;
            // The segment before the borders, and one for each border.
            let segments = self.segments.get(first - 1..first + count)?;
            let borders = segments.get(1..)?;
            let passed = if count <= BORDERS_COUNTED {
                // No branch depends on the address, so nothing is mispredicted.
                borders.iter().map(|segment| usize::from(segment.start <= key)).sum()
            } else {
                borders.partition_point(|segment| segment.start <= key)
            };
            segments.get(passed)?.value
        };
        (value != VALUE_NONE).then_some(value)
    }

    /// Octets that the table occupies.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.root.capacity() * 4
            + self.nodes.capacity() * size_of::<[u32; 256]>()
            + self.segments.capacity() * size_of::<Segment<K>>()
    }

    /// The disjoint ranges and their values, in order.
    pub fn segments(&self) -> impl Iterator<Item = Range<K>> + '_ {
        let ends = self.segments.iter().skip(1).map(|s| Some(s.start)).chain([None]);
        self.segments.iter().zip(ends).filter(|(s, _)| s.value != VALUE_NONE).map(|(s, next)| {
            let end = match next {
                Some(next) => previous(next),
                None => K::MAX,
            };
            Range { start: s.start, end, value: s.value }
        })
    }
}

/// The address before `key`, which is not the first one.
fn previous<K: Key>(key: K) -> K {
    // Clearing the lowest set bit and filling below it subtracts one.
    let mut shift = 0;
    while key.octet(shift) == 0 {
        shift += 8;
    }
    key.child(shift, key.octet(shift) - 1, true)
}

/// How many of the lowest bits differ between the ranges.
fn own_bits<K: Key>(segments: &[Segment<K>]) -> u32 {
    let (Some(first), Some(end)) = (segments.first(), segments.last()) else { return K::BITS };
    // Only with nothing before the first range and behind the last one.
    match segments.get(1) {
        Some(start) if first.value == VALUE_NONE && end.value == VALUE_NONE => {
            K::BITS - start.start.common_bits(previous(end.start))
        }
        _ => K::BITS,
    }
}

/// `key` with its lowest `bits` zero.
fn clear_low<K: Key>(key: K, bits: u32) -> K {
    match bits.checked_sub(8) {
        None => key.child(0, key.octet(0) >> bits << bits, false),
        Some(_) if bits >= K::BITS => K::MIN,
        Some(low) => key.child(low, 0, false),
    }
}

/// Bits of the root, of the `bits` that differ, and up to how many borders a region needs no node.
fn plan<K: Key>(segments: &[Segment<K>], bits: u32) -> (u32, usize) {
    if segments.len() <= BORDERS_WITHOUT_NODE[0] {
        return (0, BORDERS_WITHOUT_NODE[0]);
    }
    let wide = segments.len() >= WIDE_ROOT_SEGMENTS;
    let (wanted, more) = if wide { WIDE_ROOT_BITS } else { NARROW_ROOT_BITS };
    let odd = bits % 8;
    let root_bits = if odd <= more { wanted + odd } else { wanted + odd - 8 }.min(bits);
    let budget = node_budget_bytes(segments.len());
    for threshold in BORDERS_WITHOUT_NODE {
        let nodes = count_nodes(segments, bits - root_bits, threshold, true);
        if nodes * size_of::<[u32; 256]>() <= budget {
            return (root_bits, threshold);
        }
    }
    (root_bits, BORDERS_WITHOUT_NODE[4])
}

/// Nodes that regions of `shift` low bits will need. `segments` are the borders to distribute.
fn count_nodes<K: Key>(
    borders: &[Segment<K>],
    shift: u32,
    threshold: usize,
    is_root: bool,
) -> usize {
    if !is_root && borders.len() <= threshold {
        return 0;
    }
    let mut nodes = usize::from(!is_root);
    let below = if is_root { shift } else { shift - 8 };
    let mut rest = borders;
    while let Some(first) = rest.first() {
        let last = fill_below(first.start, below);
        let (inside, after) = rest.split_at(rest.partition_point(|s| s.start <= last));
        // A border at the very start of a region is not inside it.
        let start = clear_below(first.start, below);
        let inside = if first.start == start { inside.get(1..).unwrap_or(&[]) } else { inside };
        nodes += count_nodes(inside, below, threshold, false);
        rest = after;
    }
    nodes
}

fn fill_below<K: Key>(key: K, shift: u32) -> K {
    if shift >= K::BITS { K::MAX } else { key.child(shift, key.octet(shift), true) }
}

fn clear_below<K: Key>(key: K, shift: u32) -> K {
    if shift >= K::BITS { K::MIN } else { key.child(shift, key.octet(shift), false) }
}

struct Cursor<'s, K> {
    segments: &'s [Segment<K>],
    threshold: usize,
}

impl<K: Key> Cursor<'_, K> {
    /// Entry for the region `first..=last`, which has `shift` low bits.
    fn entry(&mut self, first: K, last: K, shift: u32, nodes: &mut Vec<[u32; 256]>) -> u32 {
        let from = self.segments.partition_point(|s| s.start <= first);
        let to = from
            + self.segments.get(from..).map_or(0, |rest| rest.partition_point(|s| s.start <= last));
        self.entry_of(from, to, first, shift, nodes)
    }

    /// The same with the borders `from..to` of the region already known.
    fn entry_of(
        &mut self,
        from: usize,
        to: usize,
        first: K,
        shift: u32,
        nodes: &mut Vec<[u32; 256]>,
    ) -> u32 {
        let borders = to - from;
        if borders == 0 {
            // The first segment starts at the first address, so there is one before.
            return self.segments.get(from - 1).map_or(VALUE_NONE, |s| s.value);
        }
        if borders <= self.threshold {
            let place = (from << BORDER_COUNT_BITS) | borders;
            return (TAG_BORDERS << PAYLOAD_BITS) | u32::try_from(place).expect("22 + 8 bits");
        }
        let index = nodes.len();
        nodes.push([VALUE_NONE; 256]);
        let mut next = from;
        for octet in 0..=u8::MAX {
            let child_first = first.child(shift - 8, octet, false);
            let child_last = first.child(shift - 8, octet, true);
            let advance = |mut at: usize, limit: K| {
                while at < to && self.segments.get(at).is_some_and(|s| s.start <= limit) {
                    at += 1;
                }
                at
            };
            let child_from = advance(next, child_first);
            let child_to = advance(child_from, child_last);
            next = child_to;
            let entry = self.entry_of(child_from, child_to, child_first, shift - 8, nodes);
            if let Some(node) = nodes.get_mut(index) {
                node[usize::from(octet)] = entry;
            }
        }
        (TAG_NODE << PAYLOAD_BITS) | u32::try_from(index).expect("below 2^30 nodes")
    }
}

/// Tables of both families. IPv4-mapped IPv6 addresses count as IPv4 (EM-23).
#[derive(Debug)]
pub struct AddressTable {
    v4: Lpm<u32>,
    v6: Lpm<u128>,
}

/// A range of addresses of one family, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRange {
    V4 { start: u32, end: u32 },
    V6 { start: u128, end: u128 },
}

impl AddressRange {
    /// The range, or why it is none. IPv4-mapped ends become IPv4.
    ///
    /// # Errors
    /// A text for the user.
    pub fn new(start: IpAddr, end: IpAddr) -> Result<Self, &'static str> {
        match (number(start), number(end)) {
            (Number::V4(start), Number::V4(end)) if start <= end => Ok(Self::V4 { start, end }),
            (Number::V6(start), Number::V6(end)) if start <= end => Ok(Self::V6 { start, end }),
            (Number::V4(_), Number::V6(_)) | (Number::V6(_), Number::V4(_)) => {
                Err("start and end are of different address families")
            }
            _ => Err("start is behind end"),
        }
    }

    /// The fewest prefixes that cover exactly this range, in order.
    #[must_use]
    pub fn prefixes(self) -> Vec<ipnet::IpNet> {
        match self {
            Self::V4 { start, end } => {
                ipnet::Ipv4Subnets::new(start.into(), end.into(), 0).map(Into::into).collect()
            }
            Self::V6 { start, end } => {
                ipnet::Ipv6Subnets::new(start.into(), end.into(), 0).map(Into::into).collect()
            }
        }
    }
}

enum Number {
    V4(u32),
    V6(u128),
}

fn number(address: IpAddr) -> Number {
    match address {
        IpAddr::V4(v4) => Number::V4(v4.into()),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Number::V4(v4.into()),
            None => Number::V6(v6.into()),
        },
    }
}

impl AddressTable {
    /// A table that knows no address.
    #[must_use]
    pub fn empty() -> Self {
        Self { v4: Lpm::empty(), v6: Lpm::empty() }
    }

    /// Builds both tables from ranges and their values.
    ///
    /// # Errors
    /// See [`Lpm::build`]; indexes are those of `ranges`.
    pub fn build(ranges: &[(AddressRange, u32)]) -> Result<Self, Vec<Overlap>> {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        let (mut v4_index, mut v6_index) = (Vec::new(), Vec::new());
        for (index, &(range, value)) in ranges.iter().enumerate() {
            match range {
                AddressRange::V4 { start, end } => {
                    v4.push(Range { start, end, value });
                    v4_index.push(index);
                }
                AddressRange::V6 { start, end } => {
                    v6.push(Range { start, end, value });
                    v6_index.push(index);
                }
            }
        }
        let back = |index: &[usize], overlaps: Vec<Overlap>| -> Vec<Overlap> {
            let original = |i: usize| index.get(i).copied().unwrap_or(i);
            overlaps
                .into_iter()
                .map(|o| Overlap { first: original(o.first), second: original(o.second) })
                .collect()
        };
        match (Lpm::build(&v4), Lpm::build(&v6)) {
            (Ok(v4), Ok(v6)) => Ok(Self { v4, v6 }),
            (v4, v6) => {
                let mut overlaps = back(&v4_index, v4.err().unwrap_or_default());
                overlaps.extend(back(&v6_index, v6.err().unwrap_or_default()));
                Err(overlaps)
            }
        }
    }

    /// The value of the smallest range that contains `address`. Takes no lock, allocates nothing.
    #[inline]
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<u32> {
        match number(address) {
            Number::V4(key) => self.v4.get(key),
            Number::V6(key) => self.v6.get(key),
        }
    }

    /// Octets that both tables occupy.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes()
    }

    /// The disjoint ranges and their values, IPv4 first, in order.
    pub fn segments(&self) -> impl Iterator<Item = (IpAddr, IpAddr, u32)> + '_ {
        let v4 = self.v4.segments().map(|r| {
            let address = |key: u32| IpAddr::V4(key.into());
            (address(r.start), address(r.end), r.value)
        });
        let v6 = self.v6.segments().map(|r| {
            let address = |key: u128| IpAddr::V6(Ipv6Addr::from(key));
            (address(r.start), address(r.end), r.value)
        });
        v4.chain(v6)
    }
}
