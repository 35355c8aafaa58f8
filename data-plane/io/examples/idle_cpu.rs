//! CPU of a shard that has nothing to do: `idle_cpu [SECONDS]`.
//!
//! Prints the share of one core for each driver with open listeners, and for io_uring with one
//! glommio task that waits for ever, which makes the host look around every millisecond.

use ravelin_engine::port::{ListenerId, MediaPortId, ShardId};
use ravelin_io::clock;
use ravelin_io::driver::{self, Choice, Driver, Options};
use ravelin_io::host::{self, HostOptions, Next, ShardLoop};
use ravelin_io::stream::{StreamLimits, Streams};
use ravelin_io::sys::thread::cpu_time;
use std::env;
use std::time::{Duration, Instant};

struct Idle {
    name: &'static str,
    driver: Box<dyn Driver>,
    streams: Streams,
    start: Option<(Instant, Duration)>,
    length: Duration,
}

impl ShardLoop for Idle {
    fn turn(&mut self, wait_max: Duration) -> Next {
        let (start, cpu) = *self.start.get_or_insert_with(|| (Instant::now(), cpu_time()));
        self.driver.wait(wait_max).expect("wait");
        self.driver.receive(&mut |_| {});
        self.streams.poll(clock::monotonic(), self.driver.as_mut(), &mut |_| {});
        if start.elapsed() < self.length {
            return Next::Turn;
        }
        let share = (cpu_time() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
        println!(
            "{:<24} {:.3} % of a core, {} waits",
            self.name,
            100.0 * share,
            self.driver.stats().waits
        );
        Next::Stop
    }
}

fn main() {
    let seconds = env::args().nth(1).map_or(5, |text| text.parse().expect("SECONDS"));
    for (name, choice, task) in [
        ("uring", Choice::Uring, false),
        ("mmsg", Choice::Mmsg, false),
        ("uring and a glommio task", Choice::Uring, true),
    ] {
        let made = host::spawn(HostOptions::new("idle", None), move |tasks| {
            let mut driver = driver::open(choice, &Options::default())?.driver;
            let at = "127.5.8.2:0".parse().expect("address");
            driver.open_listener(ListenerId(0), at)?;
            for id in 0..100 {
                driver.open_media(MediaPortId(id), at)?;
            }
            let mut streams = Streams::new(ShardId(0), StreamLimits::default());
            streams.listen(driver.as_mut(), ListenerId(1), at)?;
            if task {
                let forever = glommio::timer::sleep(Duration::from_secs(86_400));
                assert!(tasks.spawn_local(forever).is_ok(), "no executor");
            }
            let length = Duration::from_secs(seconds);
            Ok(Idle { name, driver, streams, start: None, length })
        });
        match made {
            Ok(host) => host.join().expect("the shard ends by itself"),
            Err(error) => println!("{name:<24} cannot be had here: {error}"),
        }
    }
}
