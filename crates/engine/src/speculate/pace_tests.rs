//! The controller on machines and texts that are made up.

use super::*;

/// A machine: seconds for a step of so many rows.
type Machine = fn(usize) -> f64;

/// One more row costs as much as the first: nothing can be won.
fn busy(rows: usize) -> f64 {
    0.05 * rows as f64
}

/// Memory is all that counts.
fn idle(rows: usize) -> f64 {
    0.05 * (1.0 + 0.02 * (rows - 1) as f64)
}

/// Rows one after the other up to 3, from 4 on weights are unpacked first (as on a CPU with two cores).
fn panels(rows: usize) -> f64 {
    0.05 * if rows < 4 { 1.0 + 0.65 * (rows - 1) as f64 } else { 4.0 + 0.15 * rows as f64 }
}

/// A text: by the number of tokens so far, how many guesses there are and how many of them hold.
type Text<'a> = &'a mut dyn FnMut(usize) -> (usize, usize);

struct Outcome {
    /// Time against that of a run without guesses.
    ratio: f64,
    drafted: usize,
}

const MAX: usize = 15;

struct Run {
    pace: Pace,
    source: Source,
    /// Seconds for one guess.
    guess: f64,
    seconds: f64,
    made: usize,
    drafted: usize,
    pending: usize,
}

impl Run {
    fn new(source: Source, guess: f64, repeats: bool) -> Run {
        let mut pace = Pace::new(repeats);
        pace.begin();
        Run { pace, source, guess, seconds: 0.0, made: 0, drafted: 0, pending: 0 }
    }

    /// Makes `tokens` more.
    fn go(&mut self, machine: &mut dyn FnMut(usize) -> f64, text: Text<'_>, tokens: usize) {
        let end = self.made + tokens;
        while self.made < end {
            let (available, holding) = text(self.made);
            let offer = [(self.source, available.min(MAX))];
            let choice = self.pace.choose(&offer, self.pending).filter(|(_, count)| *count > 0);
            let count = choice.map_or(0, |(_, count)| count);
            let rows = self.pending + 1 + count;
            let accepted = holding.min(count);
            let (seconds, guess_seconds) = (machine(rows), self.guess * count as f64);
            let rejected = accepted < count;
            self.pace.observe(&Step { rows, guesses: choice, accepted, rejected, seconds, guess_seconds });
            self.pending = if self.pace.repeats && rejected { self.pending + accepted + 1 } else { 0 };
            self.seconds += seconds + guess_seconds;
            self.made += accepted + 1;
            self.drafted += count;
        }
    }

    fn outcome(&self, machine: Machine) -> Outcome {
        Outcome { ratio: self.seconds / (machine(1) * self.made as f64), drafted: self.drafted }
    }
}

fn run(machine: Machine, text: Text<'_>, tokens: usize) -> Outcome {
    let mut run = Run::new(Source::Lookup, 0.0, false);
    run.pace.prompt(512, machine(512));
    run.go(&mut { machine }, text, tokens);
    run.outcome(machine)
}

/// Yes with a chance of `share`, the same every time.
fn chance(share: f64) -> impl FnMut() -> bool {
    let mut state = 88_172_645_463_325_252u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 / (1u64 << 53) as f64) < share
    }
}

/// As many in a row as hold with this chance each.
fn geometric(share: f64) -> impl FnMut(usize) -> (usize, usize) {
    let mut holds = chance(share);
    move |_| (MAX, (0..MAX).take_while(|_| holds()).count())
}

#[test]
fn guesses_that_fail_cost_next_to_nothing() {
    for machine in [busy as Machine, idle, panels] {
        for tokens in [200, 1000, 20_000] {
            let outcome = run(machine, &mut |_| (MAX, 0), tokens);
            assert!(outcome.ratio <= 1.03 + 5.0 / tokens as f64, "{} after {tokens}", outcome.ratio);
            assert!(outcome.drafted > 0, "it was tried");
        }
    }
}

#[test]
fn where_rows_are_dear_no_guess_pays_and_few_are_made() {
    for share in [0.2, 0.5, 0.9] {
        let outcome = run(busy, &mut geometric(share), 5000);
        assert!(outcome.ratio <= 1.03, "{share}: {}", outcome.ratio);
        assert!(outcome.drafted < 500, "{share}: {}", outcome.drafted);
    }
}

#[test]
fn where_rows_are_cheap_what_holds_is_won() {
    // All 15 of a draft could be had for 1.3 times the cost of one.
    assert!(run(idle, &mut |_| (MAX, MAX), 2000).ratio < 0.13);
    assert!(run(idle, &mut geometric(0.8), 2000).ratio < 0.35);
    assert!(run(idle, &mut geometric(0.3), 2000).ratio < 0.9);
}

/// Few rows lose there, many win: it must be found out without having been measured.
#[test]
fn a_valley_of_costs_is_crossed() {
    let copied = run(panels, &mut |_| (MAX, MAX), 2000);
    // 16 tokens for 6.4.
    assert!(copied.ratio < 0.5, "{}", copied.ratio);
    // A guess for every second token, of which nine in ten are right to the end.
    let mut good = chance(0.9);
    let mixed = run(panels, &mut |_| if good() { (MAX, MAX) } else { (MAX, 0) }, 2000);
    assert!(mixed.ratio < 0.65, "{}", mixed.ratio);
}

#[test]
fn it_is_tried_again_at_growing_intervals_and_taken_up_when_it_pays() {
    let mut tries = Vec::new();
    let mut simulation = Run::new(Source::Lookup, 0.0, false);
    for token in 0..3000 {
        let before = simulation.drafted;
        simulation.go(&mut { panels }, &mut |_| (MAX, 0), 1);
        if simulation.drafted > before {
            tries.push(token);
        }
    }
    let gaps: Vec<usize> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() > 4, "{gaps:?}");
    assert!(gaps[gaps.len() - 1] >= 256 && gaps[0] <= 64, "{gaps:?}");
    // Now the text repeats itself.
    let (made, seconds) = (simulation.made, simulation.seconds);
    simulation.go(&mut { panels }, &mut |_| (MAX, MAX), 6000);
    let ratio = (simulation.seconds - seconds) / (panels(1) * (simulation.made - made) as f64);
    assert!(ratio < 0.6, "{ratio}");
    // And no longer.
    let (made, seconds) = (simulation.made, simulation.seconds);
    simulation.go(&mut { panels }, &mut |_| (MAX, 0), 2000);
    let ratio = (simulation.seconds - seconds) / (panels(1) * (simulation.made - made) as f64);
    assert!(ratio < 1.04, "{ratio}");
}

#[test]
fn a_draft_model_pays_if_it_is_fast_and_right() {
    let of = |guess: f64, share: f64, machine: Machine| {
        let mut simulation = Run::new(Source::Model, guess, false);
        simulation.go(&mut { machine }, &mut geometric(share), 3000);
        simulation.outcome(machine).ratio
    };
    assert!(of(0.005, 0.9, idle) < 0.45);
    assert!(of(0.045, 0.9, idle) <= 1.03, "as slow as the model itself");
    assert!(of(0.005, 0.05, idle) <= 1.03, "never right");
    assert!(of(0.005, 0.9, busy) <= 1.03);
}

#[test]
fn the_better_source_is_taken() {
    let mut pace = Pace::new(false);
    for _ in 0..5 {
        pace.observe(&Step { rows: 1, seconds: 0.05, ..Step::default() });
    }
    let step = |source, accepted, guess_seconds| Step {
        rows: 9,
        guesses: Some((source, 8)),
        accepted,
        rejected: accepted < 8,
        seconds: idle(9),
        guess_seconds,
    };
    for _ in 0..10 {
        pace.observe(&step(Source::Lookup, 8, 0.0));
        pace.observe(&step(Source::Model, 4, 0.02));
    }
    let both = [(Source::Lookup, 8), (Source::Model, 8)];
    assert_eq!(pace.choose(&both, 0), Some((Source::Lookup, 8)));
    assert!(matches!(pace.choose(&[(Source::Lookup, 0), (Source::Model, 8)], 0), Some((Source::Model, 1..=6))));
    assert_eq!(pace.choose(&[(Source::Lookup, 0)], 0), None);
}

/// Recurrent states: a draft that fails is partly computed again.
#[test]
fn what_must_be_repeated_is_counted() {
    for (machine, share, most) in [(busy as Machine, 0.7, 1.03), (panels, 0.5, 1.04), (idle, 0.8, 0.5)] {
        let mut simulation = Run::new(Source::Lookup, 0.0, true);
        simulation.go(&mut { machine }, &mut geometric(share), 4000);
        let ratio = simulation.outcome(machine).ratio;
        assert!(ratio < most, "{share}: {ratio}");
    }
}

#[test]
fn a_disturbed_machine_is_not_mistaken_for_a_slow_one() {
    let mut slow = chance(0.1);
    let mut machine = |rows| idle(rows) * if slow() { 5.0 } else { 1.0 };
    let mut simulation = Run::new(Source::Lookup, 0.0, false);
    simulation.go(&mut machine, &mut |_| (MAX, MAX), 3000);
    // A tenth of the steps takes five times as long with guesses as without.
    assert!(simulation.outcome(idle).ratio / 1.4 < 0.25, "{}", simulation.outcome(idle).ratio);
}

#[test]
fn the_machine_may_change() {
    let mut simulation = Run::new(Source::Lookup, 0.0, false);
    simulation.go(&mut { idle }, &mut |_| (MAX, 6), 1000);
    let seconds = simulation.seconds;
    // Layers have moved.
    simulation.pace.forget_costs();
    let made = simulation.made;
    simulation.go(&mut { busy }, &mut |_| (MAX, 6), 3000);
    let ratio = (simulation.seconds - seconds) / (busy(1) * (simulation.made - made) as f64);
    assert!(ratio < 1.04, "{ratio}");
}

#[test]
fn nonsense_is_not_learned_from() {
    let mut pace = Pace::new(false);
    for seconds in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
        pace.observe(&Step { rows: 1, seconds, ..Step::default() });
    }
    assert_eq!(pace.choose(&[(Source::Lookup, 8)], 0), None, "nothing is known of what a step costs");
}
