//! How far a file, or several together, have been read, told now and then.

use crate::wire::FileProgress;
use std::time::{Duration, Instant};

/// How often it is told.
const TELL: Duration = Duration::from_millis(200);

pub(crate) struct Pace {
    begun: Instant,
    /// Bytes; 0: nobody knows.
    total: u64,
    told: Option<Instant>,
}

impl Pace {
    pub fn new(total: u64) -> Pace {
        Pace { begun: Instant::now(), total, told: None }
    }

    /// How far it is after so many bytes, if it is time to tell that: at once, and then now and then.
    pub fn after(&mut self, bytes: u64) -> Option<FileProgress> {
        let now = Instant::now();
        if self.told.is_some_and(|told| now - told < TELL) {
            return None;
        }
        self.told = Some(now);
        Some(far(now - self.begun, bytes, self.total))
    }
}

/// With the time that is left, once that can be told.
fn far(time: Duration, bytes: u64, total: u64) -> FileProgress {
    let left = total.saturating_sub(bytes) as f64;
    let seconds = time.as_secs_f64() * left / bytes.max(1) as f64;
    let known = total > 0 && bytes > 0 && time >= Duration::from_secs(1);
    FileProgress { bytes: bytes.min(total), total, seconds_left: known.then(|| seconds.ceil() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_once_and_then_now_and_then() {
        let mut pace = Pace::new(1000);
        assert_eq!(pace.after(0).map(|far| (far.bytes, far.total)), Some((0, 1000)));
        pace.told = Some(Instant::now() + TELL);
        assert_eq!(pace.after(1), None);
        pace.told = Instant::now().checked_sub(TELL);
        assert_eq!(pace.after(2).map(|far| far.bytes), Some(2));
    }

    #[test]
    fn the_time_that_is_left_follows_from_the_time_that_it_took() {
        let left = |bytes, total, ms| far(Duration::from_millis(ms), bytes, total).seconds_left;
        assert_eq!(left(250, 1000, 2000), Some(6));
        assert_eq!(left(1000, 1000, 2000), Some(0));
        assert_eq!(left(250, 1000, 900), None, "too early to tell");
        assert_eq!(left(250, 0, 2000), None, "of a pipe nobody knows");
        assert_eq!(left(0, 1000, 2000), None);
    }
}
