//! Recurrent states cannot go back. A layer has room for several: the one that the last step left, the one that the next
//! step writes, and checkpoints that a chat may go back to. Which is which is the same for all layers.

use model::STATE_SLOTS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checkpoint {
    /// Tokens that made it.
    position: usize,
    slot: usize,
}

#[derive(Debug, Default)]
pub(crate) struct States {
    /// The slot that holds what the last step left.
    pub current: usize,
    kept: Vec<Checkpoint>,
}

impl States {
    /// The slot that the next step writes.
    pub fn next(&self) -> usize {
        let free = |slot: &usize| *slot != self.current && self.kept.iter().all(|kept| kept.slot != *slot);
        // There are always two slots more than checkpoints.
        (0..STATE_SLOTS).find(free).unwrap_or(self.current)
    }

    /// A step has ended.
    pub fn advance(&mut self) {
        self.current = self.next();
    }

    /// Keeps the state after `position` tokens, in place of the oldest one.
    pub fn keep(&mut self, position: usize) {
        if position == 0 || self.kept.iter().any(|kept| kept.position == position) {
            return;
        }
        if self.kept.len() + 2 == STATE_SLOTS {
            self.kept.remove(0);
        }
        self.kept.push(Checkpoint { position, slot: self.current });
    }

    /// Goes back to the last checkpoint within the first `wanted` tokens, and says where that is.
    pub fn rewind(&mut self, wanted: usize) -> usize {
        self.kept.retain(|kept| kept.position <= wanted);
        match self.kept.last() {
            Some(checkpoint) => {
                self.current = checkpoint.slot;
                checkpoint.position
            }
            None => 0,
        }
    }

    /// All states are gone.
    pub fn clear(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_never_write_what_is_kept() {
        let mut states = States::default();
        let mut known = Vec::new();
        for position in 1..40 {
            states.advance();
            assert!(known.iter().all(|(_, slot)| *slot != states.current));
            if position % 7 == 0 {
                states.keep(position);
                known.push((position, states.current));
                if known.len() > STATE_SLOTS - 2 {
                    known.remove(0);
                }
            }
        }
        assert_eq!(known, [(28, states.kept[0].slot), (35, states.kept[1].slot)]);
        assert_eq!((states.rewind(34), states.current), (28, known[0].1));
        assert_eq!(states.rewind(27), 0);
    }
}
