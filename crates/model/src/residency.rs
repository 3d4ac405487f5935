//! Which of the host's weights stay in RAM where not all of them fit, and how much of the rest is there at a time.
//!
//! A step uses all weights, one layer after the other. What was used longest ago is then what comes next, so keeping what
//! was used last would keep nothing of use. Instead a fixed part stays. The rest is read in time and given up
//! after use, and is spread evenly over the layers, so that the disk is as busy during one as during another.
//! Of experts, nobody knows before which are used: those used last stay.

use crate::{Layout, Model, Placement, Tensor};

/// A tensor that every step uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub tensor: Tensor,
    /// It stays in RAM.
    pub kept: bool,
}

/// What happens to the weights on the host. Bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// By layer, the output layer last: its matrices in the order of use, but for the experts'. Empty for layers elsewhere
    /// (whose experts may be here).
    pub layers: Vec<Vec<Piece>>,
    /// Weights that stay.
    pub kept: u64,
    /// What each step reads from disk.
    pub streamed: u64,
    /// How much of that is in RAM at a time: what is in use, and what was read ahead.
    pub window: u64,
    /// Experts that are in RAM at a time, those that a token uses, and all of them.
    pub experts: u64,
    pub used_experts: u64,
    pub all_experts: u64,
}

/// This part of the RAM stays free, because the system's page cache does not count to the byte.
const SLACK: u64 = 32;

impl Residency {
    /// With some layers elsewhere and `ram` bytes for the rest of the model and its buffers. `None`: all of it
    /// fits, and nothing has to be done.
    pub fn new(model: &Model, layout: &Layout, placement: &Placement, ram: u64) -> Option<Residency> {
        let host = layout.placed(placement).host;
        if host.total() <= ram {
            return None;
        }
        let mut residency = Residency::default();
        let mut largest_stacks = 0;
        for index in 0..=layout.block_count() {
            let layer = model.layers.get(index);
            let experts = layer.and_then(|layer| layer.experts());
            let stacks = experts.map_or(Vec::new(), |experts| experts.stacks());
            let apart = placement.without_experts(index);
            let mut pieces = Vec::new();
            for tensor in model.host_tensors(index, placement) {
                if tensor.as_f32 {
                    // Small, and often a copy.
                    residency.kept += tensor.bytes;
                } else if stacks.iter().all(|stack| stack.index != tensor.index) {
                    pieces.push(Piece { tensor, kept: false });
                }
            }
            if let Some(router) = experts.map(|experts| experts.router)
                && (apart || !placement.on_accelerator(index))
            {
                let bytes: u64 = stacks.iter().map(|stack| stack.bytes).sum();
                residency.all_experts += bytes;
                residency.used_experts += bytes / router.experts.max(1) as u64 * router.used as u64;
                largest_stacks = largest_stacks.max(bytes);
            }
            residency.layers.push(pieces);
        }
        let budget = ram.saturating_sub(ram / SLACK + host.kv + host.compute + residency.kept);
        residency.divide(budget, largest_stacks);
        Some(residency)
    }

    /// Shares out `budget` bytes.
    fn divide(&mut self, budget: u64, largest_stacks: u64) {
        let all: u64 = self.layers.iter().map(|layer| bytes(layer)).sum();
        if all + largest_stacks <= budget {
            self.layers.iter_mut().flatten().for_each(|piece| piece.kept = true);
            self.kept += all;
            self.experts = (budget - all).min(self.all_experts);
            return;
        }
        self.experts = largest_stacks.min(budget / 2);
        let budget = budget - self.experts;
        // The output layer is the largest tensor, and its parts cannot be read one by one: it stays if anything does.
        let mut room = budget;
        if let Some(output) = self.layers.last_mut()
            && bytes(output) <= budget / 2
        {
            output.iter_mut().for_each(|piece| piece.kept = true);
            room -= bytes(output);
        }
        let rest: u64 = self.layers.iter().map(|layer| streamed(layer)).sum();
        self.window = self.window(room, rest).min(room / 2);
        room -= self.window;
        // In units of 1 / rest byte: what may be kept of the pieces so far, and is not.
        let mut owed = 0u128;
        for piece in self.layers.iter_mut().flatten().filter(|piece| !piece.kept) {
            let bytes = piece.tensor.bytes;
            owed += u128::from(bytes) * u128::from(room.min(rest));
            if owed >= u128::from(bytes) * u128::from(rest) {
                owed -= u128::from(bytes) * u128::from(rest);
                piece.kept = true;
            }
        }
        self.streamed = self.layers.iter().map(|layer| streamed(layer)).sum();
        self.kept += all - self.streamed;
    }

    /// What two layers read, one being used and one on its way, where `room` bytes are for what stays of `rest` and for
    /// the window itself; and one tensor more, because tensors are not spread to the byte.
    fn window(&self, room: u64, rest: u64) -> u64 {
        let two_layers = 2 * self.layers.iter().map(|layer| streamed(layer)).max().unwrap_or(0);
        let tensor = self.layers.iter().flatten().filter(|piece| !piece.kept).map(|piece| piece.tensor.bytes).max();
        // share = (rest - (room - share * two_layers)) / rest
        let share = rest.saturating_sub(room) as f64 / rest.saturating_sub(two_layers).max(1) as f64;
        (two_layers as f64 * share.min(1.0)) as u64 + tensor.unwrap_or(0)
    }

    /// Bytes that a token reads from disk: the same matrices each time, and experts that were not used lately, if all are
    /// used alike.
    pub fn bytes_per_token(&self) -> u64 {
        self.bytes_per_batch(1)
    }

    /// The same of so many tokens computed at once: more of the experts, but each once.
    pub fn bytes_per_batch(&self, tokens: u32) -> u64 {
        let all = self.all_experts.max(1) as f64;
        let missing = self.all_experts.saturating_sub(self.experts) as f64;
        let used = 1.0 - (1.0 - (self.used_experts as f64 / all).min(1.0)).powf(f64::from(tokens));
        self.streamed + (used * missing) as u64
    }
}

fn bytes(layer: &[Piece]) -> u64 {
    layer.iter().map(|piece| piece.tensor.bytes).sum()
}

fn streamed(layer: &[Piece]) -> u64 {
    layer.iter().filter(|piece| !piece.kept).map(|piece| piece.tensor.bytes).sum()
}
