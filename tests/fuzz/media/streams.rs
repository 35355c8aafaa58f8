//! Datagrams on the media ports of three live streams: plain RTP, SRTP that we open, SRTP that passes
//! end to end. An input is a row of datagrams, each with the port that it arrives on and who sent it.
//! Nobody but the party may move a packet or change anything, and what the fuzzer makes up passes no
//! SRTP key; after all of it the parties' own packets pass as before.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use ravelin_engine::{
    counters::Counters,
    ids::Seed,
    limits::Limits,
    media::{Anchor, MediaTable, Place, Remote, Security, Side},
    port::{Egress, MediaPortId, ShardId, TxQueue},
    time::Instant,
};
use ravelin_policy::{Driver, MediaRange, RealmId};
use ravelin_srtp::{Keying, Keys, MasterKey, Sealer, Suite};

const PAIRS: u16 = 4;
const REALMS: [RealmId; 2] = [RealmId(0), RealmId(1)];
/// One call for each kind of stream.
const KINDS: [Kind; 3] = [Kind::Plain, Kind::Keyed, Kind::Passed];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// The caller speaks SRTP with us, the callee RTP.
    Keyed,
    Passed,
}

struct Call {
    kind: Kind,
    anchor: Anchor,
    /// Caller and callee.
    parties: [SocketAddr; 2],
    /// What the caller seals with.
    sealer: Sealer,
    sequence: u16,
}

struct Rig {
    table: MediaTable,
    calls: Vec<Call>,
    tx: TxQueue,
    counters: Counters,
    now: Instant,
}

fn range(realm: RealmId, host: [u8; 4], first_port: u16) -> MediaRange {
    let address = IpAddr::from(host);
    MediaRange {
        realm,
        address,
        advertise: address,
        first_port,
        last_port: first_port + PAIRS * 2 - 1,
        driver: Driver::Auto,
        dscp: None,
    }
}

fn key(mark: u8) -> Keys {
    let suite = Suite::AesCm128HmacSha1_80;
    Keys::single(MasterKey::new(suite, &vec![mark; suite.keying_bytes()]).expect("its length"))
}

impl Rig {
    fn new() -> Self {
        let ranges =
            [range(REALMS[0], [127, 0, 0, 10], 20_000), range(REALMS[1], [127, 0, 0, 20], 30_000)];
        let mut table = MediaTable::new(&ranges, ShardId(0), 1, Limits::default(), &Seed([3; 32]));
        for id in (0..).take(table.specs().len()) {
            table.port_opened(MediaPortId(id));
        }
        let mut rig = Self {
            table,
            calls: Vec::new(),
            tx: TxQueue::default(),
            counters: Counters::default(),
            now: Instant::from_millis(1_000),
        };
        for (number, kind) in (1..).zip(KINDS) {
            rig.begin(number, kind);
        }
        rig
    }

    fn begin(&mut self, number: u8, kind: Kind) {
        let [caller, callee] = REALMS.map(|realm| Place { realm, v6: false });
        let drawn = self.table.allocate(self.now, caller, callee, 1, None, &mut self.counters);
        let mut anchor = drawn.expect("ports for every call");
        let parties = [[127, 0, 1, number], [127, 0, 2, number]]
            .map(|host| SocketAddr::new(IpAddr::from(host), 7_000));
        for (side, rtp) in [Side::Caller, Side::Callee].into_iter().zip(parties) {
            let remote = Remote {
                rtp: Some(rtp),
                rtcp: Some(SocketAddr::new(rtp.ip(), rtp.port() + 1)),
                sends: true,
                receives: true,
                encrypted: kind == Kind::Passed,
                ..Remote::NONE
            };
            anchor.stage(side, 0, remote);
        }
        if kind == Kind::Keyed {
            let keying = Keying { ours: key(1), theirs: key(2) };
            anchor.stage_security(Side::Caller, 0, Security::Keyed(Box::new(keying)));
        }
        self.table.commit(self.now, &mut anchor);
        self.calls.push(Call { kind, anchor, parties, sealer: Sealer::new(&key(2)), sequence: 1 });
    }

    /// One made-up datagram.
    fn throw(&mut self, selector: u8, bytes: &[u8]) {
        let Self { table, calls, tx, counters, now } = self;
        let call = &calls[usize::from(selector & 3) % calls.len()];
        let (side, party, other) = if selector & 4 == 0 {
            (Side::Caller, call.parties[0], call.parties[1])
        } else {
            (Side::Callee, call.parties[1], call.parties[0])
        };
        let rtcp = u32::from(selector >> 3 & 1);
        let by_party = selector & 0x30 == 0;
        let source = match selector >> 4 & 3 {
            0 => SocketAddr::new(party.ip(), party.port() + u16::from(selector >> 3 & 1)),
            1 => SocketAddr::new(party.ip(), party.port() + 4),
            2 => SocketAddr::new(IpAddr::from([192, 0, 2, 66]), party.port()),
            _ => other,
        };
        *now = Instant(now.0 + u64::from(selector >> 6) * 10_000_000);
        let port = table.port(&call.anchor, side, 0).expect("a port");
        let before = (table.remote(&call.anchor, side, 0), table.last_packet(&call.anchor, side));
        let sent = table.count(&call.anchor, side);
        tx.clear();
        let taken = table.relay(*now, MediaPortId(port.0 + rtcp), source, bytes, tx, counters);
        let after = table.remote(&call.anchor, side, 0);
        assert_eq!(before.0, after, "no datagram changes what was agreed");
        if !by_party {
            assert!(taken.is_err() && tx.is_empty(), "a stranger's datagram went on");
            assert_eq!(before.1, table.last_packet(&call.anchor, side));
            let count = table.count(&call.anchor, side);
            assert_eq!((sent.packets, sent.bytes), (count.packets, count.bytes));
            return;
        }
        if call.kind == Kind::Keyed && side == Side::Caller {
            assert!(taken.is_err() && tx.is_empty(), "opened without the key");
            return;
        }
        assert!(tx.len() <= 1);
        let back = if side == Side::Caller { Side::Callee } else { Side::Caller };
        for out in tx.iter() {
            // RTCP goes to the RTCP port of a party that does not multiplex, wherever it came in. On
            // the RTP port only what is plainly RTCP is; handshakes stay on the port they came to.
            let kinds = if rtcp == 1 { 192..=223 } else { 200..=207 };
            let handshake = bytes.first().is_some_and(|first| (20..64).contains(first));
            let odd = match handshake {
                true => rtcp == 1,
                false => bytes.get(1).is_some_and(|kind| kinds.contains(kind)),
            };
            let expected = table.port(&call.anchor, back, 0).expect("a port");
            let to = SocketAddr::new(other.ip(), other.port() + u16::from(odd));
            let egress = Egress::Media { port: MediaPortId(expected.0 + u32::from(odd)), to };
            assert_eq!(out.egress, egress);
            let sealed = call.kind == Kind::Keyed;
            assert!(sealed || out.bytes == bytes, "relayed octet by octet");
        }
    }

    /// The parties go on as if nothing had happened.
    fn parties_are_heard(&mut self) {
        let Self { table, calls, tx, counters, now } = self;
        for call in calls {
            let [high, low] = call.sequence.to_be_bytes();
            let plain = [0x80, 0, high, low, 0, 0, 0, 160, 0, 0, 0, 9, 1, 2, 3, 4];
            let mut packet = [0; 64];
            packet[..plain.len()].copy_from_slice(&plain);
            let mut length = plain.len();
            if call.kind == Kind::Keyed {
                length = call.sealer.seal_rtp(&mut packet, length).expect("sealed");
            }
            call.sequence += 1;
            let port = table.port(&call.anchor, Side::Caller, 0).expect("a port");
            tx.clear();
            let taken = table.relay(*now, port, call.parties[0], &packet[..length], tx, counters);
            assert_eq!(taken, Ok(()), "the party's own packet");
            assert_eq!(tx.len(), 1);
            let bytes = tx.iter().next().expect("one").bytes;
            if call.kind == Kind::Passed {
                assert_eq!(bytes, &packet[..length]);
            } else {
                assert_eq!(bytes, &plain[..]);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut rig = Rig::new();
    rig.parties_are_heard();
    let mut rest = data;
    while let [selector, length, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rig.throw(*selector, bytes);
        rest = tail;
    }
    rig.parties_are_heard();
});
