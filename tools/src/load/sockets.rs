//! Streams through ordinary UDP sockets, in batches of the data plane's own driver. Needs no
//! privilege; costs what sockets cost.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ravelin_engine::port::{Egress, Local, MediaPortId, Token, TxQueue};
use ravelin_io::driver::{self, Choice, Driver, Options, Rx};

use super::{Arrived, Medium, namespace::Namespace, plan::Plan};
use crate::exit::Failure;

/// Datagrams sent at a time.
const SEND_BATCH: usize = 64;

pub(super) struct Sockets {
    driver: Box<dyn Driver>,
    /// Port and destination of each stream.
    ways: Vec<(MediaPortId, SocketAddr)>,
    ports: HashMap<(usize, SocketAddr), u32>,
    queue: TxQueue,
    datagram: usize,
}

impl Sockets {
    pub(super) fn open(plan: &Plan, datagram: usize) -> Result<Self, Failure> {
        ravelin_io::sys::thread::raise_open_files()
            .map_err(|error| Failure::cannot_run(format!("open files: {error}")))?;
        let options = Options {
            listeners_max: 1,
            media_ports_max: 2 * super::plan::STREAMS_MAX as u32,
            media_buffers: 8_192,
            media_socket_buffer_bytes: 1 << 20,
            ..Options::default()
        };
        let opened = driver::open(Choice::Auto, &options)
            .map_err(|error| Failure::cannot_run(format!("no driver: {error}")))?;
        let mut driver = opened.driver;
        let mut ports: HashMap<(usize, SocketAddr), u32> = HashMap::new();
        for (index, side) in plan.sides.iter().enumerate() {
            let inside = Namespace::enter(side)?;
            for stream in &plan.streams {
                let ends = [(stream.side, stream.from), (stream.arrives.side, stream.arrives.at)];
                for key in ends.into_iter().filter(|(side, _)| *side == index) {
                    if ports.contains_key(&key) {
                        continue;
                    }
                    let id = u32::try_from(ports.len()).unwrap_or(u32::MAX);
                    driver
                        .open_media(MediaPortId(id), key.1)
                        .map_err(|error| Failure::cannot_run(format!("bind {}: {error}", key.1)))?;
                    ports.insert(key, id);
                }
            }
            inside.leave()?;
        }
        let way = |stream: &super::plan::Stream| {
            let port = ports.get(&(stream.side, stream.from)).copied().unwrap_or(u32::MAX);
            (MediaPortId(port), stream.to)
        };
        let ways = plan.streams.iter().map(way).collect();
        Ok(Self { driver, ways, ports, queue: TxQueue::default(), datagram })
    }
}

impl Medium for Sockets {
    fn place(&self, side: usize, at: SocketAddr) -> Option<u32> {
        self.ports.get(&(side, at)).copied()
    }

    fn push(&mut self, stream: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> bool {
        let Some(&(port, to)) = self.ways.get(stream) else { return false };
        if self.queue.len() >= SEND_BATCH {
            return false;
        }
        let datagram = self.datagram;
        self.queue.write(Egress::Media { port, to }, Token::default(), |arena| {
            let start = arena.len();
            arena.resize(start + datagram, 0);
            fill(&mut arena[start..]);
        });
        true
    }

    fn flush(&mut self) -> Result<u64, Failure> {
        if self.queue.is_empty() {
            return Ok(0);
        }
        let errors = |driver: &dyn Driver| driver.stats().tx_errors.iter().sum::<u64>();
        let before = errors(&*self.driver);
        self.driver.send(&self.queue, &mut |_, _| {});
        self.queue.clear();
        Ok(errors(&*self.driver) - before)
    }

    fn receive(&mut self, sink: &mut dyn FnMut(Arrived<'_>)) -> Result<usize, Failure> {
        self.driver
            .wait(Duration::ZERO)
            .map_err(|error| Failure::cannot_run(format!("the driver failed: {error}")))?;
        let at_ns = unix_ns();
        Ok(self.driver.receive(&mut |rx| {
            if let Rx::Datagram { meta, bytes, .. } = rx
                && let Local::Media { port } = meta.local
            {
                sink(Arrived { place: port.0, from: meta.source, bytes, at_ns });
            }
        }))
    }

    fn overruns(&mut self) -> u64 {
        0
    }
}

/// The system clock, nanoseconds since 1970.
pub(super) fn unix_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
