//! A shard that is behind lets others of its priority have the core for a moment.
//!
//! Under `SCHED_FIFO` and `SCHED_RR` a thread keeps its core against all of the same priority, and
//! that may include the kernel's threads that take packets from the interfaces (threaded NAPI). A
//! shard sleeps once it has taken all that its sockets hold. After a pause of the core of a few
//! milliseconds that is some hundred datagrams, and by the time they are relayed the interface's own
//! queue has overflowed: 256 places on veth, 2.6 ms at 100,000 packets/s. So a shard with much to
//! take calls `sched_yield` now and then. It is of use at real-time priority alone: the ordinary
//! scheduler shares the core by itself, and a thread that yields there loses part of its share.
//!
//! Seen with `bench/peers/media` at 210,000 packets/s, interfaces with NAPI threads of the shard's
//! priority on its core: after a pause of 3.5 ms the shard ran for 3.8 ms, and nearly all packets
//! that were lost were lost in the queue of the interface, none at a socket.

use crate::sys::thread;

/// A turn of fewer datagrams is of a shard that keeps up: its next wait sleeps.
const BEHIND_FROM: usize = 64;

/// Datagrams taken without a sleep after which others have a turn: well under a millisecond of work,
/// in which no interface fills its queue; and so many that the system call is nothing for each.
const AFTER: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct GivingWay {
    taken: usize,
}

impl GivingWay {
    pub(crate) fn received(&mut self, datagrams: usize) {
        self.taken = if datagrams < BEHIND_FROM { 0 } else { self.taken + datagrams };
    }

    /// To be called before a wait. True if the core was given away for a moment.
    pub(crate) fn give_way(&mut self) -> bool {
        if self.taken < AFTER {
            return false;
        }
        self.taken = 0;
        // Asked each time: whoever runs the machine may change it (chrt) while we run.
        let real_time = thread::is_real_time();
        if real_time {
            std::thread::yield_now();
        }
        real_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{self, Choice, Options};
    use ravelin_engine::port::MediaPortId;
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::time::Duration;

    #[test]
    fn only_what_was_taken_without_a_sleep_counts() {
        let mut way = GivingWay::default();
        for _ in 0..100 {
            way.received(BEHIND_FROM - 1);
            assert_eq!(way.taken, 0);
        }
        for _ in 0..3 {
            way.received(BEHIND_FROM);
            way.give_way();
        }
        assert_eq!(way.taken, 3 * BEHIND_FROM);
        way.received(1);
        assert_eq!(way.taken, 0);
        way.received(AFTER);
        // Tests run at ordinary priority.
        assert!(!way.give_way());
        assert_eq!(way.taken, 0);
    }
    /// Where a shard has real-time priority, another thread of that priority on its core runs before
    /// the shard has taken all that waits.
    fn others_run_before_all_is_taken(choice: Choice) {
        let test = move || {
            if let Err(error) = thread::pin_to(0).and_then(|()| thread::become_real_time()) {
                eprintln!("skipped: no real-time priority on core 0 here: {error}");
                return;
            }
            let mut driver = match driver::open(choice, &Options::default()) {
                Ok(opened) => opened.driver,
                Err(missing) => return eprintln!("skipped: {missing}"),
            };
            let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
            let (ports, each) = (8, 100);
            for port in 0..ports {
                let at = "127.0.0.1:0".parse().unwrap();
                let at = driver.open_media(MediaPortId(port), at).unwrap();
                for _ in 0..each {
                    peer.send_to(b"datagram", at).unwrap();
                }
            }
            // Of the same priority and on the same core, as it is ours.
            let ran = Arc::new(AtomicBool::new(false));
            let other = std::thread::spawn({
                let ran = Arc::clone(&ran);
                move || ran.store(true, SeqCst)
            });
            let mut taken = 0;
            let mut turns = 0;
            while taken < ports * each && !ran.load(SeqCst) {
                turns += 1;
                assert!(turns < 10_000, "{taken} datagrams came: {:?}", driver.stats());
                driver.wait(Duration::ZERO).unwrap();
                taken += u32::try_from(driver.receive(&mut |_| {})).unwrap();
            }
            assert!(ran.load(SeqCst), "the shard kept its core: {:?}", driver.stats());
            other.join().unwrap();
        };
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn others_run_before_all_is_taken_over_uring() {
        others_run_before_all_is_taken(Choice::Uring);
    }

    #[test]
    fn others_run_before_all_is_taken_over_mmsg() {
        others_run_before_all_is_taken(Choice::Mmsg);
    }
}
