//! One io_uring ring for one thread, with everything that its operations point to.
//!
//! What makes the safe methods sound:
//! - Receive buffers live in [`BufferGroup`]s that the ring owns and drops after itself.
//! - A send borrows its payload only inside [`Ring::send`], which does not return, or unwind, while
//!   the kernel may still read it.
//! - The one message header that receives use is boxed and never changes.

use super::buffers::BufferGroup;
use super::segments::Segments;
use super::socket::{STAMP_BYTES, arrival};
use crate::addr::RawAddr;
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;
use std::{io, mem};

/// Entries of the submission queue.
pub(crate) const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue: more than twice the buffers that can be filled in one turn.
pub(crate) const COMPLETIONS: u32 = 4096;

/// Sends in flight at once.
const SENDS_MAX: usize = 512;

const _: () = assert!(SENDS_MAX < SUBMISSIONS as usize);

/// Attempts to enter the kernel while it answers that it is out of resources.
const ENTER_ATTEMPTS: u32 = 10_000;

/// What the kernel puts before the name in a buffer of a multishot `recvmsg`: lengths of name,
/// control data and payload, and flags.
const RECEIVED_HEADER_BYTES: usize = 16;

/// Bytes of a receive buffer that are not payload.
pub(crate) const RECEIVE_OVERHEAD_BYTES: u32 =
    (RECEIVED_HEADER_BYTES + RawAddr::CAPACITY + STAMP_BYTES) as u32;

/// Which receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Signalling = 0,
    Media = 1,
}

/// Sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub sockets: u32,
    pub signalling_buffers: u16,
    pub signalling_bytes: u32,
    pub media_buffers: u16,
    pub media_bytes: u32,
}

/// How much a wait gathers before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gather {
    pub completions: usize,
    pub within: Duration,
}

/// A step of setting up that failed, for the probe to put a name to.
#[derive(Debug)]
pub(crate) struct SetupError {
    pub call: &'static str,
    pub error: io::Error,
}

/// One datagram to send, or a run of them.
pub(crate) struct Outgoing<'q> {
    pub socket: u32,
    pub to: SocketAddr,
    pub bytes: &'q [u8],
    /// Given back with the outcome.
    pub tag: Tag,
}

/// Which datagrams an [`Outgoing`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The first one's place in the queue.
    pub place: u32,
    /// How many; of several the kernel makes that many of the octets, each of `segment` octets but
    /// the last, which may be shorter.
    pub count: u16,
    pub segment: u16,
}

impl Tag {
    /// The places of all of them.
    pub(crate) fn places(self) -> std::ops::Range<u32> {
        self.place..self.place.saturating_add(u32::from(self.count))
    }
}

/// What the ring reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A buffer was filled for a socket; `armed`: the socket goes on receiving by itself.
    Received { socket: u32, group: Group, buffer: u16, len: u32, armed: bool },
    /// A socket stopped receiving; 0 if it merely has to be armed again.
    Stopped { socket: u32, group: Group, errno: i32 },
    /// A watch ended: poll mask, or a negative error number.
    Watched { key: u32, generation: u32, result: i32 },
    /// The waker's descriptor was signalled.
    Woken { armed: bool },
}

/// A datagram in a receive buffer.
pub(crate) struct Datagram<'r> {
    pub source: Option<SocketAddr>,
    pub payload: &'r [u8],
    pub truncated: bool,
    /// See [`arrival`].
    pub arrived: Option<Duration>,
}

/// What a completion belongs to: the upper byte of its user data; below are 24 bits of generation
/// and 32 of index.
const OF_RECEIVE: u64 = 1;
const OF_SEND: u64 = 2;
const OF_WATCH: u64 = 3;
const OF_WAKER: u64 = 4;
/// Nobody waits for it.
const OF_NOBODY: u64 = 5;

/// Generations of watches wrap here.
pub(crate) const GENERATION_MASK: u32 = 0x00ff_ffff;

const fn user_data(of: u64, generation: u32, index: u32) -> u64 {
    of << 56 | ((generation & GENERATION_MASK) as u64) << 32 | index as u64
}

pub(crate) struct Ring {
    // Dropped first: closing the ring ends every operation that points into what follows.
    uring: IoUring,
    groups: [BufferGroup; 2],
    receive_header: Box<libc::msghdr>,
    send_addrs: Box<[RawAddr]>,
    /// Headers of the runs of this batch.
    runs: Segments,
    /// Completions taken off the ring and not yet handed out.
    events: VecDeque<Event>,
    /// Tags and outcomes of the sends of this batch.
    send_outcomes: Box<[(Tag, i32)]>,
    /// Sends that are pushed, and those of them that have completed.
    sends: usize,
    sends_completed: usize,
    dead: bool,
    pub(crate) enters: u64,
    pub(crate) overflows: u64,
}

impl Ring {
    /// Sets up a ring to be used by the calling thread alone.
    pub(crate) fn new(config: &Config) -> Result<Self, SetupError> {
        fn step<T>(call: &'static str, outcome: io::Result<T>) -> Result<T, SetupError> {
            outcome.map_err(|error| SetupError { call, error })
        }
        let uring: IoUring = step(
            "io_uring_setup",
            IoUring::builder()
                .setup_cqsize(COMPLETIONS)
                .setup_submit_all()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag()
                .build(SUBMISSIONS),
        )?;
        let groups = [
            step(
                "signalling buffers",
                BufferGroup::new(
                    Group::Signalling as u16,
                    config.signalling_buffers,
                    config.signalling_bytes + RECEIVE_OVERHEAD_BYTES,
                ),
            )?,
            step(
                "media buffers",
                BufferGroup::new(
                    Group::Media as u16,
                    config.media_buffers,
                    config.media_bytes + RECEIVE_OVERHEAD_BYTES,
                ),
            )?,
        ];
        step("register files", uring.submitter().register_files_sparse(config.sockets))?;
        for group in &groups {
            // SAFETY: the groups move into the same `Ring` and are dropped after `uring`.
            step("register buffer ring", unsafe { group.register(&uring.submitter()) })?;
        }
        // SAFETY: all-zero is a valid msghdr without buffers.
        let mut receive_header: Box<libc::msghdr> = Box::new(unsafe { mem::zeroed() });
        receive_header.msg_namelen = RawAddr::CAPACITY as libc::socklen_t;
        receive_header.msg_controllen = STAMP_BYTES as _;
        Ok(Self {
            uring,
            groups,
            receive_header,
            send_addrs: vec![RawAddr::default(); SENDS_MAX].into_boxed_slice(),
            runs: Segments::new(),
            events: VecDeque::with_capacity(COMPLETIONS as usize),
            send_outcomes: vec![(Tag::default(), 0); SENDS_MAX].into_boxed_slice(),
            sends: 0,
            sends_completed: 0,
            dead: false,
            enters: 0,
            overflows: 0,
        })
    }

    pub(crate) fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Puts a socket into the ring's file table.
    pub(crate) fn register(&mut self, socket: u32, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.uring.submitter().register_files_update(socket, &[fd.as_raw_fd()]).map(drop)
    }

    /// Starts receiving on a registered socket until an [`Event`] says that it stopped.
    pub(crate) fn arm_receive(&mut self, socket: u32, group: Group) -> io::Result<()> {
        let id = self.groups[group as usize].id();
        let generation = group as u32;
        let entry = opcode::RecvMsgMulti::new(Fixed(socket), &raw const *self.receive_header, id)
            .build()
            .user_data(user_data(OF_RECEIVE, generation, socket));
        // SAFETY: the header is boxed and lives as long as the ring; the buffers are the group's.
        unsafe { self.push(&entry) }
    }

    /// Watches a descriptor for `mask` (poll bits) until it is ready once.
    pub(crate) fn arm_watch(
        &mut self,
        key: u32,
        generation: u32,
        fd: BorrowedFd<'_>,
        mask: u32,
    ) -> io::Result<()> {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), mask)
            .build()
            .user_data(user_data(OF_WATCH, generation, key));
        // SAFETY: a poll points to no memory.
        unsafe { self.push(&entry) }
    }

    /// Ends a watch, at once: the kernel keeps the file of a watched descriptor open.
    pub(crate) fn cancel_watch(&mut self, key: u32, generation: u32) -> io::Result<()> {
        let entry = opcode::PollRemove::new(user_data(OF_WATCH, generation, key))
            .build()
            .user_data(user_data(OF_NOBODY, 0, 0));
        // SAFETY: the operation points to no memory.
        unsafe { self.push(&entry) }?;
        self.submit()
    }

    /// Reports each signal of the waker's descriptor until an [`Event`] says that it stopped.
    pub(crate) fn arm_waker(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(user_data(OF_WAKER, 0, 0));
        // SAFETY: a poll points to no memory.
        unsafe { self.push(&entry) }
    }

    /// Submits what is pushed and waits for a completion, at most for `timeout`; with `gather`, for
    /// that many completions or that long, whichever is first, and only then for a single one. Does
    /// not wait, or even enter the kernel, while there are events to take.
    pub(crate) fn wait(&mut self, timeout: Duration, gather: Option<Gather>) -> io::Result<()> {
        self.reap();
        if !self.events.is_empty() {
            return Ok(());
        }
        let timespec = Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        let mut args = SubmitArgs::new().timespec(&timespec);
        let idle = {
            let submissions = self.uring.submission();
            submissions.is_empty() && !submissions.taskrun() && !submissions.cq_overflow()
        };
        if timeout.is_zero() && idle {
            return Ok(());
        }
        self.live()?;
        self.enters += 1;
        let mut want = usize::from(!timeout.is_zero());
        if let Some(gather) = gather.filter(|gather| gather.within < timeout) {
            want = want.max(gather.completions);
            args = args.min_wait_usec(u32::try_from(gather.within.as_micros()).unwrap_or(0));
        }
        match self.uring.submitter().submit_with_args(want, &args) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal came, or the kernel wants completions taken first.
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                _ => {
                    self.dead = true;
                    return Err(error);
                }
            },
        }
        self.reap();
        Ok(())
    }

    /// Submits what is pushed, without waiting.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.enter(0)
    }

    pub(crate) fn events(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What a [`Event::Received`] brought. None if the kernel's header makes no sense.
    pub(crate) fn datagram(&self, group: Group, buffer: u16, len: u32) -> Option<Datagram<'_>> {
        let bytes = self.groups[group as usize].bytes(buffer, len);
        let (header, rest) = bytes.split_first_chunk::<RECEIVED_HEADER_BYTES>()?;
        let (name, rest) = rest.split_at_checked(RawAddr::CAPACITY)?;
        let (control, payload) = rest.split_at_checked(STAMP_BYTES)?;
        let [name_len, control_len, payload_len, flags] = [0, 4, 8, 12].map(|at| {
            let mut word = [0; 4];
            word.copy_from_slice(&header[at..at + 4]);
            u32::from_ne_bytes(word)
        });
        let name = name.get(..name_len as usize)?;
        Some(Datagram {
            source: crate::addr::parse(name),
            payload: payload.get(..payload_len as usize).unwrap_or(payload),
            truncated: flags & libc::MSG_TRUNC as u32 != 0,
            arrived: arrival(control.get(..control_len as usize)?),
        })
    }

    /// Gives the buffer of an [`Event::Received`] back, visible to the kernel after
    /// [`Self::publish_buffers`].
    pub(crate) fn recycle(&mut self, group: Group, buffer: u16) {
        self.groups[group as usize].give_back(buffer);
    }

    pub(crate) fn publish_buffers(&mut self) {
        self.groups.iter_mut().for_each(BufferGroup::publish);
    }

    /// Sends datagrams without blocking, in order per socket, and returns when the kernel is done
    /// with all of them. `done` hears each one's tag and outcome: bytes sent, or a negative error
    /// number. A run that the kernel does not take as one (datagrams beyond the MTU, an interface
    /// without checksums) is sent one by one, before anything that follows it on its socket.
    pub(crate) fn send<'q>(
        &mut self,
        datagrams: impl Iterator<Item = Outgoing<'q>>,
        mut done: impl FnMut(Tag, i32),
    ) -> io::Result<()> {
        let scope = SendScope(self);
        for datagram in datagrams {
            if scope.0.sends == SENDS_MAX || !scope.0.runs.has_room_for(datagram.socket) {
                scope.0.finish_sends(&mut done)?;
            }
            // SAFETY: `datagram.bytes` outlives this call, and this call does not end before the
            // kernel is done with every send: `finish_sends` waits for it, and when it cannot,
            // or when something unwinds, the ring is declared dead and never submits again.
            unsafe { scope.0.push_send(&datagram) }?;
        }
        scope.0.finish_sends(&mut done)
    }

    /// # Safety
    /// The payload must stay in place until the send has completed.
    unsafe fn push_send(&mut self, datagram: &Outgoing<'_>) -> io::Result<()> {
        let index = self.sends;
        let addr = &mut self.send_addrs[index];
        addr.set(datagram.to);
        let socket = Fixed(datagram.socket);
        // Without DONTWAIT a full socket buffer would leave the send behind, still pointing to the
        // payload.
        let entry = if datagram.tag.count > 1 {
            let header = self.runs.push(datagram, addr, index);
            opcode::SendMsg::new(socket, header).flags(libc::MSG_DONTWAIT as u32).build()
        } else {
            let len = u32::try_from(datagram.bytes.len()).unwrap_or(u32::MAX);
            opcode::Send::new(socket, datagram.bytes.as_ptr(), len)
                .dest_addr(addr.as_ptr().cast())
                .dest_addr_len(addr.len())
                .flags(libc::MSG_DONTWAIT)
                .build()
        };
        let entry = entry.user_data(user_data(OF_SEND, 0, index as u32));
        self.send_outcomes[index] = (datagram.tag, 0);
        // SAFETY: the caller keeps the payload; the address and a run's header are in boxes of the
        // ring, and their slots are not reused before `finish_sends`.
        unsafe { self.push(&entry) }?;
        self.sends += 1;
        Ok(())
    }

    /// Submits the pushed sends and takes all their completions, then those of the datagrams of
    /// runs that were refused.
    fn finish_sends(&mut self, done: &mut impl FnMut(Tag, i32)) -> io::Result<()> {
        self.complete_sends(done)?;
        while let Some(run) = self.runs.pop_refused() {
            for at in 0..usize::from(run.tag.count) {
                if self.sends == SENDS_MAX {
                    self.complete_sends(done)?;
                }
                // SAFETY: the payload is one that was given to `Ring::send`, which has not returned.
                unsafe { self.push_send(&run.datagram(at)) }?;
            }
        }
        self.complete_sends(done)
    }

    fn complete_sends(&mut self, done: &mut impl FnMut(Tag, i32)) -> io::Result<()> {
        let mut want = 0;
        while self.sends_completed < self.sends {
            self.enter(want)?;
            self.reap();
            // All of them complete inside the first enter; should one not, wait for it.
            want = 1;
        }
        let outcomes = &self.send_outcomes[..self.sends];
        self.runs.judge(|send| outcomes[send].1 >= 0);
        for &(tag, outcome) in outcomes {
            if tag.count == 1 || outcome >= 0 {
                done(tag, outcome);
            }
        }
        self.sends = 0;
        self.sends_completed = 0;
        Ok(())
    }

    /// Enters the kernel until all that is pushed is submitted; runs deferred work on the way.
    fn enter(&mut self, want: usize) -> io::Result<()> {
        for _ in 0..ENTER_ATTEMPTS {
            self.live()?;
            let pushed = self.uring.submission().len();
            self.enters += 1;
            let outcome = self.uring.submitter().submit_and_wait(want);
            match outcome {
                Ok(submitted) if submitted >= pushed => return Ok(()),
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => self.reap(),
                    _ => {
                        self.dead = true;
                        return Err(error);
                    }
                },
            }
        }
        self.dead = true;
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    fn live(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::from_raw_os_error(libc::EOWNERDEAD)) } else { Ok(()) }
    }

    /// # Safety
    /// What the entry points to must stay in place until it has completed.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.uring.submission().is_full() {
            self.submit()?;
        }
        // SAFETY: the caller promises it.
        unsafe { self.uring.submission().push(entry) }
            .map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// Moves completions off the ring.
    fn reap(&mut self) {
        if self.uring.submission().cq_overflow() {
            self.overflows += 1;
        }
        for completion in self.uring.completion() {
            let (data, result) = (completion.user_data(), completion.result());
            let flags = completion.flags();
            let index = data as u32;
            let generation = (data >> 32) as u32 & GENERATION_MASK;
            let event = match data >> 56 {
                OF_SEND => {
                    self.send_outcomes[index as usize].1 = result;
                    self.sends_completed += 1;
                    continue;
                }
                OF_RECEIVE => {
                    let group = if generation == Group::Signalling as u32 {
                        Group::Signalling
                    } else {
                        Group::Media
                    };
                    let armed = cqueue::more(flags);
                    match (u32::try_from(result), cqueue::buffer_select(flags)) {
                        (Ok(len), Some(buffer)) => {
                            // SAFETY: this completion names the buffer, and comes from an
                            // operation on this group.
                            unsafe { self.groups[group as usize].take(buffer) };
                            Event::Received { socket: index, group, buffer, len, armed }
                        }
                        (_, Some(buffer)) => {
                            // SAFETY: as above.
                            unsafe { self.groups[group as usize].take(buffer) };
                            self.groups[group as usize].give_back(buffer);
                            Event::Stopped { socket: index, group, errno: -result }
                        }
                        (_, None) if armed => continue,
                        (_, None) => {
                            Event::Stopped { socket: index, group, errno: (-result).max(0) }
                        }
                    }
                }
                OF_WATCH => Event::Watched { key: index, generation, result },
                OF_WAKER => Event::Woken { armed: cqueue::more(flags) },
                _ => continue,
            };
            self.events.push_back(event);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing a ring cancels in the background. Nothing may be written to the buffers once
        // they are unmapped, and whoever opens the same ports next should find them free: so wait.
        // An error means that there was nothing to cancel or to unregister.
        let submitter = self.uring.submitter();
        let _ = submitter.register_sync_cancel(None, CancelBuilder::any());
        let _ = submitter.unregister_files();
    }
}

/// Declares the ring dead if sends are left when it is dropped: nothing may be submitted once what
/// they point to is gone.
struct SendScope<'r>(&'r mut Ring);

impl Drop for SendScope<'_> {
    fn drop(&mut self) {
        if self.0.sends > 0 {
            self.0.dead = true;
        }
    }
}
