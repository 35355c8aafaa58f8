//! Streams as live frames of XDP: made, sent, received and checked by programs in the kernel, for
//! devices that frames from user space are too slow for.

use std::{
    net::{SocketAddr, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use ravelin_io::traffic::{self, HEAD_BYTES, SIDES_MAX, Traffic};

use super::{
    Generator, REST, Report, content, frames,
    namespace::Namespace,
    plan::{Plan, Stream},
    spell,
    tally::{Counts, Latency},
};
use crate::{cli::LoadArgs, exit::Failure};

/// Looks by which the time of one is found: a fifth of a second or so, many times what a call's
/// begin and end differ by.
const LOOKS_TRIED: u32 = 1 << 21;
/// More looks than the time of one says that there is time for: a second call would leave a gap.
const LOOKS_SPARE: f64 = 1.4;
/// Looks of one call.
const LOOKS_MAX: f64 = 4e9;
/// Less than a look can take.
const LOOK_SECONDS_MIN: f64 = 20e-9;
const TAIL_STEP: Duration = Duration::from_millis(5);

fn failed(what: &str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::cannot_run(format!("{what}: {error} (needs CAP_BPF and CAP_NET_ADMIN)"))
}

fn v4(address: SocketAddr) -> Result<SocketAddrV4, Failure> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => Err(Failure::cannot_run("--via xdp takes IPv4 only")),
    }
}

/// Loads the programs and tells them the plan. Sides that are not `taken` are left to others.
fn open(plan: &Plan, datagram: usize, taken: impl Fn(u32) -> bool) -> Result<Traffic, Failure> {
    if plan.sides.len() > SIDES_MAX as usize {
        return Err(Failure::cannot_run(format!("--via xdp takes {SIDES_MAX} sides at most")));
    }
    let streams = u32::try_from(plan.streams.len()).unwrap_or(u32::MAX);
    let mut traffic = Traffic::load(streams).map_err(failed("load the programs"))?;
    let mut links = Vec::new();
    for (number, side) in (0..).zip(&plan.sides) {
        let (interface, next_hop) = side.link()?;
        let inside = Namespace::enter(side)?;
        let own =
            ravelin_io::sys::packet::hardware_address(interface).map_err(failed(interface))?;
        let index = if taken(number) {
            traffic.attach(number, interface).map_err(failed(interface))?
        } else {
            0
        };
        inside.leave()?;
        links.push((own, next_hop, index));
    }
    for (number, stream) in (0..).zip(&plan.streams) {
        let entry = entry(number, stream, &links, datagram)?;
        traffic.set_stream(number, &entry).map_err(failed("streams"))?;
    }
    Ok(traffic)
}

fn entry(
    number: u32,
    stream: &Stream,
    links: &[([u8; 6], [u8; 6], u32)],
    datagram: usize,
) -> Result<traffic::Stream, Failure> {
    let (own, next_hop, _) = links[stream.side];
    v4(stream.from)?;
    let head = frames::head(stream, (own, next_hop), datagram)?;
    let mut octets = [0; HEAD_BYTES];
    octets.copy_from_slice(&head.bytes[..HEAD_BYTES]);
    Ok(traffic::Stream {
        head: octets,
        sum: frames::fold(head.sum),
        ssrc: content::ssrc(number),
        side: u32::try_from(stream.side).unwrap_or(u32::MAX),
        arrives: links[stream.arrives.side].2,
        to: v4(stream.arrives.at)?,
        from: stream.arrives.from.map(v4).transpose()?,
    })
}

/// Packets that arrived so far.
fn received(traffic: &Traffic, streams: u32) -> Result<u64, Failure> {
    (0..streams).try_fold(0, |sum, stream| {
        Ok(sum + traffic.tally(stream).map_err(failed("read the counts"))?.unique)
    })
}

/// How long the source takes to find that nothing is due: the shorter of two tries, each without
/// what a call costs that looks once.
fn poll_seconds(traffic: &Traffic, run: &traffic::Run, streams: u32) -> std::io::Result<f64> {
    let mut shortest = f64::MAX;
    for _ in 0..2 {
        let took = |looks| {
            traffic.begin_at(run, streams, u64::MAX)?;
            let began = Instant::now();
            traffic.poll(run.payload, looks)?;
            std::io::Result::Ok(began.elapsed().as_secs_f64())
        };
        let once = took(1)?;
        shortest = shortest.min((took(LOOKS_TRIED)? - once) / f64::from(LOOKS_TRIED));
    }
    Ok(shortest.max(LOOK_SECONDS_MIN))
}

/// One run.
pub(super) fn drive(args: &LoadArgs, plan: &Plan, datagram: usize) -> Result<Report, Failure> {
    let traffic = open(plan, datagram, |_| true)?;
    let streams = u32::try_from(plan.streams.len()).unwrap_or(u32::MAX);
    let rate = f64::from(args.rate);
    let total = (rate * args.seconds.as_secs_f64()) as u64;
    let mut run = traffic::Run {
        total: 1,
        rate,
        payload: args.payload_bytes,
        payload_type: args.payload_type,
    };
    let refused = failed("run the source");
    let poll = poll_seconds(&traffic, &run, streams).map_err(&refused)?;
    let spell = spell(args).min(args.seconds).as_secs_f64();
    let at_a_time = ((rate * spell) as u64).max(1);
    run.total = at_a_time.min(total);
    traffic.begin(&run, streams).map_err(&refused)?;
    // A call takes long to begin and to end, so one should do: as many looks as there is time for,
    // and one for each packet. A source that cannot keep up needs more, and says so.
    let looks = (spell * LOOKS_SPARE / poll + run.total as f64).min(LOOKS_MAX);
    let (mut rests, mut sending_ns) = (0, 0);
    let progress = loop {
        traffic.poll(args.payload_bytes, looks as u32).map_err(&refused)?;
        let progress = traffic.progress().map_err(&refused)?;
        if progress.sent < run.total {
            continue;
        }
        sending_ns += progress.ended_ns.saturating_sub(progress.begun_ns);
        if progress.sent >= total {
            break progress;
        }
        rests += 1;
        thread::sleep(REST);
        run.total = (run.total + at_a_time).min(total);
        traffic.resume(run.total).map_err(&refused)?;
    };
    let seconds = sending_ns as f64 / 1e9;
    let mut came = received(&traffic, streams)?;
    let mut since = Instant::now();
    while came < total && since.elapsed() < args.tail {
        thread::sleep(TAIL_STEP);
        let now = received(&traffic, streams)?;
        if now > came {
            (came, since) = (now, Instant::now());
        }
    }
    let counts = counts(&traffic, streams, total)?;
    let idle = (progress.polls as f64 * poll / seconds).min(1.0);
    let packets = (total + counts.received).max(1) as f64;
    Ok(Report {
        via: args.via.label(),
        streams: plan.streams.len(),
        payload_bytes: args.payload_bytes,
        seconds,
        asked_pps: rate,
        offered_pps: total as f64 / seconds,
        received_pps: counts.received as f64 / seconds,
        counts,
        latency_us: latency(&traffic.latencies().map_err(failed("read the latencies"))?),
        generator: Generator {
            cpu_us_per_packet: seconds * (1.0 - idle) * 1e6 / packets,
            idle_share: idle,
            late_us_max: progress.late_ns_max as f64 / 1e3,
            skipped_ms: progress.skipped_ns as f64 / 1e6,
            rests,
            refused: 0,
            overruns: 0,
        },
    })
}

fn counts(traffic: &Traffic, streams: u32, sent: u64) -> Result<Counts, Failure> {
    let read = failed("read the counts");
    let mut counts = Counts { sent, ..Counts::default() };
    for stream in 0..streams {
        let tally = traffic.tally(stream).map_err(&read)?;
        counts.received += tally.unique;
        counts.reordered += u64::from(tally.reordered);
        counts.duplicates += u64::from(tally.duplicates);
        counts.silent_streams += u64::from(tally.unique == 0);
    }
    let faults = traffic.faults().map_err(&read)?;
    counts.corrupt = faults.corrupt;
    counts.misdelivered = faults.misdelivered;
    counts.foreign = faults.foreign;
    counts.lost = sent.saturating_sub(counts.received);
    Ok(counts)
}

fn latency(buckets: &[(u64, u64)]) -> Latency {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let at = |quantile: f64| {
        let rank = ((all as f64 * quantile).ceil() as u64).max(1);
        let mut below = 0;
        let found = buckets.iter().find(|(_, count)| {
            below += count;
            below >= rank
        });
        found.map_or(0.0, |(ns, _)| *ns as f64 / 1e3)
    };
    Latency { p50: at(0.5), p99: at(0.99), p99_9: at(0.999), max: at(1.0) }
}

#[cfg(test)]
mod tests;
