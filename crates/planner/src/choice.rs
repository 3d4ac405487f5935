//! Which layers go to the accelerator, and which leave their routed experts in RAM.

use crate::forecast::{Reads, seconds_per_token};
use crate::room::Room;
use crate::{Facts, GpuLayers, Wishes};
use model::{Layout, Model, Placement};

pub(crate) struct Choice {
    /// As wished; it may not fit.
    pub placement: Placement,
    /// What is chosen where the number of layers is not wished.
    pub best: Placement,
    /// The most layers that fit, with as many experts in RAM as may be.
    pub max_gpu_layers: usize,
}

impl Choice {
    pub fn new(model: &Model, layout: &Layout, room: Option<&Room>, facts: &Facts, wishes: &Wishes) -> Choice {
        let blocks = layout.block_count();
        let wished = wishes.cpu_moe.map(|layers| layers as usize);
        let none = Placement::new(0, blocks).with_cpu_moe(wished.unwrap_or(0));
        let Some(room) = room else { return Choice { placement: none, best: none, max_gpu_layers: 0 } };
        let held: Vec<Placement> = (1..=blocks + 1).map_while(|layers| held(layout, room, layers, wished)).collect();
        let most = held.last().copied().unwrap_or(none);
        // Whole layers are the faster the more there are. Experts in RAM are a trade.
        let best = match held.iter().any(|placement| apart(layout, *placement) > 0) && wished.is_none() {
            true => {
                let reads = Reads::new(model);
                let seconds = |placement: &Placement| seconds_per_token(&reads, layout, *placement, facts);
                let rated = held.iter().rev().chain([&none]).map(|placement| (seconds(placement), *placement));
                rated.min_by(|(a, _), (b, _)| a.total_cmp(b)).map_or(none, |(_, placement)| placement)
            }
            false => most,
        };
        let placement = match wishes.gpu_layers {
            GpuLayers::Auto => best,
            GpuLayers::Fixed(0) => none,
            GpuLayers::Fixed(wanted) => {
                let layers = (wanted as usize).min(blocks + 1);
                held.get(layers - 1).copied().unwrap_or_else(|| {
                    let cpu_moe = wished.unwrap_or(if layout.expert_layers() > 0 { blocks } else { 0 });
                    Placement::new(layers.min(room.offload.layers(cpu_moe)), blocks).with_cpu_moe(cpu_moe)
                })
            }
        };
        Choice { placement, best, max_gpu_layers: most.gpu_layers }
    }
}

/// So many layers with as few experts in RAM as it takes, or as many as are wished; `None`: they do not fit.
fn held(layout: &Layout, room: &Room, gpu_layers: usize, wished: Option<usize>) -> Option<Placement> {
    let blocks = layout.block_count();
    let with = |cpu_moe| Placement::new(gpu_layers, blocks).with_cpu_moe(cpu_moe);
    let holds = |cpu_moe: usize| room.holds(layout, with(cpu_moe));
    let (mut low, mut high) = match wished {
        Some(cpu_moe) => (cpu_moe, cpu_moe),
        None if layout.expert_layers() == 0 => (0, 0),
        None => (0, blocks),
    };
    if !holds(high) {
        return None;
    }
    while low < high {
        let middle = (low + high) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    // Layers that are not there leave nothing behind.
    Some(if wished.is_none() && apart(layout, with(low)) == 0 { with(0) } else { with(low) })
}

/// Layers on the accelerator whose experts are in RAM.
pub(crate) fn apart(layout: &Layout, placement: Placement) -> usize {
    (0..layout.block_count()).filter(|index| layout.experts_apart(placement, *index)).count()
}
