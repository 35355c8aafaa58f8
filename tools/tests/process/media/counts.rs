//! Packets, octets, loss, duplicates, order and jitter of real calls, against what the test computes
//! by RFC 3550 from what it sent: over the sockets, over the program in the kernel, and over AF_XDP.

use std::time::{Duration, Instant};

use ravelin_contract::{cdr::Cdr, chain::Head};

use super::{
    af_xdp::Numbers,
    call::Call,
    edge::{Edge, Net, Setup, description, media_of},
    namespaces::Spaces,
    rfc3550::{Sent, counts, jitter},
    sdes::{SUITES, Sealed},
    voice::{Voice, drained},
};
use crate::support::PATIENCE;

/// Of 127.14.0.0/16.
const PLACE: u8 = 22;
const PORT: u16 = 40_000;
/// Milliseconds between the timestamps of packets, over and over. They are sent as fast as they pass:
/// next to these differences it hardly matters when.
const STEPS_MS: [u32; 3] = [0, 600, 200];
/// Within which a packet passes a fast path, if there is one.
const TRY: Duration = Duration::from_millis(200);
/// What the units of the clock and of the figures leave, in milliseconds.
const ROUNDING_MS: f64 = 0.5;

/// How packets of the caller go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Sockets,
    /// Through the program; the process stands still while anything happens.
    Program,
    AfXdp,
}

/// The caller's end.
struct Sender<'a> {
    path: Path,
    from: &'a Voice,
    /// Where it comes out.
    out: &'a Voice,
    ssrc: u32,
    /// Of the next packet of a steady stream.
    next: u64,
    sent: Vec<Sent>,
    /// Packets that have not come out, and need not.
    unheard: usize,
}

impl Sender<'_> {
    fn timestamp_ms(number: u64) -> u32 {
        let (rounds, at) = (number as u32 / 3, number as usize % 3);
        let [one, two, three] = STEPS_MS;
        rounds * (one + two + three) + STEPS_MS[..at].iter().sum::<u32>()
    }

    /// Sends a packet; whether it came out in time.
    fn say(&mut self, number: u64, patience: Duration) -> bool {
        let ms = Self::timestamp_ms(number);
        let mut packet = vec![0x80, 0];
        packet.extend((number as u16).to_be_bytes());
        packet.extend((ms * 8).to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend([0x55; 160]);
        // An encrypted side gets no packet twice: none of its key stream may be used again.
        let again = self.sent.iter().any(|one| (one.ssrc, one.number) == (self.ssrc, number));
        let unheard = again && self.path == Path::AfXdp;
        let before = Instant::now();
        self.from.rtp.send_to(&packet, self.from.to).expect("sent");
        let heard = unheard || self.heard(patience);
        self.sent.push(Sent {
            ssrc: self.ssrc,
            number,
            timestamp_ms: f64::from(ms),
            octets: packet.len() as u64,
            before,
            after: Instant::now(),
        });
        heard
    }

    /// Waits for what was not heard before.
    fn heard(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            let come = drained(&self.out.rtp).len();
            assert!(come <= 1 + self.unheard, "{come} packets of one");
            if come == 1 + self.unheard {
                self.unheard = 0;
                return true;
            }
            self.unheard -= come;
            if Instant::now() >= end {
                self.unheard += 1;
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn steady(&mut self, packets: u64) {
        for _ in 0..packets {
            assert!(self.say(self.next, PATIENCE), "number {} did not come out", self.next);
            self.next += 1;
        }
    }

    /// Packets lost, doubled, swapped, and late, in the middle of others.
    fn eventful(&mut self) {
        let start = self.next;
        self.next += 500;
        for at in 0..500 {
            let numbers: &[u64] = match at {
                20..=22 | 150 | 220..=227 => &[],
                60 | 61 => &[at, at],
                // Twice, far apart.
                75 => &[75, 65],
                80 => &[81, 80],
                81 => &[],
                // Overtaken by fifteen.
                100 => &[],
                115 => &[115, 100],
                _ => &[at],
            };
            for number in numbers {
                assert!(self.say(start + number, PATIENCE), "{number} of {start} did not come out");
            }
        }
    }

    /// A source begins, and when its packets go as they should, things happen to it. Gives where in
    /// what was sent that began.
    fn source(&mut self, edge: &Edge, ssrc: u32, first: u64) -> usize {
        (self.ssrc, self.next) = (ssrc, first);
        self.steady(100);
        if self.path != Path::Program {
            let start = self.sent.len();
            self.eventful();
            return start;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let began = edge.frozen(|| {
                let passes = self.say(self.next, TRY);
                self.next += 1;
                let start = self.sent.len();
                passes.then(|| {
                    self.eventful();
                    start
                })
            });
            if let Some(start) = began {
                return start;
            }
            assert!(Instant::now() < end, "it is not taken over");
            // What the process did not take then it takes now.
            self.steady(5);
        }
    }
}

fn check(path: Path, sent: &[Sent], eventful: [usize; 2], cdr: &Cdr) {
    let found = &cdr.streams[0];
    let wanted = counts(sent);
    assert!(wanted.missing == 24 && wanted.duplicates == 6 && wanted.reordered == 4, "{wanted:?}");
    assert_eq!((found.packets, found.bytes), (wanted.packets, wanted.bytes), "{path:?}");
    let figures = (found.lost, found.duplicates, found.reordered, found.gaps);
    if path == Path::Program {
        assert_eq!(figures, (wanted.lost, 0, 0, 0), "{path:?}");
    } else {
        let wanted = (wanted.missing, wanted.duplicates, wanted.reordered, wanted.gaps);
        assert_eq!(figures, wanted, "{path:?}");
    }
    assert_eq!(found.expected, wanted.expected, "{path:?}");
    assert_eq!((found.ssrc, found.ssrc_changes), (Some(2), 1), "{path:?}");
    assert_eq!((found.restarts, found.astray), (0, 0), "{path:?}");
    assert_eq!(found.loss_percent, (found.lost as f64 / found.expected as f64 * 1e4).round() / 1e2);

    let all = jitter(sent, 0.0..=0.0);
    // The program's own begins anew with each flow, and is read once things are over.
    let segments = eventful.map(|start| {
        let end = sent[start..].iter().position(|one| one.ssrc != sent[start].ssrc);
        let end = end.map_or(sent.len(), |length| start + length);
        jitter(&sent[start..end], 0.0..=1_000.0).last
    });
    let last = segments.iter().map(|range| *range.start()).fold(0.0, f64::max);
    let low = if path == Path::Program { last } else { *all.highest.start() };
    let highest = found.jitter_max_ms.expect("a jitter");
    let bounds = low - ROUNDING_MS..=all.highest.end() + ROUNDING_MS;
    assert!(bounds.contains(&highest), "{path:?}: {highest} ms is not in {bounds:?}");
    let mean = found.jitter_ms.expect("a jitter");
    assert!(mean > 0.0 && mean <= highest, "{path:?}: {mean} of {highest} ms");
    println!("{path:?}: {highest} ms in {bounds:?}, mean {mean}");
}

fn talk(spaces: Option<&Spaces>, net: Net, path: Path) {
    let suite = SUITES[0];
    let media = match path {
        Path::AfXdp => format!("{{ srtp: sdes, srtp_suites: [{}] }}", suite.0),
        _ => "{}".to_owned(),
    };
    let driver = if spaces.is_some() { "xdp" } else { "auto" };
    let followed = path == Path::AfXdp;
    let setup = Setup { media: ["{}", &media], driver, followed, ..Setup::default() };
    let mut edge = Edge::start_in(spaces, net, &setup);
    let mut numbers = edge.control.take().map(Numbers);
    if let Some(numbers) = &mut numbers {
        numbers.0.welcome(Head::START);
    }
    let streams = format!("m=audio {PORT} RTP/AVP 0\n");
    let [offer, plain] = edge.net.parties().map(|ip| description(ip, 1, &streams));
    let mut caller = Voice::new(edge.net.caller, PORT, 1);
    let callee = Sealed::new(&edge, suite, 1);
    let answer = if path == Path::AfXdp { callee.answer(1) } else { plain };
    let call = Call::up(&mut edge, 1, &offer, &answer);
    caller.to = media_of(&call.answer, 0);

    let (from, out) = (&caller, &callee.voice);
    let mut sender = Sender { path, from, out, ssrc: 0, next: 0, sent: Vec::new(), unheard: 0 };
    // Over the wrap of the sequence number; another source, from the middle of its numbers.
    let eventful = [sender.source(&edge, 1, 65_200), sender.source(&edge, 2, 30_000)];
    if let Some(numbers) = &mut numbers {
        let (all, way) = (sender.sent.len() as u64, numbers.at_rest());
        assert!(way.by_af_xdp > all / 2, "{way:?} of {all}");
    }
    let sent = sender.sent;
    call.end(&mut edge);
    let cdrs = edge.stop();
    check(path, &sent, eventful, &cdrs[0]);
}

#[test]
fn counts_of_the_sockets_are_those_of_what_was_sent() {
    talk(None, Net::loopback(PLACE), Path::Sockets);
}

fn in_spaces(name: &str, path: Path) {
    match Spaces::new() {
        Ok(spaces) => spaces.at_the_peers(|| talk(Some(&spaces), Spaces::net(), path)),
        Err(why) => println!("skipped: {name}: {why}"),
    }
}

#[test]
fn counts_of_the_program_are_those_of_what_was_sent() {
    in_spaces("counts_of_the_program_are_those_of_what_was_sent", Path::Program);
}

#[test]
fn counts_of_af_xdp_are_those_of_what_was_sent() {
    in_spaces("counts_of_af_xdp_are_those_of_what_was_sent", Path::AfXdp);
}
