//! RTP to SRTP and back through the binary, past the kernel's UDP path: veth, a process that is killed,
//! and a peer that decrypts with another implementation than ours. What went which way is what the
//! edge's own counters say.

use std::time::{Duration, Instant};

use ravelin_contract::{
    chain::Head,
    link::{Down, Up},
    metrics::{MetricsReport, Sample},
};
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::{
    call::Call,
    edge::{Edge, Setup, media_of},
    namespaces::Spaces,
    sdes::{PORT, SUITES, Sealed, both_ways, packet, plain_offer, reports_both_ways},
    voice::{Voice, drained},
};
use crate::{link::Peer, support::PATIENCE};

/// Packets each way that must all come by AF_XDP, once a stream does.
const PACKETS: u16 = 200;
/// Packets each way between two looks at the counters before that.
const FEW: u16 = 10;
/// `ravelin_srtp::limits::RTP_LEAD`: numbers that a restart does not take twice.
const RECORD_CLAIMS: u16 = 32;
/// Within which a first packet passes after a restart, of which some are refused.
const TRY: Duration = Duration::from_millis(200);

/// What an edge has counted since it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// Datagrams received by AF_XDP, and by sockets.
    pub(super) by_af_xdp: u64,
    by_sockets: u64,
    /// Sent by AF_XDP; what would have been, and went by sockets.
    sent: u64,
    sent_by_sockets: u64,
    /// Sent to AF_XDP sockets by the program in the kernel.
    delivered: u64,
    dropped: u64,
}

impl Counts {
    fn of(report: &MetricsReport) -> Self {
        let sum = |pick: &dyn Fn(&Sample) -> bool| -> u64 {
            let values = report.samples.iter().filter(|sample| pick(sample));
            values.map(|sample| sample.value as u64).sum()
        };
        let named = |name: &str| sum(&|sample| sample.name == name);
        let delivered = ("reason".to_owned(), "delivered".to_owned());
        Self {
            by_af_xdp: named("af_xdp_rx_packets_total"),
            by_sockets: named("io_rx_datagrams_total"),
            sent: named("af_xdp_tx_packets_total"),
            sent_by_sockets: named("af_xdp_tx_by_sockets_total"),
            delivered: sum(&|sample| {
                sample.name == "fast_packets_left_total" && sample.labels.contains(&delivered)
            }),
            dropped: named("af_xdp_rx_drops_total"),
        }
    }

    fn received(&self) -> u64 {
        self.by_af_xdp + self.by_sockets
    }
}

/// The edge's numbers, as a control plane gets them each second.
pub(super) struct Numbers(pub(super) Peer);

impl Numbers {
    fn next(&mut self) -> Counts {
        self.0.until("metrics", |frame| match frame {
            Up::Metrics(report) => Some(Counts::of(&report)),
            _ => None,
        })
    }

    /// When nothing moves any more.
    pub(super) fn at_rest(&mut self) -> Counts {
        self.0.send(&Down::Ping { nonce: 1 });
        // What was sent before is of earlier.
        self.0.until("a pong", |frame| matches!(frame, Up::Pong { .. }).then_some(()));
        let mut last = self.next();
        loop {
            let next = self.next();
            if next == last {
                return next;
            }
            last = next;
        }
    }

    /// The first ones that have so many datagrams received.
    fn when_received(&mut self, wanted: u64) -> Counts {
        let end = Instant::now() + PATIENCE;
        loop {
            let counts = self.next();
            if counts.received() >= wanted {
                return counts;
            }
            assert!(Instant::now() < end, "{wanted} received datagrams are not in {counts:?}");
        }
    }
}

/// A call whose callee's leg is encrypted.
struct Parties {
    plain: Voice,
    sealed: Sealed,
    sequence: u16,
}

impl Parties {
    /// So many packets each way, each one read at its end before the next.
    #[track_caller]
    fn exchange(&mut self, packets: u16) {
        for _ in 0..packets {
            self.sequence = self.sequence.wrapping_add(1);
            both_ways(&self.plain, &mut self.sealed, self.sequence, self.plain.ssrc);
        }
    }

    /// One packet each way, of which none need arrive; whether both did.
    fn try_once(&mut self) -> bool {
        self.sequence = self.sequence.wrapping_add(1);
        let (said, told) =
            (packet(self.sequence, self.plain.ssrc), packet(self.sequence, self.plain.ssrc ^ 0xff));
        self.plain.rtp.send_to(&said, self.plain.to).expect("sent");
        self.sealed.say(&told);
        let (mut there, mut back, end) = (false, false, Instant::now() + TRY);
        while !(there && back) && Instant::now() < end {
            for arrived in drained(&self.sealed.voice.rtp) {
                let text = self.sealed.open.decrypt_rtp(&arrived).expect("under its key");
                there |= text == said;
            }
            back |= drained(&self.plain.rtp).contains(&told);
            std::thread::sleep(Duration::from_millis(1));
        }
        there && back
    }

    /// Talks until AF_XDP has the call's streams (the first packets of a stream are the sockets', and
    /// next hops are resolved first), and then some more, every packet of which goes that way, both
    /// in and out.
    #[track_caller]
    fn talk_by_af_xdp(&mut self, numbers: &mut Numbers) {
        let mut before = numbers.at_rest();
        let end = Instant::now() + PATIENCE;
        loop {
            self.exchange(FEW);
            let few = 2 * u64::from(FEW);
            let after = numbers.when_received(before.received() + few);
            if (after.by_af_xdp, after.sent) == (before.by_af_xdp + few, before.sent + few) {
                before = after;
                break;
            }
            assert!(Instant::now() < end, "still by the sockets: {before:?}, {after:?}");
            before = after;
        }
        self.exchange(PACKETS);
        let all = 2 * u64::from(PACKETS);
        // Those of the process come a moment before or after those of its shards.
        numbers.when_received(before.received() + all);
        let after = numbers.next();
        let wanted = Counts {
            by_af_xdp: before.by_af_xdp + all,
            sent: before.sent + all,
            delivered: before.delivered + all,
            ..before
        };
        assert_eq!(after, wanted, "before: {before:?}");
        assert_eq!(after.dropped, 0);
        // Reports are the sockets' as ever.
        reports_both_ways(&self.plain, &mut self.sealed);
        let last = numbers.when_received(after.received() + 2);
        assert_eq!(last.by_af_xdp, after.by_af_xdp);
    }
}

fn interworking(spaces: &Spaces, suite: (&'static str, ProtectionProfile)) {
    let media = ["{ srtp: off }", &format!("{{ srtp: sdes, srtp_suites: [{}] }}", suite.0)];
    let setup = Setup { media, driver: "xdp", followed: true, ..Setup::default() };
    let mut edge = Edge::start_in(Some(spaces), Spaces::net(), &setup);
    let mut numbers = Numbers(edge.control.take().expect("a control plane's end"));
    numbers.0.welcome(Head::START);
    let mut plain = Voice::new(edge.net.caller, PORT, 0x0a0a_0a0a);
    let mut sealed = Sealed::new(&edge, suite, 1);
    let offer = plain_offer(edge.net.caller, 1);
    let call = Call::up(&mut edge, 1, &offer, &sealed.answer(1));
    sealed.learn(&call.invite);
    plain.to = media_of(&call.answer, 0);
    // Over the wrap of the sequence number before the kill: the counter of it is on record.
    let mut parties = Parties { plain, sealed, sequence: 65_435 };
    parties.talk_by_af_xdp(&mut numbers);

    let log = edge.kill_and_start(Some(spaces), true);
    numbers.0.welcome(Head::START);
    parties.sequence = parties.sequence.wrapping_add(RECORD_CLAIMS);
    let goes_on = (0..50).any(|_| parties.try_once());
    assert!(goes_on, "no media after the kill; the log:\n{log}");
    parties.talk_by_af_xdp(&mut numbers);

    call.end(&mut edge);
    let records = edge.stop();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].status, records[0].adopted), (200, 1));
}

/// Both wires are cut and made again, one after the other, while a call is up.
fn made_anew(spaces: &Spaces, suite: (&'static str, ProtectionProfile)) {
    let media = ["{ srtp: off }", &format!("{{ srtp: sdes, srtp_suites: [{}] }}", suite.0)];
    let setup = Setup { media, driver: "xdp", followed: true, ..Setup::default() };
    let mut edge = Edge::start_in(Some(spaces), Spaces::net(), &setup);
    let mut numbers = Numbers(edge.control.take().expect("a control plane's end"));
    numbers.0.welcome(Head::START);
    let mut plain = Voice::new(edge.net.caller, PORT, 0x0a0a_0a0a);
    let mut sealed = Sealed::new(&edge, suite, 1);
    let offer = plain_offer(edge.net.caller, 1);
    let call = Call::up(&mut edge, 1, &offer, &sealed.answer(1));
    sealed.learn(&call.invite);
    plain.to = media_of(&call.answer, 0);
    let mut parties = Parties { plain, sealed, sequence: 65_435 };
    parties.talk_by_af_xdp(&mut numbers);
    for wire in 0..2 {
        spaces.cut(wire);
        edge.wait_for_line(&format!("e{wire} is gone"), 1);
        spaces.wire(wire).expect("the wire again");
        parties.exchange(FEW);
        edge.wait_for_line(&format!("e{wire} has the program again: native with AF_XDP"), 1);
        parties.talk_by_af_xdp(&mut numbers);
    }
    call.end(&mut edge);
    let records = edge.stop();
    assert_eq!((records.len(), records[0].status), (1, 200));
}

#[test]
fn srtp_goes_past_the_sockets_again_when_its_interfaces_were_made_anew() {
    let name = "srtp_goes_past_the_sockets_again_when_its_interfaces_were_made_anew";
    match Spaces::new() {
        Ok(spaces) => spaces.at_the_peers(|| made_anew(&spaces, SUITES[2])),
        Err(why) => println!("skipped: {name}: {why}"),
    }
}

fn in_spaces(name: &str, suite: (&'static str, ProtectionProfile)) {
    match Spaces::new() {
        Ok(spaces) => spaces.at_the_peers(|| interworking(&spaces, suite)),
        Err(why) => println!("skipped: {name}: {why}"),
    }
}

#[test]
fn srtp_with_aes_cm_goes_past_the_sockets_and_on_after_a_kill() {
    in_spaces("srtp_with_aes_cm_goes_past_the_sockets_and_on_after_a_kill", SUITES[0]);
}

#[test]
fn srtp_with_aes_gcm_goes_past_the_sockets_and_on_after_a_kill() {
    in_spaces("srtp_with_aes_gcm_goes_past_the_sockets_and_on_after_a_kill", SUITES[2]);
}
