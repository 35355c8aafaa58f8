//! The thread of a shard: pinned to its core, hosted by a glommio executor, and never asleep
//! anywhere but in the shard's own driver.
//!
//! # Why the executor must not park, and how it is kept from it
//!
//! glommio 0.9 parks its thread when a pass over its task queues ran nothing. A pass also runs
//! nothing when the preemption timer fires between arming and the first check, which takes one
//! stall of that length (a throttled container, a paused virtual machine); the wakes that made
//! tasks runnable are then already consumed, and the thread sleeps until something unrelated
//! happens. An always-runnable task does not prevent it: it is runnable and not run. So:
//!
//! 1. The shard's loop holds the thread. It enters glommio's own loop only when glommio has tasks
//!    (see [`Tasks`]), by waiting for a timer of a microsecond, and it is back after one pass.
//! 2. `spin_before_park` is unlimited: the code that parks cannot be reached.
//! 3. Before the shard has started no timer is pending that could end a wait, so nothing may make the
//!    first pass run nothing: the preemption timer is a matter of the queue of glommio's tasks, which
//!    does not exist then. Without this a start hung now and then on a loaded machine.
//! 4. Spinning instead of parking ends when any timer fires. A ladder of timers, each twice as long
//!    as the one before, is always pending. When a stall of any length lets a pass run nothing, a
//!    rung beyond that length is still ahead and ends the spin: the recovery takes at most about
//!    twice the stall, once, instead of for ever. A rung whose pass runs nothing again is spent until
//!    one does, so there are many: with those of the first minute all of sixteen stalls in a row
//!    would have to come at the wrong moment.
//!
//! The shard's sockets do not depend on any of this: datagrams and streams wait in its own driver
//! ([`crate::driver`], [`crate::stream`]). An executor that is passed over for a while delays
//! housekeeping tasks only.
//!
//! Shown by the tests of this module (without the ladder the storm hangs within 15,000 round trips,
//! six times of six) and by `examples/host_soak.rs`, then with eight rungs, each four times as long as
//! the one before: 780 s with the whole process stopped
//! 4,938 times for 1 to 300 ms, on two cores shared with one other soak and builds. 6.8 million round
//! trips with a preemption timer of 1 ms, longest 445 ms; 5.3 million with 20 us, longest 724 ms,
//! stops included; no hang. A soak of hours under a real CPU quota is still to be done.
//!
//! Where io_uring is forbidden glommio cannot run; the shard then has a plain pinned thread, the
//! same loop, and no tasks.

#[cfg(test)]
mod tests;

use glommio::timer::Timer;
use glommio::{
    Latency, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, Shares, TaskQueueHandle,
};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;
use std::{fmt, io, thread};

/// Longest wait of an idle shard: it looks around ten times a second even if nothing is due.
pub const WAIT_MAX: Duration = Duration::from_millis(100);

/// Longest wait while glommio has tasks, whose completions do not wake the shard's driver.
pub const WAIT_WITH_TASKS_MAX: Duration = Duration::from_millis(1);

/// Memory that each of glommio's three rings registers for storage: the least that works. The
/// default of 10 MiB would be pinned three times per shard.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// A task of glommio that does not wait is interrupted after this long, so that the shard's loop
/// gets its turn.
const PREEMPT_TIMER: Duration = Duration::from_millis(1);

/// The same where the shard's loop alone is there to be run: it gives way by itself.
const PREEMPT_TIMER_ALONE: Duration = Duration::from_secs(3_600);

/// The timer that the shard's loop waits for while glommio's tasks run: just long enough not to
/// have fired when it is first asked.
const PASS_TIMER: Duration = Duration::from_micros(1);

/// Rungs of the ladder: 1 ms, 2 ms, 4 ms ... about 9 minutes.
const LADDER_RUNGS: u32 = 20;

/// What a shard wants after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another turn.
    Turn,
    /// The end: the host drops the shard and its thread ends.
    Stop,
}

/// One shard's loop, written as turns.
pub trait ShardLoop {
    /// Waits in the shard's own driver until there is work, at most `wait_max` and not past the
    /// engine's next deadline, then does one batch of it.
    fn turn(&mut self, wait_max: Duration) -> Next;
}

/// Where and how a shard runs.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Name of the thread, at most 15 bytes of it visible.
    pub name: String,
    /// The core to be pinned to; none: wherever the scheduler puts it.
    pub core: Option<usize>,
    /// Interval of glommio's preemption timer. Only the regression test of the executor's hang has
    /// a reason to change it.
    pub preempt_timer: Duration,
}

impl HostOptions {
    #[must_use]
    pub fn new(name: impl Into<String>, core: Option<usize>) -> Self {
        Self { name: name.into(), core, preempt_timer: PREEMPT_TIMER }
    }
}

/// What hosts a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostedBy {
    Glommio,
    /// A plain thread, and why.
    Thread {
        reason: String,
    },
}

/// A running shard.
#[derive(Debug)]
pub struct Host {
    thread: thread::JoinHandle<()>,
    hosted_by: HostedBy,
}

impl Host {
    #[must_use]
    pub const fn hosted_by(&self) -> &HostedBy {
        &self.hosted_by
    }

    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the shard has stopped.
    ///
    /// # Errors
    /// The shard's loop panicked.
    pub fn join(self) -> Result<(), Panicked> {
        self.thread.join().map_err(|_| Panicked)
    }
}

/// The thread of a shard ended by a panic that the shard itself did not catch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shard's loop panicked")
    }
}

impl std::error::Error for Panicked {}

/// Room for glommio tasks beside the shard's loop, on its thread: work with an end, such as
/// writing a file. While there are any, the shard's waits are short ([`WAIT_WITH_TASKS_MAX`]), so
/// what waits for ever, such as a mailbox, belongs into the shard's loop and its waker.
#[derive(Clone, Debug)]
pub struct Tasks {
    running: Rc<Cell<usize>>,
    /// Where they run, if there is an executor.
    queue: Option<TaskQueueHandle>,
}

impl Tasks {
    /// Starts a task. Without an executor (see [`HostedBy::Thread`]) the task is handed back.
    ///
    /// # Errors
    /// Returns `task` if there is no executor.
    pub fn spawn_local<F>(&self, task: F) -> Result<(), F>
    where
        F: Future<Output = ()> + 'static,
    {
        let Some(queue) = self.queue else { return Err(task) };
        let guard = Running::new(&self.running);
        let guarded = async move {
            let _guard = guard;
            task.await;
        };
        into(queue, guarded);
        Ok(())
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.get()
    }
}

/// Counts a task for as long as it lives, cancelled or panicked ones included.
struct Running(Rc<Cell<usize>>);

impl Running {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Starts a shard on its own thread and returns when `make` has built it there.
///
/// # Errors
/// The thread could not be started or pinned, or `make` failed.
pub fn spawn<L, M>(options: HostOptions, make: M) -> io::Result<Host>
where
    L: ShardLoop + 'static,
    M: FnOnce(&Tasks) -> io::Result<L> + Send + 'static,
{
    let (started, start) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(options.name.clone()).spawn(move || {
        run(&options, make, |outcome| {
            // The receiver is gone only if the spawning thread died.
            let _ = started.send(outcome);
        });
    })?;
    match start.recv() {
        Ok(Ok(hosted_by)) => Ok(Host { thread, hosted_by }),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(mpsc::RecvError) => Err(io::Error::other(Panicked)),
    }
}

/// The whole life of a shard's thread.
fn run<L, M>(options: &HostOptions, make: M, started: impl FnOnce(io::Result<HostedBy>))
where
    L: ShardLoop + 'static,
    M: FnOnce(&Tasks) -> io::Result<L>,
{
    if let Some(core) = options.core
        && let Err(error) = crate::sys::thread::pin_to(core)
    {
        return started(Err(io::Error::new(
            error.kind(),
            format!("cannot pin {} to core {core}: {error}", options.name),
        )));
    }
    let executor = executor(options);
    let hosted_by = match &executor {
        Ok(_) => HostedBy::Glommio,
        Err(reason) => HostedBy::Thread { reason: reason.clone() },
    };
    let mut tasks = Tasks { running: Rc::default(), queue: None };
    let latency = Latency::Matters(options.preempt_timer);
    match executor {
        Ok(executor) => executor.run(async move {
            let queue = glommio::executor().create_task_queue(Shares::default(), latency, "tasks");
            tasks.queue = Some(queue);
            match make(&tasks) {
                Ok(mut shard) => {
                    started(Ok(hosted_by));
                    climb_ladder(queue);
                    drive(&mut shard, &tasks).await;
                }
                Err(error) => started(Err(error)),
            }
        }),
        Err(_) => match make(&tasks) {
            Ok(mut shard) => {
                started(Ok(hosted_by));
                while shard.turn(WAIT_MAX) == Next::Turn {}
            }
            Err(error) => started(Err(error)),
        },
    }
}

/// An executor, or why there is none.
fn executor(options: &HostOptions) -> Result<LocalExecutor, String> {
    // glommio panics where io_uring is denied, so we try it first; and where it finds other faults,
    // so that is caught.
    crate::uring::available().map_err(|missing| missing.to_string())?;
    // Pinning by glommio too, so that the set it remembers is the one in force.
    let placement = options.core.map_or(Placement::Unbound, Placement::Fixed);
    let builder = LocalExecutorBuilder::new(placement)
        .name(&options.name)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT_TIMER_ALONE)
        .spin_before_park(Duration::MAX)
        // Its helper for blocking calls must not share the shard's core.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1));
    match catch_unwind(AssertUnwindSafe(|| builder.make())) {
        Ok(Ok(executor)) => Ok(executor),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("glommio cannot run here".to_owned()),
    }
}

/// Starts a task of an executor that runs.
fn into(queue: TaskQueueHandle, task: impl Future<Output = ()> + 'static) {
    match glommio::spawn_local_into(task, queue) {
        Ok(task) => drop(task.detach()),
        // The queue is never taken away.
        Err(error) => unreachable!("{error}"),
    }
}

/// Keeps the timers of rule 4 pending.
fn climb_ladder(queue: TaskQueueHandle) {
    for rung in 0..LADDER_RUNGS {
        let length = Duration::from_millis(1 << rung);
        into(queue, async move {
            loop {
                Timer::new(length).await;
            }
        });
    }
}

/// The shard's turns, with a pass over glommio's tasks after each while there are tasks.
async fn drive(shard: &mut impl ShardLoop, tasks: &Tasks) {
    loop {
        let wait_max = if tasks.running() > 0 { WAIT_WITH_TASKS_MAX } else { WAIT_MAX };
        if shard.turn(wait_max) == Next::Stop {
            return;
        }
        if tasks.running() > 0 {
            pass().await;
        }
    }
}

/// One pass over glommio's tasks, timers and rings. A timer that has fired before it is first asked
/// does not give way to anything, hence the loop.
async fn pass() {
    let mut length = PASS_TIMER;
    let mut gave_way = false;
    while !gave_way {
        let mut timer = Timer::new(length);
        poll_fn(|context| {
            let fired = Pin::new(&mut timer).poll(context);
            gave_way |= fired.is_pending();
            fired.map(drop)
        })
        .await;
        length *= 2;
    }
}
