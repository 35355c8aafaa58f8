//! Which AF_XDP sockets there are: one for each shard on each queue of the interfaces that have the
//! program, as far as kernel and limits allow.

use super::Station;
use crate::sys::bpf::Map;
use crate::sys::xsk::{self, Mode, Sizes, Socket};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// Queues of an interface that have sockets, as in `bpf/relay.c`.
pub(crate) const QUEUES_MAX: u32 = 64;
/// Packets that may wait for one shard on one queue: 80 ms of 50,000 packets a second, so that a shard
/// that is not run for 50 ms misses none.
pub(crate) const RX_RING: u32 = 4_096;
/// Frames of one shard on one queue for packets that leave.
const TX_FRAMES: u32 = 512;
/// Frames for packets that arrive on one queue, of all shards: the rings of four of them, full. More
/// shards share these.
const RX_FRAMES_MAX: u32 = 16_384;
/// Memory of all queues: what is beyond passes to the sockets.
const MEMORY_MAX_BYTES: usize = 1_024 << 20;
/// How long a start waits, in all, for queues that somebody has: sockets of a killed process last until
/// the kernel has wound up its io_uring, a moment after the process is gone.
const BUSY_WITHIN: Duration = Duration::from_secs(3);
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Longest IP packet that fits a frame of 2,048 octets with what the kernel puts before it.
const SHORT_MTU: u32 = 1_500;

/// An interface to be served.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) interface: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    /// It hands over packets without a checksum.
    pub(crate) partial: bool,
    /// It is made of others, and packets arrive at these.
    pub(crate) is_made_of_others: bool,
}

/// What became of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) name: String,
    pub(crate) queues: u32,
    /// How; the worst of all queues.
    pub(crate) mode: Option<Mode>,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// Why not all, or none.
    pub(crate) error: Option<String>,
}

/// Binds all sockets and enters them into the program's map. A station for each shard.
pub(crate) fn bind(wanted: &[Wanted], shards: u8, map: &Map) -> (Vec<Station>, Vec<Bound>) {
    let mut stations: Vec<_> = (0..shards).map(|_| Station::default()).collect();
    let (mut memory, until) = (0, Instant::now() + BUSY_WITHIN);
    let bound = (0_u32..)
        .zip(wanted)
        .map(|(place, wanted)| bind_one(place, wanted, &mut stations, map, &mut memory, until))
        .collect();
    (stations, bound)
}

/// Binds the sockets of one interface, which came later, at a place that is free. `memory`: octets that
/// the others have.
pub(crate) fn bind_at(
    place: u32,
    wanted: &Wanted,
    shards: u8,
    map: &Map,
    mut memory: usize,
) -> (Vec<Station>, Bound) {
    let mut stations: Vec<_> = (0..shards).map(|_| Station::default()).collect();
    let until = Instant::now() + BUSY_WITHIN;
    let bound = bind_one(place, wanted, &mut stations, map, &mut memory, until);
    (stations, bound)
}

/// Takes the sockets of a place out of the program's map, so that packets pass: what is delivered to a
/// socket whose interface is gone is lost.
pub(crate) fn leave(place: u32, shards: u8, map: &Map) {
    let each = u32::from(shards) * QUEUES_MAX;
    for key in place * each..(place + 1) * each {
        // Few queues are there of those that may be.
        let _ = map.delete(&key.to_ne_bytes());
    }
}

fn bind_one(
    place: u32,
    wanted: &Wanted,
    stations: &mut [Station],
    map: &Map,
    memory: &mut usize,
    until: Instant,
) -> Bound {
    let shards = u32::try_from(stations.len()).unwrap_or(u32::MAX);
    let name = wanted.name.clone();
    let mut bound = Bound { name, queues: 0, mode: None, frames: 0, bytes: 0, error: None };
    let first = |shard: u32| (place * shards + shard) * QUEUES_MAX;
    if wanted.is_made_of_others {
        bound.error = Some("packets arrive at the interfaces that it is made of".into());
        return bound;
    }
    if u64::from(first(shards)) > u64::from(map.max_entries()) {
        bound.error = Some(format!("{shards} shards have no room for it"));
        return bound;
    }
    for queue in 0..QUEUES_MAX {
        let Some(sizes) = sized(wanted.mtu, shards, MEMORY_MAX_BYTES.saturating_sub(*memory))
        else {
            bound.error = Some(format!("{} MiB are in use", *memory >> 20));
            break;
        };
        let outcome = while_busy(until, || bind_queue(wanted, queue, sizes, stations, map, &first));
        match outcome {
            Ok(mode) => {
                bound.queues += 1;
                if bound.mode != Some(Mode::Copy) {
                    bound.mode = Some(mode);
                }
                *memory += sizes.bytes();
                bound.bytes += sizes.bytes() as u64;
                bound.frames += (sizes.bytes() / sizes.frame_bytes as usize) as u64;
            }
            // Beyond the last queue.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && queue > 0 => break,
            Err(error) => {
                bound.error = Some(format!("queue {queue}: {error}"));
                break;
            }
        }
    }
    bound
}

/// Memory of one queue within what is left; `None`: too little. Where it ends, shards share the frames
/// of a queue rather than go without.
fn sized(mtu: u32, shards: u32, left: usize) -> Option<Sizes> {
    let all = RX_RING.saturating_mul(shards.checked_next_power_of_two()?).min(RX_FRAMES_MAX);
    let sizes = |rx_frames| Sizes {
        frame_bytes: if mtu <= SHORT_MTU { 2_048 } else { 4_096 },
        rx_frames,
        rx_ring: RX_RING,
        tx_frames: TX_FRAMES,
        sockets: shards,
    };
    let halves = std::iter::successors(Some(all), |frames| Some(frames / 2));
    let mut enough = halves.take_while(|frames| *frames >= RX_RING).map(sizes);
    enough.find(|sizes| sizes.bytes() <= left)
}

/// Tries again while somebody has what is asked for.
fn while_busy<T>(until: Instant, mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match ask() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                std::thread::sleep(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn bind_queue(
    wanted: &Wanted,
    queue: u32,
    sizes: Sizes,
    stations: &mut [Station],
    map: &Map,
    first: &dyn Fn(u32) -> u32,
) -> io::Result<Mode> {
    let (sockets, mode) = xsk::bind(wanted.interface, queue, sizes)?;
    for (shard, socket) in (0..).zip(&sockets) {
        let key = (first(shard) + queue).to_ne_bytes();
        let fd = u32::try_from(socket.as_fd().as_raw_fd()).unwrap_or(u32::MAX);
        map.update(&key, &fd.to_ne_bytes(), 0)?;
    }
    for ((shard, station), socket) in (0..).zip(stations).zip(sockets) {
        let first = u16::try_from(first(shard)).map_err(|_| io::ErrorKind::InvalidInput)?;
        add(station, wanted, first, socket);
    }
    Ok(mode)
}

fn add(station: &mut Station, wanted: &Wanted, first: u16, socket: Socket) {
    station.add(wanted.interface, first, wanted.partial, socket);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_its_ring_of_frames_while_there_is_memory() {
        const MIB: usize = 1 << 20;
        for (shards, frames, bytes) in [
            (1, 4_096, 9 * MIB),
            (2, 8_192, 18 * MIB),
            (4, 16_384, 36 * MIB),
            (8, 16_384, 40 * MIB),
        ] {
            let sizes = sized(1_500, shards, MEMORY_MAX_BYTES).unwrap();
            assert_eq!((sizes.rx_ring, sizes.rx_frames, sizes.bytes()), (4_096, frames, bytes));
        }
        assert_eq!(sized(9_000, 1, MEMORY_MAX_BYTES).unwrap().bytes(), 18 * MIB);
        assert_eq!(sized(1_500, 4, 36 * MIB - 1).unwrap().rx_frames, 8_192);
        assert_eq!(sized(1_500, 4, 12 * MIB).unwrap().rx_frames, 4_096);
        assert_eq!(sized(1_500, 4, 12 * MIB - 1), None);
    }

    #[test]
    fn queues_that_somebody_still_has_are_waited_for() {
        let error = |code| io::Error::from_raw_os_error(code);
        let later = Instant::now() + Duration::from_secs(3_600);
        let mut asked = 0;
        let got = while_busy(later, || {
            asked += 1;
            if asked < 4 { Err(error(libc::EBUSY)) } else { Ok(asked) }
        });
        assert_eq!(got.unwrap(), 4);
        for (code, until) in [(libc::EBUSY, Instant::now()), (libc::EPERM, later)] {
            let refused = while_busy(until, || -> io::Result<()> { Err(error(code)) });
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(code));
        }
    }
}
