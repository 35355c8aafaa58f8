//! Opening the media ports of a shard. Those that calls of the process before hold are opened before
//! anything else, and these calls go on at once; the others are opened beside the work, a few in each
//! turn. A start without such calls keeps nobody waiting, and opens all of them first.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ravelin_engine::{
    engine::Engine,
    media::MediaPortSpec,
    port::{Local, MediaPortId, ShardId},
};
use ravelin_io::driver::Driver;

use super::vacancy::Vacancy;
use crate::telemetry::log;

/// Media ports of one shard that may fail to open; with more the start is refused.
const MEDIA_FAILURES_MAX: usize = 16;
/// Pairs of each range that are free to be drawn before a shard takes its first message, and that
/// each turn sees to while there are more to open: new calls, those for emergencies among them, find
/// a port at once.
const PAIRS_AHEAD: usize = 32;
/// What a turn spends on opening ports beyond that.
const TURN_BUDGET: Duration = Duration::from_micros(500);
/// Most ports of one turn.
const PORTS_PER_TURN: usize = 512;
/// Between two tries of ports that somebody else still has.
const IN_USE_PAUSE: Duration = Duration::from_millis(10);

/// The media ports of one shard that are still to be opened.
pub(crate) struct Opening {
    shard: ShardId,
    waiting: VecDeque<(MediaPortId, MediaPortSpec)>,
    /// Those that were in use, to be tried again.
    in_use: VecDeque<(MediaPortId, MediaPortSpec)>,
    retry: Instant,
    vacancy: Arc<Vacancy>,
    failed: usize,
    first_failure: Option<(SocketAddr, io::Error)>,
    /// Some were opened beside the work, so the end of it is told.
    beside: bool,
}

impl Opening {
    /// Everything is still to be done.
    pub(crate) fn new(shard: ShardId, engine: &mut Engine, vacancy: Arc<Vacancy>) -> Self {
        let order = engine.media_opening_order();
        let spec = |port: MediaPortId| {
            engine.media_ports().get(usize::try_from(port.0).ok()?).map(|spec| (port, *spec))
        };
        Self {
            shard,
            waiting: order.into_iter().filter_map(spec).collect(),
            in_use: VecDeque::new(),
            retry: Instant::now(),
            vacancy,
            failed: 0,
            first_failure: None,
            beside: false,
        }
    }

    /// Opens everything, and waits for what is in use.
    ///
    /// # Errors
    /// More ports than a few cannot be opened.
    pub(crate) fn all(&mut self, engine: &mut Engine, driver: &mut dyn Driver) -> io::Result<()> {
        while let Some((port, spec)) = self.waiting.pop_front() {
            let opened = self.vacancy.wait(&spec.addr.to_string(), || open(driver, port, spec));
            self.note(engine, port, spec, opened);
        }
        self.judge()
    }

    /// Opens what calls hold, and waits for it where it is in use; then a few free ports of each range
    /// as far as they are not.
    ///
    /// # Errors
    /// More ports than a few cannot be opened.
    pub(crate) fn first(&mut self, engine: &mut Engine, driver: &mut dyn Driver) -> io::Result<()> {
        self.beside = true;
        while let Some((port, spec)) = self.waiting.front().copied()
            && engine.is_media_port_held(port)
        {
            self.waiting.pop_front();
            let opened = self.vacancy.wait(&spec.addr.to_string(), || open(driver, port, spec));
            self.note(engine, port, spec, opened);
        }
        self.judge()?;
        while engine.fewest_free_media_pairs() < PAIRS_AHEAD && self.next(engine, driver) {}
        Ok(())
    }

    /// The part of one turn.
    pub(crate) fn turn(&mut self, engine: &mut Engine, driver: &mut dyn Driver) {
        if !self.beside {
            return;
        }
        let begun = Instant::now();
        if self.waiting.is_empty() && begun >= self.retry {
            std::mem::swap(&mut self.waiting, &mut self.in_use);
        }
        for _ in 0..PORTS_PER_TURN {
            let enough = engine.fewest_free_media_pairs() >= PAIRS_AHEAD;
            if (enough && begun.elapsed() >= TURN_BUDGET) || !self.next(engine, driver) {
                break;
            }
        }
        if self.left() == 0 {
            self.beside = false;
            let shard = self.shard.0;
            match self.judge() {
                Ok(()) => log("info", "start", &format!("shard {shard}: all media ports are open")),
                // Calls go on here: the node is worth more with fewer ports than without any.
                Err(error) => log("alarm", "start", &format!("shard {shard}: {error}")),
            }
        }
    }

    /// Ports still to be opened.
    pub(crate) fn left(&self) -> usize {
        self.waiting.len() + self.in_use.len()
    }

    /// Ports that could not be opened, and are not tried again.
    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    /// How long the shard may wait until [`Self::turn`] has something to do.
    pub(crate) fn wait(&self, longest: Duration) -> Duration {
        match (self.waiting.is_empty(), self.in_use.is_empty()) {
            (true, true) => longest,
            (true, false) => longest.min(self.retry.saturating_duration_since(Instant::now())),
            (false, _) => Duration::ZERO,
        }
    }

    /// Tries one port. False: there is none to try now.
    fn next(&mut self, engine: &mut Engine, driver: &mut dyn Driver) -> bool {
        let Some((port, spec)) = self.waiting.pop_front() else { return false };
        match self.vacancy.once(&spec.addr.to_string(), || open(driver, port, spec)) {
            Some(opened) => self.note(engine, port, spec, opened),
            None => {
                self.in_use.push_back((port, spec));
                self.retry = Instant::now() + IN_USE_PAUSE;
            }
        }
        true
    }

    fn note(
        &mut self,
        engine: &mut Engine,
        port: MediaPortId,
        spec: MediaPortSpec,
        opened: io::Result<()>,
    ) {
        match opened {
            Ok(()) => engine.media_port_opened(port),
            // A port that was not opened is never used.
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert((spec.addr, error));
            }
        }
    }

    /// A few ports that another process holds are left out; many are a mistake.
    fn judge(&self) -> io::Result<()> {
        let Some((address, error)) = &self.first_failure else { return Ok(()) };
        let text = format!(
            "{} media ports cannot be opened, the first is {address}: {error}",
            self.failed
        );
        if self.failed > MEDIA_FAILURES_MAX {
            let advice = "free them or change edge.media";
            return Err(io::Error::new(error.kind(), format!("{text}; {advice}")));
        }
        log("warning", "start", &text);
        Ok(())
    }
}

fn open(driver: &mut dyn Driver, port: MediaPortId, spec: MediaPortSpec) -> io::Result<()> {
    driver.open_media(port, spec.addr)?;
    spec.dscp.map_or(Ok(()), |dscp| driver.mark(Local::Media { port }, dscp))
}
