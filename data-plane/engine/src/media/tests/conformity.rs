//! What passes where a standard allows it and a first guess would stop it.

use super::*;

fn both(rig: &mut Rig, change: impl Fn(Remote) -> Remote) -> (Anchor, MediaPortId, MediaPortId) {
    let anchor = rig.allocate(Instant(0)).unwrap();
    for (side, at) in [(Side::Caller, A), (Side::Callee, B)] {
        rig.table.set_remote(Instant(0), &anchor, side, 0, change(remote(addr(at))));
    }
    let (pa, pb) = (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0));
    (anchor, pa, pb)
}

const A: &str = "127.9.16.1:7000";
const B: &str = "127.9.16.2:8000";

/// RFC 5761 4: payload types 64 to 95 are forbidden where RTCP shares the port, and nowhere else.
#[test]
fn marked_packets_of_every_payload_type_pass_where_rtcp_has_a_port_of_its_own() {
    let mut rig = Rig::new(table(8, Limits::default()));
    let (anchor, pa, pb) = both(&mut rig, |remote| remote);
    for payload_type in (0..72_u8).chain(80..128) {
        let mut packet = rtp_packet(1);
        packet[1] = 0x80 | payload_type;
        assert_eq!(rig.relay(pa, addr(A), &packet), Ok((pb, addr(B))), "{payload_type}");
    }
    let count = rig.table.count(&anchor, Side::Caller);
    assert_eq!((count.packets, count.rtcp_packets), (120, 0));
    // Where it shares the port those are RTCP, and of no known form.
    let mux = |remote| Remote { rtcp_mux: true, ..remote };
    let (_, pa, _) = both(&mut rig, mux);
    let mut packet = rtp_packet(1);
    packet[1] = 0x80 | 64;
    assert_eq!(rig.relay(pa, addr(A), &packet), Err(DropReason::MediaMalformed));
}

/// Parties that agree on keys by DTLS from end to end have to get each other's records.
#[test]
fn handshakes_of_parties_that_keep_their_keys_to_themselves_pass() {
    let mut rig = Rig::new(table(8, Limits::default()));
    let sealed = |remote| Remote { encrypted: true, ..remote };
    let (anchor, pa, pb) = both(&mut rig, sealed);
    let record = [22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    let odd = |port: MediaPortId| MediaPortId(port.0 + 1);
    let next = |text: &str| SocketAddr::new(addr(text).ip(), addr(text).port() + 1);
    assert_eq!(rig.relay(pa, addr(A), &record), Ok((pb, addr(B))));
    assert_eq!(rig.relay(pb, addr(B), &record), Ok((pa, addr(A))));
    assert_eq!(rig.relay(odd(pa), next(A), &record), Ok((odd(pb), next(B))), "RTCP has its own");
    for stranger in [B, "127.9.16.1:7002", "127.9.16.3:7000"] {
        assert_eq!(rig.relay(pa, addr(stranger), &record), Err(DropReason::MediaSource));
    }
    assert_eq!(rig.table.last_packet(&anchor, Side::Caller), None, "no sign of media");
    assert_eq!(rig.table.count(&anchor, Side::Caller).packets, 0);
    // The other party does not speak of keys: nothing for it.
    rig.table.set_remote(Instant(0), &anchor, Side::Callee, 0, remote(addr(B)));
    assert_eq!(rig.relay(pa, addr(A), &record), Err(DropReason::MediaNoPeer));
    assert_eq!(rig.relay(pb, addr(B), &record), Err(DropReason::MediaUnsupported));
}

/// A description that cannot be used leaves nothing behind, and what the other party offered stays.
#[test]
fn what_is_not_used_takes_no_effect_later() {
    let mut rig = Rig::new(table(8, Limits::default()));
    let mut anchor = rig.allocate(Instant(0)).unwrap();
    anchor.stage(Side::Caller, 0, remote(addr(A)));
    anchor.stage(Side::Callee, 0, remote(addr("127.9.16.9:9")));
    anchor.stage_security(Side::Callee, 0, Security::Awaiting);
    anchor.stage_payload(Side::Caller, 0, Some(Box::new(PayloadMap::new([9; 128], None, None))));
    anchor.unstage(Side::Callee);
    anchor.stage(Side::Callee, 0, remote(addr(B)));
    rig.table.commit(Instant(0), &mut anchor);
    let (pa, pb) = (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0));
    assert_eq!(rig.relay(pa, addr(A), &rtp_packet(1)), Ok((pb, addr(B))));
    assert_eq!(rig.relay(pb, addr(B), &rtp_packet(1)), Ok((pa, addr(A))));
}
