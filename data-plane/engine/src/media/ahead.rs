//! Reading ahead: what the packets of a turn need is scattered over more memory than is in a cache, and
//! each would wait for it in turn. Read for many packets at once, the waits are one.

use std::hint::black_box;

use super::{MediaTable, endpoint::Endpoint, shield::Shield};
use crate::port::MediaPortId;

impl MediaTable {
    /// Reads what packets that came in at these ports will need. Changes nothing.
    pub fn read_ahead(&self, ports: &[MediaPortId]) {
        let endpoint = |pair: u32| self.endpoints.get(pair as usize);
        let mut read = 0;
        let from = || ports.iter().filter_map(|port| endpoint(port.0 / 2));
        // No step waits for another packet's: only for what the step before has read of its own.
        for from in from() {
            read ^= from.read_ahead();
        }
        for to in from().filter_map(|from| endpoint(from.other)) {
            read ^= to.read_ahead();
        }
        for from in from() {
            read ^= from.shield.as_deref().map_or(0, Shield::read_ahead_to_open);
            let to = endpoint(from.other).and_then(|to| to.shield.as_deref());
            read ^= to.map_or(0, Shield::read_ahead_to_seal);
        }
        black_box(read);
    }
}

impl Endpoint {
    fn read_ahead(&self) -> u64 {
        u64::from(self.other) ^ self.gate.read_ahead() ^ self.quality.read_ahead()
    }
}
