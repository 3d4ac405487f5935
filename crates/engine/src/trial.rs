//! Whether guessing experts pays, by the clock: now and then, tokens with guesses and tokens without take turns. How much
//! a guess gains depends on the disk, on how busy the processors are and on what else the disk has to do; none of that
//! is known otherwise.

use std::time::Instant;

/// Tokens that are compared, in pairs of one without and one with guesses.
const TRIED: u32 = 16;
/// Pairs, of those, that must be faster with guesses.
const WON: u32 = 7;
/// Tokens until it is tried again.
const KEPT: u32 = 240;

#[derive(Debug, Default)]
pub(crate) struct Trial {
    /// The last layer that chose, how many choices, and when the token began.
    last: Option<(usize, usize, Instant)>,
    /// Tokens since the trial began.
    tokens: u32,
    /// Seconds of the first token of a pair.
    first: f64,
    won: u32,
    pays: bool,
}

impl Trial {
    /// Whether to guess during this token.
    pub fn guesses(&self) -> bool {
        if self.tokens >= TRIED { self.pays } else { Trial::with(self.tokens) }
    }

    /// Without, with, with, without: neither gains from being the later one.
    fn with(token: u32) -> bool {
        matches!(token % 4, 1 | 2)
    }

    /// Layer `layer` makes so many choices. A layer that is not after the last one begins another token.
    pub fn choice(&mut self, layer: usize, choices: usize, now: Instant) {
        match self.last {
            Some((last, before, since)) if layer <= last => {
                // Batches of other sizes take other times.
                if before == choices {
                    self.ended(now.duration_since(since).as_secs_f64());
                }
                self.last = Some((layer, choices, now));
            }
            Some((_, before, since)) => self.last = Some((layer, before.max(choices), since)),
            None => self.last = Some((layer, choices, now)),
        }
    }

    fn ended(&mut self, seconds: f64) {
        let (token, with) = (self.tokens, Trial::with(self.tokens));
        self.tokens += 1;
        if token >= TRIED {
            if self.tokens == TRIED + KEPT {
                (self.tokens, self.won) = (0, 0);
            }
        } else if token % 2 == 0 {
            self.first = seconds;
        } else {
            let (without, with) = if with { (self.first, seconds) } else { (seconds, self.first) };
            self.won += u32::from(with < without);
            if self.tokens == TRIED {
                self.pays = self.won >= WON;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// How many of `tokens` tokens have guesses, where a token takes so many milliseconds without and with them.
    fn guessed(trial: &mut Trial, tokens: u32, mut takes: impl FnMut(bool) -> u64) -> u32 {
        let mut now = Instant::now();
        let mut guessed = 0;
        for _ in 0..tokens {
            for layer in [3, 6, 9] {
                trial.choice(layer, 8, now);
                if layer == 3 {
                    guessed += u32::from(trial.guesses());
                    now += Duration::from_millis(takes(trial.guesses()));
                }
            }
        }
        guessed
    }

    #[test]
    fn what_is_faster_is_kept() {
        let mut trial = Trial::default();
        assert_eq!(guessed(&mut trial, 257, |with| if with { 90 } else { 100 }), 8 + 240);
        let mut trial = Trial::default();
        assert_eq!(guessed(&mut trial, 256, |with| if with { 101 } else { 100 }), 8, "it costs little to be tried");
        // Times that fall by themselves say nothing for it.
        let (mut trial, mut time) = (Trial::default(), 1000);
        let falling = |_| {
            time -= 10;
            time
        };
        assert_eq!(guessed(&mut trial, 64, falling), 8);
    }

    #[test]
    fn it_is_tried_again_when_things_have_changed() {
        let mut trial = Trial::default();
        guessed(&mut trial, 256, |with| if with { 110 } else { 100 });
        assert!(guessed(&mut trial, 256, |with| if with { 90 } else { 100 }) > 200);
        assert!(guessed(&mut trial, 300, |with| if with { 110 } else { 100 }) < 60);
    }

    #[test]
    fn batches_are_not_compared_with_tokens() {
        let (mut trial, mut now) = (Trial::default(), Instant::now());
        for token in 0..100u64 {
            trial.choice(0, if token % 2 == 0 { 8 } else { 4096 }, now);
            now += Duration::from_millis(token);
        }
        assert_eq!(trial.tokens, 0);
    }
}
