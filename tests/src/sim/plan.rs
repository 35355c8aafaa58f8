//! What happens in a run, drawn from the seed before it starts.

use super::{act::Act, rng::Rng};

/// The network of one run, in thousandths and milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub loss: u64,
    pub duplicate: u64,
    pub delay_ms: (u64, u64),
}

/// One call of a run.
#[derive(Clone, Debug)]
pub struct PlannedCall {
    pub number: u32,
    pub at_ms: u64,
    /// What the caller dials; the last six digits are the number of the call.
    pub user: String,
    pub(super) caller: Vec<Act>,
    /// What each carrier does, in the order in which the route tries them.
    pub(super) carriers: [Vec<Act>; 2],
    /// What each PSAP does, in the order of the chain; of an emergency call.
    pub(super) psaps: Option<[Vec<Act>; 3]>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub weather: Weather,
    pub calls: Vec<PlannedCall>,
    /// When the process ends without a word.
    pub crashes: Vec<Crash>,
}

/// One end of the process, and the start of the next.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// In this turn of an engine, counted over all of them from the start of the run.
    pub turn: u64,
    pub at: Moment,
    /// How long nobody listens.
    pub down_ms: u64,
}

/// Where in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing of the turn is written down, and nothing was sent.
    BeforeRecords,
    /// The records are written, and nothing was sent.
    BeforeSends,
    AfterSends,
}

impl Plan {
    /// Draws a run from `seed`: one in three in fair weather, where every call must succeed as
    /// planned; the others with up to 10 % loss, repeats and reordering.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let weather = if rng.chance(333) {
            Weather { loss: 0, duplicate: 0, delay_ms: (1, 1) }
        } else {
            Weather {
                loss: rng.below(100),
                duplicate: rng.below(60),
                delay_ms: (1, rng.between(1, 120)),
            }
        };
        let count = rng.between(1, 6);
        let calls = (0..count)
            .map(|index| {
                let number = u32::try_from(index).unwrap_or_default() + 1;
                if rng.chance(150) {
                    return emergency(&mut rng, number);
                }
                let mut caller = caller_acts(&mut rng);
                let mut carriers = [callee_acts(&mut rng), callee_acts(&mut rng)];
                if rng.chance(150) {
                    glare(&mut rng, &mut caller, &mut carriers);
                }
                if caller.iter().any(Act::is_death) {
                    // With both parties silent in an answered call nobody is left to end it but
                    // the limit of its duration.
                    carriers.iter_mut().for_each(|acts| acts.retain(|act| !act.is_death()));
                }
                PlannedCall {
                    number,
                    at_ms: rng.below(3_000),
                    user: format!("+1404{number:07}"),
                    caller,
                    carriers,
                    psaps: None,
                }
            })
            .collect();
        Self { seed, weather, calls, crashes: Vec::new() }
    }

    /// As [`Self::draw`], with one to three ends of the process at any step.
    #[must_use]
    pub fn draw_with_crashes(seed: u64) -> Self {
        let mut plan = Self::draw(seed);
        let mut rng = Rng::new(seed ^ 0xdead);
        let mut turn = 0;
        for _ in 0..rng.between(1, 3) {
            turn += rng.between(1, 60);
            let at = match rng.below(3) {
                0 => Moment::BeforeRecords,
                1 => Moment::BeforeSends,
                _ => Moment::AfterSends,
            };
            plan.crashes.push(Crash { turn, at, down_ms: rng.between(1, 900) });
        }
        plan
    }
}

/// A 911 call to a chain of three PSAPs, of which the first two may be dead, busy or in trouble. The
/// last one answers.
fn emergency(rng: &mut Rng, number: u32) -> PlannedCall {
    let mut caller = caller_acts(rng);
    // Nothing but the parties themselves may end an answered emergency call (EM-61).
    caller.retain(|act| !act.is_death());
    let answer = |rng: &mut Rng| {
        vec![
            Act::Answer {
                ring_ms: rng.below(400),
                after_ms: rng.below(1_500),
                early_sdp: rng.chance(300),
            },
            Act::Bye { after_ms: rng.between(0, 8_000) },
        ]
    };
    let trouble = |rng: &mut Rng| match rng.below(5) {
        0 => vec![Act::Die { after_ms: 0 }],
        1 => vec![Act::Refuse { code: 503, after_ms: rng.below(800) }],
        2 => vec![Act::Refuse { code: 486, after_ms: rng.below(800) }],
        _ => answer(rng),
    };
    PlannedCall {
        number,
        at_ms: rng.below(3_000),
        user: ["911", "9911"][usize::try_from(rng.below(2)).unwrap_or(0)].to_owned(),
        caller,
        carriers: [Vec::new(), Vec::new()],
        psaps: Some([trouble(rng), trouble(rng), answer(rng)]),
    }
}

/// Both parties make an offer at nearly the same time (RFC 3261 14.1, RFC 3311 5.2).
fn glare(rng: &mut Rng, caller: &mut Vec<Act>, carriers: &mut [Vec<Act>; 2]) {
    let at = rng.between(200, 4_000);
    for acts in std::iter::once(caller).chain(carriers) {
        let after_ms = at + rng.below(60);
        acts.push(if rng.chance(500) {
            Act::Reinvite { after_ms }
        } else {
            Act::Update { after_ms }
        });
    }
}

fn caller_acts(rng: &mut Rng) -> Vec<Act> {
    let mut acts = Vec::new();
    if rng.chance(200) {
        acts.push(Act::Cancel { after_ms: rng.below(1_500) });
    }
    in_dialog_acts(rng, &mut acts);
    // Somebody always hangs up: a call that nobody ends lasts until the limit of its duration.
    acts.push(Act::Bye { after_ms: rng.between(0, 8_000) });
    if rng.chance(60) {
        acts.push(Act::Die { after_ms: rng.below(6_000) });
    }
    acts
}

fn callee_acts(rng: &mut Rng) -> Vec<Act> {
    let mut acts = Vec::new();
    match rng.below(10) {
        0 => acts.push(Act::Refuse { code: 486, after_ms: rng.below(800) }),
        1 => acts.push(Act::Refuse { code: 503, after_ms: rng.below(800) }),
        2 => acts.push(Act::Ring { ring_ms: rng.below(500) }),
        _ => acts.push(Act::Answer {
            ring_ms: rng.below(400),
            after_ms: rng.below(1_500),
            early_sdp: rng.chance(300),
        }),
    }
    in_dialog_acts(rng, &mut acts);
    acts.push(Act::Bye { after_ms: rng.between(0, 8_000) });
    if rng.chance(60) {
        acts.push(Act::Die { after_ms: rng.below(6_000) });
    }
    acts
}

fn in_dialog_acts(rng: &mut Rng, acts: &mut Vec<Act>) {
    if rng.chance(300) {
        acts.push(Act::Reinvite { after_ms: rng.below(6_000) });
    }
    if rng.chance(200) {
        let method = ["INFO", "UPDATE", "OPTIONS"][usize::try_from(rng.below(3)).unwrap_or(0)];
        acts.push(Act::Request { method, after_ms: rng.below(6_000) });
    }
}
