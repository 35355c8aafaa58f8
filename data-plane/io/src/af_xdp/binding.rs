//! Which AF_XDP sockets there are: one for each shard on each queue of the interfaces that have the
//! program, as far as kernel and limits allow.

use super::Station;
use crate::driver::FAST_WATCHES_MAX;
use crate::sys::bpf::Map;
use crate::sys::xsk::{self, Mode, Sizes, Socket};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// Queues of an interface that have sockets, as in `bpf/relay.c`; packets of others pass to the
/// ordinary sockets.
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
/// Memory of a queue that has no more than it must.
const QUEUE_LEAST: Sizes = Sizes {
    frame_bytes: 2_048,
    rx_frames: RX_RING,
    rx_ring: RX_RING,
    tx_frames: TX_FRAMES,
    sockets: 1,
};
// A shard has one socket on each queue that has memory: never more than it may watch.
const _: () = assert!(MEMORY_MAX_BYTES / QUEUE_LEAST.bytes() <= FAST_WATCHES_MAX as usize);

/// How far binding goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Of one interface, at most [`QUEUES_MAX`].
    pub(super) queues: u32,
    /// Of all interfaces.
    pub(super) memory_bytes: usize,
}

/// Those of the product.
const LIMITS: Limits = Limits { queues: QUEUES_MAX, memory_bytes: MEMORY_MAX_BYTES };

/// Why not every queue of an interface has sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// It has more queues than may have any.
    Queues,
    /// The memory is in use.
    Memory,
    /// The program's map has no room for so many shards and interfaces.
    Shards,
    /// Packets arrive at other interfaces.
    MadeOfOthers,
    /// The kernel or the driver refuses.
    Refused,
}

impl Short {
    /// With their labels of the metric.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Queues, "queues"),
        (Self::Memory, "memory"),
        (Self::Shards, "shards"),
        (Self::MadeOfOthers, "made_of_others"),
        (Self::Refused, "refused"),
    ];
}

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
    /// Why not all, or none, and in words.
    pub(crate) short: Option<(Short, String)>,
}

/// Binds all sockets and enters them into the program's map. A station for each shard.
pub(crate) fn bind(wanted: &[Wanted], shards: u8, map: &Map) -> (Vec<Station>, Vec<Bound>) {
    bind_within(LIMITS, wanted, shards, map)
}

pub(super) fn bind_within(
    limits: Limits,
    wanted: &[Wanted],
    shards: u8,
    map: &Map,
) -> (Vec<Station>, Vec<Bound>) {
    let mut stations: Vec<_> = (0..shards).map(|_| Station::default()).collect();
    let mut binding = Binding { limits, map, memory: 0, until: Instant::now() + BUSY_WITHIN };
    let bound = (0_u32..)
        .zip(wanted)
        .map(|(place, wanted)| binding.bind(place, wanted, &mut stations))
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
    memory: usize,
) -> (Vec<Station>, Bound) {
    let replaces = |shard| first_of(place, shards, shard);
    let mut stations: Vec<_> =
        (0..shards).map(|shard| Station::replacing(replaces(shard))).collect();
    let until = Instant::now() + BUSY_WITHIN;
    let bound = Binding { limits: LIMITS, map, memory, until }.bind(place, wanted, &mut stations);
    (stations, bound)
}

/// Where the sockets of a shard begin in the program's map, for the interface at a place. One that is
/// beyond what a number of the map can be is of none.
fn first_of(place: u32, shards: u8, shard: u8) -> Option<u16> {
    u16::try_from((place * u32::from(shards) + u32::from(shard)) * QUEUES_MAX).ok()
}

/// Takes the sockets of a place out of the program's map, so that packets pass: what is delivered to a
/// socket whose interface is gone is lost. Gives what each shard is to hear of it.
pub(crate) fn leave(place: u32, shards: u8, map: &Map) -> Vec<Station> {
    let each = u32::from(shards) * QUEUES_MAX;
    for key in place * each..(place + 1) * each {
        // Few queues are there of those that may be.
        let _ = map.delete(&key.to_ne_bytes());
    }
    (0..shards).map(|shard| Station::replacing(first_of(place, shards, shard))).collect()
}

/// What sockets are bound with.
struct Binding<'a> {
    limits: Limits,
    map: &'a Map,
    /// Octets in use.
    memory: usize,
    /// Until when queues are waited for that somebody has.
    until: Instant,
}

impl Binding<'_> {
    /// All queues of one interface, as far as it goes.
    fn bind(&mut self, place: u32, wanted: &Wanted, stations: &mut [Station]) -> Bound {
        let name = wanted.name.clone();
        let mut bound = Bound { name, queues: 0, mode: None, frames: 0, bytes: 0, short: None };
        bound.short = self.bind_queues(place, wanted, stations, &mut bound).err();
        bound
    }

    fn bind_queues(
        &mut self,
        place: u32,
        wanted: &Wanted,
        stations: &mut [Station],
        bound: &mut Bound,
    ) -> Result<(), (Short, String)> {
        let shards = u32::try_from(stations.len()).unwrap_or(u32::MAX);
        let first = |shard: u32| (place * shards + shard) * QUEUES_MAX;
        if wanted.is_made_of_others {
            let text = "packets arrive at the interfaces that it is made of";
            return Err((Short::MadeOfOthers, text.into()));
        }
        if u64::from(first(shards)) > u64::from(self.map.max_entries()) {
            return Err((Short::Shards, format!("{shards} shards have no room for it")));
        }
        let most = self.limits.queues.min(QUEUES_MAX);
        for queue in 0..most {
            let left = self.limits.memory_bytes.saturating_sub(self.memory);
            let Some(sizes) = sized(wanted.mtu, shards, left) else {
                let text = format!("{} MiB are in use, which is the most", self.memory >> 20);
                return Err((Short::Memory, text));
            };
            let bind = || bind_queue(wanted, queue, sizes, stations, self.map, &first);
            match while_busy(self.until, bind) {
                Ok(mode) => {
                    bound.queues += 1;
                    if bound.mode != Some(Mode::Copy) {
                        bound.mode = Some(mode);
                    }
                    self.memory += sizes.bytes();
                    bound.bytes += sizes.bytes() as u64;
                    bound.frames += (sizes.bytes() / sizes.frame_bytes as usize) as u64;
                }
                Err(error) if is_beyond(queue, &error) => return Ok(()),
                Err(error) => return Err((Short::Refused, format!("queue {queue}: {error}"))),
            }
        }
        // Only to see whether there is one more.
        let one = Sizes { frame_bytes: frame_bytes(wanted.mtu), ..QUEUE_LEAST };
        match xsk::bind(wanted.interface, most, one) {
            Err(error) if is_beyond(most, &error) => Ok(()),
            Err(error) if error.raw_os_error() != Some(libc::EBUSY) => {
                Err((Short::Refused, format!("queue {most}: {error}")))
            }
            _ => {
                let text = format!(
                    "it has more than {most} queues, which is the most; have it spread packets over \
                     fewer (ethtool -L {} combined {most})",
                    wanted.name
                );
                Err((Short::Queues, text))
            }
        }
    }
}

/// Whether an interface has no queue of this number.
fn is_beyond(queue: u32, error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL) && queue > 0
}

fn frame_bytes(mtu: u32) -> u32 {
    if mtu <= SHORT_MTU { 2_048 } else { 4_096 }
}

/// Memory of one queue within what is left; `None`: too little. Where it ends, shards share the frames
/// of a queue rather than go without.
fn sized(mtu: u32, shards: u32, left: usize) -> Option<Sizes> {
    let all = RX_RING.saturating_mul(shards.checked_next_power_of_two()?).min(RX_FRAMES_MAX);
    let sizes = |rx_frames| Sizes {
        frame_bytes: frame_bytes(mtu),
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
