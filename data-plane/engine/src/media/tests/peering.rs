//! ICE through the media table: who is believed, and where media goes.

mod crowd;
mod dtls;

use ravelin_srtp::integrity::IntegrityKey;
use ravelin_wire::stun::{Class, Message, Writer, attribute};

pub(super) use self::dtls::Secure;
use super::*;
use crate::media::{
    Totals,
    ice::{IceLocal, IceRemote, IceTerms, candidate_priority},
    peering::Peering,
};

pub(super) const SIGNALLED: &str = "192.0.2.1:4000";
pub(super) const ELSEWHERE: &str = "198.51.100.7:50000";
pub(super) const STRANGER: &str = "203.0.113.9:999";
const FAR: &str = "192.0.2.99:7000";

const THEIR_UFRAG: &[u8] = b"h6vY";
const THEIR_PWD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

fn theirs() -> IceRemote {
    IceRemote::parse(THEIR_UFRAG, THEIR_PWD).unwrap()
}

/// What a check carries; what is not named is as it should be.
#[derive(Clone)]
struct Probe {
    local: IceLocal,
    theirs: Vec<u8>,
    password: Vec<u8>,
    nominate: bool,
    priority: u32,
    controlled: bool,
    unknown: bool,
    integrity: bool,
}

impl Probe {
    fn of(local: IceLocal) -> Self {
        Self {
            local,
            theirs: THEIR_UFRAG.to_vec(),
            password: local.pwd.to_vec(),
            nominate: true,
            priority: 1_000,
            controlled: false,
            unknown: false,
            integrity: true,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let username = [&self.local.ufrag[..], b":", &self.theirs].concat();
        let role =
            if self.controlled { attribute::ICE_CONTROLLED } else { attribute::ICE_CONTROLLING };
        let mut writer = Writer::binding(&mut out, Class::Request, [5; 12])
            .attribute(attribute::USERNAME, &username)
            .attribute(attribute::PRIORITY, &self.priority.to_be_bytes())
            .attribute(role, &[1; 8]);
        if self.nominate {
            writer = writer.attribute(attribute::USE_CANDIDATE, b"");
        }
        if self.unknown {
            writer = writer.attribute(0x7abc, b"?");
        }
        if self.integrity {
            let key = IntegrityKey::new(&self.password);
            writer = writer.integrity(|covered| key.tag(&[covered]));
        }
        writer.finish();
        out
    }
}

/// The caller's leg uses ICE, the callee's is plain.
pub(super) struct Call {
    pub(super) rig: Rig,
    pub(super) anchor: Anchor,
    pub(super) local: IceLocal,
    /// Towards the caller.
    port: MediaPortId,
    /// Towards the callee.
    far: MediaPortId,
    /// The caller's RTCP shares the port of its RTP.
    mux: bool,
}

impl Call {
    pub(super) fn with_ice() -> Self {
        let mut call = Self::plain();
        call.local =
            call.rig.table.ice_local(&call.anchor, Side::Caller, 0, Some(&theirs())).unwrap();
        call.agree(Some(theirs()));
        call
    }

    fn plain() -> Self {
        let mut rig = Rig::new(table(8, Limits::default()));
        rig.now = Instant::from_millis(10_000);
        let anchor = rig.allocate(rig.now).unwrap();
        let (port, far) = (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0));
        let local = IceLocal { ufrag: [b'a'; 8], pwd: [b'b'; 24] };
        let mut call = Self { rig, anchor, local, port, far, mux: false };
        call.signal();
        call
    }

    fn signal(&mut self) {
        let caller = Remote { rtcp_mux: self.mux, ..remote(addr(SIGNALLED)) };
        self.anchor.stage(Side::Caller, 0, caller);
        self.anchor.stage(Side::Callee, 0, remote(addr(FAR)));
        self.rig.table.commit(self.rig.now, &mut self.anchor);
    }

    fn agree(&mut self, remote: Option<IceRemote>) {
        let ice = Some(IceTerms { local: self.local, remote });
        self.anchor.stage_peering(Side::Caller, 0, Peering { ice, dtls: None });
        self.signal();
    }

    /// What is sent back, and what became of the datagram.
    fn take(&mut self, source: &str, bytes: &[u8]) -> (Vec<Vec<u8>>, Result<(), DropReason>) {
        let rig = &mut self.rig;
        rig.tx.clear();
        let taken = rig.table.relay(
            rig.now,
            self.port,
            addr(source),
            bytes,
            &mut rig.tx,
            &mut rig.counters,
        );
        let sent = rig.tx.iter().map(|tx| {
            assert_eq!(tx.egress, Egress::Media { port: self.port, to: addr(source) });
            tx.bytes.to_vec()
        });
        (sent.collect(), taken)
    }

    fn probe(&mut self, source: &str, probe: &Probe) -> (u16, Result<(), DropReason>) {
        let request = probe.bytes();
        let (sent, taken) = self.take(source, &request);
        let Some(answer) = sent.first() else { return (0, taken) };
        assert_eq!(sent.len(), 1);
        let answer = Message::parse(answer).unwrap();
        assert_eq!(answer.fingerprint_ok(), Some(true));
        assert_eq!(answer.transaction, [5; 12]);
        if answer.class == Class::Success {
            let key = IntegrityKey::new(&self.local.pwd);
            let integrity = answer.integrity().unwrap();
            assert!(key.verifies(&[&integrity.head, integrity.covered], integrity.tag));
            return (200, taken);
        }
        let code = answer.first(attribute::ERROR_CODE).unwrap();
        (u16::from(code[2]) * 100 + u16::from(code[3]), taken)
    }

    pub(super) fn nominate(&mut self, source: &str) {
        assert_eq!(self.probe(source, &Probe::of(self.local)), (200, Ok(())));
    }

    /// Whether RTP from `source` reaches the callee.
    pub(super) fn hears(&mut self, source: &str) -> bool {
        let sent = self.rig.relay(self.port, addr(source), &rtp_packet(7));
        if let Ok((_, to)) = sent {
            assert_eq!(to, addr(FAR));
        }
        sent.is_ok()
    }

    /// Where RTP of the callee goes.
    pub(super) fn reaches(&mut self) -> Option<SocketAddr> {
        self.rig.relay(self.far, addr(FAR), &rtp_packet(8)).ok().map(|(_, to)| to)
    }

    /// Nothing is sent for a while.
    pub(super) fn is_silent(&mut self) -> bool {
        self.rig.tx.clear();
        self.wait(Duration::from_secs(5));
        self.rig.tx.is_empty()
    }

    fn wait(&mut self, time: Duration) {
        let until = self.rig.now + time;
        while let Some(due) = self.rig.table.next_deadline().filter(|due| *due <= until) {
            self.rig.now = self.rig.now.max(due);
            self.rig.table.expire(self.rig.now, &mut self.rig.tx);
        }
        self.rig.now = until;
    }
}

/// RFC 8839 5.4: a ufrag of 4 to 256 characters, a password of 22 to 256.
#[test]
fn credentials_are_bounded() {
    for (ufrag, pwd, sound) in [
        (4, 22, true),
        (3, 22, false),
        (4, 21, false),
        (256, 256, true),
        (257, 22, false),
        (4, 257, false),
    ] {
        let parsed = IceRemote::parse(&vec![b'u'; ufrag], &vec![b'p'; pwd]);
        assert_eq!(parsed.is_some(), sound, "{ufrag} {pwd}");
    }
}

#[test]
fn media_passes_on_the_nominated_pair_and_on_no_other() {
    let mut call = Call::with_ice();
    assert!(!call.hears(SIGNALLED), "no pair is valid yet");
    assert_eq!(call.reaches(), None);
    // A check that does not nominate is answered, and nothing more.
    let probe = Probe { nominate: false, ..Probe::of(call.local) };
    assert_eq!(call.probe(ELSEWHERE, &probe), (200, Ok(())));
    assert_eq!(call.reaches(), None);
    call.nominate(ELSEWHERE);
    assert!(call.hears(ELSEWHERE) && !call.hears(SIGNALLED) && !call.hears(STRANGER));
    assert_eq!(call.reaches(), Some(addr(ELSEWHERE)));
    // An offer or answer that leaves the credentials as they are leaves the pair as it is.
    call.agree(Some(theirs()));
    assert!(call.hears(ELSEWHERE) && !call.hears(SIGNALLED));
    assert_eq!(call.reaches(), Some(addr(ELSEWHERE)));
}

#[test]
fn the_answer_names_the_source() {
    let mut call = Call::with_ice();
    let (sent, _) = call.take(ELSEWHERE, &Probe::of(call.local).bytes());
    let answer = Message::parse(&sent[0]).unwrap();
    let mapped = answer.first(attribute::XOR_MAPPED_ADDRESS).unwrap();
    assert_eq!(mapped[..2], [0, 1]);
    let port = u16::from_be_bytes([mapped[2] ^ 0x21, mapped[3] ^ 0x12]);
    let ip = [mapped[4] ^ 0x21, mapped[5] ^ 0x12, mapped[6] ^ 0xa4, mapped[7] ^ 0x42];
    assert_eq!(SocketAddr::from((ip, port)), addr(ELSEWHERE));
}

/// Each in its way not a check of the party: the error of the RFC, and nothing is learnt.
#[test]
fn who_does_not_know_the_password_moves_nothing() {
    let mut call = Call::with_ice();
    call.nominate(ELSEWHERE);
    let good = Probe::of(call.local);
    let wrong_name = IceLocal { ufrag: [b'x'; 8], ..call.local };
    let cases = [
        (Probe { password: vec![b'z'; 24], ..good.clone() }, 401),
        (Probe { password: THEIR_PWD.to_vec(), ..good.clone() }, 401),
        (Probe { theirs: b"evil".to_vec(), ..good.clone() }, 401),
        (Probe { local: wrong_name, ..good.clone() }, 401),
        (Probe { integrity: false, ..good.clone() }, 400),
        (Probe { controlled: true, ..good.clone() }, 487),
        (Probe { unknown: true, ..good.clone() }, 420),
    ];
    for (probe, code) in cases {
        let (answered, taken) = call.probe(STRANGER, &probe);
        assert_eq!(answered, code);
        assert!(taken.is_err());
        assert!(!call.hears(STRANGER) && call.hears(ELSEWHERE), "after {code}");
        assert_eq!(call.reaches(), Some(addr(ELSEWHERE)));
        call.wait(Duration::from_secs(1)); // within the rate of errors
    }
    // A flipped bit anywhere in a good check, but in the head of FINGERPRINT: without one it is one
    // all the same.
    let bytes = good.bytes();
    let head = (bytes.len() - 8) * 8..(bytes.len() - 4) * 8;
    for bit in (0..bytes.len() * 8).filter(|bit| !head.contains(bit)) {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let (_, taken) = call.take(STRANGER, &bent);
        assert!(taken.is_err(), "bit {bit}");
        assert!(!call.hears(STRANGER), "bit {bit}");
    }
}

#[test]
fn strangers_get_few_answers_and_none_longer_than_the_question() {
    let mut call = Call::with_ice();
    let mut answers = 0;
    let bare = {
        let mut out = Vec::new();
        let _ = Writer::binding(&mut out, Class::Request, [5; 12]).finish();
        out
    };
    let wrong = Probe { password: vec![b'z'; 24], ..Probe::of(call.local) }.bytes();
    for n in 0..10_000 {
        let question = if n % 2 == 0 { &bare } else { &wrong };
        let (sent, taken) = call.take(STRANGER, question);
        assert!(taken.is_err());
        for answer in sent {
            assert!(answer.len() <= question.len(), "{} for {}", answer.len(), question.len());
            answers += 1;
        }
    }
    assert!((1..=ICE_REFUSALS).contains(&answers), "{answers}");
    // The party itself is answered all the same, up to its own rate.
    let good = Probe::of(call.local);
    let answered = (0..1_000).filter(|_| call.probe(ELSEWHERE, &good).0 == 200).count();
    assert_eq!(answered, crate::limits::ICE_ANSWERS_PER_SECOND as usize);
    assert!(call.hears(ELSEWHERE));
}

const ICE_REFUSALS: u32 = crate::limits::ICE_REFUSALS_PER_SECOND;

#[test]
fn other_stun_is_dropped_without_an_answer() {
    let mut call = Call::with_ice();
    for (class, reason) in [
        (Class::Indication, DropReason::KeepAlive),
        (Class::Success, DropReason::StunUnexpected),
        (Class::Error, DropReason::StunUnexpected),
    ] {
        let mut out = Vec::new();
        let _ = Writer::binding(&mut out, class, [1; 12]).finish();
        assert_eq!(call.take(SIGNALLED, &out), (vec![], Err(reason)));
    }
    let mut bent = Probe::of(call.local).bytes();
    *bent.last_mut().unwrap() ^= 1; // FINGERPRINT
    assert_eq!(call.take(SIGNALLED, &bent), (vec![], Err(DropReason::StunMalformed)));
    let mut plain = Call::plain();
    let check = Probe::of(plain.local).bytes();
    assert_eq!(plain.take(SIGNALLED, &check), (vec![], Err(DropReason::MediaUnsupported)));
}

/// RFC 5245 peers nominate every pair at first; who moves later nominates the new one.
#[test]
fn the_best_of_several_nominations_wins_and_a_later_one_moves() {
    let mut call = Call::with_ice();
    let of = |call: &Call, priority| Probe { priority, ..Probe::of(call.local) };
    let (low, high) = (of(&call, 10), of(&call, 20));
    assert_eq!(call.probe(SIGNALLED, &low).0, 200);
    assert_eq!(call.reaches(), Some(addr(SIGNALLED)));
    assert_eq!(call.probe(ELSEWHERE, &high).0, 200);
    assert_eq!(call.reaches(), Some(addr(ELSEWHERE)));
    assert_eq!(call.probe(SIGNALLED, &low).0, 200);
    assert_eq!(call.reaches(), Some(addr(ELSEWHERE)));
    call.wait(Duration::from_secs(2));
    assert_eq!(call.probe(SIGNALLED, &low).0, 200);
    assert_eq!(call.reaches(), Some(addr(SIGNALLED)));
}

#[test]
fn a_restart_takes_new_credentials_and_keeps_the_pair_until_the_next() {
    let mut call = Call::with_ice();
    call.nominate(ELSEWHERE);
    let old = call.local;
    let again = IceRemote::parse(b"newU", b"newPasswordOf22OrMore+").unwrap();
    let table = &mut call.rig.table;
    let new = table.ice_local(&call.anchor, Side::Caller, 0, Some(&again)).unwrap();
    assert_ne!((new.ufrag, new.pwd), (old.ufrag, old.pwd));
    let same = table.ice_local(&call.anchor, Side::Caller, 0, Some(&again));
    assert_eq!(same, Some(new), "said twice, the same");
    assert_eq!(table.ice_local(&call.anchor, Side::Caller, 0, Some(&theirs())), Some(old));
    // Refused: all as before.
    call.anchor.stage_peering(Side::Caller, 0, Peering::default());
    call.anchor.roll_back();
    call.rig.table.commit(call.rig.now, &mut call.anchor);
    assert!(call.hears(ELSEWHERE));
    // Accepted.
    call.local = new;
    call.agree(Some(again));
    assert_eq!(call.reaches(), Some(addr(ELSEWHERE)));
    assert_eq!(call.probe(STRANGER, &Probe::of(old)).0, 401);
    let probe = Probe { theirs: b"newU".to_vec(), priority: 1, ..Probe::of(new) };
    assert_eq!(call.probe(SIGNALLED, &probe), (200, Ok(())));
    assert!(call.hears(SIGNALLED) && !call.hears(ELSEWHERE));
}

#[test]
fn credentials_are_of_their_stream_alone() {
    let mut rig = Rig::new(table(64, Limits::default()));
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let anchor = rig.allocate(rig.now).unwrap();
        for side in [Side::Caller, Side::Callee] {
            let local = rig.table.ice_local(&anchor, side, 0, None).unwrap();
            assert!(local.ufrag.iter().chain(&local.pwd).all(u8::is_ascii_graphic));
            assert!(seen.insert(local.ufrag) && seen.insert(local.pwd[..8].try_into().unwrap()));
        }
        rig.table.release(rig.now, anchor);
    }
    assert_eq!(candidate_priority(1), 2_130_706_431);
    assert_eq!(candidate_priority(2), 2_130_706_430);
    for (ufrag, pwd) in
        [("abc", "a".repeat(22)), ("abcd", "a".repeat(21)), ("ab:d", "a".repeat(22))]
    {
        assert_eq!(IceRemote::parse(ufrag.as_bytes(), pwd.as_bytes()), None);
    }
}

/// We offered; checks come before the answer. They are answered, and a nomination waits for it.
#[test]
fn checks_before_the_answer_wait_for_it() {
    for (answered_by, reached) in [(THEIR_UFRAG, Some(addr(ELSEWHERE))), (&b"fork"[..], None)] {
        let mut call = Call::plain();
        let table = &mut call.rig.table;
        call.local = table.ice_local(&call.anchor, Side::Caller, 0, None).unwrap();
        assert_eq!(table.ice_local(&call.anchor, Side::Caller, 0, None), Some(call.local));
        call.nominate(ELSEWHERE);
        assert!(!call.hears(ELSEWHERE), "the answer has not come");
        call.agree(IceRemote::parse(answered_by, THEIR_PWD));
        assert_eq!(call.reaches(), reached);
    }
}

#[test]
fn a_party_that_renewed_its_consent_and_stops_gets_no_more() {
    let mut call = Call::with_ice();
    call.nominate(ELSEWHERE);
    let keep = Probe { nominate: false, ..Probe::of(call.local) };
    for _ in 0..3 {
        call.wait(Duration::from_secs(5));
        assert_eq!(call.probe(ELSEWHERE, &keep).0, 200);
    }
    call.wait(Duration::from_secs(29));
    assert_eq!(call.reaches(), Some(addr(ELSEWHERE)));
    call.wait(Duration::from_secs(2));
    assert_eq!((call.reaches(), call.hears(ELSEWHERE)), (None, false));
    // It comes back.
    assert_eq!(call.probe(ELSEWHERE, &keep).0, 200);
    assert_eq!((call.reaches(), call.hears(ELSEWHERE)), (Some(addr(ELSEWHERE)), true));
    // A party of RFC 5245, which checks no more once it has nominated, is not cut off.
    let mut call = Call::with_ice();
    call.nominate(ELSEWHERE);
    call.wait(Duration::from_secs(300));
    assert_eq!(call.reaches(), Some(addr(ELSEWHERE)));
}

/// What became of ICE is counted: a pair, the end of a consent, and a stream that never had one.
#[test]
fn the_fate_of_ice_is_counted() {
    let mut call = Call::with_ice();
    call.nominate(ELSEWHERE);
    for _ in 0..5 {
        call.wait(Duration::from_secs(2));
        call.nominate(ELSEWHERE);
    }
    assert_eq!(call.rig.table.totals(), Totals { ice_nominated: 1, ..Totals::default() });
    call.wait(Duration::from_secs(60));
    let lost = Totals { ice_nominated: 1, ice_consent_lost: 1, ..Totals::default() };
    assert_eq!(call.rig.table.totals(), lost);
    let Call { mut rig, anchor, .. } = call;
    rig.table.release(rig.now, anchor);
    assert_eq!(rig.table.totals(), lost, "it had a pair");
    let Call { mut rig, anchor, .. } = Call::with_ice();
    rig.table.release(rig.now, anchor);
    assert_eq!(rig.table.totals(), Totals { ice_failed: 1, ..Totals::default() });
}
