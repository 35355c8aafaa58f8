//! ICE and DTLS through the media table: who is believed, where media goes, when keys are there.

use ravelin_srtp::{
    Keys, Opener, Sealer,
    dtls::{Association, Exported, Fingerprints, Identity, Role, State},
    integrity::IntegrityKey,
};
use ravelin_wire::stun::{Class, Message, Writer, attribute};

use super::*;
use crate::media::{
    Totals,
    dtls::DtlsTerms,
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

/// A party that runs DTLS on the caller's leg.
pub(super) struct Secure {
    pub(super) call: Call,
    party: Association,
    identity: std::sync::Arc<Identity>,
    ours: Fingerprints,
    keys: Option<Exported>,
    /// Number of the next packet each way.
    next: u16,
}

fn named(identity: &Identity) -> Fingerprints {
    let mut all = Fingerprints::default();
    assert!(all.add(identity.fingerprint().to_string().as_bytes()));
    all
}

impl Secure {
    pub(super) fn new(our_role: Role) -> Self {
        let origin = std::time::Instant::now();
        let mut call = Call::plain();
        call.mux = true;
        let ours = std::sync::Arc::new(Identity::generate(origin).unwrap());
        call.rig.table.set_dtls_identity(ours.clone());
        let identity = std::sync::Arc::new(Identity::generate(origin).unwrap());
        let party = Self::association(our_role, &identity, &named(&ours));
        let mut secure = Self { call, party, ours: named(&ours), identity, keys: None, next: 1 };
        let expected = named(&secure.identity);
        secure.agree(our_role, expected);
        secure
    }

    fn association(
        our_role: Role,
        identity: &std::sync::Arc<Identity>,
        ours: &Fingerprints,
    ) -> Association {
        let theirs = match our_role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        Association::new(identity.clone(), theirs, ours.clone())
    }

    fn agree(&mut self, role: Role, fingerprints: Fingerprints) {
        let dtls = Some(DtlsTerms { role, fingerprints, tls_id: None, own_tls_id: None });
        let call = &mut self.call;
        call.anchor.stage_peering(Side::Caller, 0, Peering { ice: None, dtls });
        call.anchor.stage_security(Side::Caller, 0, Security::Awaiting);
        call.signal();
    }

    fn state(&self) -> State {
        self.call.rig.table.dtls_state(&self.call.anchor, Side::Caller, 0).unwrap()
    }

    /// Lets both talk until neither has anything to say; `between` is called before each datagram
    /// that reaches us.
    pub(super) fn talk(&mut self, mut between: impl FnMut(&mut Call)) {
        let mut to_us = VecDeque::new();
        self.party.start(self.call.rig.now.0, &mut |datagram| to_us.push_back(datagram.to_vec()));
        for _ in 0..100 {
            let call = &mut self.call;
            call.rig.now = call.rig.now + Duration::from_millis(5);
            call.rig.tx.clear();
            call.rig.table.expire(call.rig.now, &mut call.rig.tx);
            let mut to_party: Vec<Vec<u8>> =
                call.rig.tx.iter().map(|tx| tx.bytes.to_vec()).collect();
            if let Some(datagram) = to_us.pop_front() {
                between(call);
                let (sent, taken) = call.take(SIGNALLED, &datagram);
                assert_eq!(taken, Ok(()));
                to_party.extend(sent);
            }
            for datagram in to_party {
                let mut send = |answer: &[u8]| to_us.push_back(answer.to_vec());
                let keys = self.party.receive(self.call.rig.now.0, &datagram, &mut send);
                if let Ok(Some(keys)) = keys {
                    self.keys = Some(keys);
                }
            }
        }
    }

    /// As [`Self::exchange`], later on the same keys: numbers beyond all that a record claims.
    pub(super) fn exchange_again(&mut self) {
        self.next = self.next.wrapping_add(100);
        self.exchange();
    }

    /// Agrees again, as far as `offer` says; the party begins anew with our certificate of now.
    pub(super) fn anew(&mut self, role: Role, ours: &std::sync::Arc<Identity>, offer: bool) {
        self.party = Self::association(role, &self.identity, &named(ours));
        self.keys = None;
        self.next = 1;
        if offer {
            let expected = named(&self.identity);
            self.agree(role, expected);
        }
    }

    /// A ClientHello of a party whose part is to wait for ours.
    pub(super) fn hello_is_refused(&mut self) -> bool {
        let mut stray = Association::new(self.identity.clone(), Role::Client, self.ours.clone());
        let mut hello = Vec::new();
        stray.start(self.call.rig.now.0, &mut |datagram| hello = datagram.to_vec());
        let (sent, taken) = self.call.take(SIGNALLED, &hello);
        sent.is_empty() && taken.is_err()
    }

    /// Sends SRTP both ways and reads what arrives.
    pub(super) fn exchange(&mut self) {
        let keys = self.keys.clone().expect("keys");
        let call = &mut self.call;
        let mut clear = rtp_packet(0x1234_5678);
        clear[2..4].copy_from_slice(&self.next.to_be_bytes());
        let mut room = clear.clone();
        room.resize(clear.len() + 64, 0);
        let mut sealer = Sealer::new(&Keys::single(keys.local));
        let length = sealer.seal_rtp(&mut room, clear.len()).unwrap();
        call.rig.tx.clear();
        let (now, port) = (call.rig.now, call.port);
        let (tx, counters) = (&mut call.rig.tx, &mut call.rig.counters);
        call.rig.table.relay(now, port, addr(SIGNALLED), &room[..length], tx, counters).unwrap();
        let sent = tx.get(0).unwrap();
        assert_eq!(sent.egress, Egress::Media { port: call.far, to: addr(FAR) });
        assert_eq!(sent.bytes, clear, "opened");
        tx.clear();
        call.rig.table.relay(now, call.far, addr(FAR), &clear, tx, counters).unwrap();
        let sent = tx.get(0).unwrap();
        assert_eq!(sent.egress, Egress::Media { port: call.port, to: addr(SIGNALLED) });
        assert_ne!(sent.bytes, clear);
        let mut opener = Opener::new(&Keys::single(keys.remote));
        let mut opened = vec![0; sent.bytes.len()];
        let length = opener.open_rtp(sent.bytes, &mut opened).unwrap();
        assert_eq!(opened[..length], clear, "sealed");
    }
}

#[test]
fn a_handshake_in_either_role_ends_in_media_that_the_other_side_reads() {
    for role in [Role::Server, Role::Client] {
        let mut secure = Secure::new(role);
        assert_eq!(secure.call.reaches(), None, "nothing in the clear while keys are missing");
        assert!(!secure.call.hears(SIGNALLED));
        secure.talk(|_| {});
        assert_eq!(secure.state(), State::Done);
        secure.exchange();
        assert!(!secure.call.hears(SIGNALLED), "nothing in the clear afterwards");
        assert_eq!(secure.call.rig.table.dtls_handshakes(), 0);
        assert_eq!(secure.call.rig.table.dtls_outcomes().done, 1);
        // A re-INVITE that changes nothing changes nothing.
        let expected = named(&secure.identity);
        secure.agree(role, expected);
        assert_eq!(secure.state(), State::Done);
        // Another certificate is another handshake; the old keys are gone when it is done.
        secure.identity =
            std::sync::Arc::new(Identity::generate(std::time::Instant::now()).unwrap());
        secure.party = Secure::association(role, &secure.identity, &secure.ours);
        let (before, expected) = (secure.keys.take(), named(&secure.identity));
        secure.agree(role, expected);
        assert_eq!(secure.state(), State::Idle);
        secure.talk(|_| {});
        assert!(secure.keys.is_some() && secure.keys != before);
        secure.exchange();
    }
}

/// lessons.md 2.22: hellos of others, from elsewhere and with a forged source, during and after.
#[test]
fn spoofed_hellos_do_not_disturb_a_call() {
    let mut stranger = Vec::new();
    let forger = std::sync::Arc::new(Identity::generate(std::time::Instant::now()).unwrap());
    Association::new(forger.clone(), Role::Client, named(&forger))
        .start(1, &mut |hello| stranger.push(hello.to_vec()));
    let good_hello = stranger.remove(0);
    // The only cipher suite is TLS_NULL_WITH_NULL_NULL.
    let mut null = good_hello.clone();
    let suites = 13 + 12 + 34 + 2;
    let count = usize::from(null[suites + 1]);
    null[suites + 2..suites + 2 + count].fill(0);
    let mut secure = Secure::new(Role::Server);
    let attack = |call: &mut Call| {
        for n in 0..2_500_u32 {
            let hello = if n % 2 == 0 { &good_hello } else { &null };
            let (sent, taken) = call.take(STRANGER, hello);
            assert_eq!((sent.len(), taken), (0, Err(DropReason::MediaSource)));
            let (sent, _) = call.take(SIGNALLED, hello);
            assert!(sent.iter().map(Vec::len).sum::<usize>() <= hello.len());
        }
    };
    secure.talk(attack);
    assert_eq!(secure.state(), State::Done);
    secure.exchange();
    for hello in [&good_hello, &null].into_iter().cycle().take(10_000) {
        let (sent, taken) = secure.call.take(SIGNALLED, hello);
        assert_eq!((sent.len(), taken), (0, Err(DropReason::DtlsStrayHello)));
    }
    assert_eq!(secure.state(), State::Done);
    secure.keys.as_ref().expect("keys");
}

#[test]
fn handshakes_of_one_turn_are_bounded_and_resume() {
    let mut secure = Secure::new(Role::Server);
    // Other handshakes have used up the turn.
    let mut begun = false;
    secure.talk(|call| {
        if !begun {
            begun = true;
            call.rig.table.exhaust_handshakes();
            let hello = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
            assert_eq!(call.take(SIGNALLED, &hello).1, Err(DropReason::DtlsBusy));
            call.rig.table.expire(call.rig.now, &mut call.rig.tx);
        }
    });
    assert_eq!(secure.state(), State::Done);
}

#[test]
fn dtls_is_for_streams_that_use_it() {
    let mut call = Call::plain();
    let hello = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    assert_eq!(call.take(SIGNALLED, &hello), (vec![], Err(DropReason::MediaUnsupported)));
}

/// RFC 5764 4.1.1: without rtcp-mux RTCP has an association of its own on its own port, and keys of
/// its own.
#[test]
fn rtcp_with_a_port_of_its_own_has_its_own_association() {
    for our_role in [Role::Server, Role::Client] {
        let mut secure = Secure::new(our_role);
        secure.call.mux = false;
        let expected = named(&secure.identity);
        secure.agree(our_role, expected.clone());
        let mut parties = [
            Secure::association(our_role, &secure.identity, &secure.ours),
            Secure::association(our_role, &secure.identity, &secure.ours),
        ];
        let places = ["192.0.2.1:4000", "192.0.2.1:4001"].map(addr);
        let call = &mut secure.call;
        let ports = [call.port, MediaPortId(call.port.0 + 1)];
        let mut keys: [Option<Exported>; 2] = [None, None];
        let mut to_us = VecDeque::new();
        for (at, party) in parties.iter_mut().enumerate() {
            party.start(call.rig.now.0, &mut |bytes| to_us.push_back((at, bytes.to_vec())));
        }
        for _ in 0..100 {
            call.rig.now = call.rig.now + Duration::from_millis(5);
            let Rig { table, tx, counters, now } = &mut call.rig;
            tx.clear();
            table.expire(*now, tx);
            if let Some((at, bytes)) = to_us.pop_front() {
                let taken = table.relay(*now, ports[at], places[at], &bytes, tx, counters);
                assert_eq!(taken, Ok(()));
            }
            for sent in tx.iter() {
                let Egress::Media { port, to } = sent.egress else { panic!("{sent:?}") };
                let at = ports.iter().position(|ours| *ours == port).unwrap();
                assert_eq!(to, places[at]);
                let mut send = |bytes: &[u8]| to_us.push_back((at, bytes.to_vec()));
                if let Ok(Some(found)) = parties[at].receive(now.0, sent.bytes, &mut send) {
                    keys[at] = Some(found);
                }
            }
        }
        let [rtp, rtcp] = keys.map(|keys| keys.expect("keys"));
        assert_ne!(rtp, rtcp);
        assert_eq!(call.rig.table.dtls_outcomes().done, 2);
        // RTCP of the party, under the keys of its port alone.
        let far_control = MediaPortId(call.far.0 + 1);
        let far = addr("192.0.2.99:7001");
        let mut received = Vec::new();
        for keys in [&rtp, &rtcp] {
            let mut room = RTCP_PACKET.to_vec();
            room.resize(64, 0);
            let mut sealer = Sealer::new(&Keys::single(keys.local.clone()));
            let length = sealer.seal_rtcp(&mut room, RTCP_PACKET.len()).unwrap();
            let Rig { table, tx, counters, now } = &mut call.rig;
            tx.clear();
            let taken = table.relay(*now, ports[1], places[1], &room[..length], tx, counters);
            if taken.is_ok() {
                let sent = tx.get(0).unwrap();
                assert_eq!(sent.egress, Egress::Media { port: far_control, to: far });
                assert_eq!(sent.bytes, RTCP_PACKET);
            }
            received.push(taken);
        }
        assert_eq!(received, [Err(DropReason::SrtpAuthentication), Ok(())]);
        // And to it.
        let Rig { table, tx, counters, now } = &mut call.rig;
        tx.clear();
        table.relay(*now, far_control, far, &RTCP_PACKET, tx, counters).unwrap();
        let sent = tx.get(0).unwrap();
        assert_eq!(sent.egress, Egress::Media { port: ports[1], to: places[1] });
        let mut opened = vec![0; sent.bytes.len()];
        let length =
            Opener::new(&Keys::single(rtcp.remote)).open_rtcp(sent.bytes, &mut opened).unwrap();
        assert_eq!(opened[..length], RTCP_PACKET);
        // Once the party multiplexes, the second association is over.
        secure.call.mux = true;
        secure.agree(our_role, expected);
        assert_eq!(secure.state(), State::Done);
        let hello = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        let call = &mut secure.call;
        let Rig { table, tx, counters, now } = &mut call.rig;
        assert!(table.relay(*now, ports[1], places[1], &hello, tx, counters).is_err());
    }
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
