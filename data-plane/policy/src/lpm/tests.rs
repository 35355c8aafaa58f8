use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// Slow reference (EM-24, M6): of the ranges that contain the address, the smallest.
fn scan<K: Key>(ranges: &[Range<K>], key: K) -> Option<u32> {
    ranges
        .iter()
        .filter(|r| r.start <= key && key <= r.end)
        .min_by_key(|r| r.end.distance(r.start))
        .map(|r| r.value)
}

/// Overlaps by the definition.
fn has_equal_overlap<K: Key>(ranges: &[Range<K>]) -> bool {
    ranges.iter().enumerate().any(|(i, a)| {
        ranges[i + 1..].iter().any(|b| {
            a.end.distance(a.start) == b.end.distance(b.start)
                && a.start <= b.end
                && b.start <= a.end
        })
    })
}

/// splitmix64: one seed, one sequence.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
}

fn edges<K: Key>(ranges: &[Range<K>]) -> Vec<K> {
    let mut keys = vec![K::MIN, K::MAX];
    for r in ranges {
        keys.extend([r.start, r.end]);
        keys.extend(r.end.next());
        if r.start > K::MIN {
            keys.push(previous(r.start));
        }
    }
    keys
}

/// Nested and overlapping ranges of very different sizes, no two of equal size.
fn nested_v4(dice: &mut Dice, count: usize) -> Vec<Range<u32>> {
    let mut sizes = std::collections::HashSet::new();
    let mut ranges = Vec::new();
    while ranges.len() < count {
        let bits = dice.below(26);
        let size = u32::try_from(dice.below(1 << bits)).unwrap_or(0);
        if !sizes.insert(size) {
            continue;
        }
        // Half of them in a small area, so that they nest.
        let start = if dice.below(2) == 0 {
            0x0a00_0000 + u32::try_from(dice.below(1 << 18)).unwrap()
        } else {
            u32::try_from(dice.roll() >> 32).unwrap()
        };
        let value = u32::try_from(ranges.len()).unwrap();
        ranges.push(Range { start, end: start.saturating_add(size), value });
        if ranges.last().is_some_and(|r| r.end - r.start != size) {
            ranges.pop();
        }
    }
    ranges
}

fn nested_v6(dice: &mut Dice, count: usize) -> Vec<Range<u128>> {
    let mut sizes = std::collections::HashSet::new();
    let mut ranges = Vec::new();
    while ranges.len() < count {
        let bits = dice.below(100);
        let random = (u128::from(dice.roll()) << 64) | u128::from(dice.roll());
        let size = random & ((1 << bits) - 1);
        if !sizes.insert(size) {
            continue;
        }
        let random = (u128::from(dice.roll()) << 64) | u128::from(dice.roll());
        let start = (0x2001_0db8_u128 << 96) | (random >> (32 + dice.below(80)));
        let value = u32::try_from(ranges.len()).unwrap();
        ranges.push(Range { start, end: start + size, value });
    }
    ranges
}

#[test]
fn equals_the_scan_at_every_edge_and_on_random_probes() {
    let mut dice = Dice(1);
    for count in [1, 2, 7, 30, 300, 2_500] {
        let ranges = nested_v4(&mut dice, count);
        let table = Lpm::build(&ranges).unwrap();
        for key in edges(&ranges) {
            assert_eq!(table.get(key), scan(&ranges, key), "{key:#x} of {count}");
        }
        for _ in 0..2_000 {
            let key = 0x0a00_0000 + u32::try_from(dice.below(1 << 19)).unwrap();
            assert_eq!(table.get(key), scan(&ranges, key), "{key:#x} of {count}");
        }
        let ranges = nested_v6(&mut dice, count);
        let table = Lpm::build(&ranges).unwrap();
        for key in edges(&ranges) {
            assert_eq!(table.get(key), scan(&ranges, key), "{key:#x} of {count}");
        }
    }
}

/// Ranges that share any number of their highest bits, from none to all: what lies just outside of
/// the shared part is in none of them.
#[test]
fn equals_the_scan_whatever_the_ranges_have_in_common() {
    let mut dice = Dice(5);
    for bits in 0..=32_u32 {
        for count in [1, 9, 40, 300] {
            let base = 0xac10_0000_u32;
            let size = 1_u64 << bits;
            let mut ranges = Vec::new();
            let mut next = 0;
            for value in 0..count {
                let start = next + dice.below(size / 2 / u64::from(count) + 2);
                let end = start + dice.below(size / 2 / u64::from(count) + 1);
                if end >= size {
                    break;
                }
                next = end + 1;
                let at = |offset: u64| {
                    let low = u32::try_from(offset).unwrap();
                    if bits == 32 { low } else { base >> bits << bits | low }
                };
                ranges.push(Range { start: at(start), end: at(end), value });
            }
            let table = Lpm::build(&ranges).unwrap();
            for key in edges(&ranges) {
                for flip in 0..32 {
                    let key = key ^ 1 << flip;
                    assert_eq!(table.get(key), scan(&ranges, key), "{key:#x}, {bits} bits");
                }
                assert_eq!(table.get(key), scan(&ranges, key), "{key:#x}, {bits} bits");
            }
        }
    }
}

/// A million probes (EM-24, G8) against the segments, which the test above ties to the scan, and
/// against a second, independent longest-prefix-match crate fed with the split segments.
#[test]
fn equals_binary_search_and_another_crate_on_a_million_probes() {
    let mut dice = Dice(2);
    let ranges = nested_v4(&mut dice, 20_000);
    let table = Lpm::build(&ranges).unwrap();
    let mut oracle = prefix_trie::PrefixMap::new();
    let disjoint: Vec<Range<u32>> = table.segments().collect();
    assert!(disjoint.windows(2).all(|w| w[0].end < w[1].start));
    for r in &disjoint {
        for prefix in (AddressRange::V4 { start: r.start, end: r.end }).prefixes() {
            let ipnet::IpNet::V4(prefix) = prefix else { unreachable!() };
            assert!(oracle.insert(prefix, r.value).is_none(), "prefixes are disjoint");
        }
    }
    for round in 0..1_000_000_u32 {
        let key = match round % 4 {
            0 => u32::try_from(dice.roll() >> 32).unwrap(),
            1 => disjoint[usize::try_from(dice.roll()).unwrap() % disjoint.len()].start,
            2 => disjoint[usize::try_from(dice.roll()).unwrap() % disjoint.len()].end,
            _ => 0x0a00_0000 + u32::try_from(dice.below(1 << 19)).unwrap(),
        };
        let found = table.get(key);
        let passed = disjoint.partition_point(|r| r.start <= key);
        let expected = disjoint[..passed].last().filter(|r| key <= r.end).map(|r| r.value);
        assert_eq!(found, expected, "{key:#x}");
        if round % 8 == 0 {
            let host = ipnet::Ipv4Net::from(Ipv4Addr::from(key));
            assert_eq!(found, oracle.get_lpm(&host).map(|(_, v)| *v), "{key:#x}");
        }
    }
}

#[test]
fn v6_equals_another_crate() {
    let mut dice = Dice(3);
    let ranges = nested_v6(&mut dice, 5_000);
    let table = Lpm::build(&ranges).unwrap();
    let mut oracle = prefix_trie::PrefixMap::new();
    for r in table.segments() {
        for prefix in (AddressRange::V6 { start: r.start, end: r.end }).prefixes() {
            let ipnet::IpNet::V6(prefix) = prefix else { unreachable!() };
            oracle.insert(prefix, r.value);
        }
    }
    let edges = edges(&ranges);
    for round in 0..100_000_usize {
        let key = if round % 2 == 0 {
            edges[usize::try_from(dice.roll()).unwrap() % edges.len()]
        } else {
            (0x2001_0db8_u128 << 96) | u128::from(dice.roll() >> dice.below(64))
        };
        let host = ipnet::Ipv6Net::from(Ipv6Addr::from(key));
        assert_eq!(table.get(key), oracle.get_lpm(&host).map(|(_, v)| *v), "{key:#x}");
    }
}

/// The trap of M6: a range .1-.254 contains the prefix .1/32, which is longer than a nested .0/30.
#[test]
fn a_nested_site_wins_over_the_split_prefixes_of_the_outer_one() {
    let v4 = |d: u8| u32::from(Ipv4Addr::new(192, 168, 10, d));
    let outer = Range { start: v4(1), end: v4(254), value: 1 };
    let inner = Range { start: v4(0), end: v4(3), value: 2 };
    let table = Lpm::build(&[outer, inner]).unwrap();
    let got: Vec<Option<u32>> = [0, 1, 3, 4, 254, 255].map(|d| table.get(v4(d))).into();
    assert_eq!(got, [Some(2), Some(2), Some(2), Some(1), Some(1), None]);
    let prefixes = AddressRange::V4 { start: v4(1), end: v4(254) }.prefixes();
    assert_eq!(prefixes.len(), 14);
}

#[test]
fn whole_space_single_addresses_and_nothing() {
    let table = Lpm::<u32>::build(&[]).unwrap();
    assert_eq!([table.get(0), table.get(u32::MAX)], [None, None]);
    assert!(table.memory_bytes() < 64);
    let all = Range { start: 0, end: u128::MAX, value: 0 };
    let last = Range { start: u128::MAX, end: u128::MAX, value: VALUE_MAX };
    let table = Lpm::build(&[all, last]).unwrap();
    assert_eq!(table.get(0), Some(0));
    assert_eq!(table.get(u128::MAX - 1), Some(0));
    assert_eq!(table.get(u128::MAX), Some(VALUE_MAX));
}

#[test]
fn mapped_addresses_are_v4() {
    let v4: IpAddr = "10.0.0.1".parse().unwrap();
    let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
    let range = AddressRange::new(mapped, v4).unwrap();
    let table = AddressTable::build(&[(range, 7)]).unwrap();
    assert_eq!([table.get(v4), table.get(mapped)], [Some(7), Some(7)]);
    assert_eq!(table.get("::10.0.0.1".parse().unwrap()), None);
    assert!(AddressRange::new(v4, "2001:db8::".parse().unwrap()).is_err());
    assert!(AddressRange::new(v4, "10.0.0.0".parse().unwrap()).is_err());
}

/// Tables made to need as many nodes as possible keep to memory in proportion to their ranges.
#[test]
fn memory_is_bounded_by_the_number_of_ranges() {
    let mut dice = Dice(4);
    let mut spread_v4 = Vec::new();
    let mut deep_v6 = Vec::new();
    for value in 0..50_000_u32 {
        let start = value.wrapping_mul(0x9e37_79b1) & !1;
        spread_v4.push(Range { start, end: start, value });
        // Clusters of 12 at the bottom of random /64 networks.
        let cluster = u128::from(Dice(u64::from(value / 12)).roll()) << 64;
        let start = (0x2 << 124) | (cluster >> 4) | u128::from(value % 12) << 2;
        deep_v6.push(Range { start, end: start + u128::from(dice.below(2)), value });
    }
    let per_range = |octets: usize| octets / 50_000;
    let v4 = Lpm::build(&spread_v4).unwrap();
    assert!(per_range(v4.memory_bytes()) <= 2 * (64 + 8) + 8, "{}", v4.memory_bytes());
    let ranges: Vec<Range<u128>> = deep_v6;
    let v6 = Lpm::build(&ranges);
    match v6 {
        Ok(v6) => {
            assert!(per_range(v6.memory_bytes()) <= 2 * (64 + 32) + 8, "{}", v6.memory_bytes());
        }
        Err(overlaps) => panic!("{} overlaps", overlaps.len()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Small spaces, so that everything touches everything: equal overlaps are refused, all others
    /// answer like the scan on every single address.
    #[test]
    fn exhaustive_in_a_small_space(raw in prop::collection::vec((0_u32..600, 0_u32..80), 0..24)) {
        let base = 0xc0a8_0000_u32;
        let ranges: Vec<Range<u32>> = (0..).zip(&raw)
            .map(|(value, &(start, size))| {
                Range { start: base + start, end: base + start + size, value }
            })
            .collect();
        match Lpm::build(&ranges) {
            Err(overlaps) => {
                prop_assert!(has_equal_overlap(&ranges));
                for o in overlaps {
                    let (a, b) = (ranges[o.first], ranges[o.second]);
                    prop_assert!(a.end - a.start == b.end - b.start);
                    prop_assert!(a.start <= b.end && b.start <= a.end);
                }
            }
            Ok(table) => {
                prop_assert!(!has_equal_overlap(&ranges));
                for key in base - 2..base + 700 {
                    prop_assert_eq!(table.get(key), scan(&ranges, key));
                }
            }
        }
    }
}
