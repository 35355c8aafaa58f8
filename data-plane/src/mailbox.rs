//! Messages to running shards from other threads, and the answers. A shard looks into its mailbox
//! once a turn; who asks waits, the shard never does.

use std::{sync::Arc, time::Duration};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use ravelin_contract::{
    metrics::{Buckets, Histogram, Sample},
    view::{CallView, Ladder, TrunkView},
};
use ravelin_engine::loadout::Loadout;
use ravelin_io::driver::Waker;

/// Messages that may wait for one shard.
pub const MAILBOX_MESSAGES: usize = 64;
/// How long an answer is waited for. A turn takes a millisecond at most; a shard that needs longer
/// is the watchdog's business.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What can be asked of a shard.
pub(crate) enum Message {
    /// Take this snapshot; the one before comes back to be dropped off the shard's core.
    Install {
        loadout: Arc<Loadout>,
        done: Sender<Arc<Loadout>>,
    },
    Calls {
        limit: usize,
        answer: Sender<Vec<CallView>>,
    },
    /// The call with this id.
    Call {
        call: String,
        answer: Sender<Option<CallView>>,
    },
    Ladder {
        call: String,
        answer: Sender<Option<Ladder>>,
    },
    Trunks {
        answer: Sender<Vec<TrunkView>>,
    },
    Report {
        answer: Sender<ShardReport>,
    },
    /// Take no new ordinary calls; say what is left.
    Drain {
        answer: Sender<Left>,
    },
    /// End every call that is up, a few in each turn.
    Shutdown,
    /// Say what still waits to be said, without waiting for anybody.
    LastWords,
    Stop,
}

/// What a draining shard still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Calls that have not ended.
    pub live: usize,
    /// These, and calls whose parties have not yet confirmed the end.
    pub all: usize,
}

/// Counters of one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    pub shard: u8,
    pub samples: Vec<Sample>,
    pub histograms: Vec<Histogram>,
    pub buckets: Vec<Buckets>,
    pub calls: u64,
}

/// The way to one shard.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    pub(crate) messages: Sender<Message>,
    pub(crate) waker: Waker,
}

/// The way to all shards.
#[derive(Clone, Debug)]
pub struct Shards {
    boxes: Arc<[Mailbox]>,
}

/// A shard did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent {
    pub shard: usize,
}

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shard {} did not answer within {} s", self.shard, ANSWER_WITHIN.as_secs())
    }
}

impl std::error::Error for Silent {}

impl Shards {
    pub(crate) fn new(boxes: Vec<Mailbox>) -> Self {
        Self { boxes: boxes.into() }
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.boxes.len()
    }

    /// Puts `loadout` in force on every shard. The old one is dropped here.
    ///
    /// # Errors
    /// The first shard that did not confirm; it will still take the message when it wakes.
    pub fn install(&self, loadout: &Arc<Loadout>) -> Result<(), Silent> {
        self.ask(|done| Message::Install { loadout: Arc::clone(loadout), done }).map(drop)
    }

    /// Calls of all shards, at most `limit`, and whether there are more.
    ///
    /// # Errors
    /// A shard that did not answer.
    pub fn calls(&self, limit: usize) -> Result<(Vec<CallView>, bool), Silent> {
        let ask = limit.saturating_add(1);
        let answers = self.ask(|answer| Message::Calls { limit: ask, answer })?;
        let mut calls: Vec<_> = answers.into_iter().flatten().collect();
        calls.sort_by_key(|call| call.start_unix_ms);
        let more = calls.len() > limit;
        calls.truncate(limit);
        Ok((calls, more))
    }

    /// One call, with the quality of its streams.
    ///
    /// # Errors
    /// A shard that did not answer.
    pub fn call(&self, call: &str) -> Result<Option<CallView>, Silent> {
        let answers = self.ask(|answer| Message::Call { call: call.into(), answer })?;
        Ok(answers.into_iter().flatten().next())
    }

    /// The messages of one call.
    ///
    /// # Errors
    /// A shard that did not answer.
    pub fn ladder(&self, call: &str) -> Result<Option<Ladder>, Silent> {
        let answers = self.ask(|answer| Message::Ladder { call: call.into(), answer })?;
        Ok(answers.into_iter().flatten().next())
    }

    /// The trunks as every shard shares them.
    ///
    /// # Errors
    /// The shard that did not answer.
    pub fn trunks(&self) -> Result<Vec<TrunkView>, Silent> {
        let Some(first) = self.boxes.first() else { return Ok(Vec::new()) };
        let (answer, answers) = bounded(1);
        first.send(Message::Trunks { answer });
        answers.recv_timeout(ANSWER_WITHIN).map_err(|_| Silent { shard: 0 })
    }

    /// Counters of every shard.
    ///
    /// # Errors
    /// A shard that did not answer.
    pub fn reports(&self) -> Result<Vec<ShardReport>, Silent> {
        self.ask(|answer| Message::Report { answer })
    }

    /// Tells every shard to take no new ordinary calls; returns what is left.
    ///
    /// # Errors
    /// A shard that did not answer.
    pub fn drain(&self) -> Result<Left, Silent> {
        let answers = self.ask(|answer| Message::Drain { answer })?;
        Ok(answers.into_iter().fold(Left::default(), |sum, left| Left {
            live: sum.live + left.live,
            all: sum.all + left.all,
        }))
    }

    /// Tells every shard to end its calls.
    pub fn shutdown(&self) {
        for shard in self.boxes.iter() {
            shard.send(Message::Shutdown);
        }
    }

    /// Tells every shard to say what it still has to say, without waiting for anybody.
    pub fn last_words(&self) {
        for shard in self.boxes.iter() {
            shard.send(Message::LastWords);
        }
    }

    /// Tells every shard to end.
    pub fn stop(&self) {
        for shard in self.boxes.iter() {
            shard.send(Message::Stop);
        }
    }

    fn ask<T>(&self, message: impl Fn(Sender<T>) -> Message) -> Result<Vec<T>, Silent> {
        let waiting: Vec<Receiver<T>> = self
            .boxes
            .iter()
            .map(|shard| {
                let (answer, answers) = bounded(1);
                shard.send(message(answer));
                answers
            })
            .collect();
        let deadline = std::time::Instant::now() + ANSWER_WITHIN;
        waiting
            .into_iter()
            .enumerate()
            .map(|(shard, answers)| answers.recv_deadline(deadline).map_err(|_| Silent { shard }))
            .collect()
    }
}

impl Mailbox {
    /// A mailbox that is full belongs to a shard that does not turn: the answer will be missed.
    fn send(&self, message: Message) {
        match self.messages.try_send(message) {
            Ok(()) => self.waker.wake(),
            Err(TrySendError::Full(message)) => {
                self.waker.wake();
                // The last word must arrive even if nobody waits for an answer.
                if matches!(message, Message::Shutdown | Message::LastWords | Message::Stop) {
                    let _ = self.messages.send_timeout(message, ANSWER_WITHIN);
                }
            }
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}
