//! What records keep of streams: the process ends, and another table takes up where it was.

use std::sync::Arc;

use ravelin_srtp::dtls::{Identity, Role};
use smallvec::SmallVec;

use super::{
    fast::{packet, place},
    peering::{Call, ELSEWHERE, SIGNALLED, STRANGER, Secure},
    *,
};
use crate::{
    media::anchor::Lost,
    port::{FastChange, FastCount, FastFlow},
};

/// The parts of each end, the caller's first, as a record has them.
type Parts = [Vec<u8>; 2];

fn parts_of(rig: &Rig, anchor: &Anchor) -> Parts {
    let (mut buffer, mut images) = (Vec::new(), SmallVec::new());
    rig.table.images(anchor, &mut buffer, &mut images).unwrap();
    images[0].map(|half| half.parts.to_vec())
}

/// The anchor in a table that knows nothing, whose ports are not open yet.
fn again_with(
    rig: &Rig,
    anchor: &Anchor,
    parts: &Parts,
    mut table: MediaTable,
) -> (Rig, Result<Anchor, Lost>) {
    let (mut buffer, mut images) = (Vec::new(), SmallVec::new());
    rig.table.images(anchor, &mut buffer, &mut images).unwrap();
    let mut halves: [_; 2] = images[0];
    for (half, parts) in halves.iter_mut().zip(parts) {
        half.parts = parts;
    }
    let places = table.places();
    let now = rig.now + Duration::from_millis(300);
    let anchor = table.readopt(now, [CALLER, CALLEE], &[halves], &places);
    for id in 0..table.specs().len() {
        table.port_opened(MediaPortId(u32::try_from(id).unwrap()));
    }
    let mut rig = Rig::new(table);
    rig.now = now;
    (rig, anchor)
}

fn fresh(pairs: u16) -> MediaTable {
    let ranges =
        [range(ACCESS, "127.0.0.10", 20_000, pairs), range(CORE, "127.0.0.20", 30_000, pairs)];
    MediaTable::new(&ranges, ShardId(0), 1, Limits::default(), &Seed([8; 32]))
}

fn restart(call: &mut Call, table: MediaTable) {
    let parts = parts_of(&call.rig, &call.anchor);
    let (rig, anchor) = again_with(&call.rig, &call.anchor, &parts, table);
    (call.rig, call.anchor) = (rig, anchor.unwrap());
}

#[test]
fn ice_goes_on_with_its_credentials_and_its_pair() {
    let mut call = Call::with_ice();
    call.nominate(ELSEWHERE);
    restart(&mut call, fresh(8));
    assert!(call.hears(ELSEWHERE) && !call.hears(SIGNALLED) && !call.hears(STRANGER));
    assert_eq!(call.reaches(), Some(addr(ELSEWHERE)));
    // Its checks are answered as before, and it may move.
    call.nominate(STRANGER);
    assert!(call.hears(STRANGER) && !call.hears(ELSEWHERE));
    // A description of ours names the same credentials.
    let local = call.rig.table.ice_local(&call.anchor, Side::Caller, 0, None);
    assert_eq!(local, Some(call.local));
}

#[test]
fn before_a_nomination_nothing_passes_after_a_restart_either() {
    let mut call = Call::with_ice();
    restart(&mut call, fresh(8));
    assert!(!call.hears(SIGNALLED) && !call.hears(ELSEWHERE));
    call.nominate(ELSEWHERE);
    assert!(call.hears(ELSEWHERE));
}

/// The keys outlive the association. We begin nothing; a party that begins is answered; and what is
/// agreed anew is another association, for our certificate is another one.
#[test]
fn dtls_keys_go_on_and_a_party_that_begins_anew_is_answered() {
    for role in [Role::Server, Role::Client] {
        let mut secure = Secure::new(role);
        secure.talk(|_| {});
        secure.exchange();
        let ours = Arc::new(Identity::generate(std::time::Instant::now()).unwrap());
        let mut table = fresh(8);
        table.set_dtls_identity(Arc::clone(&ours));
        restart(&mut secure.call, table);
        secure.exchange_again();
        assert!(secure.call.is_silent(), "{role:?}: nobody asked for a handshake");
        if role == Role::Server {
            secure.anew(role, &ours, false);
            secure.talk(|_| {});
            secure.exchange();
        } else {
            assert!(secure.hello_is_refused());
            secure.exchange_again();
        }
        secure.anew(role, &ours, true);
        secure.talk(|_| {});
        secure.exchange();
    }
}

/// Plain RTP both ways, taken over by the fast path.
fn forwarded() -> (Rig, Anchor, Vec<FastChange>) {
    let mut rig = Rig::new(table(6, Limits::default()));
    rig.table.use_fast_path();
    let mut anchor = rig.allocate(rig.now).unwrap();
    let near = "198.51.100.1".parse().unwrap();
    let latching = Remote { nat: Nat::Latch { near }, ..remote(place(0)) };
    anchor.stage(Side::Caller, 0, latching);
    anchor.stage(Side::Callee, 0, remote(place(4)));
    let events = crate::media::quality::Format::new(101, b"telephone-event", 8_000);
    anchor.stage_formats(Side::Caller, 0, crate::media::quality::Formats::new(events));
    rig.table.commit(rig.now, &mut anchor);
    for (side, from) in [(Side::Caller, place(0)), (Side::Callee, place(4))] {
        let port = rig.port(&anchor, side, 0);
        for sequence in 0..4 {
            rig.relay(port, from, &packet(1, sequence)).unwrap();
        }
    }
    let mut changes = Vec::new();
    rig.table.take_fast_changes(&mut changes);
    (rig, anchor, changes)
}

fn flows(changes: &[FastChange]) -> HashMap<MediaPortId, FastFlow> {
    let mut flows = HashMap::new();
    for change in changes {
        match *change {
            FastChange::Set { port, flow } => drop(flows.insert(port, flow)),
            FastChange::Clear { port } => drop(flows.remove(&port)),
        }
    }
    flows
}

fn count(port: MediaPortId, flow: &FastFlow, packets: u64) -> FastCount {
    FastCount { port, epoch: flow.epoch, packets, bytes: packets * 32, ..FastCount::default() }
}

#[test]
fn a_flow_in_the_kernel_is_claimed_as_it_stands_and_counted_on() {
    let (mut rig, anchor, changes) = forwarded();
    let before = flows(&changes);
    assert_eq!(before.len(), 2);
    let port = rig.port(&anchor, Side::Caller, 0);
    rig.table.fast_counts(&[count(port, &before[&port], 100)]);
    let told = rig.table.count(&anchor, Side::Caller).packets;
    let parts = parts_of(&rig, &anchor);
    let (mut rig, anchor) = again_with(&rig, &anchor, &parts, fresh(6));
    let anchor = anchor.unwrap();
    let mut changes = Vec::new();
    rig.table.take_fast_changes(&mut changes);
    assert!(changes.is_empty(), "there is no fast path yet");
    rig.table.use_fast_path();
    rig.table.take_fast_changes(&mut changes);
    let after = flows(&changes);
    let decided = |of: &HashMap<MediaPortId, FastFlow>| {
        let mut all: Vec<_> =
            of.iter().map(|(port, flow)| (*port, FastFlow { epoch: 0, ..*flow })).collect();
        all.sort_by_key(|(port, _)| *port);
        all
    };
    assert_eq!(decided(&before), decided(&after), "the driver finds what is there");
    // Counts of the flow in the kernel go on: what the record counted is not counted again.
    rig.table.fast_counts(&[count(port, &after[&port], 130)]);
    assert_eq!(rig.table.count(&anchor, Side::Caller).packets, 30);
    assert_eq!(told, 104);
    // The other one was not there any more: the driver began a new one.
    let other = rig.port(&anchor, Side::Callee, 0);
    rig.table.fast_counts(&[count(other, &after[&other], 7)]);
    assert_eq!(rig.table.count(&anchor, Side::Callee).packets, 7);
    // A packet beside the flow, such as an event, disturbs nothing.
    rig.relay(port, place(0), &packet(1, 500)).unwrap();
    changes.clear();
    rig.table.take_fast_changes(&mut changes);
    assert!(changes.is_empty());
}

/// The interface of a flow went and came back, then the process is killed: what the kernel counts is
/// what it counted since, and none of it is counted twice.
#[test]
fn a_flow_that_began_anew_with_its_interface_is_counted_once_after_a_kill() {
    let (mut rig, anchor, changes) = forwarded();
    let port = rig.port(&anchor, Side::Caller, 0);
    let flow = flows(&changes)[&port];
    rig.table.fast_counts(&[count(port, &flow, 1_000)]);
    let since = FastCount { gone: [1_000, 32_000, 0], ..count(port, &flow, 1_300) };
    rig.table.fast_counts(&[since]);
    assert_eq!(rig.table.count(&anchor, Side::Caller).packets, 1_304);
    let parts = parts_of(&rig, &anchor);
    let (mut rig, anchor) = again_with(&rig, &anchor, &parts, fresh(6));
    let anchor = anchor.unwrap();
    rig.table.use_fast_path();
    let mut changes = Vec::new();
    rig.table.take_fast_changes(&mut changes);
    rig.table.fast_counts(&[count(port, &flows(&changes)[&port], 350)]);
    let counted = rig.table.count(&anchor, Side::Caller);
    assert_eq!((counted.packets, counted.bytes), (50, 50 * 32), "300 are in the record");
}

/// A stray of the old epoch finds no search for a party open after the restart.
#[test]
fn who_was_found_behind_a_nat_is_not_searched_for_again() {
    let (rig, anchor, _) = forwarded();
    let parts = parts_of(&rig, &anchor);
    let (mut rig, anchor) = again_with(&rig, &anchor, &parts, fresh(6));
    let anchor = anchor.unwrap();
    let port = rig.port(&anchor, Side::Caller, 0);
    for sequence in 0..20 {
        rig.now = rig.now + Duration::from_millis(20);
        let stray = rig.relay(port, place(1), &packet(1, sequence));
        assert_eq!(stray, Err(DropReason::MediaSource));
    }
    rig.relay(port, place(0), &packet(1, 9)).unwrap();
}

/// All or nothing, and nothing means that the ports are free.
#[track_caller]
fn refused_whole(rig: &Rig, anchor: &Anchor, parts: &Parts) {
    let (again, lost) = again_with(rig, anchor, parts, fresh(8));
    assert_eq!(lost.unwrap_err(), Lost::Parts);
    assert_eq!((again.table.streams(), again.table.ports_in_use()), (0, 0));
    assert_eq!(again.table.ports_free(), 32);
}

#[test]
fn an_unknown_part_is_refused_with_the_whole_call() {
    let mut call = Call::with_ice();
    call.nominate(ELSEWHERE);
    let good = parts_of(&call.rig, &call.anchor);
    let mut parts = good.clone();
    parts[1].extend([200, 1, 0, 7]);
    refused_whole(&call.rig, &call.anchor, &parts);
    let mut parts = good.clone();
    parts[0][0] = 99;
    refused_whole(&call.rig, &call.anchor, &parts);
    let (again, anchor) = again_with(&call.rig, &call.anchor, &good, fresh(8));
    assert!(anchor.is_ok());
    assert_eq!(again.table.ports_free(), 28);
}

proptest! {
    /// Whatever stands in the parts: taken whole or refused whole, without a panic. What is taken says
    /// of itself what was read.
    #[test]
    fn parts_are_taken_or_refused_whole(
        cut in 0..1_000_usize,
        bend in proptest::collection::vec((0..1_000_usize, any::<u8>()), 0..3),
        ice in any::<bool>(),
    ) {
        let (rig, anchor) = if ice {
            let mut call = Call::with_ice();
            call.nominate(ELSEWHERE);
            (call.rig, call.anchor)
        } else {
            let (rig, anchor, _) = forwarded();
            (rig, anchor)
        };
        let mut parts = parts_of(&rig, &anchor);
        let length = parts[0].len();
        parts[0].truncate(cut % (length + 1));
        for (at, octet) in bend {
            let length = parts[0].len().max(1);
            if let Some(place) = parts[0].get_mut(at % length) {
                *place ^= octet;
            }
        }
        let (again, taken) = again_with(&rig, &anchor, &parts, fresh(8));
        match taken {
            Ok(anchor) => {
                let told = parts_of(&again, &anchor);
                let (_, once_more) = again_with(&again, &anchor, &told, fresh(8));
                prop_assert!(once_more.is_ok());
            }
            Err(lost) => {
                prop_assert_eq!(lost, Lost::Parts);
                prop_assert_eq!(again.table.ports_free(), 32);
            }
        }
    }
}
