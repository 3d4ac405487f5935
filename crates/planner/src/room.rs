//! What accelerators have for a model, and what a placement takes of it.

use crate::{AcceleratorFacts, Facts};
use model::{
    BufferPlan, Lack, Layout, MAX_ACCELERATORS, Model, Offload, Parts, Place, Placement, STREAM_SLOTS, Split, Streaming,
};

/// One accelerator's.
pub(crate) struct Room {
    pub name: String,
    /// Bytes.
    pub free: u64,
    pub overhead: u64,
    pub offload: Offload,
    /// What buffers take beyond their size, by layer, the output layer last: whole, and without routed experts.
    padding: Vec<[u64; 2]>,
    /// The same of the buffers that every device with layers has, and their sizes.
    slots: u64,
    footprint: fn(u64) -> u64,
    slot_bytes: u64,
}

impl Room {
    pub fn new(model: &Model, accelerator: &AcceleratorFacts, layout: &Layout) -> Room {
        let offload = Offload::new(model, &layout.params, &accelerator.scratch);
        let pad = |bytes: u64| (accelerator.footprint)(bytes).saturating_sub(bytes);
        let weights = |tensors: Vec<model::Tensor>| tensors.iter().map(|t| pad(t.device_bytes())).sum::<u64>();
        let slots = |slots: &[BufferPlan]| slots.iter().map(|slot| pad(slot.bytes)).sum::<u64>();
        let layer = |(layer, bytes): (&model::Layer, &model::LayerBytes)| {
            let memory: u64 = [bytes.k, bytes.v, bytes.state].map(pad).iter().sum();
            [layer.tensors(), layer.tensors_without_experts()].map(|tensors| memory + weights(tensors))
        };
        let mut padding: Vec<_> = model.layers.iter().zip(&layout.layers).map(layer).collect();
        padding.push([weights(model.output.tensors()) + slots(&layout.output_slots); 2]);
        Room {
            name: accelerator.name.clone(),
            free: accelerator.available(),
            overhead: accelerator.overhead,
            offload,
            padding,
            slots: slots(&layout.slots),
            slot_bytes: layout.slots.iter().map(|slot| slot.bytes).sum(),
            footprint: accelerator.footprint,
        }
    }

    /// Bytes besides the layout's, where this accelerator is at `place`: the one place that counts them.
    pub fn other(&self, placement: &Placement, place: Place) -> u64 {
        if !placement.has(place) {
            return 0;
        }
        let there = self.padding.iter().enumerate().filter(|(index, _)| placement.place(*index) == place);
        let padding: u64 = there.map(|(index, sizes)| sizes[usize::from(placement.without_experts(index))]).sum();
        self.overhead + self.offload.scratch(placement, place) + self.slots + padding
    }

    /// What streaming to the accelerator at `place` takes besides: slots for layers, and what more of scratch memory those want.
    pub fn streams(&self, placement: &Placement, place: Place, streaming: &Streaming) -> u64 {
        let slots: u64 = streaming.slot.buffers().map(|bytes| STREAM_SLOTS as u64 * (self.footprint)(bytes)).sum();
        let scratch = self.offload.scratch_with(placement, place, streaming.layers());
        slots + scratch.saturating_sub(self.offload.scratch(placement, place))
    }

    /// Whether the accelerator at `place` can compute what is there, of which the layout counts `parts`, within so many bytes.
    pub fn holds(&self, placement: &Placement, place: Place, parts: Parts, limit: u64) -> bool {
        let there = (0..=placement.block_count()).filter(|index| placement.place(*index) == place);
        let can = |index| self.offload.can(index, !placement.without_experts(index));
        there.into_iter().all(can) && parts.total().saturating_add(self.other(placement, place)) <= limit
    }

    /// What it takes before the first layer.
    fn fixed(&self) -> u64 {
        self.overhead + self.slots + self.slot_bytes
    }

    /// This part of what is free for layers, and what comes before them.
    fn part(&self, (numerator, denominator): (u64, u64)) -> u64 {
        let free = self.free.saturating_sub(self.fixed());
        let part = u128::from(free) * u128::from(numerator) / u128::from(denominator.max(1));
        u64::try_from(part).unwrap_or(u64::MAX).saturating_add(self.fixed())
    }
}

/// All accelerators', by number.
pub(crate) struct Rooms(pub Vec<Room>);

/// In how many steps the share of memory is sought that all accelerators fill alike.
const STEPS: u64 = 16;

impl Rooms {
    /// `None`: there is no accelerator that has memory.
    pub fn new(model: &Model, facts: &Facts, layout: &Layout) -> Option<Rooms> {
        let there = facts.accelerators.iter().any(|accelerator| accelerator.memory_free > 0);
        let all = facts.accelerators.iter().take(MAX_ACCELERATORS);
        there.then(|| Rooms(all.map(|accelerator| Room::new(model, accelerator, layout)).collect()))
    }

    /// Bytes of all.
    pub fn free(&self) -> u64 {
        self.0.iter().map(|room| room.free).sum()
    }

    /// The most layers that any can compute, where those before layer `cpu_moe` leave their experts behind.
    pub fn computable(&self, cpu_moe: usize) -> usize {
        self.0.iter().map(|room| room.offload.layers(cpu_moe)).max().unwrap_or(0)
    }

    /// Why there are no more of them.
    pub fn lack(&self, cpu_moe: usize) -> Option<Lack> {
        let most = self.0.iter().max_by_key(|room| room.offload.layers(cpu_moe))?;
        most.offload.lack(cpu_moe)
    }

    /// Whether the accelerators can compute this and have the memory for it.
    pub fn holds(&self, layout: &Layout, placement: &Placement) -> bool {
        let totals = layout.placed(placement);
        let holds = |(number, room): (usize, &Room)| {
            room.holds(placement, Place::Accelerator(number), totals.accelerator(number), room.free)
        };
        self.0.iter().enumerate().all(holds)
    }

    /// The least that one layer takes anywhere.
    pub fn first_layer(&self, layout: &Layout, cpu_moe: usize) -> u64 {
        let placement = Placement::new(1, layout.block_count()).with_cpu_moe(cpu_moe);
        let parts = layout.placed(&placement).accelerator(0).total();
        let takes = self.0.iter().map(|room| parts.saturating_add(room.other(&placement, Place::Accelerator(0))));
        takes.min().unwrap_or(0)
    }

    /// So many layers on accelerators that hold them. One that holds all of them has all: parts of a model are computed one
    /// after the other wherever they are, so several are no faster, each has memory that is taken before its first layer,
    /// and the stream has to go from one to the next. Where it takes several, it is as few as possible of the first, and
    /// each gets layers in proportion to what is free there.
    pub fn place(&self, layout: &Layout, layers: usize, cpu_moe: usize) -> Option<Placement> {
        let alone = (0..self.0.len()).map(|number| alone(layout, number, layers, cpu_moe));
        let alone = alone.into_iter().find(|placement| self.holds(layout, placement));
        alone.or_else(|| {
            (2..=self.0.len()).find_map(|count| {
                self.fill(layout, layers, cpu_moe, count, (1, 1))?;
                // The smallest part of each that is enough.
                (1..=STEPS).find_map(|step| self.fill(layout, layers, cpu_moe, count, (step, STEPS)))
            })
        })
    }

    /// Whether [`Rooms::place`] finds a way.
    pub fn can_place(&self, layout: &Layout, layers: usize, cpu_moe: usize) -> bool {
        let alone = |number| self.holds(layout, &alone(layout, number, layers, cpu_moe));
        (0..self.0.len()).any(alone) || self.fill(layout, layers, cpu_moe, self.0.len(), (1, 1)).is_some()
    }

    /// So many layers that do not all fit, in proportion to what is free.
    pub fn spread(&self, layout: &Layout, layers: usize, cpu_moe: usize) -> Placement {
        let layers = layers.min(self.computable(cpu_moe));
        let parts = (1..32).map(|double| (1u64 << double, 1));
        let spread = parts.filter(|_| self.0.len() > 1);
        let spread = spread.into_iter().find_map(|part| self.fill(layout, layers, cpu_moe, self.0.len(), part));
        spread.unwrap_or_else(|| alone(layout, 0, layers, cpu_moe))
    }

    /// Fills the first `count` accelerators, each up to a part of its memory. `None`: layers are left over.
    fn fill(
        &self,
        layout: &Layout,
        layers: usize,
        cpu_moe: usize,
        count: usize,
        part: (u64, u64),
    ) -> Option<Placement> {
        let blocks = layout.block_count();
        let (mut split, mut left) = (Split::default(), layers.min(blocks + 1));
        for (number, room) in self.0.iter().take(count).enumerate() {
            let limit = room.part(part);
            // All that are left are on accelerators, so that layers are where they will be.
            let with = |these: usize| {
                let mut split = split;
                split.0[number] = these as u32;
                if number + 1 < MAX_ACCELERATORS {
                    split.0[number + 1] = (left - these) as u32;
                }
                Placement::split(split, blocks).with_cpu_moe(cpu_moe)
            };
            let holds = |these: usize| {
                let placement = with(these);
                let parts = layout.placed(&placement).accelerator(number);
                room.holds(&placement, Place::Accelerator(number), parts, limit)
            };
            let (mut low, mut high) = (0, left);
            while low < high {
                let middle = (low + high).div_ceil(2);
                if holds(middle) { low = middle } else { high = middle - 1 }
            }
            split.0[number] = low as u32;
            left -= low;
        }
        (left == 0).then(|| Placement::split(split, blocks).with_cpu_moe(cpu_moe))
    }
}

fn alone(layout: &Layout, number: usize, layers: usize, cpu_moe: usize) -> Placement {
    let mut split = Split::default();
    split.0[number] = layers as u32;
    Placement::split(split, layout.block_count()).with_cpu_moe(cpu_moe)
}
