//! The seam between a shard and whatever moves its datagrams.
//!
//! A turn of a shard: [`Driver::wait`], [`Driver::receive`] into the engine, the engine's timers,
//! [`Driver::send`] of the whole [`TxQueue`]. One driver value belongs to one shard and never
//! leaves its thread; only its [`Waker`] does.

mod choice;
mod stats;
mod waker;

pub use choice::{Choice, Opened, open};
pub use stats::{Count, SendError, Stats};
pub use waker::Waker;

use ravelin_engine::port::{
    FastChange, FastCount, ListenerId, Local, MediaPortId, Meta, Token, TxQueue,
};
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Most datagrams that one [`Driver::receive`] delivers: what is left waits for the next turn, so
/// that timers and sends are never starved by a flood.
pub const RECEIVE_BATCH_MAX: usize = 512;

/// Longest UDP payload: 65,535 octets less 8 of header over IPv6; 20 fewer fit over IPv4.
pub const DATAGRAM_MAX_BYTES: usize = 65_527;

/// Longest datagram taken on a media port. RTP and RTCP stay below a path MTU; a longer one is
/// counted as [`Stats::rx_truncated`], and delivered as [`Rx::TooLong`].
pub const MEDIA_DATAGRAM_MAX_BYTES: usize = 1_920;

/// Watches of streams have keys below this; those of the fast path's sockets begin here.
pub const FAST_WATCH_FIRST: u32 = 16_384;

/// Sockets of the fast path that one shard may watch.
pub const FAST_WATCHES_MAX: u32 = 256;

/// What a driver delivers.
#[derive(Clone, Copy, Debug)]
pub enum Rx<'a> {
    /// What comes next is datagrams of these media ports, in this order: whoever takes them may read
    /// what they will need, for all at once. A hint; drivers give it where they know.
    Coming { ports: &'a [MediaPortId] },
    Datagram {
        meta: Meta,
        bytes: &'a [u8],
        /// How long it lay in its media port's queue by the kernel's timestamp, until this
        /// [`Driver::receive`] began. `None`: nobody knows (signalling, AF_XDP).
        waited: Option<Duration>,
    },
    /// A datagram that is longer than the driver takes there: its contents are not delivered.
    TooLong { meta: Meta },
    /// An ICMP error says that what this listener sent to `to` did not arrive (RFC 3261 18.4).
    /// Whoever can forge a packet can forge this: a hint for the transport layer, never more.
    Unreachable { listener: ListenerId, to: SocketAddr },
}

/// Names a descriptor that is watched for readiness; chosen by the watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchKey(pub u32);

/// What a watcher waits for. Errors and hang-ups always wake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
    ReadWrite,
}

/// What a watched descriptor is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub key: WatchKey,
    pub readable: bool,
    pub writable: bool,
    /// Error or hang-up on the descriptor.
    pub closed: bool,
}

/// Moves datagrams for one shard.
pub trait Driver {
    fn kind(&self) -> Kind;

    /// Opens a signalling listener: port shared between the shards (`SO_REUSEPORT`), ICMP errors
    /// reported. Returns the bound address (the port, if `at` left it open).
    ///
    /// # Errors
    /// Of socket, bind and registration; an id that is open already is `AlreadyExists`.
    fn open_listener(&mut self, id: ListenerId, at: SocketAddr) -> io::Result<SocketAddr>;

    /// Opens a media port, which nobody shares: bound by another process it is `AddrInUse`.
    ///
    /// # Errors
    /// As [`Driver::open_listener`].
    fn open_media(&mut self, id: MediaPortId, at: SocketAddr) -> io::Result<SocketAddr>;

    /// Gives everything that leaves an open port this differentiated services code point, 0 to 63
    /// (RFC 2474), from now on.
    ///
    /// # Errors
    /// The port is not open, or no UDP port; the code point is above 63; of `setsockopt`.
    fn mark(&mut self, port: Local, dscp: u8) -> io::Result<()>;

    /// Blocks until something has arrived, a watched descriptor is ready, the [`Waker`] is used or
    /// `timeout` has passed; zero only looks. Returns how many things there are to take; a signal
    /// or a wake may return zero early.
    ///
    /// # Errors
    /// Only what ends this driver: no later call will succeed.
    fn wait(&mut self, timeout: Duration) -> io::Result<usize>;

    /// Delivers what has arrived, at most [`RECEIVE_BATCH_MAX`] datagrams. Returns how many.
    fn receive(&mut self, sink: &mut dyn FnMut(Rx<'_>)) -> usize;

    /// Sends every UDP entry of `queue`, in order per socket, in one batch; entries for streams are
    /// skipped (see [`crate::stream`]). Never blocks. `failed` hears of each entry that the kernel
    /// refused for a reason that will not pass by itself. A datagram that meets a full socket
    /// buffer is kept for the next turns if it is signalling and there is room, else dropped; both
    /// are counted, none is reported.
    fn send(&mut self, queue: &TxQueue, failed: &mut dyn FnMut(Token, io::Error));

    /// Wakes [`Driver::wait`] from another thread.
    fn waker(&self) -> Waker;

    /// Watches a descriptor until it is ready once ([`Driver::take_ready`]), then forgets it. A
    /// watch of the same key replaces the older one.
    ///
    /// # Errors
    /// The descriptor cannot be polled, or there are too many.
    fn watch(&mut self, key: WatchKey, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()>;

    /// Forgets a watch, to be called before its descriptor is closed. Its key is never reported
    /// again unless it is watched anew.
    fn unwatch(&mut self, key: WatchKey, fd: BorrowedFd<'_>);

    /// Moves what became ready since the last call into `into`.
    fn take_ready(&mut self, into: &mut Vec<Ready>);

    /// Tells the fast path which streams it may take over. A driver without one has nothing to do:
    /// what it does not take over arrives by [`Driver::receive`].
    fn program(&mut self, changes: &[FastChange]) {
        let _ = changes;
    }

    /// Appends what the fast path counted for each flow that it has, and for those cleared since
    /// the last call.
    fn fast_counts(&mut self, into: &mut Vec<FastCount>) {
        let _ = into;
    }

    /// As [`Driver::fast_counts`], of those cleared or replaced since the last call of either alone:
    /// costs nothing for flows that go on.
    fn last_fast_counts(&mut self, into: &mut Vec<FastCount>) {
        let _ = into;
    }

    /// So many datagrams came past this driver in this turn, which its judgement of the load is to
    /// include.
    fn also_received(&mut self, datagrams: usize) {
        let _ = datagrams;
    }

    fn stats(&self) -> &Stats;

    /// Hands out every counter.
    fn counts(&self, sink: &mut dyn FnMut(Count)) {
        self.stats().each(sink);
    }
}

/// Which driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The fast path around one of the others.
    Xdp,
    Uring,
    Mmsg,
}

impl Kind {
    /// Value of the `driver` label of the metrics, and of the configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Uring => "uring",
            Self::Mmsg => "mmsg",
        }
    }
}

/// Sizes of one shard's driver. The defaults fit two shards into the 8 MiB that an unprivileged
/// process may lock (see `docs` of [`crate::uring`]).
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Listeners that this shard may open.
    pub listeners_max: u16,
    /// Media ports that this shard may open.
    pub media_ports_max: u32,
    /// Descriptors that may be watched at a time.
    pub watches_max: u32,
    /// Receive buffers for media, 2 KiB each; a power of two, at most 32,768. The kernel fills them
    /// in turn, each long after it was filled last: more than one turn takes would only make sure
    /// that it is in no cache. With none left, datagrams wait in their sockets.
    pub media_buffers: u16,
    /// Receive buffers for signalling, 64 KiB each of address space, of which only touched pages
    /// are memory; a power of two, at most 32,768.
    pub signalling_buffers: u16,
    /// Bytes asked of the kernel for each socket's receive and send queue. Media ports ask for
    /// [`Options::media_socket_buffer_bytes`].
    pub listener_socket_buffer_bytes: usize,
    pub media_socket_buffer_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listeners_max: 64,
            media_ports_max: 16_384,
            watches_max: FAST_WATCH_FIRST + FAST_WATCHES_MAX,
            media_buffers: RECEIVE_BATCH_MAX as u16,
            signalling_buffers: 256,
            listener_socket_buffer_bytes: 4 << 20,
            media_socket_buffer_bytes: 256 << 10,
        }
    }
}
