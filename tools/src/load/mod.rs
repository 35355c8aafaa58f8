//! `ravelin load`: sends RTP over many streams at a fixed rate and checks what comes out at the
//! other end, packet by packet. One thread does both and spins: no wake-up stands between the
//! clock and a packet.
//!
//! With `--via frames` a packet costs it a fraction of what any device needs that receives and
//! sends it by sockets; with `--via xdp` again a fraction of that. The report says how much of the
//! time the thread had nothing to do.

mod content;
mod frames;
mod live;
mod namespace;
mod plan;
mod sockets;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use self::{
    content::Stamp,
    plan::Plan,
    sockets::unix_ns,
    tally::{Counts, Latency, Tally},
};
use crate::{
    cli::{LoadArgs, Via},
    exit::{Failure, Outcome},
    print,
};

/// Packets sent before arrivals are looked at.
const SEND_BATCH: u64 = 32;
/// What a generator that fell behind makes up for; beyond it the schedule is moved, and told.
const CATCH_UP: Duration = Duration::from_millis(5);
const RTP_HEADER_BYTES: usize = 12;
/// With `--rests`, how long packets are sent without a pause. The kernel keeps a twentieth of each
/// second for threads without real-time priority (its fair server): where one of them waits for the
/// core of a generator that has such priority and spins, the generator loses it for 50 ms at a
/// time, and so does the input path that shares it. Measured on two busy cores: in 16 runs of 2 s
/// the longest a packet left late was 10 to 51 ms, in 16 of 0.4 s at most 2.8 ms.
const SPELL: Duration = Duration::from_millis(400);
/// How long packets that are on their way may still arrive before the pause.
const DRAIN: Duration = Duration::from_millis(5);
/// And how long the pause is: more than the kernel would take.
const REST: Duration = Duration::from_millis(60);

pub(crate) use content::{PAYLOAD_MAX_BYTES, PAYLOAD_MIN_BYTES};

/// A datagram that has arrived at a place of the plan.
struct Arrived<'a> {
    place: u32,
    from: SocketAddr,
    bytes: &'a [u8],
    at_ns: u64,
}

/// What packets travel by.
trait Medium {
    /// The number of a place where streams arrive.
    fn place(&self, side: usize, at: SocketAddr) -> Option<u32>;

    /// Takes a packet of a stream, which `fill` writes. False: flush first.
    fn push(&mut self, stream: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> bool;

    /// Sends what was pushed. Returns how many were refused.
    fn flush(&mut self) -> Result<u64, Failure>;

    /// Hands out what has arrived, bounded. Returns how many things were looked at.
    fn receive(&mut self, sink: &mut dyn FnMut(Arrived<'_>)) -> Result<usize, Failure>;

    /// Arrivals that the generator was too slow for.
    fn overruns(&mut self) -> u64;
}

/// What the command prints.
#[derive(Debug, Serialize)]
struct Report {
    via: &'static str,
    streams: usize,
    payload_bytes: u16,
    /// From the first packet sent to the last.
    seconds: f64,
    asked_pps: f64,
    offered_pps: f64,
    received_pps: f64,
    #[serde(flatten)]
    counts: Counts,
    latency_us: Latency,
    generator: Generator,
}

/// Whether the generator kept up.
#[derive(Debug, Serialize)]
struct Generator {
    /// CPU of its turns that sent or received something, per packet in either direction.
    cpu_us_per_packet: f64,
    /// Part of the time in which it had nothing to do.
    idle_share: f64,
    /// Longest time that a packet left after it was due, microseconds.
    late_us_max: f64,
    /// Time by which the schedule was moved because it was too late to make up for.
    skipped_ms: f64,
    /// Pauses on purpose; the times above, and those of the whole run, are without them.
    rests: u32,
    /// Packets that the kernel refused to send; they are in `lost`.
    refused: u64,
    /// Arrivals that found no room here; they are in `lost` and not the device's doing.
    overruns: u64,
}

pub(crate) fn run(args: &LoadArgs) -> Result<Outcome, Failure> {
    let plan = plan::read(args)?;
    if let Some(core) = args.core {
        ravelin_io::sys::thread::pin_to(core).map_err(|error| {
            Failure::cannot_run(format!("--core {core}: this process cannot run there: {error}"))
        })?;
    }
    let datagram = RTP_HEADER_BYTES + usize::from(args.payload_bytes);
    let report = match args.via {
        Via::Frames => drive(args, &plan, &mut frames::Frames::open(&plan, datagram)?)?,
        Via::Xdp => live::drive(args, &plan, datagram)?,
        Via::Sockets => drive(args, &plan, &mut sockets::Sockets::open(&plan, datagram)?)?,
    };
    if args.json {
        print::json(&report)?;
    } else {
        text(&report)?;
    }
    let counts = &report.counts;
    let whole = counts.lost + counts.duplicates + counts.corrupt + counts.misdelivered == 0;
    Ok(Outcome::of(whole))
}

/// How long packets are sent without a pause.
fn spell(args: &LoadArgs) -> Duration {
    if args.rests { SPELL } else { Duration::MAX }
}

/// One run.
fn drive(args: &LoadArgs, plan: &Plan, medium: &mut impl Medium) -> Result<Report, Failure> {
    let streams = plan.streams.len() as u64;
    let places: Vec<_> = plan
        .streams
        .iter()
        .map(|stream| {
            let arrives = &stream.arrives;
            (medium.place(arrives.side, arrives.at), arrives.from)
        })
        .collect();
    let rate = f64::from(args.rate);
    let total = (rate * args.seconds.as_secs_f64()) as u64;
    let mut tally = Tally::new(plan.streams.len());
    let mut generator = Generator {
        cpu_us_per_packet: 0.0,
        idle_share: 0.0,
        late_us_max: 0.0,
        skipped_ms: 0.0,
        rests: 0,
        refused: 0,
        overruns: 0,
    };
    // What came before the start is nobody's.
    medium.receive(&mut |_| {})?;
    medium.overruns();
    let (start, mut schedule) = (Instant::now(), Instant::now());
    let (mut sent, mut busy, mut taken) = (0_u64, Duration::ZERO, 0_u64);
    let mut sending_took = Duration::ZERO;
    let mut last_arrival = start;
    let mut turn_began = start;
    let (spell, mut rested) = (spell(args), Duration::ZERO);
    let mut spell_began = start;
    loop {
        let spell_lasted = turn_began.saturating_duration_since(spell_began);
        if sent < total && spell_lasted >= spell.saturating_add(DRAIN) {
            thread::sleep(REST);
            let pause = spell_began.elapsed().saturating_sub(spell);
            schedule += pause;
            rested += pause;
            generator.rests += 1;
            turn_began = Instant::now();
            spell_began = turn_began;
        }
        let turn_at = turn_began;
        let mut worked = false;
        if sent < total && (spell_lasted < spell || turn_at == spell_began) {
            let elapsed = turn_at.saturating_duration_since(schedule);
            let due = ((elapsed.as_secs_f64() * rate) as u64 + 1).min(total);
            let behind = Duration::from_secs_f64(due.saturating_sub(sent + 1) as f64 / rate);
            generator.late_us_max = generator.late_us_max.max(behind.as_secs_f64() * 1e6);
            if behind > CATCH_UP {
                schedule += behind;
                generator.skipped_ms += behind.as_secs_f64() * 1e3;
            }
            let until = due.min(sent + SEND_BATCH);
            while sent < until {
                let (stream, number) = ((sent % streams) as usize, sent / streams);
                let took = medium.push(stream, &mut |into| {
                    let stamp = Stamp { stream: stream as u32, number, sent_ns: unix_ns() };
                    content::write(stamp, args.payload_bytes, args.payload_type, into)
                });
                if !took {
                    break;
                }
                sent += 1;
                worked = true;
            }
            if worked {
                generator.refused += medium.flush()?;
            }
            if sent == total {
                sending_took = start.elapsed();
            }
        }
        let looked = medium.receive(&mut |arrived| {
            let checked = content::check(arrived.bytes, args.payload_bytes);
            tally.take(checked, arrived.at_ns, |stream| {
                places.get(stream as usize).is_some_and(|(place, from)| {
                    *place == Some(arrived.place) && from.is_none_or(|from| from == arrived.from)
                })
            });
        })?;
        taken += looked as u64;
        turn_began = Instant::now();
        if worked || looked > 0 {
            busy += turn_began - turn_at;
        }
        if looked > 0 {
            last_arrival = turn_began;
        }
        if sent == total {
            let quiet =
                turn_began.saturating_duration_since(last_arrival.max(start + sending_took));
            if tally.received() >= total || quiet >= args.tail {
                break;
            }
        }
    }
    generator.overruns = medium.overruns();
    generator.idle_share = 1.0 - busy.as_secs_f64() / (start.elapsed() - rested).as_secs_f64();
    generator.cpu_us_per_packet = busy.as_secs_f64() * 1e6 / (sent + taken).max(1) as f64;
    let seconds = (sending_took - rested).as_secs_f64();
    let (counts, latency_us) = tally.finish(sent);
    Ok(Report {
        via: args.via.label(),
        streams: plan.streams.len(),
        payload_bytes: args.payload_bytes,
        seconds,
        asked_pps: rate,
        offered_pps: sent as f64 / seconds,
        received_pps: counts.received as f64 / seconds,
        counts,
        latency_us,
        generator,
    })
}

fn text(report: &Report) -> Result<(), Failure> {
    let Report { counts, latency_us, generator, .. } = report;
    print::line(&format!(
        "{} streams by {}: offered {:.0}/s, received {:.0}/s over {:.1} s",
        report.streams, report.via, report.offered_pps, report.received_pps, report.seconds
    ))?;
    print::line(&format!(
        "sent {}, received {}, lost {} ({:.4} %), reordered {}, duplicates {}, corrupt {}, misdelivered {}, foreign {}",
        counts.sent,
        counts.received,
        counts.lost,
        counts.lost as f64 * 100.0 / counts.sent.max(1) as f64,
        counts.reordered,
        counts.duplicates,
        counts.corrupt,
        counts.misdelivered,
        counts.foreign
    ))?;
    print::line(&format!(
        "latency us: p50 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
        latency_us.p50, latency_us.p99, latency_us.p99_9, latency_us.max
    ))?;
    print::line(&format!(
        "generator: {:.2} us of CPU a packet, idle {:.0} %, late at most {:.0} us, skipped {:.1} ms, rests {}, refused {}, overruns {}",
        generator.cpu_us_per_packet,
        generator.idle_share * 100.0,
        generator.late_us_max,
        generator.skipped_ms,
        generator.rests,
        generator.refused,
        generator.overruns
    ))
}
