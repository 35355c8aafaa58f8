//! Whether shards look at their queues themselves, and why not: what the metrics show, and what is said
//! in the log.

use super::Polling;
use crate::uring::pace::GATHER_FROM_PPS;
use std::collections::BTreeSet;
use std::io;

/// Whether a shard looks by itself, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in crate::xdp) enum Why {
    /// Too little comes by AF_XDP ([`crate::uring::pace`]).
    Rate,
    /// It does.
    Polls,
    /// It has no AF_XDP socket.
    NoSocket,
    /// The kernel polls no queues by number, or has no word for putting its own look off.
    Kernel,
    /// No interface with AF_XDP is one whose kernel announces each packet.
    Interface,
    /// The kernel names no queue of these interfaces.
    NoQueue,
    /// The kernel does not put off its own look.
    Refused,
    /// The kernel refused while it polled.
    Failed,
}

impl Why {
    pub(in crate::xdp) const ALL: [Self; 8] = [
        Self::Rate,
        Self::Polls,
        Self::NoSocket,
        Self::Kernel,
        Self::Interface,
        Self::NoQueue,
        Self::Refused,
        Self::Failed,
    ];

    /// For the metrics.
    pub(in crate::xdp) const fn label(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Polls => "polls",
            Self::NoSocket => "no_socket",
            Self::Kernel => "kernel",
            Self::Interface => "interface",
            Self::NoQueue => "no_queue",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What keeps all shards from it, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::xdp) struct Obstacle {
    pub(super) why: Why,
    text: String,
}

impl Obstacle {
    pub(super) fn new(why: Why, text: impl Into<String>) -> Self {
        Self { why, text: text.into() }
    }

    pub(super) fn kernel(error: &io::Error) -> Self {
        Self::new(Why::Kernel, format!("the kernel polls no queues by number (6.13 does): {error}"))
    }
}

/// What was said of polling: each thing once, however often it comes and goes with the load.
pub(in crate::xdp) struct Notes {
    note: Note,
    said: BTreeSet<(usize, Why)>,
    obstacle: Option<Obstacle>,
}

/// Hears a line for the log, and how grave it is.
pub(in crate::xdp) type Note = fn(level: &'static str, text: &str);

impl Notes {
    pub(in crate::xdp) fn new(note: Note) -> Self {
        Self { note, said: BTreeSet::new(), obstacle: None }
    }

    /// Before any shard is busy.
    pub(in crate::xdp) fn begin(&mut self, polling: &Polling) {
        if polling.each().iter().all(|why| *why == Why::NoSocket) {
            return;
        }
        self.obstacle.clone_from(&polling.state().obstacle);
        let text = match &self.obstacle {
            Some(obstacle) => format!("busy shards do not poll AF_XDP: {}", obstacle.text),
            None => format!(
                "a shard polls AF_XDP while it has more than {} packets a second",
                GATHER_FROM_PPS
            ),
        };
        (self.note)("info", &text);
    }

    /// Says what is new.
    pub(in crate::xdp) fn follow(&mut self, polling: &Polling) {
        let obstacle = polling.state().obstacle.clone();
        if obstacle != self.obstacle {
            if let Some(obstacle) = &obstacle {
                let text = format!("busy shards do not poll AF_XDP: {}", obstacle.text);
                (self.note)("warning", &text);
            }
            self.obstacle = obstacle;
        }
        for (shard, why) in polling.each().into_iter().enumerate() {
            let line = match why {
                Why::Polls => ("info", "polls AF_XDP"),
                Why::Failed => ("warning", "polls AF_XDP no more: the kernel refused"),
                _ => continue,
            };
            if self.said.insert((shard, why)) {
                (self.note)(line.0, &format!("shard {shard} {}", line.1));
            }
        }
    }
}
