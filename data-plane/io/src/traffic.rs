//! Makes RTP and takes it in again below the IP stack, for the load generator, which must cost less
//! than what it measures: a program in the kernel writes packets into live frames when they are due
//! and hands them to the interfaces' drivers; another checks what comes out where streams arrive.
//! It carries nothing of the product.
//!
//! Needs CAP_BPF and CAP_NET_ADMIN, kernel 5.18, and interfaces whose drivers take frames from XDP.
//! What stands in a packet is defined by `content` of the command `ravelin load`.

use crate::sys::bpf::{self, Map};
use aya::Ebpf;
use aya::maps::Map as Kind;
use aya::programs::{ProgramFd, Xdp, xdp::XdpMode};
use std::ffi::CString;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::AsFd;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/load.o");

/// Octets of Ethernet, IPv4 and UDP headers.
pub const HEAD_BYTES: usize = 42;

/// Sides that a plan may have.
pub const SIDES_MAX: u32 = 8;

/// Frames that are made before the kernel looks whether another thread is due.
const FRAMES_PER_BATCH: u32 = 8;

// Octets of the structures of bpf/load.c.
const STREAM_BYTES: usize = 68;
const SETTINGS_BYTES: usize = 32;
const PROGRESS_BYTES: usize = 72;
const TALLY_BYTES: usize = 32;
const FAULTS_BYTES: usize = 24;
/// An interface, and room for a program to be run there.
const SIDE_BYTES: usize = 8;
const LATENCY_BUCKETS: u32 = 1_024;

/// One stream: what its packets look like when they leave, and where they must come out.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Ethernet, IPv4 and UDP header with a checksum of zero.
    pub head: [u8; HEAD_BYTES],
    /// Ones' complement sum over the pseudo header and the UDP header, folded.
    pub sum: u16,
    pub ssrc: u32,
    /// The side that it leaves by.
    pub side: u32,
    /// The interface that it arrives at.
    pub arrives: u32,
    pub to: SocketAddrV4,
    /// The only source that it may have then; none: any.
    pub from: Option<SocketAddrV4>,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Packets, dealt to the streams in turn.
    pub total: u64,
    /// Packets a second.
    pub rate: f64,
    /// Octets behind the RTP header, the 24 of the stamp included.
    pub payload: u16,
    pub payload_type: u8,
}

/// How far the source has come. Nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    pub sent: u64,
    /// Of the first packet; 0 before.
    pub begun_ns: u64,
    /// Of the last one; 0 before.
    pub ended_ns: u64,
    /// Longest time that a packet left after it was due.
    pub late_ns_max: u64,
    /// Time by which the schedule was moved, since it was too late to make up for.
    pub skipped_ns: u64,
    /// Times that nothing was due.
    pub polls: u64,
}

/// What arrived of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that came out where they should, whole, each counted once.
    pub unique: u64,
    pub reordered: u32,
    /// With those that were more than 64 packets late.
    pub duplicates: u32,
}

/// What arrived and was no stream's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub corrupt: u64,
    pub misdelivered: u64,
    pub foreign: u64,
}

/// The two programs, loaded. What is attached goes when this is dropped.
pub struct Traffic {
    object: Ebpf,
    source: ProgramFd,
    settings: Map,
    progress: Map,
    streams: Map,
    tallies: Map,
    faults: Map,
    latencies: Map,
    sides: Map,
}

impl Traffic {
    /// With room for `streams`.
    ///
    /// # Errors
    /// bpf(2) is not there for us.
    pub fn load(streams: u32) -> io::Result<Self> {
        let mut loader = aya::EbpfLoader::new();
        for map in ["streams", "tallies"] {
            loader.map_max_entries(map, streams);
        }
        let mut object = loader.load(OBJECT).map_err(io::Error::other)?;
        for name in ["source", "sink"] {
            program(&mut object, name)?.load().map_err(io::Error::other)?;
        }
        let fd = program(&mut object, "source")?.fd().map_err(io::Error::other)?;
        let source = fd.try_clone().map_err(io::Error::other)?;
        let map = |name, value: usize| {
            let map = map(&object, name)?;
            let right = map.sizes() == (4, value);
            right
                .then_some(map)
                .ok_or_else(|| io::Error::other(format!("{name} is of another size")))
        };
        Ok(Self {
            settings: map("settings", SETTINGS_BYTES)?,
            progress: map("progress", PROGRESS_BYTES)?,
            streams: map("streams", STREAM_BYTES)?,
            tallies: map("tallies", TALLY_BYTES)?,
            faults: map("faults", FAULTS_BYTES)?,
            latencies: map("latencies", 8)?,
            sides: map("sides", SIDE_BYTES)?,
            source,
            object,
        })
    }

    /// Makes an interface of the calling thread's network namespace a side: streams may leave and
    /// arrive there. Returns its index.
    ///
    /// # Errors
    /// There is no such interface, or its driver does not take the program.
    pub fn attach(&mut self, side: u32, interface: &str) -> io::Result<u32> {
        let name = CString::new(interface)?;
        let index = bpf::interface_index(&name)?;
        let sink = program(&mut self.object, "sink")?;
        sink.attach(interface, XdpMode::Driver).map_err(io::Error::other)?;
        self.sides.update(&side.to_ne_bytes(), &u64::from(index).to_ne_bytes(), 0)?;
        Ok(index)
    }

    /// # Errors
    /// There are fewer streams.
    pub fn set_stream(&self, number: u32, stream: &Stream) -> io::Result<()> {
        let mut value = Vec::with_capacity(STREAM_BYTES);
        value.extend_from_slice(&stream.head);
        // Ones' complement sums do not mind the order of octets, if it is the same for all.
        value.extend_from_slice(&stream.sum.to_be_bytes());
        value.extend_from_slice(&stream.ssrc.to_be_bytes());
        value.extend_from_slice(&stream.side.to_ne_bytes());
        value.extend_from_slice(&stream.arrives.to_ne_bytes());
        value.extend_from_slice(&stream.to.ip().octets());
        value.extend_from_slice(&stream.from.map_or([0; 4], |from| from.ip().octets()));
        value.extend_from_slice(&stream.to.port().to_be_bytes());
        value.extend_from_slice(&stream.from.map_or(0, |from| from.port()).to_be_bytes());
        self.streams.update(&number.to_ne_bytes(), &value, 0)
    }

    /// Begins a run of this many streams; the first packet is due at the first [`Traffic::poll`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin(&self, run: &Run, streams: u32) -> io::Result<()> {
        self.begin_at(run, streams, 0)
    }

    /// As [`Traffic::begin`]; the first packet is due at `due_ns` of the monotonic clock, unless 0.
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin_at(&self, run: &Run, streams: u32, due_ns: u64) -> io::Result<()> {
        let period = 1e9 / run.rate.max(1.0);
        let part = (period.fract() * f64::from(u32::MAX)) as u32;
        let mut value = Vec::with_capacity(SETTINGS_BYTES);
        value.extend_from_slice(&run.total.to_ne_bytes());
        value.extend_from_slice(&(period as u64).to_ne_bytes());
        for word in [part, streams, u32::from(run.payload), u32::from(run.payload_type)] {
            value.extend_from_slice(&word.to_ne_bytes());
        }
        let mut progress = [0; PROGRESS_BYTES];
        progress[16..24].copy_from_slice(&due_ns.to_ne_bytes());
        self.progress.update(&[0; 4], &progress, 0)?;
        self.settings.update(&[0; 4], &value, 0)
    }

    /// Goes on to `total` packets after a pause: the next one is due at once, and a run of its own
    /// as far as [`Progress::begun_ns`] and [`Progress::ended_ns`] go.
    ///
    /// # Errors
    /// The kernel's.
    pub fn resume(&self, total: u64) -> io::Result<()> {
        let mut progress = [0; PROGRESS_BYTES];
        self.progress.lookup(&[0; 4], &mut progress, 0)?;
        // When the next packet is due.
        progress[16..24].fill(0);
        self.progress.update(&[0; 4], &progress, 0)?;
        let mut settings = [0; SETTINGS_BYTES];
        self.settings.lookup(&[0; 4], &mut settings, 0)?;
        settings[..8].copy_from_slice(&total.to_ne_bytes());
        self.settings.update(&[0; 4], &settings, 0)
    }

    /// Looks `times` whether packets are due, and sends those that are. Blocks as long as that
    /// takes, or until the kernel wants this thread for something else: [`Self::progress`] says how far
    /// it came. Other threads of the core run in between.
    ///
    /// # Errors
    /// The kernel has no live frames.
    pub fn poll(&self, payload: u16, times: u32) -> io::Result<()> {
        const RTP_BYTES: usize = 12;
        let frame = vec![0; HEAD_BYTES + RTP_BYTES + usize::from(payload)];
        match bpf::run_live(self.source.as_fd(), &frame, times, FRAMES_PER_BATCH) {
            // The kernel has other work for this thread: how far it came is in `progress`.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            ended => ended,
        }
    }

    /// # Errors
    /// The kernel's.
    pub fn progress(&self) -> io::Result<Progress> {
        let mut value = [0; PROGRESS_BYTES];
        self.progress.lookup(&[0; 4], &mut value, 0)?;
        let [sent, _, _, begun_ns, ended_ns, late_ns_max, skipped_ns, polls] =
            [0, 1, 2, 3, 4, 5, 6, 7].map(|word| long(&value, word));
        Ok(Progress { sent, begun_ns, ended_ns, late_ns_max, skipped_ns, polls })
    }

    /// # Errors
    /// The kernel's.
    pub fn tally(&self, stream: u32) -> io::Result<Tally> {
        let mut value = [0; TALLY_BYTES];
        self.tallies.lookup(&stream.to_ne_bytes(), &mut value, 0)?;
        let pair = long(&value, 3);
        Ok(Tally {
            unique: long(&value, 2),
            reordered: pair as u32,
            duplicates: (pair >> 32) as u32,
        })
    }

    /// # Errors
    /// The kernel's.
    pub fn faults(&self) -> io::Result<Faults> {
        let mut values = vec![0; self.faults.lookup_bytes()];
        self.faults.lookup(&[0; 4], &mut values, 0)?;
        let mut sum = Faults::default();
        for cpu in values.chunks_exact(FAULTS_BYTES) {
            sum.corrupt += long(cpu, 0);
            sum.misdelivered += long(cpu, 1);
            sum.foreign += long(cpu, 2);
        }
        Ok(sum)
    }

    /// How long packets took, as middles of buckets in nanoseconds and counts, shortest first. A
    /// bucket is at most a 32nd of its value wide.
    ///
    /// # Errors
    /// The kernel's.
    pub fn latencies(&self) -> io::Result<Vec<(u64, u64)>> {
        let mut values = vec![0; self.latencies.lookup_bytes()];
        let mut all = Vec::new();
        for bucket in 0..LATENCY_BUCKETS {
            self.latencies.lookup(&bucket.to_ne_bytes(), &mut values, 0)?;
            let count = values.chunks_exact(8).map(|cpu| long(cpu, 0)).sum::<u64>();
            if count > 0 {
                all.push((middle(bucket), count));
            }
        }
        Ok(all)
    }
}

/// The middle of a bucket: 64 of one nanosecond, then 32 to each doubling.
fn middle(bucket: u32) -> u64 {
    let shift = (bucket >> 5).saturating_sub(1);
    let least = u64::from(bucket - (shift << 5)) << shift;
    least + (1_u64 << shift) / 2
}

fn long(bytes: &[u8], word: usize) -> u64 {
    let mut octets = [0; 8];
    octets.copy_from_slice(&bytes[8 * word..8 * word + 8]);
    u64::from_ne_bytes(octets)
}

fn program<'o>(object: &'o mut Ebpf, name: &str) -> io::Result<&'o mut Xdp> {
    let found = object.program_mut(name).and_then(|program| program.try_into().ok());
    found.ok_or_else(|| io::Error::other(format!("the object has no program {name}")))
}

fn map(object: &Ebpf, name: &str) -> io::Result<Map> {
    let Some(Kind::Array(data) | Kind::PerCpuArray(data) | Kind::DevMap(data)) = object.map(name)
    else {
        return Err(io::Error::other(format!("the object has no map {name}")));
    };
    Map::new(data.fd().as_fd().try_clone_to_owned()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let width = |bucket: u32| 1_u64 << (bucket >> 5).saturating_sub(1);
        for bucket in 0..LATENCY_BUCKETS - 1 {
            let least = |bucket| middle(bucket) - width(bucket) / 2;
            assert_eq!(least(bucket) + width(bucket), least(bucket + 1), "{bucket}");
        }
    }
}
