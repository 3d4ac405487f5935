//! How often guesses hold, by their place in a draft.

/// What is assumed of the first guess, and how many observations that is worth.
const PRIOR: (f64, f64) = (0.5, 2.0);
/// What remains of earlier observations with each new one.
const KEEP: f64 = 0.9;

/// Of late: how often the guess at each place was compared, and how often it held. A guess is compared if all before it
/// held.
#[derive(Debug, Default)]
pub(crate) struct Odds(Vec<(f64, f64)>);

impl Odds {
    /// The chances of the first guess, of the second if the first holds, and so on without end. Of a place that was
    /// hardly seen, what is known of the place before it is assumed.
    pub fn chances(&self) -> impl Iterator<Item = f64> {
        let mut assumed = PRIOR.0;
        let known = self.0.iter().copied().chain(std::iter::repeat((0.0, 0.0)));
        known.map(move |(compared, held)| {
            assumed = (assumed * PRIOR.1 + held) / (PRIOR.1 + compared);
            assumed
        })
    }

    /// The first `accepted` guesses held, and the next did not or was not compared.
    pub fn observe(&mut self, accepted: usize, rejected: bool) {
        let compared = accepted + usize::from(rejected);
        if self.0.len() < compared {
            self.0.resize(compared, (0.0, 0.0));
        }
        for (place, (count, held)) in self.0.iter_mut().take(compared).enumerate() {
            *count = *count * KEEP + 1.0;
            *held = *held * KEEP + f64::from(u8::from(place < accepted));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_outweighs_what_is_assumed() {
        let mut odds = Odds::default();
        assert_eq!(odds.chances().take(3).collect::<Vec<_>>(), [PRIOR.0; 3]);
        for _ in 0..40 {
            odds.observe(2, true);
        }
        let chances: Vec<f64> = odds.chances().take(4).collect();
        assert!(chances[0] > 0.9 && chances[1] >= chances[0] && chances[2] < 0.2, "{chances:?}");
        assert_eq!(chances[3], chances[2], "unknown is like the place before");
        for _ in 0..40 {
            odds.observe(0, true);
        }
        assert!(odds.chances().next().unwrap() < 0.1);
        let before: Vec<f64> = odds.chances().take(4).collect();
        odds.observe(0, false);
        assert_eq!(odds.chances().take(4).collect::<Vec<_>>(), before, "nothing was compared");
    }
}
