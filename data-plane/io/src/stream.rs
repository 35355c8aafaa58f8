//! SIP over TCP: listeners, connections, framing (RFC 3261 18).
//!
//! Connections wait in the shard's own driver ([`Driver::watch`]) and are read and written without
//! blocking when it says that they are ready. They are not tasks of the glommio executor that hosts
//! the shard, for three reasons: its completions do not end the shard's wait, so that an idle shard
//! with one open listener would have to look a thousand times a second (a hundred times the idle
//! CPU, see `examples/idle_cpu.rs`) and still answer up to 1 ms late; it can be passed over for a
//! while (see [`crate::host`]); and it does not exist where io_uring is forbidden. This way a
//! message is read, handled and answered in one turn.
//!
//! Nothing here grows without a limit ([`StreamLimits`]), and no peer can hold up another one: a
//! connection that is not read from, that drips its message, or that falls silent is closed, with a
//! reason that is counted ([`CloseReason`]).

mod connection;
mod limits;
mod socket;
mod stats;
mod table;
mod traffic;

pub use limits::StreamLimits;
pub use stats::{CloseReason, StreamStats};

use crate::driver::{Driver, Interest, Ready, WatchKey};
use crate::sockets::set_dscp;
use connection::{Connection, Outgoing};
use ravelin_engine::port::{Egress, FlowId, ListenerId, Meta, ShardId, Token, Transport, Tx};
use ravelin_engine::time::Instant;
use socket2::{SockAddr, SockRef};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

/// Watch keys below this are listeners', the others are connections'.
const LISTENERS_MAX: u32 = 64;

/// Length of the queue of connections that were not accepted yet.
const ACCEPT_QUEUE: i32 = 1_024;

/// Connections accepted from one listener per turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Ready descriptors looked at per turn.
const READY_PER_TURN: usize = 256;

/// Bytes read from one connection per turn.
const READ_BYTES: usize = 16 << 10;

/// Deadlines are looked at no more often than this.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Pause of a listener whose connections could not be accepted for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answer to a ping of two line ends (RFC 5626 4.4.1).
const PONG: &[u8] = b"\r\n";

/// What streams deliver.
#[derive(Debug)]
pub enum StreamEvent<'a> {
    /// One whole message; or, just before a connection whose framing broke is closed, what could
    /// not be understood, so that it can be answered.
    Message { meta: Meta, bytes: &'a [u8] },
    /// The peer will send nothing more on this connection; answers may still go out on it for a
    /// while. [`Self::Closed`] follows.
    Ended { flow: FlowId },
    /// A connection is gone. Messages of its queue that wanted to hear of it were reported before.
    Closed { flow: FlowId },
    /// A message was not sent, or its connection ended before it was written whole. The token is
    /// one of the shard `from`.
    SendFailed { from: ShardId, token: Token, error: io::Error },
}

/// An event that waits for the next poll.
enum Due {
    Ended(FlowId),
    Closed(FlowId),
    SendFailed(ShardId, Token, io::Error),
}

struct Listener {
    socket: TcpListener,
    id: ListenerId,
    local: SocketAddr,
    /// Not watched until then.
    paused: Option<Instant>,
}

struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

/// The streams of one shard.
pub struct Streams {
    shard: ShardId,
    limits: StreamLimits,
    listeners: Vec<Listener>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
    /// The newest connection to each remote address, by listener, for reuse.
    by_remote: HashMap<(ListenerId, SocketAddr), u32>,
    /// Accepted connections by source address.
    by_source: HashMap<IpAddr, u32>,
    /// Bytes held by all connections.
    held_bytes: usize,
    ready: VecDeque<Ready>,
    taken: Vec<Ready>,
    due: VecDeque<Due>,
    read_buffer: Box<[u8]>,
    /// When a deadline may have passed; none while there is no deadline.
    check_at: Option<Instant>,
    checked: Instant,
    /// Code points of what leaves by a listener's connections.
    marks: HashMap<ListenerId, u8>,
    stats: StreamStats,
}

impl Streams {
    #[must_use]
    pub fn new(shard: ShardId, limits: StreamLimits) -> Self {
        Self {
            shard,
            limits,
            listeners: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            by_remote: HashMap::new(),
            by_source: HashMap::new(),
            held_bytes: 0,
            ready: VecDeque::new(),
            taken: Vec::new(),
            due: VecDeque::new(),
            read_buffer: vec![0; READ_BYTES].into_boxed_slice(),
            check_at: None,
            checked: Instant::default(),
            marks: HashMap::new(),
            stats: StreamStats::default(),
        }
    }

    /// Opens a TCP listener whose port the shards share. Returns the bound address.
    ///
    /// # Errors
    /// Of socket, bind and watch.
    pub fn listen(
        &mut self,
        driver: &mut dyn Driver,
        id: ListenerId,
        at: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let key = u32::try_from(self.listeners.len()).unwrap_or(u32::MAX);
        if key >= LISTENERS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than 64 listeners"));
        }
        let socket = socket::tcp(at)?;
        // Connections of a previous process in TIME_WAIT must not keep us from starting.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(at))?;
        socket.listen(ACCEPT_QUEUE)?;
        let socket = TcpListener::from(socket);
        let local = socket.local_addr()?;
        driver.watch(WatchKey(key), socket.as_fd(), Interest::Read)?;
        self.listeners.push(Listener { socket, id, local, paused: None });
        Ok(local)
    }

    /// Gives everything that leaves by this listener's connections, accepted or made from it, this
    /// differentiated services code point, 0 to 63 (RFC 2474). For connections that are still to
    /// come: to be called right after [`Self::listen`].
    ///
    /// # Errors
    /// The code point is above 63; of `setsockopt`.
    pub fn mark(&mut self, id: ListenerId, dscp: u8) -> io::Result<()> {
        for listener in self.listeners.iter().filter(|listener| listener.id == id) {
            // What answers a SYN has it from the listener.
            set_dscp(&SockRef::from(&listener.socket), dscp)?;
        }
        self.marks.insert(id, dscp);
        Ok(())
    }

    /// Sends a message of a [`Egress::Flow`] or [`Egress::Connect`]: at once if the connection has
    /// room, else from its queue. Other entries are ignored. Returns the connection that took it;
    /// what fails is reported by the next [`Self::poll`].
    pub fn send(&mut self, now: Instant, driver: &mut dyn Driver, tx: Tx<'_>) -> Option<FlowId> {
        self.send_for(self.shard, now, driver, tx)
    }

    /// As [`Self::send`], for the shard `from`, whose token it is.
    pub fn send_for(
        &mut self,
        from: ShardId,
        now: Instant,
        driver: &mut dyn Driver,
        tx: Tx<'_>,
    ) -> Option<FlowId> {
        let outgoing = Outgoing { from, token: tx.token, bytes: tx.bytes };
        let (open, way) = match tx.egress {
            Egress::Udp { .. } | Egress::Media { .. } => return None,
            Egress::Flow { flow, or_connect } => {
                // A request on a connection that brings no answer any more would wait in vain.
                let slot = self
                    .find(flow)
                    .filter(|slot| tx.token == Token::default() || self.is_read(*slot));
                (slot, or_connect.map(|(listener, to)| (listener, to, Transport::Tcp)))
            }
            Egress::Connect { listener, to, transport } => (None, Some((listener, to, transport))),
        };
        let mut failure = io::Error::from(io::ErrorKind::NotConnected);
        if let Some(slot) = open {
            match self.write(now, driver, slot, outgoing) {
                Ok(flow) => return Some(flow),
                Err(error) => failure = error,
            }
        }
        // A connection that breaks under the first write was dead before, and a new one may not be
        // (RFC 3261 18.2.2). One that is full has a peer that does not read: nor would it there.
        for _ in 0..2 {
            let Some((listener, to, transport)) = way else { break };
            if failure.kind() == io::ErrorKind::StorageFull {
                break;
            }
            let slot = match self.connection_to(now, driver, listener, to, transport) {
                Ok(slot) => slot,
                Err(error) => {
                    failure = error;
                    break;
                }
            };
            match self.write(now, driver, slot, outgoing) {
                Ok(flow) => return Some(flow),
                Err(error) => failure = error,
            }
        }
        self.fail_send(from, tx.token, failure);
        None
    }

    /// Takes what the driver found ready, at most a bounded part of it per turn, and delivers what
    /// came of it. Returns how many events were delivered.
    pub fn poll(
        &mut self,
        now: Instant,
        driver: &mut dyn Driver,
        sink: &mut dyn FnMut(StreamEvent<'_>),
    ) -> usize {
        driver.take_ready(&mut self.taken);
        self.ready.extend(self.taken.drain(..));
        let mut events = 0;
        for _ in 0..READY_PER_TURN {
            let Some(ready) = self.ready.pop_front() else { break };
            match ready.key.0.checked_sub(LISTENERS_MAX) {
                None => self.accept(now, driver, ready.key),
                Some(slot) => events += self.progress(now, driver, slot, ready, sink),
            }
        }
        if self.check_at.is_some_and(|at| at <= now) {
            self.check_deadlines(now, driver);
        }
        while let Some(due) = self.due.pop_front() {
            events += 1;
            sink(match due {
                Due::Ended(flow) => StreamEvent::Ended { flow },
                Due::Closed(flow) => StreamEvent::Closed { flow },
                Due::SendFailed(from, token, error) => {
                    StreamEvent::SendFailed { from, token, error }
                }
            });
        }
        events
    }

    /// When [`Self::poll`] has something to do even if nothing becomes ready. In the past: now.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.ready.is_empty() && self.due.is_empty() {
            self.check_at
        } else {
            Some(Instant::default())
        }
    }

    /// Closes a connection; [`StreamEvent::Closed`] follows.
    pub fn close(&mut self, driver: &mut dyn Driver, flow: FlowId) {
        if let Some(slot) = self.find(flow) {
            self.end(driver, slot, CloseReason::Local);
        }
    }

    /// Connections that are open or being opened.
    #[must_use]
    pub const fn open_count(&self) -> usize {
        self.open
    }

    /// Bytes that all connections hold: messages that are not complete, and those that wait to be
    /// written.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    #[must_use]
    pub const fn stats(&self) -> &StreamStats {
        &self.stats
    }

    fn find(&self, flow: FlowId) -> Option<u32> {
        let slot = self.slots.get(flow.slot as usize)?;
        let live = slot.generation == flow.generation && slot.connection.is_some();
        (live && flow.shard == self.shard).then_some(flow.slot)
    }

    fn is_read(&self, slot: u32) -> bool {
        let connection = self.slots.get(slot as usize).and_then(|slot| slot.connection.as_deref());
        connection.is_some_and(|connection| connection.state() != connection::State::Draining)
    }

    fn connection(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.connection.as_deref_mut()
    }

    fn fail_send(&mut self, from: ShardId, token: Token, error: io::Error) {
        self.stats.send_failures += 1;
        if token != Token::default() {
            self.due.push_back(Due::SendFailed(from, token, error));
        }
    }

    fn check_by(&mut self, deadline: Instant) {
        let deadline = deadline.max(self.checked + CHECK_INTERVAL);
        self.check_at = Some(self.check_at.map_or(deadline, |at| at.min(deadline)));
    }
}

fn key(slot: u32) -> WatchKey {
    WatchKey(LISTENERS_MAX.saturating_add(slot))
}
