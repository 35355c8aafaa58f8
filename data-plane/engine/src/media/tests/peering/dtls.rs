//! DTLS through the media table: when keys are there, and who cannot keep them away.

use ravelin_srtp::{
    Keys, Opener, Sealer,
    dtls::{Association, Exported, Fingerprints, Identity, Role, State},
};

use super::*;
use crate::media::dtls::DtlsTerms;

/// A party that runs DTLS on the caller's leg.
pub(in crate::media::tests) struct Secure {
    pub(in crate::media::tests) call: Call,
    party: Association,
    identity: std::sync::Arc<Identity>,
    ours: Fingerprints,
    keys: Option<Exported>,
    /// Number of the next packet each way.
    next: u16,
}

fn named(identity: &Identity) -> Fingerprints {
    let mut all = Fingerprints::default();
    assert!(all.add(identity.fingerprint().unwrap().to_string().as_bytes()));
    all
}

impl Secure {
    pub(in crate::media::tests) fn new(our_role: Role) -> Self {
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
    pub(in crate::media::tests) fn talk(&mut self, mut between: impl FnMut(&mut Call)) {
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
    pub(in crate::media::tests) fn exchange_again(&mut self) {
        self.next = self.next.wrapping_add(100);
        self.exchange();
    }

    /// Agrees again, as far as `offer` says; the party begins anew with our certificate of now.
    pub(in crate::media::tests) fn anew(
        &mut self,
        role: Role,
        ours: &std::sync::Arc<Identity>,
        offer: bool,
    ) {
        self.party = Self::association(role, &self.identity, &named(ours));
        self.keys = None;
        self.next = 1;
        if offer {
            let expected = named(&self.identity);
            self.agree(role, expected);
        }
    }

    /// A ClientHello of a party whose part is to wait for ours.
    pub(in crate::media::tests) fn hello_is_refused(&mut self) -> bool {
        let mut stray = Association::new(self.identity.clone(), Role::Client, self.ours.clone());
        let mut hello = Vec::new();
        stray.start(self.call.rig.now.0, &mut |datagram| hello = datagram.to_vec());
        let (sent, taken) = self.call.take(SIGNALLED, &hello);
        sent.is_empty() && taken.is_err()
    }

    /// Sends SRTP both ways and reads what arrives.
    pub(in crate::media::tests) fn exchange(&mut self) {
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

/// What a party says that our side cannot take stands with its stream; if it was forged, nothing has
/// come of it.
#[test]
fn a_message_that_breaks_a_handshake_is_counted_and_the_next_one_is_done() {
    const CLIENT_KEY_EXCHANGE: u8 = 16;
    let mut secure = Secure::new(Role::Server);
    let mut to_us = VecDeque::new();
    secure.party.start(secure.call.rig.now.0, &mut |datagram| to_us.push_back(datagram.to_vec()));
    let (mut forged, mut broken) = (false, false);
    while let Some(mut datagram) = to_us.pop_front() {
        secure.call.rig.now = secure.call.rig.now + Duration::from_millis(5);
        let mut record = 0;
        while let Some(length) = datagram.get(record + 11..record + 13) {
            let end = record + 13 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            if datagram[record..record + 5] == [22, 0xfe, 0xfd, 0, 0]
                && datagram[record + 13] == CLIENT_KEY_EXCHANGE
            {
                datagram[record + 26..end].fill(0xff);
                forged = true;
            }
            record = end;
        }
        let (sent, taken) = secure.call.take(SIGNALLED, &datagram);
        // It is looked into once its flight is whole.
        broken = forged && taken == Err(DropReason::DtlsBroken);
        if broken {
            break;
        }
        assert_eq!(taken, Ok(()));
        for datagram in sent {
            let mut send = |answer: &[u8]| to_us.push_back(answer.to_vec());
            let _ = secure.party.receive(secure.call.rig.now.0, &datagram, &mut send);
        }
    }
    assert!(broken);
    assert_eq!(secure.call.rig.counters.drops(DropReason::DtlsBroken), 1);
    assert_ne!(secure.state(), State::Done);
    secure.party = Secure::association(Role::Server, &secure.identity, &secure.ours);
    secure.talk(|_| ());
    assert_eq!(secure.state(), State::Done);
    secure.exchange();
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
