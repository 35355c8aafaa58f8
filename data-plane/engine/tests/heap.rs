//! A call leaves no memory behind, not five octets: resident memory, which a test with the binary looks
//! at, shows some hundred octets a call at best.

mod support;

use allocation_counter::measure;
use ravelin_engine::limits::Limits;
use support::{
    ACCESS, CALLEE, CALLER, CONFIG, CORE, Caller, World, answer, media_address, rtp, sdp,
};

const PAIRS: u32 = 24;
const STRINGS_OF_A_PAIR: u32 = 200;
/// Calls up at a time: most that the trunk of the test takes.
const AT_ONCE: usize = 18;
const CALLEE_MEDIA: &str = "127.0.2.1:7000";

/// Calls that end in each way, up at the same time; every peer's mail and every record is forgotten.
fn round(world: &mut World, name: &str) {
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let mut caller = Caller::new(&format!("{name}{number:02}"));
            if number % 6 == 5 {
                caller.number = "911".to_owned();
            }
            caller
        })
        .collect();
    let mut up = Vec::new();
    for (number, caller) in callers.iter().enumerate() {
        let callee = if number % 6 == 5 { support::PSAP } else { CALLEE };
        world.send(CALLER, ACCESS, caller.invite().as_bytes());
        world.expect(CALLER, "100 INVITE");
        let invite = world.expect(callee, "INVITE");
        world.send(callee, CORE, answer(&invite, 180, "b1", "").as_bytes());
        world.expect(CALLER, "180 INVITE");
        match number % 6 {
            0 => {
                world.send(callee, CORE, answer(&invite, 486, "b1", "").as_bytes());
                let refusal = world.expect(CALLER, "486 INVITE");
                world.send(CALLER, ACCESS, caller.ack_refusal(&refusal).as_bytes());
            }
            1 => {
                world.send(CALLER, ACCESS, caller.cancel().as_bytes());
            }
            _ => {
                let ok = answer(&invite, 200, "b1", &sdp(CALLEE_MEDIA, 1, ""));
                world.send(callee, CORE, ok.as_bytes());
                let ok = world.expect(CALLER, "200 INVITE");
                world.send(CALLER, ACCESS, caller.request("ACK", 1, &ok).as_bytes());
                let to = media_address(ok.message().body());
                for sequence in 0..20 {
                    world.send_media("127.0.1.1:6000", to, &rtp(sequence));
                }
                up.push((number, ok));
            }
        }
        world.clear_mail();
    }
    world.run(5_000);
    // No callee answers: each BYE is repeated until it is given up.
    for (number, ok) in up {
        let bye = callers[number].request("BYE", 2, &ok);
        world.send(CALLER, ACCESS, bye.as_bytes());
    }
    world.assert_all_over();
    world.clear_mail();
    world.records.clear();
    world.drops.clear();
}

#[test]
fn calls_leave_no_memory_behind() {
    // Few ports, so that each has been in use before memory is measured.
    let config = CONFIG.replace("20000-20399", "20000-20047").replace("30000-30399", "30000-30047");
    let mut world = World::with(1, &config, Limits::default());
    // Tables grow to their working size.
    for number in 0..5 {
        round(&mut world, &format!("w{number}"));
    }
    let held = measure(|| {
        for number in 10..70 {
            round(&mut world, &format!("c{number}"));
        }
    });
    // A pair of ports keeps some strings of the call that it served last, until it serves another.
    let most = i64::from(PAIRS * STRINGS_OF_A_PAIR);
    assert!(held.bytes_current.abs() <= most, "{held:?}");
}
