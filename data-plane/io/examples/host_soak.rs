//! Soaks the shard host: round trips through a shard and a glommio task beside it, under wakes from
//! another thread, while the whole process is stopped and continued in bursts, as a throttled
//! container is.
//!
//! `host_soak [SECONDS] [PREEMPT_MICROSECONDS]` prints one line every ten seconds and fails when no
//! round trip came back for [`HANG`] while the process was running.

use ravelin_io::host::{self, HostOptions, Next, ShardLoop};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use std::{env, process, thread};

/// No round trip for this long is a hang. Stalls of the bursts are far shorter.
const HANG: Duration = Duration::from_secs(5);

/// Stops per burst, their lengths in milliseconds, and the pause between bursts.
const BURST: [u64; 6] = [1, 3, 10, 30, 120, 300];
const PAUSE: Duration = Duration::from_millis(400);

struct Shard {
    requests: mpsc::Receiver<u64>,
    to_task: glommio::channels::local_channel::LocalSender<u64>,
}

impl ShardLoop for Shard {
    fn turn(&mut self, wait_max: Duration) -> Next {
        match self.requests.recv_timeout(wait_max) {
            Ok(request) => {
                let _ = self.to_task.try_send(request);
                Next::Turn
            }
            Err(mpsc::RecvTimeoutError::Timeout) => Next::Turn,
            Err(mpsc::RecvTimeoutError::Disconnected) => Next::Stop,
        }
    }
}

fn main() {
    let mut arguments = env::args().skip(1);
    let seconds = arguments.next().map_or(60, |text| text.parse().expect("SECONDS"));
    let preempt_us = arguments.next().map_or(1_000, |text| text.parse().expect("MICROSECONDS"));
    let length = Duration::from_secs(seconds);
    let stopper = stop_in_bursts(length);

    let (request, requests) = mpsc::channel();
    let (replies, reply) = mpsc::channel();
    let slot: Arc<Mutex<Option<Waker>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let wakes = Arc::new(AtomicU64::new(0));
    let mut options = HostOptions::new("soak", None);
    options.preempt_timer = Duration::from_micros(preempt_us);
    let (task_slot, task_done, task_wakes) = (slot.clone(), done.clone(), wakes.clone());
    let host = host::spawn(options, move |tasks| {
        let (to_task, inbox) = glommio::channels::local_channel::new_unbounded();
        let echo = async move {
            while let Some(number) = inbox.recv().await {
                if replies.send(number).is_err() {
                    return;
                }
            }
        };
        let woken = std::future::poll_fn(move |context| {
            task_wakes.fetch_add(1, Ordering::Relaxed);
            *task_slot.lock().expect("lock") = Some(context.waker().clone());
            if task_done.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        });
        assert!(tasks.spawn_local(echo).is_ok() && tasks.spawn_local(woken).is_ok());
        Ok(Shard { requests, to_task })
    })
    .expect("host");
    println!("hosted by {:?}, preemption timer {preempt_us} us", host.hosted_by());

    let waker_done = done.clone();
    let waker = thread::spawn(move || {
        while !waker_done.load(Ordering::Relaxed) {
            if let Some(waker) = slot.lock().expect("lock").take() {
                waker.wake();
            }
            thread::sleep(Duration::from_micros(50));
        }
    });

    let start = Instant::now();
    let (mut round_trips, mut longest, mut report) = (0_u64, Duration::ZERO, start);
    while start.elapsed() < length {
        let asked = Instant::now();
        request.send(round_trips).expect("the shard lives");
        // Looked at in slices, so that a stop of the process does not count as one long wait.
        let mut waited = Duration::ZERO;
        loop {
            match reply.recv_timeout(Duration::from_millis(50)) {
                Ok(number) => {
                    assert_eq!(number, round_trips);
                    break;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => waited += Duration::from_millis(50),
                Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the shard died"),
            }
            if waited >= HANG {
                eprintln!("HANG after {round_trips} round trips, {:?}", start.elapsed());
                process::exit(1);
            }
        }
        longest = longest.max(asked.elapsed());
        round_trips += 1;
        if report.elapsed() >= Duration::from_secs(10) {
            report = Instant::now();
            println!(
                "{:>5} s: {round_trips} round trips, longest {} ms with stops, {} foreign wakes",
                start.elapsed().as_secs(),
                longest.as_millis(),
                wakes.load(Ordering::Relaxed)
            );
        }
    }
    done.store(true, Ordering::Relaxed);
    waker.join().expect("waker");
    drop(request);
    host.join().expect("host");
    let stops = stopper.join().expect("stopper");
    println!(
        "ok: {round_trips} round trips in {seconds} s, longest {} ms, {} foreign wakes, {stops}",
        longest.as_millis(),
        wakes.load(Ordering::Relaxed)
    );
}

/// A shell of its own stops and continues this process: a stopped process cannot continue itself.
fn stop_in_bursts(length: Duration) -> thread::JoinHandle<String> {
    let target = process::id();
    let stops: String = BURST
        .iter()
        .map(|ms| {
            let (seconds, rest) = (ms / 1000, ms % 1000);
            format!(
                "kill -STOP {target}; sleep {seconds}.{rest:03}; kill -CONT {target}; sleep 0.01; "
            )
        })
        .collect();
    let pause = PAUSE.as_secs_f64();
    let end = length.as_secs();
    let script = format!(
        "end=$(( $(date +%s) + {end} )); n=0; while [ $(date +%s) -lt $end ] && kill -0 {target}; \
         do {stops} n=$((n+1)); sleep {pause}; done; echo $n bursts of {} stops",
        BURST.len()
    );
    thread::spawn(move || {
        let output = Command::new("sh").arg("-c").arg(script).output().expect("sh");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}
