//! The glue of one shard: what happens in a turn, and in which order. Everything that decides lives
//! in the engine; everything that moves octets lives in the drivers.
//!
//! A turn: wait in the driver; take what other shards handed over, datagrams, stream messages, due
//! timers; run the batch of signatures; send; hand out records; look into the mailbox.

use std::{sync::Arc, time::Duration};

use crossbeam::channel::Receiver;
use hdrhistogram::Histogram;
use ravelin_contract::{
    chain::Entry,
    metrics::{self, Sample},
};
use ravelin_engine::{
    counters::{counter, gauge},
    drops::DropReason,
    engine::{Engine, Received},
    port::{Egress, Meta, ShardId, Token, TxQueue},
    time::{Instant, Now},
};
use ravelin_io::{
    clock,
    cross::{CrossShard, Crossed, Notice},
    driver::{Driver, Rx},
    host::{Next, ShardLoop},
    stream::{StreamEvent, Streams},
};

use crate::{
    crypto::Crypto,
    mailbox::{Left, Message, ShardReport},
    retire::Retired,
    spool::Feed,
    start::Opening,
    survival::Slots,
    takeover::Takeover,
    telemetry::{log, pulse::Pulse},
};

/// Rounds of sending in one turn: a failed send may make the engine answer, whose send may fail.
/// What is left after this many waits for the next turn, which then comes at once.
const SEND_ROUNDS_MAX: usize = 4;
/// ICMP errors of one turn that other shards are told of; whoever can forge one must not be able to
/// fill the rings.
const NOTICES_PER_TURN: usize = 64;
/// Calls that one turn ends at the end of the process: their last messages and records go out
/// before more are made.
const SHUTDOWN_CALLS_PER_TURN: usize = 256;
/// Records that the end of a call is taken to make: of the call, its attempts, its emergency.
const RECORDS_PER_CALL: usize = 4;
/// Longest turn that the histogram tells apart.
const TURN_NS_MAX: u64 = 10_000_000_000;

/// One shard.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) engine: Engine,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) streams: Streams,
    pub(crate) cross: CrossShard,
    pub(crate) crypto: Crypto,
    pub(crate) mailbox: Receiver<Message>,
    pub(crate) feed: Feed,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) takeover: Takeover,
    /// What the engine wants sent.
    pub(crate) out: TxQueue,
    /// What is being sent.
    pub(crate) sending: TxQueue,
    /// What other shards are to be told at the end of a batch.
    pub(crate) notices: Vec<(Option<ShardId>, Notice)>,
    /// New calls that came from other shards and go on to the next.
    pub(crate) placing: Vec<(ShardId, u8, Meta, Vec<u8>)>,
    pub(crate) records: Vec<Entry>,
    pub(crate) turns: Histogram<u64>,
    /// When the last turn ended.
    pub(crate) ended: Instant,
    /// What the shard adds to the way of a media packet.
    pub(crate) added: Histogram<u64>,
    /// How long the media packets of this turn that go on had waited when it began, in nanoseconds.
    pub(crate) waited: Vec<u64>,
    /// Where old config versions go.
    pub(crate) retired: Retired,
    /// The process ends: calls that are still to be ended.
    pub(crate) ending: Option<usize>,
    /// Where records of confirmed calls go; `None`: they cannot be kept.
    pub(crate) slots: Option<Slots>,
    /// Media ports that are opened beside the work.
    pub(crate) opening: Opening,
}

impl ShardLoop for Shard {
    fn turn(&mut self, wait_max: Duration) -> Next {
        self.pulse.wait();
        if let Err(error) = self.driver.wait(self.timeout(wait_max)) {
            let text = format!("shard {}: the driver failed: {error}", self.id.0);
            log("critical", "shard", &text);
            return Next::Stop;
        }
        let now = clock::now();
        self.pulse.begin(now.mono.0);

        self.receive(now);
        self.engine.expire(now, &mut self.out);
        self.crypto.turn(now, &mut self.engine, &mut self.out);
        let next = self.read_mailbox(now);
        self.end_calls(now);
        self.takeover.turn(now.mono, &mut self.engine, &mut *self.driver);
        self.keep_records(now);
        self.send(now);
        self.engine.take_records(now, &mut self.records);
        self.feed.push_all(&mut self.records);
        self.retired.turn(now.mono, &mut self.engine);
        self.cross.flush();
        self.opening.turn(&mut self.engine, &mut *self.driver);

        self.ended = clock::monotonic();
        let lasted = self.ended.since(now.mono);
        self.turns.saturating_record(nanoseconds(lasted));
        next
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(TURN_NS_MAX)
}

impl Shard {
    /// Lengths of time with two significant digits.
    pub(crate) fn time_histogram() -> Histogram<u64> {
        // The bounds are constants of the kind that the library accepts.
        Histogram::new_with_max(TURN_NS_MAX, 2).unwrap_or_else(|_| {
            Histogram::new(2).unwrap_or_else(|_| unreachable!("two digits are allowed"))
        })
    }

    fn timeout(&self, wait_max: Duration) -> Duration {
        let ending = self.ending.is_some_and(|left| left > 0);
        if !self.out.is_empty() || self.cross.has_input() || ending {
            return Duration::ZERO;
        }
        let wait_max = self.opening.wait(wait_max);
        let deadlines = [self.engine.next_deadline(), self.streams.next_deadline()];
        let Some(next) = deadlines.into_iter().flatten().min() else { return wait_max };
        // The clock was read when the last turn ended. What the host did since makes a timer late by
        // a millisecond at most.
        next.since(self.ended).min(wait_max)
    }

    /// Everything that has arrived, into the engine.
    fn receive(&mut self, now: Now) {
        let Self { id, engine, driver, streams, cross, out, notices, placing, waited, .. } = self;
        waited.clear();
        cross.receive(&mut |crossed| match crossed {
            // Handed over once: an owner that disowned it would send it in circles.
            Crossed::Received { meta, bytes } => {
                if let Received::Placed { shard, tried } = engine.receive(now, meta, bytes, out) {
                    placing.push((shard, tried, meta, bytes.to_vec()));
                }
            }
            Crossed::Placed { meta, tried, bytes } => {
                let received = engine.receive_placed(now, meta, bytes, tried, out);
                if let Received::Placed { shard, tried } = received {
                    placing.push((shard, tried, meta, bytes.to_vec()));
                }
            }
            Crossed::Send { from, tx } => {
                let taken = streams.send_for(from, now.mono, &mut **driver, tx);
                // The transaction knows the connection that it asked for.
                if let Some(flow) = taken.filter(|_| tx.token != Token::default())
                    && !matches!(tx.egress, Egress::Flow { flow: asked, .. } if asked == flow)
                {
                    notices.push((Some(from), Notice::SentThrough(tx.token, flow)));
                }
            }
            Crossed::Told(Notice::SendFailed(token)) => engine.send_failed(now, token, out),
            Crossed::Told(Notice::SentThrough(token, flow)) => engine.sent_through(token, flow),
            Crossed::Told(Notice::FlowClosed(flow)) => engine.flow_closed(now, flow, out),
            Crossed::Told(Notice::Unreachable { listener, to }) => {
                engine.unreachable(now, listener, to, out);
            }
        });
        for (to, tried, meta, bytes) in placing.drain(..) {
            if !cross.place(to, meta, tried, &bytes) {
                let _ = engine.receive_placed(now, meta, &bytes, u8::MAX, out);
            }
        }
        let mut offer = |engine: &mut Engine, out: &mut TxQueue, meta: Meta, bytes: &[u8]| {
            match engine.receive(now, meta, bytes, out) {
                // A full ring is counted by the ring, see `add_cross`.
                Received::Elsewhere(owner) if owner != *id => {
                    let _ = cross.forward(owner, meta, bytes);
                }
                Received::Placed { shard, tried } if !cross.place(shard, meta, tried, bytes) => {
                    let _ = engine.receive_placed(now, meta, bytes, u8::MAX, out);
                }
                _ => {}
            }
        };
        driver.receive(&mut |rx| match rx {
            Rx::Coming { ports } => engine.read_ahead(ports),
            Rx::Datagram { meta, bytes, waited: this } => {
                let before = out.len();
                offer(engine, out, meta, bytes);
                // Of a packet that goes nowhere nobody waits for the end of the turn.
                if let Some(this) = this.filter(|_| out.len() > before) {
                    waited.push(nanoseconds(this));
                }
            }
            // Counted there, with the stream.
            Rx::TooLong { meta } => drop(engine.too_long(now, meta)),
            Rx::Unreachable { listener, to } => {
                engine.unreachable(now, listener, to, out);
                let notice = (None, Notice::Unreachable { listener, to });
                // A burst of datagrams to one address brings a burst of reports.
                if !notices.contains(&notice) && notices.len() < NOTICES_PER_TURN {
                    notices.push(notice);
                }
            }
        });
        streams.poll(now.mono, &mut **driver, &mut |event| match event {
            StreamEvent::Message { meta, bytes } => offer(engine, out, meta, bytes),
            StreamEvent::Ended { flow } | StreamEvent::Closed { flow } => {
                engine.flow_closed(now, flow, out);
                notices.push((None, Notice::FlowClosed(flow)));
            }
            StreamEvent::SendFailed { from, token, .. } if from == *id => {
                engine.send_failed(now, token, out);
            }
            StreamEvent::SendFailed { from, token, .. } => {
                notices.push((Some(from), Notice::SendFailed(token)));
            }
        });
        for (to, notice) in notices.drain(..) {
            match to {
                // A full ring is counted by the ring; timers tell what it does not.
                Some(to) => drop(cross.tell(to, notice)),
                None => cross.tell_all(notice),
            }
        }
    }

    /// Writes down what the turn did to confirmed calls, before anybody hears of it.
    fn keep_records(&mut self, now: Now) {
        let slots = &mut self.slots;
        if let Some(slots) = slots {
            slots.alive(now.mono);
        }
        self.engine.checkpoints(now, &mut |change| {
            if let Some(slots) = slots {
                slots.apply(change);
            }
        });
    }

    /// Everything that the engine wants sent.
    fn send(&mut self, now: Now) {
        for _ in 0..SEND_ROUNDS_MAX {
            if self.out.is_empty() {
                return;
            }
            if self.engine.has_checkpoints() {
                self.keep_records(now);
            }
            std::mem::swap(&mut self.out, &mut self.sending);
            let Self { id, engine, driver, streams, cross, out, sending, .. } = self;
            driver.send(sending, &mut |token, _error| engine.send_failed(now, token, out));
            let mut media = 0_u64;
            for tx in sending.iter() {
                match tx.egress {
                    Egress::Media { .. } => media += 1,
                    Egress::Udp { .. } => {}
                    Egress::Flow { flow, .. } if flow.shard != *id => {
                        if !cross.send(flow.shard, tx) {
                            engine.send_failed(now, tx.token, out);
                        }
                    }
                    Egress::Flow { .. } | Egress::Connect { .. } => {
                        let taken = streams.send(now.mono, &mut **driver, tx);
                        if let Some(flow) = taken.filter(|_| tx.token != Token::default()) {
                            engine.sent_through(tx.token, flow);
                        }
                    }
                }
            }
            sending.clear();
            // One reading of the clock for all packets of a turn: none of them waits for another
            // one's time to be taken, and a turn without media takes none.
            if media > 0 {
                let turn = nanoseconds(clock::monotonic().since(now.mono));
                let unknown = media.saturating_sub(self.waited.len() as u64);
                for waited in self.waited.drain(..) {
                    self.added.saturating_record(waited.saturating_add(turn));
                }
                self.added.saturating_record_n(turn, unknown);
            }
        }
    }

    /// At the end of the process: ends calls as fast as their records find room.
    fn end_calls(&mut self, now: Now) {
        if self.ending.is_none() {
            return;
        }
        let most = SHUTDOWN_CALLS_PER_TURN.min(self.feed.room() / RECORDS_PER_CALL);
        self.ending = Some(self.engine.shutdown(now, most, &mut self.out));
    }

    fn read_mailbox(&mut self, now: Now) -> Next {
        while let Ok(message) = self.mailbox.try_recv() {
            // Who asked may have stopped waiting: a failed answer is nobody's loss.
            match message {
                Message::Install { loadout, done } => {
                    let _ = done.send(self.engine.install(now, loadout, &mut self.out));
                }
                Message::Calls { limit, answer } => {
                    let _ = answer.send(self.engine.calls(now, limit));
                }
                Message::Call { call, answer } => {
                    let _ = answer.send(self.engine.call(now, &call));
                }
                Message::Ladder { call, answer } => {
                    let _ = answer.send(self.engine.ladder(&call));
                }
                Message::Trunks { answer } => {
                    let _ = answer.send(self.engine.trunks());
                }
                Message::Report { answer } => {
                    let _ = answer.send(self.report());
                }
                Message::Drain { answer } => {
                    self.engine.begin_drain();
                    let (live, all) = (self.engine.live_calls(), self.engine.tables().calls);
                    let _ = answer.send(Left { live, all });
                }
                Message::Shutdown => self.ending = Some(usize::MAX),
                Message::LastWords => self.engine.last_words(now, &mut self.out),
                Message::Stop => return Next::Stop,
            }
        }
        Next::Turn
    }

    /// Counters of engine, driver, streams and ring, and the lengths of turns.
    fn report(&self) -> ShardReport {
        let mut samples = Vec::with_capacity(256);
        self.engine.samples(&mut samples);
        self.driver.counts(&mut |count| {
            samples.push(counter(count.name, count.help, count.label, count.value));
        });
        self.streams.stats().each(&mut |count| {
            samples.push(counter(count.name, count.help, count.label, count.value));
        });
        let open = u64::try_from(self.streams.open_count()).unwrap_or(u64::MAX);
        samples.push(gauge("stream_connections", "Stream connections open", None, open));
        self.add_cross(&mut samples);
        let opening = u64::try_from(self.opening.left()).unwrap_or(u64::MAX);
        let help = "Media ports that are still being opened after a start with calls of the process before";
        samples.push(gauge("media_ports_opening", help, None, opening));
        let failed = u64::try_from(self.opening.failed()).unwrap_or(u64::MAX);
        let help = "Media ports that could not be opened: they are left out";
        samples.push(gauge("media_ports_failed", help, None, failed));
        let (errors, written) =
            self.slots.as_ref().map_or((0, 0), |slots| (slots.errors, slots.written));
        let help = "Records of calls that could not be written: these calls would end in a crash";
        samples.push(counter("checkpoint_errors_total", help, None, errors));
        let help = "Octets of records of calls written";
        samples.push(counter("checkpoint_bytes_total", help, None, written));
        let mut buckets = Vec::new();
        self.engine.buckets(&mut buckets);
        ShardReport {
            shard: self.id.0,
            samples,
            histograms: vec![
                self.summary(
                    "shard_turn",
                    "Work of one turn of a shard, waiting apart",
                    &self.turns,
                ),
                self.summary(
                    "media_added_latency",
                    "From when a shard takes a media packet from the kernel until it hands it back",
                    &self.added,
                ),
            ],
            buckets,
            calls: u64::try_from(self.engine.tables().calls).unwrap_or(u64::MAX),
        }
    }

    fn add_cross(&self, samples: &mut Vec<Sample>) {
        let cross = self.cross.stats();
        let help = "Packets discarded without an answer";
        let full = Some(("reason", DropReason::CrossShardFull.label()));
        samples.push(counter("drops_total", help, full, cross.full));
        for (name, help, value) in [
            ("cross_sent_total", "Datagrams handed to another shard", cross.sent),
            ("cross_received_total", "Datagrams taken from another shard", cross.received),
        ] {
            samples.push(counter(name, help, None, value));
        }
    }

    /// `name` without its unit, which is added where it is shown.
    fn summary(&self, name: &str, help: &str, of: &Histogram<u64>) -> metrics::Histogram {
        let sum = of.mean() * of.len() as f64;
        metrics::Histogram {
            name: name.into(),
            help: help.into(),
            labels: vec![("shard".into(), self.id.0.to_string())],
            count: of.len(),
            sum_ns: sum as u64,
            p50_ns: of.value_at_quantile(0.5),
            p90_ns: of.value_at_quantile(0.9),
            p99_ns: of.value_at_quantile(0.99),
            p999_ns: of.value_at_quantile(0.999),
            max_ns: of.max(),
        }
    }
}
