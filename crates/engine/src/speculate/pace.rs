//! How many guesses are worth computing along with a token: what they cost against how many of them hold.
//!
//! Time is told, never asked for. The unit of cost is a step of one row.

use super::odds::Odds;
use std::collections::{BTreeMap, VecDeque};

/// Where guesses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Lookup,
    Model,
}

/// One step as it turned out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Step {
    /// Tokens fed.
    pub rows: usize,
    /// Where the guesses among them came from, and how many there were.
    pub guesses: Option<(Source, usize)>,
    /// How many held.
    pub accepted: usize,
    /// The one after them did not: without that, nothing is known of the rest.
    pub rejected: bool,
    /// For the step, and for making the guesses.
    pub seconds: f64,
    pub guess_seconds: f64,
}

/// Guesses are made only while what they cost stays within this share of all time, beyond what they won.
const MAY_LOSE: f64 = 0.02;
/// Steps that the memory of losses reaches back to.
const MEMORY: f64 = 1000.0;
/// A forecast must promise this much, because it is one.
const MARGIN: f64 = 1.03;
/// Cost of one more row as long as nothing of the kind was measured.
const ROW: f64 = 0.25;
/// Steps without guesses until they are tried again, at first and at most.
const WAIT: (u32, u32) = (8, 1024);
/// Steps with guesses after which one is made without, to know what that costs now.
const PLAIN_EVERY: u32 = 32;

#[derive(Debug)]
pub(crate) struct Pace {
    lookup: Odds,
    model: Odds,
    /// Seconds of a step of one row.
    plain: Recent,
    /// Cost of a step by its rows.
    costs: BTreeMap<usize, Recent>,
    /// A large micro-batch of a prompt: what costs tend to with more rows.
    prompt: Option<(usize, f64)>,
    /// Cost of a guess of the draft model.
    guess: Recent,
    /// Recurrent states: what was accepted of a failed draft is computed again.
    repeats: bool,
    /// Seconds, of late: all, and those beyond what the same tokens would have taken one by one.
    spent: f64,
    lost: f64,
    /// Steps without guesses so far, and how many of them are to be.
    idle: u32,
    wait: u32,
    /// Steps with guesses since one without.
    drafted: u32,
}

/// The last few measurements of one thing.
#[derive(Debug, Default)]
struct Recent {
    values: VecDeque<f64>,
    /// The median, the lower one of two: what disturbs a measurement makes it larger. Kept, because it is asked for often.
    typical: Option<f64>,
}

impl Recent {
    fn push(&mut self, value: f64) {
        if self.values.len() == 5 {
            self.values.pop_front();
        }
        self.values.push_back(value);
        let mut sorted: Vec<f64> = self.values.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        self.typical = sorted.get((sorted.len() - 1) / 2).copied();
    }
}

impl Pace {
    pub fn new(repeats: bool) -> Pace {
        Pace {
            lookup: Odds::default(),
            model: Odds::default(),
            plain: Recent::default(),
            costs: BTreeMap::new(),
            prompt: None,
            guess: Recent::default(),
            repeats,
            spent: 0.0,
            lost: 0.0,
            idle: 0,
            wait: WAIT.0,
            drafted: 0,
        }
    }

    /// Another text begins: what was learned of the last one's repetitions does not hold of it.
    pub fn begin(&mut self) {
        self.lookup = Odds::default();
        (self.idle, self.wait) = (0, WAIT.0);
    }

    /// Layers have moved: what was measured does not hold any more.
    pub fn forget_costs(&mut self) {
        self.plain = Recent::default();
        self.guess = Recent::default();
        self.costs.clear();
        self.prompt = None;
    }

    /// A prompt's micro-batch of `rows` took so long.
    pub fn prompt(&mut self, rows: usize, seconds: f64) {
        if rows > 1 {
            self.prompt = Some((rows, seconds));
        }
    }

    /// Which of the offers to take, and how many guesses of it. `offers` says how many there are at most; `pending`
    /// tokens have to be fed besides the next one in any case.
    pub fn choose(&mut self, offers: &[(Source, usize)], pending: usize) -> Option<(Source, usize)> {
        let best = self.best(offers, pending)?;
        if self.drafted >= PLAIN_EVERY || self.lost > MAY_LOSE * self.spent + self.plain.typical? {
            return None;
        }
        let (source, count, gain) = best;
        if gain > MARGIN {
            return Some((source, count));
        }
        self.idle += 1;
        if self.idle < self.wait {
            return None;
        }
        (self.idle, self.wait) = (0, (self.wait * 2).min(WAIT.1));
        Some((source, count))
    }

    /// The offer with the most tokens for its cost, and how that compares with one token for the cost of one.
    fn best(&self, offers: &[(Source, usize)], pending: usize) -> Option<(Source, usize, f64)> {
        self.plain.typical?;
        let mut best: Option<(Source, usize, f64)> = None;
        for &(source, available) in offers {
            let (odds, guess) = match source {
                Source::Lookup => (&self.lookup, 0.0),
                Source::Model => (&self.model, self.guess.typical.unwrap_or(ROW)),
            };
            // Tokens of the step, the chance that all guesses up to here hold, and what those that hold cost once more.
            let (mut tokens, mut chance, mut again) = (1.0, 1.0, 0.0);
            for (index, holds) in odds.chances().take(available).enumerate() {
                let count = index + 1;
                if self.repeats {
                    again += chance * (1.0 - holds) * (self.cost(count + 1) - 1.0);
                }
                chance *= holds;
                tokens += chance;
                let more = self.cost(pending + 1 + count) - self.cost(pending + 1);
                let gain = tokens / (1.0 + more + guess * count as f64 + again);
                if best.is_none_or(|(.., known)| gain > known) {
                    best = Some((source, count, gain));
                }
            }
        }
        best
    }

    /// Cost of a step of so many rows: as measured, or on the line between the nearest that were.
    fn cost(&self, rows: usize) -> f64 {
        let plain = self.plain.typical.unwrap_or(1.0);
        let prompt = self.prompt.map(|(rows, seconds)| (rows, seconds / plain));
        let measured = self.costs.iter().filter_map(|(rows, recent)| Some((*rows, recent.typical?)));
        let (mut below, mut above) = ((1, 1.0), None);
        for (at, cost) in measured.chain(prompt) {
            if at <= rows && at >= below.0 {
                below = (at, cost);
            } else if at > rows && above.is_none_or(|(known, _)| at < known) {
                above = Some((at, cost));
            }
        }
        let slope = above.map_or(ROW, |(at, cost): (usize, f64)| (cost - below.1) / (at - below.0) as f64);
        (below.1 + slope * (rows - below.0.min(rows)) as f64).max(1.0)
    }

    /// A step has been made and its guesses were compared.
    pub fn observe(&mut self, step: &Step) {
        let usable = |seconds: f64| seconds.is_finite() && seconds > 0.0;
        if !usable(step.seconds) || !(step.guess_seconds >= 0.0) {
            return;
        }
        match step.guesses {
            None if step.rows == 1 => {
                self.plain.push(step.seconds);
                self.drafted = 0;
            }
            None => {}
            Some((source, count)) => {
                self.drafted += 1;
                match source {
                    Source::Lookup => self.lookup.observe(step.accepted, step.rejected),
                    Source::Model => self.model.observe(step.accepted, step.rejected),
                }
                if let (Source::Model, Some(plain)) = (source, self.plain.typical) {
                    self.guess.push(step.guess_seconds / plain / count.max(1) as f64);
                }
            }
        }
        let Some(plain) = self.plain.typical else { return };
        if step.rows > 1 {
            self.costs.entry(step.rows).or_default().push(step.seconds / plain);
        }
        let (keep, seconds) = (1.0 - 1.0 / MEMORY, step.seconds + step.guess_seconds);
        self.spent = self.spent * keep + seconds;
        let worth = plain * (step.accepted + 1) as f64;
        if step.guesses.is_some() || step.rows > 1 {
            // Wins are not saved up: a text that was easy does not pay for the next one.
            self.lost = (self.lost * keep + seconds - worth).max(0.0);
        }
        if step.guesses.is_some() && seconds < worth {
            self.wait = WAIT.0;
        }
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
