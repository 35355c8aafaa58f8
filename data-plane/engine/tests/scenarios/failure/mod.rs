//! Media that cannot be: DTLS that fails or is not begun, consent that ends (RFC 5763, RFC 7675). What
//! it does to whom, and to which calls nothing.

mod consent;
mod handshake;
mod reoffer;

use std::sync::Arc;

use ravelin_contract::cdr::Party;
use ravelin_engine::{limits::Limits, media::Loss};
use ravelin_policy::MediaAction;
use ravelin_srtp::dtls::{Association, Fingerprint, Fingerprints, Identity, Role, State};

use crate::common::*;

const WITHIN_MS: u64 = 45_000;
const CONSENT_MS: u64 = 30_000;
const STEP_MS: u64 = 20;
const UFRAG: &str = "h6vY";
const PWD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

fn world(pbx: &str, others: &str) -> World {
    let mut text = CONFIG.to_owned();
    for (id, media) in [("pbx", pbx), ("carrier-a", others), ("psap-1", others)] {
        let at = format!("  - id: {id}\n");
        assert!(text.contains(&at));
        text = text.replacen(&at, &format!("{at}    media: {{ {media} }}\n"), 1);
    }
    let mut world = World::with(&text, Limits::default());
    let identity = Identity::generate(std::time::Instant::now()).unwrap();
    world.engine.set_dtls_identity(Arc::new(identity));
    world
}

fn part(ip: &str, version: u32, streams: &str) -> String {
    format!(
        "Content-Type: application/sdp\n\nv=0\no=x 1 {version} IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\n\
         t=0 0\n{streams}"
    )
}

/// One line with DTLS and its party.
struct Line {
    /// Where it is.
    at: String,
    identity: Arc<Identity>,
    association: Option<Association>,
}

impl Line {
    fn new(ip: &str, port: u16) -> Self {
        let identity = Arc::new(Identity::generate(std::time::Instant::now()).unwrap());
        Self { at: format!("{ip}:{port}"), identity, association: None }
    }

    /// What it says of itself; `honest`: its own fingerprint.
    fn says(&self, setup: &str, honest: bool) -> String {
        let port = addr(&self.at).port();
        let fingerprint = if honest {
            self.identity.fingerprint().unwrap().to_string()
        } else {
            format!("sha-256 {}", vec!["AB"; 32].join(":"))
        };
        format!(
            "m=audio {port} UDP/TLS/RTP/SAVP 0\na=rtcp-mux\na=setup:{setup}\n\
             a=fingerprint:{fingerprint}\n"
        )
    }

    fn begin(&mut self, role: Role, ours: &Msg) {
        let line = ours.body().lines().find_map(|line| line.strip_prefix("a=fingerprint:"));
        let mut expected = Fingerprints::default();
        assert!(expected.add(line.expect("a fingerprint").as_bytes()));
        assert!(Fingerprint::parse(line.unwrap().as_bytes()).is_some());
        self.association = Some(Association::new(self.identity.clone(), role, expected));
    }

    fn state(&self) -> State {
        self.association.as_ref().map_or(State::Idle, Association::state)
    }
}

/// The parties of lines shake hands with what is at `ours` while time passes.
fn shake(world: &mut World, lines: &mut [(&mut Line, String)], ms: u64) {
    for _ in 0..ms / STEP_MS {
        world.pass(STEP_MS);
        for (line, ours) in &mut *lines {
            let Line { at, association, .. } = &mut **line;
            let Some(association) = association else { continue };
            let mut out: Vec<Vec<u8>> = Vec::new();
            let mut send = |datagram: &[u8]| out.push(datagram.to_vec());
            let now = world.now.mono.0;
            association.start(now, &mut send);
            let _ = association.expire(now, &mut send);
            let (for_it, rest) =
                std::mem::take(&mut world.media).into_iter().partition(|(to, _)| *to == addr(at));
            world.media = rest;
            let for_it: Vec<(std::net::SocketAddr, Vec<u8>)> = for_it;
            for (_, bytes) in for_it {
                let _ = association.receive(now, &bytes, &mut send);
            }
            for datagram in out {
                world.send_media(at, addr(ours), &datagram);
            }
        }
    }
}

/// Which party has DTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Caller,
    Callee,
}

struct Talk {
    world: World,
    caller: Caller,
    callee: Callee,
    /// Where the callee's signalling is.
    at: &'static str,
    /// What the party with DTLS was told.
    told: Msg,
    /// Our end towards it.
    ours: String,
    line: Line,
}

const PLAIN: &str = "RTP/AVP 0\n";

/// A call in which one party says `setup`, as far as the answer; with `early` to the 183.
#[track_caller]
fn talk(who: Who, number: &str, action: &str, setup: &str, honest: bool, early: bool) -> Talk {
    let dtls = format!("srtp: dtls{action}");
    let mut world = match who {
        Who::Caller => world(&dtls, "srtp: off"),
        Who::Callee => world("srtp: off", &dtls),
    };
    let at = if number == "911" { PSAP_1 } else { CARRIER_A };
    let ip = addr(at).ip().to_string();
    let (line, offer, answer) = match who {
        Who::Caller => {
            let line = Line::new("127.0.1.1", 40_000);
            let offer = line.says(setup, honest);
            (line, offer, format!("m=audio 50000 {PLAIN}"))
        }
        Who::Callee => {
            let line = Line::new(&ip, 50_000);
            let answer = line.says(setup, honest);
            (line, format!("m=audio 40000 {PLAIN}"), answer)
        }
    };
    let uri = format!("sip:{number}@127.0.0.10");
    let offer = part("127.0.1.1", 1, &offer);
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, &uri, &offer);
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, at);
    let status = if early { "183 Session Progress" } else { "200 OK" };
    callee.reply(&mut world, status, &part(&ip, 1, &answer));
    let heard = if early {
        world.expect(PBX, "SIP/2.0 183")
    } else {
        world.expect(at, "ACK ");
        world.expect(PBX, "SIP/2.0 200")
    };
    caller.learn(&heard);
    if !early {
        caller.ack(&mut world, "");
    }
    let (told, ours) = match who {
        Who::Caller => (heard.clone(), format!("127.0.0.10:{}", heard.media_port(0))),
        Who::Callee => {
            (callee.invite.clone(), format!("127.0.0.20:{}", callee.invite.media_port(0)))
        }
    };
    Talk { world, caller, callee, at, told, ours, line }
}

impl Talk {
    fn lives(&self) -> bool {
        self.world.engine.tables().calls == 1 && self.world.cdrs().is_empty()
    }

    fn begin(&mut self, role: Role) {
        self.line.begin(role, &self.told);
    }

    fn shake(&mut self, ms: u64) {
        let ours = self.ours.clone();
        shake(&mut self.world, &mut [(&mut self.line, ours)], ms);
    }

    fn failures(&self, loss: Loss) -> [u64; 3] {
        [MediaAction::Alarm, MediaAction::Bye, MediaAction::Nothing]
            .map(|action| self.world.engine.counters().media_failures(loss, action))
    }

    /// Both parties were hung up on for `cause`, and the record has it.
    #[track_caller]
    fn hung_up(&mut self, cause: u16) {
        for (at, to) in [(self.at, CORE), (PBX, ACCESS)] {
            let bye = self.world.expect(at, "BYE ");
            let reason = format!("ravelin;cause={cause};text=");
            assert!(bye.header("Reason").starts_with(&reason), "{bye:?}");
            self.world.send(at, to, &bye.reply("200 OK", "", ""));
        }
        let cdr = self.world.call_cdr();
        assert_eq!((cdr.cause, cdr.ended_by), (cause, Party::Ravelin));
        // Retransmissions apart.
        self.world.forget_inbox();
        self.world.all_gone();
    }

    fn events(&self) -> Vec<[String; 4]> {
        let told = ["party", "reason", "action", "emergency"];
        let events = self.world.events().into_iter();
        let lost = events
            .filter(|event| ["media.dtls_failed", "media.consent_lost"].contains(&&*event.kind));
        lost.map(|event| {
            assert!(event.call.is_some());
            told.map(|key| event.fields[key].to_string().trim_matches('"').to_owned())
        })
        .collect()
    }
}

const ROLES: [(&str, Option<Role>); 2] =
    [("active", Some(Role::Client)), ("passive", Some(Role::Server))];

const ANSWER: &str = "m=audio 50000 RTP/AVP 0\n";

impl Talk {
    /// The caller re-invites; the callee answers.
    #[track_caller]
    fn again(&mut self, version: u32, offer: &str, answer: &str) {
        let ringing = self.reinvite(version, offer);
        self.accept(&ringing, version, answer);
    }

    #[track_caller]
    fn reinvite(&mut self, version: u32, offer: &str) -> Msg {
        self.caller.request(&mut self.world, "INVITE", &part("127.0.1.1", version, offer));
        self.world.expect(PBX, "SIP/2.0 100");
        self.world.expect(self.at, "INVITE ")
    }

    #[track_caller]
    fn accept(&mut self, invite: &Msg, version: u32, answer: &str) {
        let ip = addr(self.at).ip().to_string();
        let reply = invite.reply("200 OK", "", &part(&ip, version, answer));
        self.world.send(self.at, CORE, &reply);
        self.world.expect(self.at, "ACK ");
        self.told = self.world.expect(PBX, "SIP/2.0 200");
        self.caller.ack(&mut self.world, "");
        self.world.quiet();
    }
}
