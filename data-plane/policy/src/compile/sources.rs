//! Source addresses to trunks: the most specific entry of a realm wins.

use std::net::SocketAddr;

use ravelin_contract::config::Config;

use super::{Faults, Names, text};
use crate::{
    TrunkId,
    lpm::{AddressRange, AddressTable, RANGES_MAX},
};

/// Sources of one realm.
#[derive(Debug)]
pub(crate) struct SourceTable {
    /// Values are positions in `sets`.
    table: AddressTable,
    sets: Vec<SourceSet>,
}

/// All sources with the same prefix.
#[derive(Debug)]
struct SourceSet {
    /// With port first.
    entries: Vec<(Option<u16>, TrunkId)>,
    /// The next wider prefix that contains this one.
    wider: Option<u32>,
}

struct Entry {
    range: AddressRange,
    port: Option<u16>,
    trunk: TrunkId,
    path: String,
}

pub(super) fn build(
    config: &Config,
    names: &Names<'_>,
    realms: usize,
    faults: &mut Faults,
) -> Vec<SourceTable> {
    let mut by_realm: Vec<Vec<Entry>> = (0..realms).map(|_| Vec::new()).collect();
    for (index, raw) in (0_u16..).zip(&config.trunks) {
        let realm = names.realms.get(raw.realm.as_str());
        for (at, text) in raw.sources.iter().enumerate() {
            let path = format!("trunks[{index}].sources[{at}]");
            let Some(source) = faults.check(&path, text::source(text)) else { continue };
            if let Some(entries) = realm.and_then(|id| by_realm.get_mut(usize::from(id.0))) {
                let text::Source { range, port } = source;
                entries.push(Entry { range, port, trunk: TrunkId(index), path });
            }
        }
    }
    let trunk = |id: TrunkId| config.trunks.get(usize::from(id.0)).map_or("", |t| &t.id);
    by_realm.into_iter().map(|entries| SourceTable::new(entries, trunk, faults)).collect()
}

/// Widest first among those that start together, so that a containing prefix comes before.
fn order(range: AddressRange) -> (bool, u128, std::cmp::Reverse<u128>) {
    match range {
        AddressRange::V4 { start, end } => {
            (false, u128::from(start), std::cmp::Reverse(u128::from(end)))
        }
        AddressRange::V6 { start, end } => (true, start, std::cmp::Reverse(end)),
    }
}

fn contains(outer: AddressRange, inner: AddressRange) -> bool {
    let (outer, inner) = (order(outer), order(inner));
    outer.0 == inner.0 && outer.1 <= inner.1 && outer.2.0 >= inner.2.0
}

impl SourceTable {
    fn new<'c>(
        mut entries: Vec<Entry>,
        trunk: impl Fn(TrunkId) -> &'c str,
        faults: &mut Faults,
    ) -> Self {
        entries.sort_by_key(|entry| (order(entry.range), entry.port.is_none(), entry.port));
        let mut ranges: Vec<(AddressRange, u32)> = Vec::new();
        let mut sets: Vec<SourceSet> = Vec::new();
        // Prefixes that contain the current one, widest first. Prefixes nest or are disjoint.
        let mut open: Vec<(AddressRange, u32)> = Vec::new();
        for entry in entries {
            if let Some((range, _)) = ranges.last()
                && *range == entry.range
                && let Some(set) = sets.last_mut()
            {
                if let Some((_, other)) = set.entries.iter().find(|(port, _)| *port == entry.port) {
                    let reason = format!("the same source is already that of `{}`", trunk(*other));
                    faults.conflict(entry.path, reason);
                }
                set.entries.push((entry.port, entry.trunk));
                continue;
            }
            while open.last().is_some_and(|(outer, _)| !contains(*outer, entry.range)) {
                open.pop();
            }
            let index = u32::try_from(sets.len()).unwrap_or(u32::MAX);
            let wider = open.last().map(|(_, index)| *index);
            sets.push(SourceSet { entries: vec![(entry.port, entry.trunk)], wider });
            ranges.push((entry.range, index));
            open.push((entry.range, index));
        }
        if ranges.len() > RANGES_MAX {
            let reason = format!("{} sources in one realm; at most {RANGES_MAX}", ranges.len());
            faults.error("trunks", reason);
            ranges.clear();
        }
        let table = AddressTable::build(&ranges).unwrap_or_else(|_| {
            // Distinct prefixes of equal size do not overlap.
            AddressTable::empty()
        });
        Self { table, sets }
    }

    /// The most specific entry that contains the address and allows the port.
    pub(crate) fn find(&self, source: SocketAddr) -> Option<TrunkId> {
        self.first(source.ip(), |port| port.is_none_or(|port| port == source.port()))
    }

    /// The same where the port is not known: entries without port first, then any.
    pub(crate) fn find_any_port(&self, source: std::net::IpAddr) -> Option<TrunkId> {
        self.first(source, |port| port.is_none()).or_else(|| self.first(source, |_| true))
    }

    fn first(
        &self,
        source: std::net::IpAddr,
        port_fits: impl Fn(Option<u16>) -> bool,
    ) -> Option<TrunkId> {
        let mut next = self.table.get(source);
        while let Some(set) = next.and_then(|index| self.sets.get(index as usize)) {
            if let Some((_, trunk)) = set.entries.iter().find(|(port, _)| port_fits(*port)) {
                return Some(*trunk);
            }
            next = set.wider;
        }
        None
    }
}
