//! Whether long prompts go through the accelerator also in layers that are on the host, and from how many tokens on.

use crate::Facts;
use crate::choice::apart;
use crate::forecast::{PromptSeconds, Reads, seconds_per_token};
use crate::room::Rooms;
use model::{Layout, Model, Place, Placement, StreamRates, Streaming};

/// Layers and experts on the host that are computed on an accelerator for long prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct Streamed {
    /// The fewest tokens for which it is faster, with an empty context.
    pub from: u32,
    /// Bytes of the accelerator's memory that it takes, counted in [`crate::Share::other`].
    pub bytes: u64,
    /// What the engine decides by.
    pub rates: StreamRates,
    pub(crate) streaming: Streaming,
}

impl Streamed {
    /// `None`: there is nothing on the host, it never pays, there is no room for two layers, or nothing was measured.
    pub(crate) fn new(
        model: &Model,
        layout: &Layout,
        placement: &Placement,
        rooms: &Rooms,
        facts: &Facts,
    ) -> Option<Streamed> {
        let on = Streaming::accelerator(placement)?;
        let (accelerator, room, place) = (facts.accelerators.get(on)?, rooms.0.get(on)?, Place::Accelerator(on));
        let rates = StreamRates {
            host: facts.int8_rate?,
            accelerator: accelerator.int8_rate?,
            upload: accelerator.upload_rate?,
        };
        let streaming = Streaming::new(model, layout, placement, &|index| room.offload.can(index, true), rates)?;
        let from = streaming.break_even(0)?;
        let bytes = room.streams(placement, place, &streaming);
        let taken = layout.placed(placement).accelerator(on).total().saturating_add(room.other(placement, place));
        let left = room.free.saturating_sub(taken);
        (bytes <= left).then_some(Streamed { from, bytes, rates, streaming })
    }
}

/// A turn of a chat, by which it is decided whether layers make room for this: tokens that are read, and written. Chosen, not
/// measured: who reads long texts gains more.
const TURN: (f64, f64) = (1000.0, 300.0);
/// Layers that make room at most, or whose experts do: two slots are as large as two to four of them.
const MOST: usize = 6;

/// Where nobody says how many layers go to accelerators: `best`, or a little less of it, where a turn is forecast to be shorter
/// with prompts streamed through the room that this leaves. What is on the host then must fit into `ram`.
pub(crate) fn with_room(
    model: &Model,
    layout: &Layout,
    best: Placement,
    rooms: &Rooms,
    facts: &Facts,
    ram: u64,
) -> Placement {
    let streamed = |placement: &Placement| Streamed::new(model, layout, placement, rooms, facts);
    let something = (0..layout.block_count()).any(|index| !best.on_accelerator(index)) || apart(layout, &best) > 0;
    if !something || streamed(&best).is_some() {
        return best;
    }
    let reads = Reads::new(model);
    let turn = |placement: &Placement, streamed: Option<&Streamed>| {
        let streaming = streamed.map(|streamed| &streamed.streaming);
        let prompt = PromptSeconds::new(model, layout, placement, streaming, facts, 0)?.one_by_one();
        Some(TURN.0 * prompt + TURN.1 * seconds_per_token(&reads, layout, placement, facts))
    };
    let lean = (1..=MOST).map_while(|count| leaner(layout, &best, count)).find_map(|placement| {
        let streamed = streamed(&placement)?;
        Some((turn(&placement, Some(&streamed))?, placement))
    });
    match (lean, turn(&best, None)) {
        (Some((seconds, lean)), Some(before)) if seconds < before && layout.placed(&lean).host.total() <= ram => lean,
        _ => best,
    }
}

/// With the experts of so many layers more on the host, where some are there already, or else with so many layers less.
fn leaner(layout: &Layout, best: &Placement, count: usize) -> Option<Placement> {
    let blocks = layout.block_count();
    if apart(layout, best) > 0 {
        return (best.cpu_moe + count <= blocks).then(|| best.clone().with_cpu_moe(best.cpu_moe + count));
    }
    let first = (0..blocks).find(|index| best.on_accelerator(*index))?;
    // One stays, or it would not be the accelerator that prompts go through.
    let same = |index| best.place(index) == best.place(first);
    let mut lean = best.clone();
    (first..=first + count).all(|index| index < blocks && same(index)).then(|| {
        (first..first + count).for_each(|index| lean.set(index, Place::Host));
        lean
    })
}
