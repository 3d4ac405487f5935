//! Which things are in memory: the most recently used ones, within a number of bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Counts what is held, and says what has to go. It holds nothing itself.
#[derive(Debug)]
pub struct Recent<K> {
    budget: u64,
    held: u64,
    clock: i64,
    /// Before everything else: what goes first.
    before: i64,
    /// When each was used last, and its bytes.
    uses: HashMap<K, (i64, u64)>,
    by_use: BTreeMap<i64, K>,
}

impl<K: Copy + Eq + Hash> Recent<K> {
    pub fn new(budget: u64) -> Recent<K> {
        Recent { budget, held: 0, clock: 0, before: 0, uses: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// Bytes of what is held.
    pub fn held(&self) -> u64 {
        self.held
    }

    pub fn holds(&self, key: &K) -> bool {
        self.uses.contains_key(key)
    }

    /// Whether there is room for so many bytes more.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.held.saturating_add(bytes) <= self.budget
    }

    /// A thing of `bytes` bytes is used now. True: it was not there.
    pub fn touch(&mut self, key: K, bytes: u64) -> bool {
        self.clock += 1;
        self.place(key, self.clock, bytes)
    }

    /// It will not be used again soon: of all that is there, it goes first.
    pub fn let_go_first(&mut self, key: K) {
        if let Some((_, bytes)) = self.uses.get(&key).copied() {
            self.before -= 1;
            self.place(key, self.before, bytes);
        }
    }

    fn place(&mut self, key: K, at: i64, bytes: u64) -> bool {
        let before = self.uses.insert(key, (at, bytes));
        if let Some((at, bytes)) = before {
            self.by_use.remove(&at);
            self.held -= bytes;
        }
        self.by_use.insert(at, key);
        self.held += bytes;
        before.is_none()
    }

    /// Gives up one thing if there is more than the budget: the one whose last use is longest ago, but none of the last
    /// `in_use` that were touched. To be called until there is nothing to give up.
    pub fn give_up(&mut self, in_use: usize) -> Option<K> {
        self.make_room(0, in_use)
    }

    /// The same until there is room for `bytes` bytes more.
    pub fn make_room(&mut self, bytes: u64, in_use: usize) -> Option<K> {
        if self.has_room(bytes) || self.by_use.len() <= in_use {
            return None;
        }
        let (_, key) = self.by_use.pop_first()?;
        self.forget(key);
        Some(key)
    }

    /// It is not there after all.
    pub fn forget(&mut self, key: K) {
        if let Some((at, bytes)) = self.uses.remove(&key) {
            self.by_use.remove(&at);
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

    #[test]
    fn what_was_let_go_goes_before_what_was_used_earlier() {
        let mut recent = Recent::new(30);
        for key in 0..3 {
            recent.touch(key, 10);
        }
        recent.let_go_first(2);
        recent.let_go_first(7);
        assert!(recent.holds(&2) && !recent.holds(&7) && !recent.has_room(1));
        assert_eq!((recent.make_room(10, 2), recent.make_room(10, 2), recent.held()), (Some(2), None, 20));
        // Used again, it is like any other.
        recent.let_go_first(0);
        recent.touch(0, 10);
        assert_eq!(recent.make_room(20, 1), Some(1));
        recent.forget(0);
        assert_eq!((recent.held(), recent.make_room(31, 0)), (0, None));
    }
}
