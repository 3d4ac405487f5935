use std::collections::{HashMap, VecDeque};

/// The last tokens, with how often each occurs among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    limit: usize,
    tokens: VecDeque<u32>,
    counts: HashMap<u32, u32>,
}

impl History {
    pub(crate) fn new(limit: u32) -> History {
        History { limit: limit as usize, ..History::default() }
    }

    pub(crate) fn push(&mut self, token: u32) {
        if self.limit == 0 {
            return;
        }
        if self.tokens.len() == self.limit {
            self.forget_oldest();
        }
        self.tokens.push_back(token);
        *self.counts.entry(token).or_default() += 1;
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.tokens.pop_front() else { return };
        if let Some(count) = self.counts.get_mut(&oldest) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.counts.clear();
    }

    /// Every token once, with its count, in no particular order.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.counts.iter().map(|(&token, &count)| (token, count))
    }
}
