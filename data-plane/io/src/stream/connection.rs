//! One connection: a pipe, a framer, a bounded queue and its deadlines.

use super::{CloseReason, StreamLimits};
use crate::driver::Interest;
use ravelin_engine::port::{ListenerId, ShardId, Token};
use ravelin_engine::time::Instant;
use ravelin_wire::sip::StreamFramer;
use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

/// A framer whose buffer may have grown beyond this is replaced when it is empty: one large message
/// must not cost memory for the life of the connection.
const KEPT_FRAMER_BYTES: usize = 16 << 10;

/// What bytes go through. TLS is to become a second kind: it reads and writes the same way, over
/// the same descriptor.
enum Pipe {
    Plain(TcpStream),
}

impl Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Open,
    /// Nothing more is read; what is queued, and answers, still go out.
    Draining,
}

/// What became of a write.
pub(super) enum Write {
    Done,
    Queued,
    /// There was no room in the queue.
    Full,
    Broken(io::Error),
}

/// What a read brought.
pub(super) struct Read {
    pub bytes: usize,
    /// The peer will send nothing more.
    pub end: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    /// Whose token it is.
    pub from: ShardId,
    pub token: Token,
    pub bytes: &'a [u8],
}

struct Queued {
    from: ShardId,
    token: Token,
    bytes: Vec<u8>,
}

pub(super) struct Connection {
    pipe: Pipe,
    state: State,
    pub listener: ListenerId,
    pub remote: SocketAddr,
    pub was_accepted: bool,
    /// [`Self::held_bytes`] as it was last added to the sum of all connections.
    pub accounted: usize,
    pub framer: StreamFramer,
    /// Most that the framer has held since it was new.
    framed: usize,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    /// Bytes of the first queued message that are written.
    written: usize,
    /// By when connecting, the incomplete message, or draining must be over.
    phase: Option<Instant>,
    /// By when something must be written.
    write_by: Option<Instant>,
    idle_by: Instant,
    /// Why it drains.
    ending: CloseReason,
}

impl Connection {
    pub(super) fn accepted(
        now: Instant,
        limits: &StreamLimits,
        listener: ListenerId,
        socket: TcpStream,
        remote: SocketAddr,
    ) -> Self {
        let by = now + limits.message_deadline;
        Self::new(now, limits, listener, socket, remote, State::Open, by)
    }

    pub(super) fn connecting(
        now: Instant,
        limits: &StreamLimits,
        listener: ListenerId,
        socket: TcpStream,
        remote: SocketAddr,
    ) -> Self {
        let by = now + limits.connect_deadline;
        Self::new(now, limits, listener, socket, remote, State::Connecting, by)
    }

    fn new(
        now: Instant,
        limits: &StreamLimits,
        listener: ListenerId,
        socket: TcpStream,
        remote: SocketAddr,
        state: State,
        by: Instant,
    ) -> Self {
        Self {
            pipe: Pipe::Plain(socket),
            state,
            listener,
            remote,
            was_accepted: state == State::Open,
            accounted: 0,
            framer: StreamFramer::new(),
            framed: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            written: 0,
            phase: Some(by),
            write_by: None,
            idle_by: now + limits.idle_deadline,
            ending: CloseReason::Peer,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.socket().as_fd()
    }

    /// What to watch for; nothing while only a deadline is awaited.
    pub(super) fn interest(&self) -> Option<Interest> {
        match (self.state, self.queue.is_empty()) {
            (State::Connecting, _) | (State::Draining, false) => Some(Interest::Write),
            (State::Open, true) => Some(Interest::Read),
            (State::Open, false) => Some(Interest::ReadWrite),
            (State::Draining, true) => None,
        }
    }

    /// Bytes held on behalf of this connection.
    pub(super) fn held_bytes(&self) -> usize {
        self.queue_bytes + self.framer.pending().len()
    }

    /// Whether a write goes to the socket and not to the queue.
    pub(super) fn is_writable(&self) -> bool {
        self.queue.is_empty() && self.state != State::Connecting
    }

    /// The earliest deadline.
    pub(super) fn deadline(&self) -> Instant {
        [self.phase, self.write_by].into_iter().flatten().fold(self.idle_by, Instant::min)
    }

    /// What the earliest deadline was for.
    pub(super) fn expired(&self) -> CloseReason {
        let deadline = self.deadline();
        if self.phase == Some(deadline) {
            match self.state {
                State::Connecting => CloseReason::ConnectDeadline,
                State::Open => CloseReason::MessageDeadline,
                State::Draining => self.ending,
            }
        } else if self.write_by == Some(deadline) {
            CloseReason::WriteDeadline
        } else {
            CloseReason::IdleDeadline
        }
    }

    pub(super) fn finish_connect(&mut self, now: Instant, limits: &StreamLimits) -> io::Result<()> {
        if let Some(error) = self.pipe.socket().take_error()? {
            return Err(error);
        }
        self.state = State::Open;
        self.phase = None;
        if !self.queue.is_empty() {
            self.write_by = Some(now + limits.write_deadline);
        }
        self.idle_by = now + limits.idle_deadline;
        self.flush(now, limits)
    }

    /// Writes a message, or what fits of it and queues the rest. The flag says that the connection
    /// has just begun to wait for room and must be watched for it.
    pub(super) fn write(
        &mut self,
        now: Instant,
        limits: &StreamLimits,
        outgoing: Outgoing<'_>,
    ) -> (Write, bool) {
        let bytes = outgoing.bytes;
        if !self.is_writable() {
            return (self.enqueue(limits, outgoing), false);
        }
        let written = match self.write_some(bytes) {
            Ok(written) => written,
            Err(error) => return (Write::Broken(error), false),
        };
        if written > 0 {
            self.idle_by = now + limits.idle_deadline;
        }
        if written == bytes.len() {
            return (Write::Done, false);
        }
        let outcome = self.enqueue(limits, outgoing);
        if matches!(outcome, Write::Queued) {
            self.written = written;
            self.write_by = Some(now + limits.write_deadline);
        }
        (outcome, true)
    }

    fn enqueue(&mut self, limits: &StreamLimits, outgoing: Outgoing<'_>) -> Write {
        let Outgoing { from, token, bytes } = outgoing;
        let room = limits.queue_bytes_max.saturating_sub(self.queue_bytes);
        if self.queue.len() >= limits.queue_messages_max || bytes.len() > room {
            return Write::Full;
        }
        self.queue_bytes += bytes.len();
        self.queue.push_back(Queued { from, token, bytes: bytes.to_vec() });
        Write::Queued
    }

    /// Writes until the socket has no more room. Zero: none now.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.pipe.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Writes what is queued as far as there is room.
    pub(super) fn flush(&mut self, now: Instant, limits: &StreamLimits) -> io::Result<()> {
        while let Some(first) = self.queue.pop_front() {
            let rest = first.bytes.get(self.written..).unwrap_or_default();
            let count = match self.write_some(rest) {
                Ok(count) => count,
                Err(error) => {
                    self.queue.push_front(first);
                    return Err(error);
                }
            };
            if count > 0 {
                self.write_by = Some(now + limits.write_deadline);
                self.idle_by = now + limits.idle_deadline;
            }
            if count < rest.len() {
                self.written += count;
                self.queue.push_front(first);
                return Ok(());
            }
            self.written = 0;
            self.queue_bytes -= first.bytes.len();
        }
        self.write_by = None;
        Ok(())
    }

    /// Reads once into the framer.
    pub(super) fn read(
        &mut self,
        now: Instant,
        limits: &StreamLimits,
        buffer: &mut [u8],
    ) -> io::Result<Read> {
        let bytes = match self.pipe.read(buffer) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(Read { bytes: 0, end: false });
            }
            Err(error) => return Err(error),
        };
        if bytes > 0 {
            self.idle_by = now + limits.idle_deadline;
            let read = buffer.get(..bytes).unwrap_or_default();
            // An error stays in the framer and is told by its `next`.
            let _ = self.framer.push(read);
            self.framed = self.framed.max(self.framer.pending().len());
        }
        Ok(Read { bytes, end: bytes == 0 })
    }

    /// Sets the deadline for the message that is being gathered, after complete ones were taken.
    pub(super) fn note_progress(&mut self, now: Instant, limits: &StreamLimits, complete: bool) {
        if self.state != State::Open {
            return;
        }
        if !self.framer.is_mid_message() {
            if complete {
                self.phase = None;
                if self.framed > KEPT_FRAMER_BYTES {
                    self.framer = StreamFramer::new();
                    self.framed = 0;
                }
            }
        } else if complete || self.phase.is_none() {
            self.phase = Some(now + limits.message_deadline);
        }
    }

    /// Stops reading; the connection ends for `reason` when its time is up.
    pub(super) fn drain(&mut self, now: Instant, limits: &StreamLimits, reason: CloseReason) {
        if self.state == State::Open {
            self.state = State::Draining;
            self.phase = Some(now + limits.drain_deadline);
            self.ending = reason;
            self.framer = StreamFramer::new();
        }
    }

    /// Tells the peer at once that this is the end: a driver may hold on to the descriptor of a
    /// watch until its next wait.
    pub(super) fn shut_down(&self) {
        // It fails for a connection that was never made, and for one that is gone.
        let _ = self.pipe.socket().shutdown(Shutdown::Both);
    }

    /// Tokens of the messages that were not written whole, and whose they are.
    pub(super) fn unsent(&self) -> impl Iterator<Item = (ShardId, Token)> {
        self.queue.iter().map(|queued| (queued.from, queued.token))
    }
}
