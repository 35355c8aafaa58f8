//! UDP through epoll, `recvmmsg` and `sendmmsg`: for kernels and containers that forbid io_uring,
//! and the yardstick for the other drivers.

use crate::backlog::Backlog;
use crate::clock;
use crate::driver::{
    DATAGRAM_MAX_BYTES, Driver, Interest, Kind, MEDIA_DATAGRAM_MAX_BYTES, Options,
    RECEIVE_BATCH_MAX, Ready, Rx, SendError, Stats, Waker, WatchKey,
};
use crate::giving_way::GivingWay;
use crate::sockets::Sockets;
use crate::sys::epoll::Epoll;
use crate::sys::mmsg::{BATCH, Receiver, Sender};
use ravelin_engine::port::{ListenerId, Local, MediaPortId, Meta, Token, TxQueue};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Longest wait while signalling datagrams wait for room in a send queue.
const BACKLOG_WAIT: Duration = Duration::from_millis(1);

/// Signalling datagrams per call: their buffers are large, and 16 already spread the call's cost.
const SIGNALLING_BATCH: usize = 16;

/// What an epoll event belongs to: the upper half of its data.
const OF_SOCKET: u64 = 0;
const OF_WATCH: u64 = 1;
const OF_WAKER: u64 = 2;

/// See the module.
pub struct Mmsg {
    epoll: Epoll,
    sockets: Sockets,
    waker: Waker,
    backlog: Backlog,
    stats: Stats,
    way: GivingWay,
    signalling: Receiver,
    media: Receiver,
    sender: Sender,
    /// Sockets that had datagrams or errors when we last looked, and were not emptied since.
    pending: VecDeque<Pending>,
    /// Places in the queue of what is to be sent, grouped by socket.
    order: Vec<(u32, u32)>,
    watches: Vec<Watch>,
    watches_max: usize,
    ready: Vec<Ready>,
}

#[derive(Clone, Copy)]
struct Pending {
    socket: u32,
    error: bool,
}

/// The state of one watch key. epoll knows a one-shot descriptor until it is removed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Watch {
    #[default]
    Unknown,
    Armed,
    Fired,
}

/// Opens the driver.
pub(crate) fn open(options: &Options) -> io::Result<Mmsg> {
    let waker = Waker::new()?;
    let epoll = Epoll::new()?;
    epoll.add(waker.fd(), libc::EPOLLIN | libc::EPOLLET, OF_WAKER << 32)?;
    Ok(Mmsg {
        epoll,
        sockets: Sockets::new(options),
        waker,
        backlog: Backlog::default(),
        stats: Stats::default(),
        way: GivingWay::default(),
        signalling: Receiver::new(SIGNALLING_BATCH, DATAGRAM_MAX_BYTES)?,
        media: Receiver::new(BATCH, MEDIA_DATAGRAM_MAX_BYTES)?,
        sender: Sender::new(),
        pending: VecDeque::new(),
        order: Vec::new(),
        watches: Vec::new(),
        watches_max: options.watches_max as usize,
        ready: Vec::new(),
    })
}

impl Mmsg {
    fn start_receiving(&mut self, number: u32) -> io::Result<()> {
        let started = match self.sockets.get(number) {
            Some(socket) => {
                self.epoll.add(socket.as_fd(), libc::EPOLLIN, OF_SOCKET << 32 | u64::from(number))
            }
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        started.inspect_err(|_| self.sockets.close(number))
    }

    fn take_events(&mut self, count: usize) {
        for index in 0..count {
            let Some((mask, data)) = self.epoll.event(index) else { return };
            // The lower half is the number that was put there.
            let number = data as u32;
            match data >> 32 {
                OF_SOCKET => {
                    let error = mask & libc::EPOLLERR != 0;
                    self.pending.push_back(Pending { socket: number, error });
                }
                OF_WATCH => self.finish_watch(number, mask),
                _ => self.waker.drain(),
            }
        }
    }

    fn finish_watch(&mut self, key: u32, mask: i32) {
        let Some(watch) = self.watches.get_mut(key as usize) else { return };
        if *watch != Watch::Armed {
            return;
        }
        *watch = Watch::Fired;
        let closed = mask & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
        self.ready.push(Ready {
            key: WatchKey(key),
            readable: mask & (libc::EPOLLIN | libc::EPOLLRDHUP) != 0 || closed,
            writable: mask & libc::EPOLLOUT != 0 || closed,
            closed,
        });
    }

    /// Takes one call's worth from a socket. True if there may be more.
    fn receive_from(
        &mut self,
        pending: Pending,
        room: usize,
        now: Duration,
        sink: &mut dyn FnMut(Rx<'_>),
    ) -> (usize, bool) {
        let Pending { socket: number, error } = pending;
        if error {
            self.sockets.take_errors(number, &mut self.stats, sink);
        }
        let Some(socket) = self.sockets.get(number) else { return (0, false) };
        let receiver =
            if self.sockets.is_listener(number) { &mut self.signalling } else { &mut self.media };
        let most = receiver.capacity().min(room);
        let received = match receiver.receive(socket, most) {
            Ok(received) => received,
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    return (0, false);
                }
                // The pending ICMP error of a listener shows here first.
                let before = self.stats.icmp_errors;
                self.sockets.take_errors(number, &mut self.stats, sink);
                self.stats.rx_errors += u64::from(self.stats.icmp_errors == before);
                return (0, self.sockets.is_listener(number));
            }
        };
        let local = self.sockets.local(number);
        for index in 0..received {
            match receiver.datagram(index) {
                Some(datagram) if datagram.truncated => {
                    self.stats.rx_truncated += 1;
                    if let Some(source) = datagram.source {
                        sink(Rx::TooLong { meta: Meta { source, local } });
                    }
                }
                Some(datagram) => match datagram.source {
                    Some(source) => {
                        self.stats.count_received(datagram.payload.len());
                        let meta = Meta { source, local };
                        let waited = datagram.arrived.map(|at| now.saturating_sub(at));
                        sink(Rx::Datagram { meta, bytes: datagram.payload, waited });
                    }
                    None => self.stats.rx_errors += 1,
                },
                None => self.stats.rx_errors += 1,
            }
        }
        (received, received == most)
    }
}

impl Driver for Mmsg {
    fn kind(&self) -> Kind {
        Kind::Mmsg
    }

    fn open_listener(&mut self, id: ListenerId, at: SocketAddr) -> io::Result<SocketAddr> {
        let (number, bound) = self.sockets.open_listener(id, at)?;
        self.start_receiving(number)?;
        Ok(bound)
    }

    fn open_media(&mut self, id: MediaPortId, at: SocketAddr) -> io::Result<SocketAddr> {
        let (number, bound) = self.sockets.open_media(id, at)?;
        self.start_receiving(number)?;
        Ok(bound)
    }

    fn mark(&mut self, port: Local, dscp: u8) -> io::Result<()> {
        self.sockets.mark(port, dscp)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        self.stats.gave_way += u64::from(self.way.give_way());
        let timeout = if self.backlog.is_empty() { timeout } else { timeout.min(BACKLOG_WAIT) };
        if self.pending.is_empty() {
            let blocks = self.ready.is_empty() && !timeout.is_zero();
            let asleep = blocks && self.waker.fall_asleep();
            self.stats.wakes += u64::from(blocks && !asleep);
            let outcome = self.epoll.wait(if asleep { timeout } else { Duration::ZERO });
            if asleep && self.waker.wake_up() {
                self.stats.wakes += 1;
            }
            self.stats.waits += 1;
            self.take_events(outcome?);
        }
        Ok(self.pending.len() + self.ready.len())
    }

    fn receive(&mut self, sink: &mut dyn FnMut(Rx<'_>)) -> usize {
        let mut datagrams = 0;
        let now = clock::wall();
        while datagrams < RECEIVE_BATCH_MAX {
            let Some(pending) = self.pending.pop_front() else { break };
            let (received, more) =
                self.receive_from(pending, RECEIVE_BATCH_MAX - datagrams, now, sink);
            datagrams += received;
            if more {
                // To the back: a flooded socket waits for the others.
                self.pending.push_back(Pending { error: false, ..pending });
            }
        }
        self.way.received(datagrams);
        datagrams
    }

    fn send(&mut self, queue: &TxQueue, failed: &mut dyn FnMut(Token, io::Error)) {
        let Self { sockets, backlog, stats, sender, order, .. } = self;
        backlog.flush(stats, |socket, to, bytes| {
            sockets
                .send_one(socket, to, bytes)
                .or_else(|error| sockets.send_again(socket, to, bytes, error))
        });
        order.clear();
        for (tx, place) in queue.iter().zip(0..) {
            match sockets.route(&tx.egress) {
                None => {}
                Some((Some(socket), _)) => order.push((socket, place)),
                Some((None, _)) => {
                    stats.count_send_error(SendError::NotOpen);
                    failed(tx.token, io::ErrorKind::NotConnected.into());
                }
            }
        }
        // By socket, and in order for each.
        order.sort_unstable();
        let entry = |place: u32| {
            let tx = queue.get(place as usize)?;
            let (_, to) = sockets.route(&tx.egress)?;
            Some((tx, to))
        };
        let mut rest = order.as_slice();
        while let Some(&(number, first)) = rest.first() {
            let Some(socket) = sockets.get(number) else { break };
            let run = rest.iter().take_while(|(socket, _)| *socket == number).count().min(BATCH);
            let datagrams = rest[..run]
                .iter()
                .filter_map(|(_, place)| entry(*place))
                .map(|(tx, to)| (to, tx.bytes));
            stats.submits += 1;
            let sent = match sender.send(socket, datagrams) {
                Ok(sent) => {
                    for (tx, _) in rest[..sent].iter().filter_map(|(_, place)| entry(*place)) {
                        stats.count_sent(1, tx.bytes.len());
                    }
                    sent
                }
                Err(error) => {
                    if let Some((tx, to)) = entry(first) {
                        match sockets.send_again(number, to, tx.bytes, error) {
                            Ok(()) => stats.count_sent(1, tx.bytes.len()),
                            Err(error) => match SendError::of(&error) {
                                SendError::WouldBlock => {
                                    backlog.push(sockets, number, to, tx.bytes, stats);
                                }
                                kind => {
                                    stats.count_send_error(kind);
                                    failed(tx.token, error);
                                }
                            },
                        }
                    }
                    1
                }
            };
            // None sent and no error does not happen; moving on by one keeps it from spinning.
            rest = &rest[sent.clamp(1, run)..];
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
            self.watches.resize(index + 1, Watch::Unknown);
        }
        let mask = libc::EPOLLONESHOT
            | match interest {
                Interest::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
                Interest::Write => libc::EPOLLOUT,
                Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLOUT,
            };
        let data = OF_WATCH << 32 | u64::from(key.0);
        if self.watches[index] == Watch::Unknown {
            self.epoll.add(fd, mask, data)?;
        } else {
            self.epoll.modify(fd, mask, data)?;
        }
        self.watches[index] = Watch::Armed;
        Ok(())
    }

    fn unwatch(&mut self, key: WatchKey, fd: BorrowedFd<'_>) {
        if let Some(watch) = self.watches.get_mut(key.0 as usize)
            && *watch != Watch::Unknown
        {
            *watch = Watch::Unknown;
            // It fails only for a descriptor that is gone, and then so is the watch.
            let _ = self.epoll.remove(fd);
        }
        self.ready.retain(|ready| ready.key != key);
    }

    fn take_ready(&mut self, into: &mut Vec<Ready>) {
        into.append(&mut self.ready);
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}
