//! Whether a run was right.

use std::collections::BTreeSet;

use super::{
    act::{Act, Outcome},
    peer::Peer,
    plan::Plan,
};

/// What was wrong with a run; empty when nothing was.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub faults: Vec<String>,
    /// Calls that were answered, to show that the run was not empty.
    pub answered: usize,
    /// Calls that lived through a crash.
    pub adopted: usize,
}

/// What a run must be forgiven, because the process ended in the middle of it.
#[derive(Debug, Default)]
pub(super) struct Pardon {
    /// The process ended at least once.
    pub(super) crashed: bool,
    /// Calls that were not confirmed then, or whose end was under way.
    pub(super) lost: BTreeSet<u32>,
    /// Calls that were confirmed then.
    pub(super) kept: BTreeSet<u32>,
}

impl Verdict {
    pub(super) fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    /// Compares what both parties of every call say of it.
    pub(super) fn parties(
        &mut self,
        plan: &Plan,
        caller: &Peer,
        carriers: &[Peer],
        pardon: &Pardon,
    ) {
        for planned in &plan.calls {
            let number = planned.number;
            let a = &caller.calls[&number];
            if a.outcome.foreign_rtp > 0 {
                self.fault(format!("call {number}: the caller got another call's media"));
            }
            if a.is_busy() {
                self.fault(format!("call {number}: the caller still waits for an answer"));
            }
            if a.outcome.answered {
                self.answered += 1;
            }
            let mut in_call = 0;
            for carrier in carriers {
                let Some(b) = carrier.calls.get(&number).filter(|call| call.took_part()) else {
                    continue;
                };
                if b.outcome.foreign_rtp > 0 {
                    self.fault(format!("call {number}: a callee got another call's media"));
                }
                if b.outcome.died {
                    continue;
                }
                if b.is_busy() {
                    self.fault(format!("call {number}: a callee still waits for an answer"));
                }
                if b.outcome.answered && !b.outcome.ended {
                    self.fault(format!("call {number}: a callee is still in the call"));
                }
                if b.outcome.answered && b.outcome.acknowledged {
                    in_call += 1;
                }
                if !pardon.lost.contains(&number) {
                    self.agreement(number, &a.outcome, &b.outcome);
                    if pardon.kept.contains(&number) {
                        self.survived(number, &a.outcome, &b.outcome);
                    }
                }
            }
            let forgiven = pardon.lost.contains(&number);
            if !forgiven && in_call > 1 && !a.outcome.answered {
                self.fault(format!("call {number}: {in_call} callees were answered for nobody"));
            }
            if !a.outcome.died && !a.outcome.ended {
                self.fault(format!("call {number}: the caller is still in the call"));
            }
            if !pardon.crashed {
                self.fair_weather(plan, number, a, carriers);
            }
        }
    }

    fn agreement(&mut self, number: u32, a: &Outcome, b: &Outcome) {
        if a.died || b.died {
            return;
        }
        if a.answered && b.refused.is_some() && b.answered {
            self.fault(format!("call {number}: the callee refused and answered"));
        }
        if a.unacknowledged {
            self.fault(format!("call {number}: the caller's 200 was never acknowledged"));
        }
        if b.unacknowledged {
            // 5 % loss is no reason for a lost ACK: everything is repeated (issue: 0
            // unacknowledged 200). Only a run of losses over 64*T1 may do that.
            self.fault(format!("call {number}: the callee's 200 was never acknowledged"));
        }
    }

    /// A confirmed call that lived through a crash: the first BYE of a party finds it, and reaches
    /// the other.
    fn survived(&mut self, number: u32, a: &Outcome, b: &Outcome) {
        if a.died || b.died || !b.answered {
            return;
        }
        self.adopted += 1;
        for (one, other) in [(a, b), (b, a)] {
            if one.bye_code == Some(481) && other.bye_code != Some(200) && !other.hung_up {
                self.fault(format!("call {number}: a BYE after the crash found no call"));
            }
        }
    }

    /// Without loss every call ends exactly as planned.
    fn fair_weather(&mut self, plan: &Plan, number: u32, a: &super::peer::Call, carriers: &[Peer]) {
        if plan.weather.loss > 0 || plan.weather.duplicate > 0 {
            return;
        }
        let Some(planned) = plan.calls.iter().find(|call| call.number == number) else { return };
        let dies = planned
            .carriers
            .iter()
            .chain([&planned.caller])
            .flatten()
            .any(|act| matches!(act, Act::Die { .. }));
        let cancels = planned.caller.iter().any(|act| matches!(act, Act::Cancel { .. }));
        if let Some(psaps) = &planned.psaps {
            return self.emergency(number, a, psaps, cancels, carriers);
        }
        if dies || cancels {
            return;
        }
        let answers = |acts: &[Act]| acts.iter().any(|act| matches!(act, Act::Answer { .. }));
        let refuses = |acts: &[Act], with: u16| {
            acts.iter().any(|act| matches!(act, Act::Refuse { code, .. } if *code == with))
        };
        let [first, second] = &planned.carriers;
        let expected_answer = answers(first) || (refuses(first, 503) && answers(second));
        if a.outcome.answered != expected_answer {
            self.fault(format!(
                "call {number}: in fair weather answered={}, planned {expected_answer}",
                a.outcome.answered
            ));
        }
        if refuses(first, 486) {
            if a.outcome.refused != Some(486) {
                self.fault(format!("call {number}: busy came out as {:?}", a.outcome.refused));
            }
            if carriers[1].calls.get(&number).is_some_and(super::peer::Call::took_part) {
                self.fault(format!("call {number}: tried another trunk after 486"));
            }
        }
    }

    /// An emergency call goes through the chain in its order until somebody answers, and nowhere
    /// else (EM-50, EM-51).
    fn emergency(
        &mut self,
        number: u32,
        a: &super::peer::Call,
        psaps: &[Vec<Act>],
        cancels: bool,
        callees: &[Peer],
    ) {
        let took_part = |peer: &Peer| peer.calls.get(&number).is_some_and(|call| call.took_part());
        let (carriers, chain) = callees.split_at(2);
        if carriers.iter().any(took_part) {
            self.fault(format!("call {number}: 911 reached an ordinary carrier"));
        }
        if cancels {
            return;
        }
        if !a.outcome.answered {
            self.fault(format!("call {number}: 911 was not answered: {:?}", a.outcome));
        }
        let answers = |acts: &Vec<Act>| acts.iter().any(|act| matches!(act, Act::Answer { .. }));
        let first = psaps.iter().position(answers).unwrap_or(psaps.len());
        for (place, peer) in chain.iter().enumerate() {
            if took_part(peer) != (place <= first) {
                self.fault(format!("call {number}: 911 and place {place} of its chain"));
            }
        }
    }
}
