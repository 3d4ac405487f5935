//! Spilling: where a system pages video memory out to RAM instead of refusing it (Windows), an allocation that goes too far
//! succeeds, and everything is slow from then on. So growing stops at what the system grants, and what has spilled in spite
//! of that counts as memory that others press for.

use crate::{Address, Driver, Failure};
use std::time::{Duration, Instant};

/// What a system grants this program of a GPU's memory, and where its allocations lie now. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// What it may have in the GPU's own memory; changes as other programs come and go.
    pub budget: u64,
    /// What it has there.
    pub local: u64,
    /// What lies in RAM although it was meant for the GPU; pinned memory is not counted.
    pub spilled: u64,
}

/// Drivers keep small things in RAM on purpose.
const NOISE: u64 = 16 << 20;
/// How long the system gets to bring back what spilled, once as much has been given up.
const SETTLE: Duration = Duration::from_secs(2);

impl Share {
    /// Bytes that can still be had without spilling.
    pub fn room(&self) -> u64 {
        self.budget.saturating_sub(self.local)
    }

    /// Whether an allocation of `bytes` since `before` lies in RAM, for the larger part.
    fn took_ram(&self, before: &Share, bytes: u64) -> bool {
        self.spilled.saturating_sub(before.spilled) > bytes / 2
    }

    /// Bytes that should not be where they are; up to [`NOISE`] may be there on purpose.
    fn excess(&self) -> u64 {
        self.local.saturating_sub(self.budget).saturating_add(self.spilled)
    }
}

/// Memory from the driver, but not beyond what the system grants.
pub(crate) fn grow(driver: &mut dyn Driver, bytes: u64) -> Result<Address, Failure> {
    let before = driver.share();
    if before.is_some_and(|share| bytes > share.room()) {
        return Err(Failure::OutOfMemory);
    }
    let start = driver.allocate(bytes)?;
    if let (Some(before), Some(now)) = (before, driver.share())
        && now.took_ram(&before, bytes)
    {
        // SAFETY: just allocated, and nobody has seen it.
        unsafe { driver.release(start) };
        return Err(Failure::OutOfMemory);
    }
    Ok(start)
}

/// What was asked back because of spilling.
#[derive(Debug, Default)]
pub(crate) struct Spills {
    /// The excess that was seen, what we had then, and when.
    asked: Option<(u64, u64, Instant)>,
}

impl Spills {
    /// Bytes to give back, when we have `ours`: as much as is in excess. What has been given back takes effect in a while,
    /// and is not asked for twice meanwhile.
    pub fn pressure(&mut self, share: Option<Share>, ours: u64, now: Instant) -> u64 {
        let excess = share.map_or(0, |share| share.excess());
        match self.asked {
            _ if excess == 0 => {
                self.asked = None;
                0
            }
            // To the end, also where the rest would not have been worth asking for.
            Some((asked, had, at)) if now.saturating_duration_since(at) < SETTLE => {
                asked.saturating_sub(had.saturating_sub(ours)).min(excess)
            }
            _ if share.is_none_or(|share| share.local <= share.budget && share.spilled <= NOISE) => {
                self.asked = None;
                0
            }
            _ => {
                self.asked = Some((excess, ours, now));
                excess
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn share(budget: u64, local: u64, spilled: u64) -> Option<Share> {
        Some(Share { budget: budget * MIB, local: local * MIB, spilled: spilled * MIB })
    }

    #[test]
    fn excess_is_what_lies_in_ram_or_above_the_budget() {
        let excess = |budget, local, spilled| share(budget, local, spilled).unwrap().excess() / MIB;
        assert_eq!([excess(100, 60, 0), excess(100, 60, 17)], [0, 17]);
        assert_eq!([excess(100, 130, 0), excess(100, 130, 50), excess(0, 0, 0)], [30, 80, 0]);
        assert_eq!(share(100, 60, 50).unwrap().room(), 40 * MIB);
        assert_eq!(share(100, 101, 0).unwrap().room(), 0);
    }

    #[test]
    fn an_allocation_that_went_to_ram_is_recognised() {
        let (before, half) = (share(100, 60, 10).unwrap(), share(100, 60, 14).unwrap());
        assert!(!half.took_ram(&before, 8 * MIB), "half of it may be chance");
        assert!(share(100, 60, 15).unwrap().took_ram(&before, 8 * MIB));
        assert!(!share(100, 68, 0).unwrap().took_ram(&before, 8 * MIB));
    }

    #[test]
    fn what_spilled_is_asked_for_once_and_again_if_that_did_not_help() {
        let (mut spills, start) = (Spills::default(), Instant::now());
        let mut at = |ms, share, ours| spills.pressure(share, ours * MIB, start + Duration::from_millis(ms)) / MIB;
        assert_eq!(at(0, None, 500), 0);
        assert_eq!(at(0, share(1000, 500, 0), 500), 0);
        assert_eq!(at(1, share(1000, 500, 16), 500), 0, "drivers have something there");
        assert_eq!(at(10, share(1000, 450, 50), 500), 50);
        // Given back in steps; the system's figures come at once, or later.
        assert_eq!(at(11, share(1000, 450, 10), 460), 10);
        assert_eq!(at(11, share(1000, 450, 50), 480), 30);
        assert_eq!(at(12, share(1000, 450, 50), 440), 0);
        assert_eq!(at(1900, share(1000, 450, 50), 440), 0);
        assert_eq!(at(2100, share(1000, 400, 40), 440), 40, "it did not help");
        assert_eq!(at(2200, share(1000, 400, 0), 400), 0);
        assert_eq!(at(2300, share(300, 400, 0), 400), 100, "others have come");
    }
}
