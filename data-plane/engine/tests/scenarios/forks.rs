//! One INVITE, several answers: forked provisionals, second 2xx, branches that differ in media.

use crate::common::*;

fn branch_of(callee: &Callee, tag: &str, at: &str) -> Callee {
    Callee { at: at.to_owned(), tag: tag.to_owned(), ..callee.clone() }
}

#[track_caller]
fn dialled(world: &mut World) -> (Caller, Callee) {
    let caller = Caller::dial(world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    (caller, Callee::take(world, CARRIER_A))
}

#[track_caller]
fn end(world: &mut World, caller: &mut Caller, callee: &Callee) {
    caller.request(world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(CARRIER_A, "BYE ");
    assert_eq!(bye.to_tag(), callee.tag);
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.quiet();
    world.all_gone();
}

/// RFC 3261 13.2.1: in one dialog the first description is the answer and any other is ignored. So
/// a branch that describes other media than the caller has heard of is another dialog.
#[test]
fn branches_with_descriptions_of_their_own_are_dialogs_of_their_own() {
    let mut world = World::new();
    let (mut caller, callee) = dialled(&mut world);
    let other = branch_of(&callee, "other", CARRIER_A);
    callee.reply(&mut world, "180 Ringing", "");
    let ringing = world.expect(PBX, "SIP/2.0 180");
    callee.reply(&mut world, "183 Session Progress", &sdp_part("127.0.2.1", 50_000));
    let first = world.expect(PBX, "SIP/2.0 183");
    assert_eq!(first.to_tag(), ringing.to_tag(), "no description was seen before");
    other.reply(&mut world, "183 Session Progress", &sdp_part("127.0.2.1", 50_100));
    let second = world.expect(PBX, "SIP/2.0 183");
    assert_ne!(second.to_tag(), first.to_tag());
    callee.reply(&mut world, "180 Ringing", "");
    assert_eq!(world.expect(PBX, "SIP/2.0 180").to_tag(), first.to_tag());
    other.answer(&mut world);
    assert_eq!(world.expect(CARRIER_A, "ACK ").to_tag(), "other");
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert_eq!(ok.to_tag(), second.to_tag());
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.quiet();
    end(&mut world, &mut caller, &other);
}

/// RFC 3261 13.2.2.4; the route set is the response's own.
#[test]
fn the_second_2xx_of_a_fork_is_acknowledged_each_time_and_hung_up_once() {
    let mut world = World::new();
    let (mut caller, callee) = dialled(&mut world);
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    let late = branch_of(&callee, "late", "127.0.2.1:5070");
    let body = format!("Record-Route: <sip:127.0.2.7:5080;lr>\n{}", sdp_part("127.0.2.1", 50_100));
    for round in 0..3 {
        late.reply(&mut world, "200 OK", &body);
        let ack = world.expect("127.0.2.7:5080", "ACK sip:callee@127.0.2.1:5070 ");
        assert_eq!(ack.to_tag(), "late");
        assert_eq!(ack.header("Route"), "<sip:127.0.2.7:5080;lr>");
        if round == 0 {
            let bye = world.expect("127.0.2.7:5080", "BYE sip:callee@127.0.2.1:5070 ");
            assert_eq!(bye.header("Route"), "<sip:127.0.2.7:5080;lr>");
            assert_eq!((bye.to_tag().as_str(), bye.cseq()), ("late", ack.cseq() + 1));
            world.send("127.0.2.7:5080", CORE, &bye.reply("200 OK", "", ""));
        }
        world.quiet();
    }
    end(&mut world, &mut caller, &callee);
}

/// RFC 6228: only who asked for it is told, and the caller's dialog is not that branch's alone.
#[test]
fn the_end_of_a_branch_is_not_told() {
    let mut world = World::new();
    let (mut caller, callee) = dialled(&mut world);
    callee.reply(&mut world, "180 Ringing", "");
    world.expect(PBX, "SIP/2.0 180");
    callee.reply(&mut world, "199 Early Dialog Terminated", "");
    world.quiet();
    let other = branch_of(&callee, "other", CARRIER_A);
    other.answer(&mut world);
    assert_eq!(world.expect(CARRIER_A, "ACK ").to_tag(), "other");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    end(&mut world, &mut caller, &other);
}

fn rtp(sequence: u8) -> Vec<u8> {
    vec![0x80, 0, 0, sequence, 0, 0, 0, 160, 0, 0, 0, 9, 0x55]
}

/// Where a packet of the caller goes, and which ports of the callees' host reach the caller.
#[track_caller]
fn heard(world: &mut World, near: u16, far: u16, ports: &[u16]) -> (Vec<u16>, Vec<u16>) {
    let (near, far) = (addr(&format!("127.0.0.10:{near}")), addr(&format!("127.0.0.20:{far}")));
    world.media.clear();
    world.send_media("127.0.1.1:40000", near, &rtp(1));
    let up = world.media.iter().map(|(to, _)| to.port()).collect();
    let mut down = Vec::new();
    for port in ports {
        world.media.clear();
        world.send_media(&format!("127.0.2.1:{port}"), far, &rtp(2));
        down.extend(world.media.iter().map(|_| *port));
    }
    (up, down)
}

/// RFC 3261 13.2.2.4: the dialog of the 2xx is the one that counts. Without a description of its own
/// (against 13.2.1, but they exist) the 2xx means what its branch has said before, and not what another
/// branch said after that.
#[test]
fn the_media_is_that_of_the_branch_that_answers() {
    let ports = [50_000, 50_100, 50_200];
    for (tag, port) in [("one", Some(50_000)), ("two", Some(50_100)), ("three", None)] {
        let mut world = World::new();
        let (mut caller, callee) = dialled(&mut world);
        let [one, two, last] = ["one", "two", tag].map(|tag| branch_of(&callee, tag, CARRIER_A));
        one.reply(&mut world, "183 Session Progress", &sdp_part("127.0.2.1", 50_000));
        let first = world.expect(PBX, "SIP/2.0 183");
        let (near, far) = (first.media_port(0), callee.invite.media_port(0));
        assert_eq!(heard(&mut world, near, far, &ports), (vec![50_000], vec![50_000]));
        two.reply(&mut world, "183 Session Progress", &sdp_part("127.0.2.1", 50_100));
        let second = world.expect(PBX, "SIP/2.0 183");
        one.reply(&mut world, "180 Ringing", "");
        world.expect(PBX, "SIP/2.0 180");
        assert_eq!(heard(&mut world, near, far, &ports), (vec![50_100], vec![50_100]));
        last.reply(&mut world, "200 OK", "");
        assert_eq!(world.expect(CARRIER_A, "ACK ").to_tag(), tag);
        let ok = world.expect(PBX, "SIP/2.0 200");
        let known = [first.to_tag(), second.to_tag()].iter().position(|own| *own == ok.to_tag());
        assert_eq!(known, ["one", "two"].iter().position(|known| *known == tag), "{tag}");
        let port: Vec<u16> = port.into_iter().collect();
        assert_eq!(heard(&mut world, near, far, &ports), (port.clone(), port), "{tag}");
        caller.learn(&ok);
        caller.ack(&mut world, "");
        end(&mut world, &mut caller, &last);
    }
}

/// RFC 2543 has provisionals without a tag: theirs is the branch that answers.
#[test]
fn a_description_without_a_tag_is_that_of_who_answers() {
    let mut world = World::new();
    let (mut caller, callee) = dialled(&mut world);
    let early = branch_of(&callee, "", CARRIER_A);
    early.reply(&mut world, "183 Session Progress", &sdp_part("127.0.2.1", 50_000));
    let progress = world.expect(PBX, "SIP/2.0 183");
    callee.reply(&mut world, "200 OK", "");
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert_eq!(ok.to_tag(), progress.to_tag());
    let (near, far) = (progress.media_port(0), callee.invite.media_port(0));
    assert_eq!(heard(&mut world, near, far, &[50_000]), (vec![50_000], vec![50_000]));
    caller.learn(&ok);
    caller.ack(&mut world, "");
    end(&mut world, &mut caller, &callee);
}

/// The same of a PSAP: silence would help nobody, so its caller keeps whom it hears.
#[test]
fn a_call_for_help_keeps_the_media_that_it_has() {
    let mut world = World::new();
    let call = sdp_part("127.0.1.1", 40_000);
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &call);
    world.expect(PBX, "SIP/2.0 100");
    let psap = Callee::take(&mut world, PSAP_1);
    psap.reply(&mut world, "183 Session Progress", &sdp_part("127.0.9.1", 50_000));
    let progress = world.expect(PBX, "SIP/2.0 183");
    branch_of(&psap, "other", PSAP_1).reply(&mut world, "200 OK", "");
    assert_eq!(world.expect(PSAP_1, "ACK ").to_tag(), "other");
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert_eq!(ok.to_tag(), progress.to_tag(), "the dialog whose description it has");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.media.clear();
    let near = addr(&format!("127.0.0.10:{}", progress.media_port(0)));
    world.send_media("127.0.1.1:40000", near, &rtp(1));
    assert_eq!(world.media, [(addr("127.0.9.1:50000"), rtp(1))]);
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
}
