//! UDP through one private io_uring ring per shard.
//!
//! Every socket has one multishot `recvmsg` that fills buffers of a ring that the kernel picks from
//! by itself: small ones for media, large ones for signalling. A batch of sends is one system call,
//! and it brings in what has arrived meanwhile. The ring belongs to the thread that set it up
//! (`SINGLE_ISSUER`), and the kernel's work for it is done when that thread enters
//! (`DEFER_TASKRUN`): no interrupts on the shard's core, and none of its completions is handled
//! anywhere else. Waiting, with the engine's next timer as the timeout, is the same system call.
//!
//! Sends are non-blocking and have completed when the call returns, so they borrow the engine's
//! arena: no payload is copied and no buffer is kept in flight.
//!
//! Measured by `examples/udp_relay_bench.rs` as CPU of the relaying thread per datagram of 172
//! bytes (2 vCPU Xeon 2.5 GHz, kernel 6.18, loopback, machine shared with other load, medians of 6
//! rounds): 2.4 us in bursts of 64 on one port, 0.95 of a bare `recvmmsg`/`sendmmsg` loop; 2.5 us
//! for one datagram on each of 400 ports, 0.84 of it. [`crate::mmsg`] takes 1.03 and 0.99. An idle
//! shard uses 0.05 % of a core (`examples/idle_cpu.rs`).
//!
//! Four and more packets of one stream in one batch are one send ([`departures`]): with 4, 8 and 16
//! at a time 0.73, 0.71 and 0.54 of the bare loop's CPU, without it 0.96, 0.93 and 0.94 (the same
//! example, `frames4` and so on, medians of 3 rounds, nothing else on the machine).
//!
//! Under load a wait gathers ([`pace`]): the kernel wakes the shard for 16 completions or after
//! 40 us, not for each datagram.
//!
//! What was measured on veth (`bench/peers/media`, 50,000 packets/s over 500 ports) and left out:
//! - Connected media sockets, which spare the route lookup of each send: 3 to 6 % of the bare loop's
//!   CPU. A connected socket hears its peer alone, so each port would need a second, open one for
//!   everybody else (latching, memory of sprayers), made and closed at each latch, hold and
//!   re-INVITE while packets are queued on either. Not worth two sockets and that race per port.
//! - Dropping the completions of successful sends: they are how a send is known to have let go of
//!   its payload.
//! - Sends that leave with the next wait, from copies and without completions, so that a turn is one
//!   system call less: 0.99 of the CPU, within what the same build differs by.
//!
//! Memory that counts against the limit on locked memory: the two queues (about 130 KiB) and the
//! two buffer rings (16 bytes per buffer). The buffers themselves do not.

mod departures;
pub(crate) mod pace;
mod setup;

pub(crate) use setup::{available, open};

use crate::backlog::Backlog;
use crate::clock;
use crate::driver::{
    Driver, Interest, Kind, RECEIVE_BATCH_MAX, Ready, Rx, SendError, Stats, Waker, WatchKey,
};
use crate::giving_way::GivingWay;
use crate::sockets::Sockets;
use crate::sys::ring::{Event, GENERATION_MASK, Group, Outgoing, Ring};
use crate::sys::thread;
use departures::Departures;
use ravelin_engine::port::{ListenerId, Local, MediaPortId, Meta, Token, TxQueue};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Longest wait while signalling datagrams wait for room in a send queue.
const BACKLOG_WAIT: Duration = Duration::from_millis(1);

/// Events looked at in one `receive`, datagrams or not.
const EVENTS_MAX: usize = 4 * RECEIVE_BATCH_MAX;

/// See the module.
pub struct Uring {
    ring: Ring,
    sockets: Sockets,
    waker: Waker,
    backlog: Backlog,
    stats: Stats,
    watches: Vec<Watch>,
    watches_max: usize,
    ready: Vec<Ready>,
    /// Sends that failed in this batch: place in the queue, error number.
    failures: Vec<(u32, i32)>,
    /// Listeners whose pending ICMP error a send took: the receive will not stop for it, and the
    /// report waits in the error queue.
    errors_due: Vec<u32>,
    pace: pace::Pace,
    way: GivingWay,
    /// The kernel can wait for several completions for a while (6.12).
    can_gather: bool,
}

#[derive(Clone, Copy, Default)]
struct Watch {
    generation: u32,
    armed: bool,
}

impl Uring {
    fn new(ring: Ring, options: &crate::driver::Options) -> io::Result<Self> {
        // Without it a wait that gathers lasts twice as long as it should.
        let precise = thread::precise_timers().is_ok();
        let can_gather = precise && ring.uring().params().is_feature_min_timeout();
        let mut driver = Self {
            ring,
            sockets: Sockets::new(options),
            waker: Waker::new()?,
            backlog: Backlog::default(),
            stats: Stats::default(),
            watches: Vec::new(),
            watches_max: options.watches_max as usize,
            ready: Vec::new(),
            failures: Vec::new(),
            errors_due: Vec::new(),
            pace: pace::Pace::default(),
            way: GivingWay::default(),
            can_gather,
        };
        driver.ring.arm_waker(driver.waker.fd())?;
        driver.ring.submit()?;
        Ok(driver)
    }

    fn start_receiving(&mut self, number: u32, group: Group) -> io::Result<()> {
        let started = match self.sockets.get(number) {
            Some(socket) => self
                .ring
                .register(number, socket.as_fd())
                .and_then(|()| self.ring.arm_receive(number, group)),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        started.inspect_err(|_| self.sockets.close(number))
    }

    /// A stopped receive, armed again. `errno` says why it stopped.
    fn restart(&mut self, socket: u32, group: Group, errno: i32, sink: &mut dyn FnMut(Rx<'_>)) {
        let icmp = self.stats.icmp_errors;
        match errno {
            0 => {}
            libc::ENOBUFS => self.stats.rx_no_buffer += 1,
            // Of our own making.
            libc::ECANCELED => return,
            _ => self.sockets.take_errors(socket, &mut self.stats, sink),
        }
        let reported = self.stats.icmp_errors > icmp;
        if !matches!(errno, 0 | libc::ENOBUFS) && !reported {
            self.stats.rx_errors += 1;
            // These are for good: arming again would only spin. (An ICMP error may look like the
            // last one, and whoever can forge one must not be able to silence a listener.)
            if matches!(errno, libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP) {
                return;
            }
        }
        self.arm(socket, group);
    }

    fn arm(&mut self, socket: u32, group: Group) {
        if self.ring.arm_receive(socket, group).is_err() {
            // The ring is dead, as the next wait will say.
            self.stats.rx_errors += 1;
        }
    }

    fn finish_watch(&mut self, key: u32, generation: u32, result: i32) {
        let Some(watch) = self.watches.get_mut(key as usize) else { return };
        if !watch.armed || watch.generation != generation {
            return;
        }
        watch.armed = false;
        let mask = if result < 0 { libc::POLLERR } else { result as i16 };
        let closed = mask & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        self.ready.push(Ready {
            key: WatchKey(key),
            readable: mask & (libc::POLLIN | libc::POLLRDHUP) != 0 || closed,
            writable: mask & libc::POLLOUT != 0 || closed,
            closed,
        });
    }
}

impl Driver for Uring {
    fn kind(&self) -> Kind {
        Kind::Uring
    }

    fn open_listener(&mut self, id: ListenerId, at: SocketAddr) -> io::Result<SocketAddr> {
        let (number, bound) = self.sockets.open_listener(id, at)?;
        self.start_receiving(number, Group::Signalling)?;
        Ok(bound)
    }

    fn open_media(&mut self, id: MediaPortId, at: SocketAddr) -> io::Result<SocketAddr> {
        let (number, bound) = self.sockets.open_media(id, at)?;
        self.start_receiving(number, Group::Media)?;
        Ok(bound)
    }

    fn mark(&mut self, port: Local, dscp: u8) -> io::Result<()> {
        self.sockets.mark(port, dscp)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        self.stats.gave_way += u64::from(self.way.give_way());
        let timeout = if self.backlog.is_empty() { timeout } else { timeout.min(BACKLOG_WAIT) };
        let idle = self.ring.events() == 0 && self.ready.is_empty() && self.errors_due.is_empty();
        let blocks = idle && !timeout.is_zero();
        let asleep = blocks && self.waker.fall_asleep();
        self.stats.wakes += u64::from(blocks && !asleep);
        let gather = (asleep && self.can_gather).then(|| self.pace.gather(clock::monotonic()));
        let timeout = if asleep { timeout } else { Duration::ZERO };
        let outcome = self.ring.wait(timeout, gather.flatten());
        if asleep && self.waker.wake_up() {
            self.stats.wakes += 1;
        }
        self.stats.waits = self.ring.enters - self.stats.submits;
        self.stats.cq_overflows = self.ring.overflows;
        outcome?;
        Ok(self.ring.events() + self.ready.len() + self.errors_due.len())
    }

    fn receive(&mut self, sink: &mut dyn FnMut(Rx<'_>)) -> usize {
        let mut datagrams = 0;
        let now = clock::wall();
        for socket in self.errors_due.drain(..) {
            self.sockets.take_errors(socket, &mut self.stats, sink);
        }
        for _ in 0..EVENTS_MAX {
            if datagrams == RECEIVE_BATCH_MAX {
                break;
            }
            match self.ring.next_event() {
                None => break,
                Some(Event::Received { socket, group, buffer, len, armed }) => {
                    datagrams += 1;
                    match self.ring.datagram(group, buffer, len) {
                        Some(datagram) if datagram.truncated => {
                            self.stats.rx_truncated += 1;
                            if let Some(source) = datagram.source {
                                let meta = Meta { source, local: self.sockets.local(socket) };
                                sink(Rx::TooLong { meta });
                            }
                        }
                        Some(datagram) => match datagram.source {
                            Some(source) => {
                                self.stats.count_received(datagram.payload.len());
                                let meta = Meta { source, local: self.sockets.local(socket) };
                                let waited = datagram.arrived.map(|at| now.saturating_sub(at));
                                sink(Rx::Datagram { meta, bytes: datagram.payload, waited });
                            }
                            None => self.stats.rx_errors += 1,
                        },
                        None => self.stats.rx_errors += 1,
                    }
                    self.ring.recycle(group, buffer);
                    if !armed {
                        self.arm(socket, group);
                    }
                }
                Some(Event::Stopped { socket, group, errno }) => {
                    // What was taken in this turn must be free before the kernel looks again.
                    self.ring.publish_buffers();
                    self.restart(socket, group, errno, sink);
                }
                Some(Event::Watched { key, generation, result }) => {
                    self.finish_watch(key, generation, result);
                }
                Some(Event::Woken { armed }) => {
                    self.waker.drain();
                    if !armed && self.ring.arm_waker(self.waker.fd()).is_err() {
                        self.stats.rx_errors += 1;
                    }
                }
            }
        }
        self.ring.publish_buffers();
        self.pace.received(datagrams);
        self.way.received(datagrams);
        datagrams
    }

    fn send(&mut self, queue: &TxQueue, failed: &mut dyn FnMut(Token, io::Error)) {
        let Self { ring, sockets, backlog, stats, failures, errors_due, .. } = self;
        backlog.flush(stats, |socket, to, bytes| {
            sockets
                .send_one(socket, to, bytes)
                .or_else(|error| sockets.send_again(socket, to, bytes, error))
        });
        if queue.is_empty() {
            return;
        }
        failures.clear();
        let mut not_open = 0;
        let datagrams = Departures::new(queue).filter_map(|departure| {
            let tx = departure.first;
            match sockets.route(&tx.egress)? {
                (Some(socket), to) => {
                    Some(Outgoing { socket, to, bytes: departure.octets, tag: departure.tag })
                }
                (None, _) => {
                    for place in departure.tag.places() {
                        let Some(tx) = queue.get(place as usize) else { continue };
                        not_open += 1;
                        failed(tx.token, io::ErrorKind::NotConnected.into());
                    }
                    None
                }
            }
        });
        let before = ring.enters;
        let outcome = ring.send(datagrams, |tag, sent| match usize::try_from(sent) {
            Ok(bytes) => {
                stats.count_sent(usize::from(tag.count), bytes);
                stats.tx_segmented += if tag.count > 1 { u64::from(tag.count) } else { 0 };
            }
            Err(_) => failures.push((tag.place, -sent)),
        });
        stats.submits += ring.enters - before;
        stats.tx_errors[SendError::NotOpen as usize] += not_open;
        if outcome.is_err() {
            // The ring is dead, as the next wait will say; nobody can tell what was sent.
            stats.count_send_error(SendError::Other);
        }
        for &(place, errno) in failures.iter() {
            let Some(tx) = queue.get(place as usize) else { continue };
            let Some((Some(socket), to)) = sockets.route(&tx.egress) else { continue };
            let error = io::Error::from_raw_os_error(errno);
            if sockets.may_be_icmp(socket, &error) && !errors_due.contains(&socket) {
                errors_due.push(socket);
            }
            match sockets.send_again(socket, to, tx.bytes, error) {
                Ok(()) => stats.count_sent(1, tx.bytes.len()),
                Err(error) => match SendError::of(&error) {
                    SendError::WouldBlock => backlog.push(sockets, socket, to, tx.bytes, stats),
                    kind => {
                        stats.count_send_error(kind);
                        failed(tx.token, error);
                    }
                },
            }
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn watch(&mut self, key: WatchKey, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let index = key.0 as usize;
        if index >= self.watches_max {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more watches than allowed"));
        }
        if self.watches.len() <= index {
            self.watches.resize(index + 1, Watch::default());
        }
        let Watch { generation, armed } = self.watches[index];
        if armed {
            self.ring.cancel_watch(key.0, generation)?;
        }
        let generation = (generation + 1) & GENERATION_MASK;
        let mask = match interest {
            Interest::Read => libc::POLLIN | libc::POLLRDHUP,
            Interest::Write => libc::POLLOUT,
            Interest::ReadWrite => libc::POLLIN | libc::POLLRDHUP | libc::POLLOUT,
        };
        self.ring.arm_watch(key.0, generation, fd, mask as u32)?;
        self.watches[index] = Watch { generation, armed: true };
        Ok(())
    }

    fn unwatch(&mut self, key: WatchKey, _: BorrowedFd<'_>) {
        if let Some(watch) = self.watches.get_mut(key.0 as usize)
            && watch.armed
        {
            watch.armed = false;
            // It fails only when the ring is dead, and then the watch is too.
            let _ = self.ring.cancel_watch(key.0, watch.generation);
        }
        self.ready.retain(|ready| ready.key != key);
    }

    fn take_ready(&mut self, into: &mut Vec<Ready>) {
        into.append(&mut self.ready);
    }

    fn also_received(&mut self, datagrams: usize) {
        self.pace.received(datagrams);
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}
