//! Which layers go to accelerators, and which leave their routed experts in RAM.

use crate::forecast::{Reads, seconds_per_token};
use crate::room::Rooms;
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
    pub fn new(model: &Model, layout: &Layout, rooms: Option<&Rooms>, facts: &Facts, wishes: &Wishes) -> Choice {
        let blocks = layout.block_count();
        let wished = wishes.cpu_moe.map(|layers| layers as usize);
        let none = Placement::new(0, blocks).with_cpu_moe(wished.unwrap_or(0));
        let Some(rooms) = rooms else { return Choice { placement: none.clone(), best: none, max_gpu_layers: 0 } };
        // By number of layers, from 1 on: those that leave their experts.
        let held: Vec<usize> = (1..=blocks + 1).map_while(|layers| held(layout, rooms, layers, wished)).collect();
        let place = |layers: usize| {
            let cpu_moe = layers.checked_sub(1).and_then(|at| held.get(at));
            cpu_moe.and_then(|cpu_moe| rooms.place(layout, layers, *cpu_moe)).unwrap_or_else(|| none.clone())
        };
        // Whole layers are the faster the more there are. Experts in RAM are a trade.
        let trade = held.iter().enumerate().any(|(at, cpu_moe)| leaves(layout, at + 1, *cpu_moe) > 0);
        let best = match trade && wished.is_none() {
            true => {
                let reads = Reads::new(model);
                let seconds = |placement: &Placement| seconds_per_token(&reads, layout, placement, facts);
                let rated = (0..=held.len()).rev().map(place).map(|placement| (seconds(&placement), placement));
                rated.min_by(|(a, _), (b, _)| a.total_cmp(b)).map_or(none.clone(), |(_, placement)| placement)
            }
            false => place(held.len()),
        };
        let placement = match wishes.gpu_layers {
            GpuLayers::Auto => best.clone(),
            GpuLayers::Fixed(0) => none,
            GpuLayers::Fixed(wanted) => match (wanted as usize).min(blocks + 1) {
                layers if layers <= held.len() => place(layers),
                layers => {
                    let cpu_moe = wished.unwrap_or(if layout.expert_layers() > 0 { blocks } else { 0 });
                    rooms.spread(layout, layers, cpu_moe)
                }
            },
        };
        Choice { placement, best, max_gpu_layers: held.len() }
    }
}

/// How many of so many layers leave their experts in RAM: as few as it takes, or as wished; `None`: they do not fit.
fn held(layout: &Layout, rooms: &Rooms, gpu_layers: usize, wished: Option<usize>) -> Option<usize> {
    let holds = |cpu_moe: usize| rooms.can_place(layout, gpu_layers, cpu_moe);
    let (mut low, mut high) = match wished {
        Some(cpu_moe) => (cpu_moe, cpu_moe),
        None if layout.expert_layers() == 0 => (0, 0),
        None => (0, layout.block_count()),
    };
    if !holds(high) {
        return None;
    }
    while low < high {
        let middle = (low + high) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    // Layers that are not there leave nothing behind.
    Some(if wished.is_none() && leaves(layout, gpu_layers, low) == 0 { 0 } else { low })
}

/// Of so many layers on accelerators, those whose experts are in RAM.
fn leaves(layout: &Layout, gpu_layers: usize, cpu_moe: usize) -> usize {
    apart(layout, &Placement::new(gpu_layers, layout.block_count()).with_cpu_moe(cpu_moe))
}

/// Layers on accelerators whose experts are in RAM.
pub(crate) fn apart(layout: &Layout, placement: &Placement) -> usize {
    (0..layout.block_count()).filter(|index| layout.experts_apart(placement, *index)).count()
}
