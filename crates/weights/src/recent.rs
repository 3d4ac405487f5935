//! Which things are in memory: the most recently used ones, within a number of bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Counts what is held, and says what has to go. It holds nothing itself.
#[derive(Debug)]
pub struct Recent<K> {
    budget: u64,
    held: u64,
    clock: u64,
    /// When each was used last, and its bytes.
    uses: HashMap<K, (u64, u64)>,
    by_use: BTreeMap<u64, K>,
}

impl<K: Copy + Eq + Hash> Recent<K> {
    pub fn new(budget: u64) -> Recent<K> {
        Recent { budget, held: 0, clock: 0, uses: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// Bytes of what is held.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// A thing of `bytes` bytes is used now. True: it was not there.
    pub fn touch(&mut self, key: K, bytes: u64) -> bool {
        self.clock += 1;
        let before = self.uses.insert(key, (self.clock, bytes));
        if let Some((at, bytes)) = before {
            self.by_use.remove(&at);
            self.held -= bytes;
        }
        self.by_use.insert(self.clock, key);
        self.held += bytes;
        before.is_none()
    }

    /// Gives up one thing if there is more than the budget: the one whose last use is longest ago, but none of the last
    /// `in_use` that were touched. To be called until there is nothing to give up.
    pub fn give_up(&mut self, in_use: usize) -> Option<K> {
        if self.held <= self.budget || self.by_use.len() <= in_use {
            return None;
        }
        let (_, key) = self.by_use.pop_first()?;
        self.remove(key);
        Some(key)
    }

    fn remove(&mut self, key: K) {
        if let Some((_, bytes)) = self.uses.remove(&key) {
            self.held -= bytes;
        }
    }

    /// Gives up everything.
    pub fn drain(&mut self) -> Vec<K> {
        self.held = 0;
        self.by_use.clear();
        self.uses.drain().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut recent = Recent::new(30);
        for key in 0..3 {
            assert!(recent.touch(key, 10));
            assert_eq!(recent.give_up(1), None);
        }
        assert!(!recent.touch(0, 10));
        assert!(recent.touch(3, 10));
        assert_eq!((recent.give_up(1), recent.give_up(1), recent.held()), (Some(1), None, 30));
        // What is in use stays, also beyond the budget.
        assert!(recent.touch(4, 25) && recent.touch(5, 25));
        let given: Vec<u32> = std::iter::from_fn(|| recent.give_up(2)).collect();
        assert_eq!((given, recent.held()), (vec![2, 0, 3], 50));
        assert_eq!(recent.give_up(1), Some(4));
        assert_eq!((recent.drain(), recent.held(), recent.give_up(0)), (vec![5], 0, None));
        assert!(recent.touch(5, 1));
    }
}
