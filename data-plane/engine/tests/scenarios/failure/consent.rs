//! Consent that ends (RFC 7675).

use ravelin_contract::audit::Severity;
use ravelin_engine::media::Loss;
use ravelin_srtp::integrity::IntegrityKey;
use ravelin_wire::stun::{Class, Writer, attribute};

use super::*;

/// A call with ICE whose caller checks every 5 s.
struct Checks {
    talk: Talk,
    ufrag: String,
    pwd: String,
}

#[track_caller]
fn checks(number: &str, action: &str) -> Checks {
    let mut world = world(&format!("srtp: off, ice: lite{action}"), "srtp: off");
    let at = if number == "911" { PSAP_1 } else { CARRIER_A };
    let uri = format!("sip:{number}@127.0.0.10");
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, &uri, &part("127.0.1.1", 1, &ice("")));
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, at);
    let ip = addr(at).ip().to_string();
    callee.reply(&mut world, "200 OK", &part(&ip, 1, ANSWER));
    world.expect(at, "ACK ");
    let told = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&told);
    caller.ack(&mut world, "");
    let ours = format!("127.0.0.10:{}", told.media_port(0));
    let line = Line::new("127.0.1.1", 40_000);
    let talk = Talk { world, caller, callee, at, told, ours, line };
    let mut checks = Checks { talk, ufrag: String::new(), pwd: String::new() };
    checks.learn();
    checks
}

fn ice(direction: &str) -> String {
    format!("m=audio 40000 RTP/AVP 0\na=ice-ufrag:{UFRAG}\na=ice-pwd:{PWD}\n{direction}")
}

impl Checks {
    fn learn(&mut self) {
        let of = |name: &str| {
            let body = self.talk.told.body();
            body.lines().find_map(|line| line.strip_prefix(name)).expect(name).to_owned()
        };
        (self.ufrag, self.pwd) = (of("a=ice-ufrag:"), of("a=ice-pwd:"));
    }

    fn check(&mut self) {
        let mut out = Vec::new();
        let key = IntegrityKey::new(self.pwd.as_bytes());
        Writer::binding(&mut out, Class::Request, [5; 12])
            .attribute(attribute::USERNAME, format!("{}:{UFRAG}", self.ufrag).as_bytes())
            .attribute(attribute::PRIORITY, &1_000_u32.to_be_bytes())
            .attribute(attribute::ICE_CONTROLLING, &[1; 8])
            .attribute(attribute::USE_CANDIDATE, b"")
            .integrity(|covered| key.tag(&[covered]))
            .finish();
        let to = addr(&self.talk.ours);
        self.talk.world.send_media("127.0.1.1:40000", to, &out);
    }

    fn check_for(&mut self, ms: u64) {
        for _ in 0..ms / 5_000 {
            self.check();
            self.talk.world.pass(5_000);
        }
    }
}

#[test]
fn a_party_that_no_longer_consents_ends_the_call_as_the_trunk_says() {
    for (action, counted) in [
        ("", [0, 1, 0]),
        (", failure_action: alarm", [1, 0, 0]),
        (", failure_action: nothing", [0, 0, 1]),
    ] {
        let mut checks = checks("+12125551234", action);
        checks.check_for(60_000);
        checks.talk.world.pass(CONSENT_MS - 6_000);
        assert!(checks.talk.lives() && checks.talk.events().is_empty());
        checks.talk.world.pass(2_000);
        assert_eq!(checks.talk.failures(Loss::Consent), counted, "{action}");
        if counted[1] == 1 {
            assert_eq!(checks.talk.events(), [["caller", "silent", "bye", "false"]]);
            assert_eq!(checks.talk.world.events()[0].severity, Severity::Alarm);
            checks.talk.hung_up(410);
        } else {
            assert!(checks.talk.lives());
            checks.check_for(60_000);
            assert!(checks.talk.lives());
        }
    }
}

/// EM rule 10.
#[test]
fn an_emergency_call_without_consent_goes_on() {
    let mut checks = checks("911", "");
    checks.check_for(60_000);
    checks.talk.world.pass(10 * CONSENT_MS);
    assert!(checks.talk.lives());
    assert_eq!(checks.talk.events(), [["caller", "silent", "alarm", "true"]]);
    checks.check_for(10_000);
    let to = addr("127.0.0.20:0");
    let to = std::net::SocketAddr::new(to.ip(), checks.talk.callee.invite.media_port(0));
    checks.talk.world.media.clear();
    let packet = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55];
    checks.talk.world.send_media("127.0.9.1:50000", to, &packet);
    assert_eq!(checks.talk.world.media.len(), 1, "its next check opens the pair again");
}

/// Who is on hold sends nothing and need not ask (RFC 7675 5.1). After the hold it has its full time.
#[test]
fn a_hold_suspends_consent() {
    for comes_back in [true, false] {
        let mut checks = checks("+12125551234", "");
        checks.check_for(60_000);
        checks.talk.again(2, &ice("a=inactive\n"), &format!("{ANSWER}a=inactive\n"));
        checks.talk.world.pass(20 * CONSENT_MS);
        assert!(checks.talk.lives());
        assert_eq!(checks.talk.events(), [["caller", "silent", "alarm", "false"]]);
        assert_eq!(checks.talk.world.events()[0].severity, Severity::Warning);
        checks.talk.again(3, &ice(""), ANSWER);
        checks.talk.world.pass(CONSENT_MS - 1_000);
        assert!(checks.talk.lives());
        if comes_back {
            checks.check_for(60_000);
            assert!(checks.talk.lives());
        } else {
            checks.talk.world.pass(2_000);
            checks.talk.hung_up(410);
        }
    }
}
