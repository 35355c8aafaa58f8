//! The messages of one call, kept small: fixed-size steps, rendered only when somebody asks.

use ravelin_contract::view::{Ladder, LadderStep};
use smallvec::SmallVec;

use crate::{counters::MethodLabel, time::Instant};

/// Steps kept per call: the first half of them and the newest ones. What lies between is counted.
pub(crate) const STEPS_MAX: usize = 64;
/// Steps that fit without memory of their own: an ordinary call with its hang-up.
const STEPS_INLINE: usize = 16;

/// Who a message came from or went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Caller,
    /// The callee of the attempt with this number, 1..
    Callee(u16),
}

#[derive(Clone, Copy, Debug)]
struct Step {
    at_ms: u32,
    peer: Peer,
    inbound: bool,
    method: MethodLabel,
    /// 0: a request.
    code: u16,
}

/// The steps of one call.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    kept: SmallVec<[Step; STEPS_INLINE]>,
    /// Where the newest half wraps round.
    next: usize,
    omitted: u64,
}

impl Steps {
    /// Notes one message. `code` 0 is a request.
    pub(crate) fn note(
        &mut self,
        since_start: std::time::Duration,
        peer: Peer,
        inbound: bool,
        method: MethodLabel,
        code: u16,
    ) {
        let at_ms = u32::try_from(since_start.as_millis()).unwrap_or(u32::MAX);
        let step = Step { at_ms, peer, inbound, method, code };
        if self.kept.len() < STEPS_MAX {
            self.kept.push(step);
            return;
        }
        self.omitted = self.omitted.saturating_add(1);
        let at = STEPS_MAX / 2 + self.next;
        if let Some(oldest) = self.kept.get_mut(at) {
            *oldest = step;
        }
        self.next = (self.next + 1) % (STEPS_MAX / 2);
    }

    /// As text for an operator. `callee` names the trunk of an attempt.
    pub(crate) fn render(&self, call: String, callee: impl Fn(u16) -> String) -> Ladder {
        let half = STEPS_MAX / 2;
        let (first, newest) = self.kept.split_at(self.kept.len().min(half));
        let (young, old) = newest.split_at(self.next.min(newest.len()));
        let steps = first
            .iter()
            .chain(old)
            .chain(young)
            .map(|step| LadderStep {
                at_ms: u64::from(step.at_ms),
                peer: match step.peer {
                    Peer::Caller => "caller".to_owned(),
                    Peer::Callee(attempt) => callee(attempt),
                },
                inbound: step.inbound,
                summary: match step.code {
                    0 => step.method.label().to_owned(),
                    code => format!("{code} ({})", step.method.label()),
                },
            })
            .collect();
        Ladder { call, steps, omitted: self.omitted, ..Ladder::default() }
    }
}

/// Milliseconds between two moments, for records.
pub(crate) fn elapsed_ms(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_and_the_newest_steps_are_kept_in_order() {
        let mut steps = Steps::default();
        for at in 0..200 {
            steps.note(Duration::from_millis(at), Peer::Caller, true, MethodLabel::Info, 0);
        }
        let ladder = steps.render("x".to_owned(), |_| String::new());
        assert_eq!(ladder.omitted, 200 - 64);
        let times: Vec<u64> = ladder.steps.iter().map(|step| step.at_ms).collect();
        let wanted: Vec<u64> = (0..32).chain(168..200).collect();
        assert_eq!(times, wanted);
    }

    #[test]
    fn a_step_reads_like_a_ladder() {
        let mut steps = Steps::default();
        steps.note(Duration::ZERO, Peer::Caller, true, MethodLabel::Invite, 0);
        steps.note(Duration::ZERO, Peer::Callee(1), true, MethodLabel::Invite, 180);
        let ladder = steps.render("x".to_owned(), |attempt| format!("carrier-{attempt}"));
        assert_eq!(ladder.steps[0].summary, "INVITE");
        assert_eq!(ladder.steps[1].summary, "180 (INVITE)");
        assert_eq!(ladder.steps[1].peer, "carrier-1");
    }
}
