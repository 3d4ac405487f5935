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
    /// What the last step began with; it lasts until the next one writes there.
    previous: Option<Checkpoint>,
    kept: Vec<Checkpoint>,
}

impl States {
    /// The slot that the next step writes.
    pub fn next(&self) -> usize {
        let free = |slot: &usize| *slot != self.current && self.kept.iter().all(|kept| kept.slot != *slot);
        // There are always two slots more than checkpoints.
        (0..STATE_SLOTS).find(free).unwrap_or(self.current)
    }

    /// A step has ended that began after `position` tokens.
    pub fn advance(&mut self, position: usize) {
        let next = self.next();
        self.previous = Some(Checkpoint { position, slot: self.current });
        self.current = next;
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

    /// Goes back to the last checkpoint within the first `wanted` tokens, or to where the last step began if that is
    /// later, and says where that is.
    pub fn rewind(&mut self, wanted: usize) -> usize {
        self.kept.retain(|kept| kept.position <= wanted);
        let previous = self.previous.take().filter(|previous| previous.position <= wanted);
        match previous.iter().chain(&self.kept).max_by_key(|checkpoint| checkpoint.position) {
            Some(checkpoint) => {
                self.current = checkpoint.slot;
                checkpoint.position
            }
            None => 0,
        }
    }

    /// The positions whose states there are, ascending, and their slots: checkpoints and what `computed` tokens left.
    pub fn slots(&self, computed: usize) -> Vec<(usize, usize)> {
        let mut slots: Vec<_> = self.kept.iter().map(|kept| (kept.position, kept.slot)).collect();
        if slots.last().is_none_or(|(position, _)| *position != computed) {
            slots.push((computed, self.current));
        }
        slots
    }

    /// States at these positions (at most [`STATE_SLOTS`] - 1, ascending) in the first slots; the last is the current one.
    pub fn placed(positions: &[usize]) -> States {
        let mut states = States::default();
        for (slot, position) in positions.iter().enumerate() {
            states.current = slot;
            if slot + 2 < STATE_SLOTS {
                states.keep(*position);
            }
        }
        states
    }

    /// All states are gone.
    pub fn clear(&mut self) {
        self.previous = None;
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
            states.advance(position - 1);
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

    #[test]
    fn the_last_step_can_be_taken_back() {
        let mut states = States::default();
        states.advance(0);
        states.keep(8);
        states.advance(8);
        let before = states.current;
        states.advance(12);
        assert_eq!((states.rewind(14), states.current), (12, before));
        // Once: where that step began is the end now.
        assert_eq!(states.rewind(11), 8);
        states.advance(8);
        states.clear();
        assert_eq!(states.rewind(20), 0);
    }
}
