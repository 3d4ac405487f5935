//! Whether long prompts go through the accelerator also in layers that are on the host, and from how many tokens on.

use crate::Facts;
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
