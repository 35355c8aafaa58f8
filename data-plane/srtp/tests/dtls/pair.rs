//! A client and a server with a network between them that does what a seed says.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ravelin_srtp::dtls::{Association, Exported, Fingerprints, Identity, Role};

pub(crate) const MILLISECOND: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MILLISECOND;
const DELAY: u64 = 10 * MILLISECOND;

pub(crate) struct Pair {
    pub(crate) identities: [Arc<Identity>; 2],
    pub(crate) client: Association,
    pub(crate) server: Association,
    pub(crate) exported: (Option<Exported>, Option<Exported>),
    /// Datagrams that the two sent.
    pub(crate) sent: (usize, usize),
    /// The first one that the client sent.
    pub(crate) hello: Vec<u8>,
    /// All that the server sent.
    pub(crate) from_server: Vec<Vec<u8>>,
    pub(crate) from_client: Vec<Vec<u8>>,
    pub(crate) now: u64,
    pub(crate) longest: Duration,
    /// By time of arrival and number: to the client or not, and what.
    network: BTreeMap<(u64, u64), (bool, Vec<u8>)>,
    count: u64,
    random: u64,
    lost_percent: u64,
    /// How often a datagram may be lost that is sent again and again.
    lost_most: u32,
    /// By direction and length, which repetitions share.
    lost: BTreeMap<(bool, usize), u32>,
}

pub(crate) fn named(identity: &Identity) -> Fingerprints {
    let mut fingerprints = Fingerprints::default();
    assert!(fingerprints.add(identity.fingerprint().unwrap().to_string().as_bytes()));
    fingerprints
}

impl Pair {
    pub(crate) fn new() -> Self {
        let origin = Instant::now();
        Self::between([(); 2].map(|()| Arc::new(Identity::generate(origin).unwrap())))
    }

    pub(crate) fn between(identities: [Arc<Identity>; 2]) -> Self {
        let [client, server] = &identities;
        Self {
            client: Association::new(client.clone(), Role::Client, named(server)),
            server: Association::new(server.clone(), Role::Server, named(client)),
            identities,
            exported: (None, None),
            sent: (0, 0),
            hello: Vec::new(),
            from_server: Vec::new(),
            from_client: Vec::new(),
            now: SECOND,
            longest: Duration::ZERO,
            network: BTreeMap::new(),
            count: 0,
            random: 0,
            lost_percent: 0,
            lost_most: u32::MAX,
            lost: BTreeMap::new(),
        }
    }

    /// What one of them expects of the other is replaced, before it has begun.
    pub(crate) fn expect(&mut self, whose: Role, expected: Fingerprints) {
        let [client, server] = &self.identities;
        match whose {
            Role::Client => self.client = Association::new(client.clone(), whose, expected),
            Role::Server => self.server = Association::new(server.clone(), whose, expected),
        }
    }

    /// From now on datagrams are lost, doubled and delayed by chance.
    pub(crate) fn disturb(&mut self, seed: u64, lost_percent: u64) {
        self.random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        self.lost_percent = lost_percent;
    }

    /// Chance ends here: of a datagram and its repetitions no more than `most` are lost.
    pub(crate) fn lose_at_most(&mut self, most: u32) {
        self.lost_most = most;
    }

    fn loses(&mut self, to_client: bool, length: usize) -> bool {
        let by_chance = self.chance() < self.lost_percent;
        let lost = self.lost.entry((to_client, length)).or_default();
        let loses = by_chance && *lost < self.lost_most;
        *lost += u32::from(loses);
        loses
    }

    fn chance(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100
    }

    /// Puts a datagram into the network.
    pub(crate) fn carry(&mut self, to_client: bool, datagram: Vec<u8>) {
        let copies = if self.random == 0 {
            1
        } else if self.loses(to_client, datagram.len()) {
            0
        } else if self.chance() < 10 {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let more = if self.random == 0 { 0 } else { self.chance() % 4 * DELAY };
            self.count += 1;
            let when = (self.now + DELAY + more, self.count);
            self.network.insert(when, (to_client, datagram.clone()));
        }
    }

    pub(crate) fn start(&mut self) {
        let mut out = Vec::new();
        self.client.start(self.now, &mut |datagram| out.push(datagram.to_vec()));
        self.sent_by(true, out);
    }

    fn sent_by(&mut self, client: bool, out: Vec<Vec<u8>>) {
        for datagram in out {
            if client {
                if self.hello.is_empty() {
                    self.hello.clone_from(&datagram);
                }
                self.sent.0 += 1;
                self.from_client.push(datagram.clone());
            } else {
                self.sent.1 += 1;
                self.from_server.push(datagram.clone());
            }
            self.carry(!client, datagram);
        }
    }

    /// The next event, if there is one before `until`.
    pub(crate) fn step(&mut self, until: u64) -> bool {
        let arrival = self.network.first_key_value().map(|((when, _), _)| *when);
        let timer = [self.client.deadline(), self.server.deadline()].into_iter().flatten().min();
        let Some(next) = [arrival, timer].into_iter().flatten().min() else { return false };
        if next > until {
            return false;
        }
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let (_, (to_client, datagram)) = self.network.pop_first().unwrap();
            self.deliver(to_client, &datagram);
        } else {
            for client in [true, false] {
                let side = if client { &mut self.client } else { &mut self.server };
                let mut out = Vec::new();
                let keys = side.expire(self.now, &mut |datagram| out.push(datagram.to_vec()));
                assert!(keys.is_none(), "keys come from datagrams");
                self.sent_by(client, out);
            }
        }
        true
    }

    pub(crate) fn deliver(&mut self, to_client: bool, datagram: &[u8]) {
        let side = if to_client { &mut self.client } else { &mut self.server };
        let mut out = Vec::new();
        let started = Instant::now();
        let result = side.receive(self.now, datagram, &mut |sent| out.push(sent.to_vec()));
        self.longest = self.longest.max(started.elapsed());
        self.sent_by(to_client, out);
        if let Ok(Some(keys)) = result {
            let slot = if to_client { &mut self.exported.0 } else { &mut self.exported.1 };
            assert!(slot.is_none(), "keys come once");
            *slot = Some(keys);
        }
    }

    pub(crate) fn run(&mut self, time: u64) {
        self.start();
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    pub(crate) fn keys(&self) -> (Exported, Exported) {
        let (client, server) = self.exported.clone();
        (client.expect("the client has keys"), server.expect("the server has keys"))
    }

    /// The certificate in DER, cut out of the server's first flight of a handshake.
    pub(crate) fn certificate_of_server(&self) -> Vec<u8> {
        let mut other = Self::between(self.identities.clone());
        other.run(SECOND);
        let flight = other.from_server.concat();
        // A self-signed certificate begins with 30 82, 30, version 3.
        let start = (0..flight.len())
            .find(|&at| {
                flight[at..].starts_with(&[0x30, 0x82])
                    && flight[at + 4..].starts_with(&[0x30])
                    && flight[at + 6..].windows(5).take(3).any(|w| w == [0xa0, 3, 2, 1, 2])
            })
            .or_else(|| {
                (0..flight.len()).find(|&at| {
                    flight[at..].starts_with(&[0x30, 0x81])
                        && flight[at + 3..].windows(5).take(4).any(|w| w == [0xa0, 3, 2, 1, 2])
                })
            })
            .expect("a certificate in the flight");
        let length = match flight[start + 1] {
            0x82 => 4 + usize::from(u16::from_be_bytes([flight[start + 2], flight[start + 3]])),
            _ => 3 + usize::from(flight[start + 2]),
        };
        flight[start..start + length].to_vec()
    }
}
