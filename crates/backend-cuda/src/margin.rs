//! What is left to other programs of a GPU's memory, for plans and for layers that come without having been planned.

use std::time::{Duration, Instant};

/// What is left to them in any case, in bytes: windows and browsers take and give this much all the time.
pub const LEAST: u64 = 256 << 20;
/// What they had more a while ago counts half after this time, and this part of the whole memory at most: one that has ended,
/// such as a game, shall not be waited for.
const HALF_LIFE: Duration = Duration::from_secs(60);
const MOST_SWING: u64 = 16;

/// How much of a GPU's memory other programs use, and used not long ago: the margin follows it.
#[derive(Default)]
pub(crate) struct Others {
    /// Bytes that they had more than now, and when that was so.
    swing: Option<(u64, Instant, u64)>,
}

impl Others {
    /// Bytes of `total` to leave free, when others have `now` at this time: what they had before they may want again. What
    /// never changes may be counted to theirs.
    pub fn margin(&mut self, now: u64, total: u64, at: Instant) -> u64 {
        let before = self.swing.map_or(0, |(most, then, had)| {
            let halves = at.saturating_duration_since(then).as_secs_f64() / HALF_LIFE.as_secs_f64();
            had + (most.saturating_sub(had) as f64 * 0.5f64.powf(halves)) as u64
        });
        let most = before.max(now);
        self.swing = Some((most, at, now));
        LEAST + (most - now).min(total / MOST_SWING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_follows_what_others_used_and_forgets_it() {
        let (mut others, start) = (Others::default(), Instant::now());
        let mut margin = |seconds: u64, now: u64| others.margin(now, 100_000, start + Duration::from_secs(seconds));
        assert_eq!(margin(0, 1000), LEAST);
        assert_eq!(margin(1, 5000), LEAST, "more is gone already");
        // Less now: it may come again, and counts less with time.
        assert_eq!(margin(1, 1000), LEAST + 4000);
        assert_eq!(margin(61, 1000), LEAST + 2000);
        assert_eq!(margin(181, 1000), LEAST + 500);
        assert_eq!(margin(182, 90_000), LEAST);
        assert_eq!(margin(182, 1000), LEAST + 100_000 / 16, "a large program that has ended");
    }
}
