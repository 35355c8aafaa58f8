//! Site lookup: build and lookup of address tables of 1 k, 100 k and 1 M ranges, next to two
//! longest-prefix-match crates that hold the same answers as prefixes.
//!
//! Three shapes of table: `offices` are neighbouring networks with the range .1-.254, the usual
//! site document; `scattered` are ranges anywhere in IPv4, the worst case for locality; `v6` are
//! ranges inside of random /64 networks of one provider block. Probes are 75 % addresses inside of
//! ranges and 25 % between them, in random order, so that large tables miss the cache as they
//! would in service. `cargo bench -p ravelin-bench --bench lpm`.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use prefix_trie::PrefixMap;
use ravelin_policy::lpm::{AddressRange, AddressTable};
use treebitmap::IpLookupTable;

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];

/// A million ranges are fourteen million prefixes, which need gigabytes in the other crates.
const OTHERS_MAX: u32 = 100_000;

const PROBES: usize = 1 << 16;

/// splitmix64: the same tables and probes in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn low32(&mut self) -> u32 {
        u32::try_from(self.roll() >> 32).unwrap_or(0)
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Offices,
    Scattered,
    V6,
}

impl Shape {
    const ALL: [Self; 3] = [Self::Offices, Self::Scattered, Self::V6];

    fn name(self) -> &'static str {
        match self {
            Self::Offices => "offices",
            Self::Scattered => "scattered",
            Self::V6 => "v6",
        }
    }

    fn ranges(self, count: u32) -> Vec<(AddressRange, u32)> {
        let mut dice = Dice(u64::from(count));
        let mut ranges: Vec<(AddressRange, u32)> =
            (0..count).map(|value| (self.range(value, &mut dice), value)).collect();
        // Random starts may collide; equal overlaps are refused by the table.
        let start = |r: &AddressRange| match *r {
            AddressRange::V4 { start, end } => (u128::from(start), u128::from(end)),
            AddressRange::V6 { start, end } => (start, end),
        };
        ranges.sort_by_key(|(range, _)| start(range));
        let mut end_before = None;
        ranges.retain(|(range, _)| {
            let (first, last) = start(range);
            let keep = end_before.is_none_or(|end| first > end);
            if keep {
                end_before = Some(last);
            }
            keep
        });
        ranges
    }

    fn range(self, value: u32, dice: &mut Dice) -> AddressRange {
        match self {
            Self::Offices => {
                let net = (10 << 24) + (value << 8);
                AddressRange::V4 { start: net + 1, end: net + 254 }
            }
            Self::Scattered => {
                let start = dice.low32();
                AddressRange::V4 { start, end: start.saturating_add(dice.low32() & 0x3ff) }
            }
            Self::V6 => {
                let net = (0x2001_0db8_u128 << 96) | (u128::from(dice.low32()) << 64);
                let start = net + u128::from(dice.low32() >> 16);
                AddressRange::V6 { start, end: start + u128::from(dice.low32() >> 8) }
            }
        }
    }
}

fn probes(ranges: &[(AddressRange, u32)]) -> Vec<IpAddr> {
    let mut dice = Dice(99);
    let length = u64::try_from(ranges.len()).unwrap_or(1);
    (0..PROBES)
        .map(|i| {
            let index = usize::try_from(dice.roll() % length).unwrap_or(0);
            let inside = i % 4 != 0;
            match ranges[index].0 {
                AddressRange::V4 { start, end } => {
                    let offset = dice.low32() % (end - start + 1);
                    let key = if inside { start + offset } else { end.wrapping_add(1) };
                    IpAddr::V4(key.into())
                }
                AddressRange::V6 { start, end } => {
                    let offset = u128::from(dice.roll()) % (end - start + 1);
                    let key = if inside { start + offset } else { end + 1 };
                    IpAddr::V6(key.into())
                }
            }
        })
        .collect()
}

/// The same answers, as prefixes, in the other crates' types.
struct Others {
    v4: PrefixMap<ipnet::Ipv4Net, u32>,
    v6: PrefixMap<ipnet::Ipv6Net, u32>,
    bitmap_v4: IpLookupTable<Ipv4Addr, u32>,
    bitmap_v6: IpLookupTable<Ipv6Addr, u32>,
}

impl Others {
    fn build(ranges: &[(AddressRange, u32)]) -> Self {
        let mut all = Self {
            v4: PrefixMap::new(),
            v6: PrefixMap::new(),
            bitmap_v4: IpLookupTable::new(),
            bitmap_v6: IpLookupTable::new(),
        };
        for (range, value) in ranges {
            for net in range.prefixes() {
                match net {
                    IpNet::V4(net) => {
                        all.v4.insert(net, *value);
                        all.bitmap_v4.insert(net.addr(), u32::from(net.prefix_len()), *value);
                    }
                    IpNet::V6(net) => {
                        all.v6.insert(net, *value);
                        all.bitmap_v6.insert(net.addr(), u32::from(net.prefix_len()), *value);
                    }
                }
            }
        }
        all
    }

    fn prefix_trie(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(a) => self.v4.get_lpm(&a.into()).map(|(_, value)| *value),
            IpAddr::V6(a) => self.v6.get_lpm(&a.into()).map(|(_, value)| *value),
        }
    }

    fn treebitmap(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(a) => self.bitmap_v4.longest_match(a).map(|(_, _, value)| *value),
            IpAddr::V6(a) => self.bitmap_v6.longest_match(a).map(|(_, _, value)| *value),
        }
    }
}

/// Rounds over all probes.
const ROUNDS: usize = 15;
/// Lookups that are timed together: one takes about as long as reading the clock.
const GROUP: usize = 16;

/// Time of a lookup, as percentiles over groups of 16 different addresses, the clock's own cost
/// taken off.
struct Percentiles {
    /// Each group counts with the median of its rounds: its cache misses are in it, for all probes
    /// lie between two rounds of it; what else the machine did is not.
    steady: [f64; 2],
    /// Each round of each group counts.
    raw: [f64; 2],
}

/// The 50th and 99th.
fn percentiles(table: &AddressTable, probes: &[IpAddr]) -> Percentiles {
    let groups: Vec<&[IpAddr]> = probes.chunks_exact(GROUP).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); groups.len()];
    let mut empty = Vec::new();
    for _ in 0..ROUNDS {
        for (group, times) in groups.iter().zip(&mut times) {
            let begin = Instant::now();
            for address in *group {
                black_box(table.get(black_box(*address)));
            }
            times.push(begin.elapsed().as_nanos());
            let begin = Instant::now();
            empty.push(black_box(begin).elapsed().as_nanos());
        }
    }
    let middle = |values: &mut Vec<u128>| {
        values.sort_unstable();
        values[values.len() / 2]
    };
    let clock = middle(&mut empty);
    let shares = |mut values: Vec<u128>| {
        values.sort_unstable();
        [50, 99].map(|share| {
            let nanos = values[values.len() * share / 100].saturating_sub(clock);
            f64::from(u32::try_from(nanos).unwrap_or(u32::MAX)) / 16.0
        })
    };
    let steady = times.iter_mut().map(middle).collect();
    Percentiles { steady: shares(steady), raw: shares(times.concat()) }
}

fn lookup(criterion: &mut Criterion) {
    for shape in Shape::ALL {
        let mut group = criterion.benchmark_group(format!("lpm_lookup_{}", shape.name()));
        group.throughput(Throughput::Elements(1));
        for size in SIZES {
            let ranges = shape.ranges(size);
            let table = AddressTable::build(&ranges).expect("ranges are disjoint");
            let probes = probes(&ranges);
            let Percentiles { steady: [p50, p99], raw: [raw_p50, raw_p99] } =
                percentiles(&table, &probes);
            println!(
                "{} {size}: {} ranges, {:.1} MiB, lookup p50 {p50:.1} ns, p99 {p99:.1} ns (raw \
                 {raw_p50:.1}, {raw_p99:.1}; groups of {GROUP})",
                shape.name(),
                ranges.len(),
                table.memory_bytes() as f64 / f64::from(1 << 20)
            );
            let mut cycle = probes.iter().copied().cycle();
            group.bench_function(BenchmarkId::new("ravelin", size), |b| {
                b.iter(|| table.get(black_box(cycle.next().expect("endless"))));
            });
            if size > OTHERS_MAX {
                continue;
            }
            let others = Others::build(&ranges);
            for address in &probes {
                assert_eq!(table.get(*address), others.prefix_trie(*address));
                assert_eq!(table.get(*address), others.treebitmap(*address));
            }
            group.bench_function(BenchmarkId::new("prefix-trie", size), |b| {
                b.iter(|| others.prefix_trie(black_box(cycle.next().expect("endless"))));
            });
            group.bench_function(BenchmarkId::new("treebitmap", size), |b| {
                b.iter(|| others.treebitmap(black_box(cycle.next().expect("endless"))));
            });
        }
        group.finish();
    }
}

fn build(criterion: &mut Criterion) {
    for shape in Shape::ALL {
        let mut group = criterion.benchmark_group(format!("lpm_build_{}", shape.name()));
        group.sample_size(10);
        for size in SIZES {
            let ranges = shape.ranges(size);
            group.throughput(Throughput::Elements(u64::from(size)));
            group.bench_function(BenchmarkId::new("ravelin", size), |b| {
                b.iter_batched(
                    || (),
                    |()| AddressTable::build(&ranges).expect("ranges are disjoint"),
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

/// A whole document: YAML in, snapshot out.
fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile_document");
    group.sample_size(10);
    for sites in [1_000_u32, 100_000] {
        let document = document(sites);
        group.throughput(Throughput::Bytes(u64::try_from(document.len()).unwrap_or(0)));
        group.bench_function(BenchmarkId::new("sites", sites), |b| {
            b.iter(|| ravelin_policy::compile(&document, 1).expect("compiles"));
        });
    }
    group.finish();
}

fn document(sites: u32) -> String {
    use std::fmt::Write as _;
    let mut text = String::from(
        "node: bench\ndeployment: { mode: production }\nedge:\n  listeners:\n    - { id: a, realm: \
         access, transport: udp, bind: \"127.0.0.1:5060\" }\n  media:\n    - { realm: access, \
         address: 127.0.0.1, ports: 20000-29999 }\ntrunks:\n  - { id: pbx, realm: access, role: \
         customer, sources: [10.0.0.0/8] }\n  - { id: e, realm: access, role: emergency, targets: \
         [{ uri: \"sip:127.0.9.1\" }] }\nsites:\n",
    );
    for site in 0..sites {
        let net = Ipv4Addr::from((10 << 24) + (site << 8));
        let [a, b, c, _] = net.octets();
        let _ = writeln!(
            text,
            "  - site_name: \"Site {site}\"\n    realm: access\n    ip_range_start: {a}.{b}.{c}.1\n    \
             ip_range_end: {a}.{b}.{c}.254\n    emergency_trunk: e\n    psap_number: \"911\"\n    \
             elin: \"+1313{:07}\"\n    street_address: \"{site} Industrial Blvd\"\n    city: \
             Detroit\n    state: MI\n    postal_code: \"48201\"",
            site
        );
    }
    text
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = lookup, build, compile
}
criterion_main!(benches);
