use super::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

/// A round trip takes tens of microseconds, and twice as long as the machine stood still if it did at
/// the wrong moment: one of this length is a hang.
const HANG: Duration = Duration::from_secs(60);

/// A shard whose "driver" is a channel: it hands each number to a glommio task, which answers.
struct Storm {
    requests: mpsc::Receiver<u64>,
    to_task: glommio::channels::local_channel::LocalSender<u64>,
}

impl ShardLoop for Storm {
    fn turn(&mut self, wait_max: Duration) -> Next {
        match self.requests.recv_timeout(wait_max) {
            Ok(request) => self.to_task.try_send(request).unwrap(),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Next::Stop,
        }
        Next::Turn
    }
}

/// Runs `round_trips` through a shard and one of its tasks while another thread wakes a second
/// task without pause. Returns how many round trips came back before one took [`HANG`].
fn storm(preempt_timer: Duration, round_trips: u64) -> u64 {
    let (request, requests) = mpsc::channel();
    let (replies, reply) = mpsc::channel();
    let foreign: Arc<Mutex<Option<Waker>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let foreign_wakes = Arc::new(AtomicU64::new(0));

    let mut options = HostOptions::new("storm", None);
    options.preempt_timer = preempt_timer;
    let (slot, wakes, done) = (foreign.clone(), foreign_wakes.clone(), stop.clone());
    let host = spawn(options, move |tasks| {
        let (to_task, inbox) = glommio::channels::local_channel::new_unbounded();
        let echo = async move {
            while let Some(number) = inbox.recv().await {
                replies.send(number + 1).unwrap();
            }
        };
        let woken = std::future::poll_fn(move |context| {
            wakes.fetch_add(1, Ordering::Relaxed);
            *slot.lock().unwrap() = Some(context.waker().clone());
            if done.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = (tasks.spawn_local(echo).is_ok(), tasks.spawn_local(woken).is_ok());
        Ok(Storm { requests, to_task })
    })
    .unwrap();
    if let HostedBy::Thread { reason } = host.hosted_by() {
        eprintln!("skipped: {reason}");
        return round_trips;
    }

    let (slot, done) = (foreign, stop.clone());
    let waker = thread::spawn(move || {
        while !done.load(Ordering::Relaxed) {
            let waker = slot.lock().unwrap().take();
            match waker {
                Some(waker) => waker.wake(),
                None => thread::yield_now(),
            }
        }
    });

    let mut returned = 0;
    while returned < round_trips {
        request.send(returned).unwrap();
        match reply.recv_timeout(HANG) {
            Ok(number) => assert_eq!(number, returned + 1),
            Err(_) => break,
        }
        returned += 1;
    }
    stop.store(true, Ordering::Relaxed);
    waker.join().unwrap();
    if returned == round_trips {
        drop(request);
        host.join().unwrap();
        assert!(foreign_wakes.load(Ordering::Relaxed) > 0);
    }
    returned
}

/// The regression test of glommio's hang: a preemption timer of 100 us makes passes that run nothing
/// frequent. Not shorter: to arm it and to look at it first takes a loaded machine up to 20 us, and a
/// pass that always comes too late (at 5 us no round trip ends) is no stall that could be survived.
#[test]
fn a_wake_storm_never_hangs_the_host() {
    assert_eq!(storm(Duration::from_micros(100), 100_000), 100_000);
}

#[test]
fn the_usual_preemption_timer_passes_the_storm() {
    assert_eq!(storm(PREEMPT_TIMER, 5_000), 5_000);
}

struct CountDown(u32);

impl ShardLoop for CountDown {
    fn turn(&mut self, wait_max: Duration) -> Next {
        assert_eq!(wait_max, WAIT_MAX);
        self.0 -= 1;
        if self.0 == 0 { Next::Stop } else { Next::Turn }
    }
}

#[test]
fn a_shard_stops_when_it_says_so() {
    spawn(HostOptions::new("count", Some(0)), |_| Ok(CountDown(1_000))).unwrap().join().unwrap();
}

#[test]
fn a_shard_that_cannot_start_says_why() {
    let outcome = spawn(HostOptions::new("refuse", None), |_| {
        Err::<CountDown, _>(io::Error::from(io::ErrorKind::AddrInUse))
    });
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let outcome = spawn(HostOptions::new("nowhere", Some(1_000)), |_| Ok(CountDown(1)));
    assert!(outcome.unwrap_err().to_string().contains("core 1000"));
}

struct Panics;

impl ShardLoop for Panics {
    fn turn(&mut self, _: Duration) -> Next {
        panic!("as the test wants")
    }
}

#[test]
fn a_panic_that_the_shard_does_not_catch_ends_its_thread_only() {
    let host = spawn(HostOptions::new("panic", None), |_| Ok(Panics)).unwrap();
    assert_eq!(host.join(), Err(Panicked));
}

/// A machine that stands still in the first pass, before anything of the shard has run: the timer of
/// the pass has fired when it is first asked. Nothing is pending then that would end the wait.
#[test]
fn a_shard_starts_whatever_the_first_pass_finds() {
    for _ in 0..50 {
        let (told, tell) = mpsc::channel();
        thread::spawn(move || {
            let mut options = HostOptions::new("start", None);
            options.preempt_timer = Duration::from_nanos(1);
            let host = spawn(options, |_| Ok(CountDown(10))).unwrap();
            host.join().unwrap();
            told.send(()).unwrap();
        });
        tell.recv_timeout(HANG).expect("the shard does not start");
    }
}
