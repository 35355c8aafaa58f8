//! DTLS on the media port of a live stream, while its party shakes hands: octets of the fuzzer's, parts
//! of what the party said, changed or said again, and hellos of somebody else, from the party's address
//! and from others. An input says which end begins, whether the party is who it says, and what comes
//! when.
//!
//! - Nobody elsewhere is answered or changes anything.
//! - No hello of another client, from whatever address, keeps the party from its handshake, and none is
//!   answered with more octets than it has.
//! - Keys are there only if the certificate is the one that was named, and only if the party has the
//!   same ones; what is not under them does not pass.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ravelin_engine::{
    counters::Counters,
    ids::Seed,
    limits::Limits,
    media::{Anchor, MediaTable, Place, Remote, Security, Side, dtls::DtlsTerms, peering::Peering},
    port::{MediaPortId, ShardId, TxQueue},
    time::Instant,
};
use ravelin_policy::{Driver, MediaRange, RealmId};
use ravelin_srtp::{
    Keys, Sealer,
    dtls::{Association, Exported, Fingerprints, Identity, Role, State},
};

const REALMS: [RealmId; 2] = [RealmId(0), RealmId(1)];
const PARTY: ([u8; 4], u16) = ([127, 0, 1, 1], 7_000);
const FAR: ([u8; 4], u16) = ([127, 0, 2, 1], 7_000);
const STRANGERS: [([u8; 4], u16); 3] =
    [([127, 0, 1, 1], 7_001), ([127, 0, 1, 2], 7_000), ([127, 0, 2, 1], 7_000)];
/// Of one input: each may cost public-key work.
const STEPS_MAX: usize = 64;
/// What one datagram may be answered with: a flight, and one that is sent again.
const ANSWER_MAX_BYTES: usize = 16 * 1_150;
/// As long as a handshake may take, and as often as it may begin anew.
const TURNS: usize = 2_000;

/// Ours, the party's, somebody else's: made once.
pub type Identities = [Arc<Identity>; 3];

fn named(identity: &Identity) -> Fingerprints {
    let mut all = Fingerprints::default();
    assert!(all.add(identity.fingerprint().unwrap().to_string().as_bytes()));
    all
}

fn at((host, port): ([u8; 4], u16)) -> SocketAddr {
    SocketAddr::new(IpAddr::from(host), port)
}

fn range(realm: RealmId, host: [u8; 4]) -> MediaRange {
    let address = IpAddr::from(host);
    MediaRange {
        realm,
        address,
        advertise: address,
        first_port: 20_000,
        last_port: 20_003,
        driver: Driver::Auto,
        dscp: None,
    }
}

/// The stream, its party, and what is on its way between them.
struct Rig {
    table: MediaTable,
    anchor: Anchor,
    port: MediaPortId,
    party: Association,
    /// The party's certificate is the one that was named.
    honest: bool,
    keys: Option<Exported>,
    to_us: VecDeque<Vec<u8>>,
    to_party: VecDeque<Vec<u8>>,
    /// The party's datagrams so far.
    said: Vec<Vec<u8>>,
    tx: TxQueue,
    counters: Counters,
    now: Instant,
    /// Something came that the party might have said and did not.
    forged: bool,
}

impl Rig {
    fn new([own, theirs, other]: &Identities, ours: Role, honest: bool) -> Self {
        let ranges = [range(REALMS[0], [127, 0, 0, 10]), range(REALMS[1], [127, 0, 0, 20])];
        let mut table = MediaTable::new(&ranges, ShardId(0), 1, Limits::default(), &Seed([3; 32]));
        for id in (0..).take(table.specs().len()) {
            table.port_opened(MediaPortId(id));
        }
        table.set_dtls_identity(own.clone());
        let (now, mut counters) = (Instant::from_millis(1_000), Counters::default());
        let [caller, callee] = REALMS.map(|realm| Place { realm, v6: false });
        let drawn = table.allocate(now, caller, callee, 1, None, &mut counters);
        let mut anchor = drawn.expect("ports");
        for (side, party) in [(Side::Caller, PARTY), (Side::Callee, FAR)] {
            let (rtp, both) = (Some(at(party)), true);
            let remote =
                Remote { rtp, rtcp_mux: both, sends: both, receives: both, ..Remote::NONE };
            anchor.stage(side, 0, remote);
        }
        let fingerprints = named(if honest { theirs } else { other });
        let dtls = DtlsTerms { role: ours, fingerprints, tls_id: None, own_tls_id: None };
        anchor.stage_peering(Side::Caller, 0, Peering { ice: None, dtls: Some(dtls) });
        anchor.stage_security(Side::Caller, 0, Security::Awaiting);
        table.commit(now, &mut anchor);
        let role = if ours == Role::Client { Role::Server } else { Role::Client };
        let party = Association::new(theirs.clone(), role, named(own));
        let port = table.port(&anchor, Side::Caller, 0).expect("a port");
        Self {
            table,
            anchor,
            port,
            party,
            honest,
            keys: None,
            to_us: VecDeque::new(),
            to_party: VecDeque::new(),
            said: Vec::new(),
            tx: TxQueue::default(),
            counters,
            now,
            forged: false,
        }
    }

    fn state(&self) -> State {
        self.table.dtls_state(&self.anchor, Side::Caller, 0).expect("DTLS")
    }

    /// Time passes, and what is due is done at either end.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.tx.clear();
        self.table.expire(self.now, &mut self.tx);
        self.to_party.extend(self.tx.iter().map(|tx| tx.bytes.to_vec()));
        let mut sent = Vec::new();
        self.party.start(self.now.0, &mut |datagram| sent.push(datagram.to_vec()));
        let keys = self.party.expire(self.now.0, &mut |datagram| sent.push(datagram.to_vec()));
        assert!(keys.is_none(), "keys come of datagrams");
        self.says(sent);
    }

    fn says(&mut self, sent: Vec<Vec<u8>>) {
        self.said.extend(sent.iter().cloned());
        self.said.truncate(STEPS_MAX);
        self.to_us.extend(sent);
    }

    /// A datagram comes to us; how many octets it was answered with.
    fn comes(&mut self, from: SocketAddr, bytes: &[u8]) -> (bool, usize) {
        self.tx.clear();
        let Self { table, port, tx, counters, now, .. } = self;
        let taken = table.relay(*now, *port, from, bytes, tx, counters).is_ok();
        let mut octets = 0;
        for tx in self.tx.iter() {
            octets += tx.bytes.len();
            self.to_party.push_back(tx.bytes.to_vec());
        }
        assert!(octets <= ANSWER_MAX_BYTES, "{octets} octets");
        if !self.honest {
            assert_ne!(self.state(), State::Done, "keys with somebody else");
        }
        (taken, octets)
    }

    /// One datagram that is on its way arrives.
    fn carry(&mut self, to_us: bool) {
        if to_us {
            if let Some(datagram) = self.to_us.pop_front() {
                self.comes(at(PARTY), &datagram);
            }
        } else if let Some(datagram) = self.to_party.pop_front() {
            let mut sent = Vec::new();
            let mut send = |datagram: &[u8]| sent.push(datagram.to_vec());
            if let Ok(Some(keys)) = self.party.receive(self.now.0, &datagram, &mut send) {
                self.keys = Some(keys);
            }
            self.says(sent);
        }
    }

    /// Of somebody who is elsewhere.
    fn stranger(&mut self, which: u8, bytes: &[u8]) {
        let before = self.state();
        let from = at(STRANGERS[usize::from(which) % STRANGERS.len()]);
        assert_eq!(self.comes(from, bytes), (false, 0), "a stranger is answered");
        assert_eq!(self.state(), before);
    }

    /// A hello of somebody else, from the party's address.
    fn other_hello(&mut self, random: u8, sequence: u8, more: &[u8]) {
        let hello = hello(random, sequence, more);
        let before = self.state();
        let (_, octets) = self.comes(at(PARTY), &hello);
        assert!(octets <= hello.len(), "{octets} octets for {}", hello.len());
        assert_eq!(self.state(), before, "of a hello without a cookie");
    }

    /// The party ends what it began; it must if nobody spoke in its name.
    fn end(&mut self) {
        for _ in 0..TURNS {
            if self.keys.is_some() && self.state() == State::Done {
                break;
            }
            if matches!(self.state(), State::Failed(_)) {
                break;
            }
            self.pass(Duration::from_millis(25));
            self.carry(true);
            self.carry(false);
        }
        let state = self.state();
        assert!(self.honest || state != State::Done, "keys with somebody else");
        if self.honest && !self.forged {
            assert_eq!(state, State::Done, "kept from its handshake");
        }
        self.media();
    }

    /// What is under the party's keys passes, if there are keys, and nothing else does.
    fn media(&mut self) {
        let clear = [0x80, 0, 0, 1, 0, 0, 0, 160, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9];
        assert_eq!(self.comes(at(PARTY), &clear), (false, 0), "in the clear");
        let Some(keys) = self.keys.clone() else { return };
        let mut sealer = Sealer::new(&Keys::single(keys.local));
        let mut packet = clear.to_vec();
        packet.resize(clear.len() + sealer.rtp_overhead(), 0);
        let length = sealer.seal_rtp(&mut packet, clear.len()).expect("sealed");
        let passed = self.comes(at(PARTY), &packet[..length]).0;
        assert_eq!(passed, self.state() == State::Done, "{:?}", self.state());
    }
}

/// A ClientHello that is all right but for its cookie.
fn hello(random: u8, sequence: u8, cookie: &[u8]) -> Vec<u8> {
    const EXTENSIONS: &[u8] = &[
        0, 14, 0, 5, 0, 2, 0, 1, 0, 0, 23, 0, 0, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3,
    ];
    let cookie = &cookie[..cookie.len().min(64)];
    let mut body = vec![0xfe, 0xfd];
    body.extend([random; 32]);
    body.extend([0, cookie.len() as u8]);
    body.extend(cookie);
    body.extend([0, 2, 0xc0, 0x2b, 1, 0, 0, EXTENSIONS.len() as u8]);
    body.extend(EXTENSIONS);
    let length = &(body.len() as u32).to_be_bytes()[1..];
    let mut message = vec![1];
    message.extend(length);
    message.extend([0, sequence, 0, 0, 0]);
    message.extend(length);
    message.extend(&body);
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, sequence];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

/// Some octets of `datagram` are others: pairs of place and value.
fn changed(mut datagram: Vec<u8>, by: &[u8]) -> Vec<u8> {
    for pair in by.chunks_exact(2) {
        let place = usize::from(pair[0]) % datagram.len().max(1);
        if let Some(octet) = datagram.get_mut(place) {
            *octet ^= pair[1];
        }
    }
    datagram
}

/// One input.
pub fn run(identities: &Identities, data: &[u8]) {
    let Some((flags, mut rest)) = data.split_first() else { return };
    let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
    let mut rig = Rig::new(identities, role, flags & 2 == 0);
    rig.pass(Duration::from_millis(1));
    for _ in 0..STEPS_MAX {
        let [selector, length, tail @ ..] = rest else { break };
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let which = selector >> 3;
        rig.pass(Duration::from_millis(5));
        let earlier = rig.said.get(usize::from(which) % rig.said.len().max(1)).cloned();
        match selector & 7 {
            0 => rig.carry(true),
            1 => rig.carry(false),
            2 => rig.stranger(which, bytes),
            3 => {
                rig.forged = true;
                rig.comes(at(PARTY), bytes);
            }
            4 => {
                let Some(datagram) = earlier else { continue };
                rig.forged = true;
                rig.comes(at(PARTY), &changed(datagram, bytes));
            }
            5 => rig.other_hello(which, length & 3, bytes),
            // The party's own words again, from where it is or from elsewhere.
            6 => {
                let Some(datagram) = earlier else { continue };
                rig.stranger(which, &datagram);
                if length & 1 == 1 {
                    rig.comes(at(PARTY), &datagram);
                }
            }
            _ => rig.pass(Duration::from_millis(u64::from(*length) * 4)),
        }
    }
    // An input that only waits leaves the party its time.
    if rig.now < Instant::from_millis(20_000) {
        rig.end();
    } else {
        rig.media();
    }
}
