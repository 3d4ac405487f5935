//! A part in the middle of a sequence is left out, and what follows it moves up instead of being computed again.
//!
//! Keys are turned back by as many positions as were left out (turns by a rotary embedding add up); values have no
//! position. That is not the same as computing the rest anew: what follows was computed with the left-out part in sight,
//! and keeps what it took from there.

use crate::EngineError;
use crate::core::{Core, Loaded};
use crate::decoder::Context;
use crate::input::from_bytes;
use crate::ops::Ops;
use crate::saved::Failure;
use crate::site::{Cache, Site};
use crate::sites::Fault;
use crate::transfer::{rows, runs};
use backend::{BackendError, BufferId, Device, RopePairs, View};
use model::{CacheShape, Expansion, Layout, Mixer, Rope, Slot};
use std::ops::Range;

/// A shorter rest is as well computed.
const LEAST: usize = 32;

/// Where a sequence lost a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    /// Tokens before it.
    before: usize,
    /// Tokens that were left out.
    lost: usize,
    /// Tokens after it that are still wanted.
    after: usize,
}

impl Gap {
    /// The part of `sequence` without which it begins like `prompt`, if the rest is worth moving.
    fn find(sequence: &[u32], prompt: &[u32]) -> Option<Gap> {
        let same = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let before = same(sequence, prompt);
        let (old, new) = (&sequence[before..], &prompt[before..]);
        let start = new.get(..LEAST)?;
        let gaps = (1..old.len()).filter(|lost| old[*lost..].starts_with(start));
        gaps.map(|lost| Gap { before, lost, after: same(&old[lost..], new) }).max_by_key(|gap| gap.after)
    }
}

impl Core {
    /// Moves what `prompt` shares with the sequence after a part that it left out. Returns how many tokens moved: none where
    /// the model, its caches or the prompt do not allow it.
    pub fn shift(&mut self, prompt: &[u32]) -> Result<usize, EngineError> {
        let Some(gap) = Gap::find(&self.sequence[..self.computed], prompt) else { return Ok(0) };
        if !self.can_shift(gap) {
            return Ok(0);
        }
        let (sequence, written) = (std::mem::take(&mut self.sequence), self.written);
        // If this fails, caches are neither the old nor the new ones.
        self.forget();
        let result = self.shift_layers(gap, written);
        self.mend(result)?;
        self.sequence = sequence;
        self.sequence.truncate(gap.before + gap.lost + gap.after);
        self.sequence.drain(gap.before..gap.before + gap.lost);
        self.computed = self.sequence.len();
        // Of rings that went round, what was overwritten stays lost.
        self.written = written;
        Ok(gap.after)
    }

    fn can_shift(&self, gap: Gap) -> bool {
        let Loaded { model, layout, .. } = &*self.loaded;
        let end = gap.before + gap.lost + gap.after;
        // Keys that share a scale would lose a little each time.
        let exact = layout.params.kv_type_k.block_size() == 1;
        let near = layout.layers.iter().zip(&model.layers).all(|(bytes, layer)| {
            let window = layer.mixer.as_ref().and_then(|mixer| mixer.part.cache()).map_or(0, |shape| shape.window);
            // In a ring that went round, the rest must be all that the next token sees.
            bytes.k == 0 || bytes.cells >= self.written || gap.after >= window
        });
        // A norm's weights after it keep a turn from being added to.
        let adds_up = !model.layers.iter().filter_map(|layer| layer.attention()).any(|a| a.rope_first);
        exact
            && near
            && adds_up
            && !layout.is_recurrent()
            && (end == self.computed || layout.can_rewind(self.written, end))
    }

    fn shift_layers(&mut self, gap: Gap, written: usize) -> Result<(), Failure> {
        let Loaded { model, layout, file } = &*self.loaded;
        let cancel = crate::Cancel::new();
        let context = Context { model, layout, file, cancel: &cancel, states: &self.states };
        let end = gap.before + gap.lost + gap.after;
        for (index, layer) in model.layers.iter().enumerate() {
            let Some(mixer) = layer.mixer.as_ref().map(|mixer| &mixer.part) else { continue };
            let Some(shape) = mixer.cache() else { continue };
            let bytes = &layout.layers[index];
            let first = bytes.held(end, written).start.max(gap.before + gap.lost);
            let site = self.sites.of(index);
            let place = site.place;
            let moved = Moved { context: &context, index, shape, positions: first..end, by: gap.lost };
            let moved = moved.layer(site, turning(mixer));
            moved.map_err(|error| Failure::Device(Fault::at(place, error)))?;
        }
        self.refresh_copies(gap.before + gap.after, written)
    }
}

/// The part of a head's key that turns, and how.
struct Turning {
    rope: Rope,
    part: Range<usize>,
}

fn turning(mixer: &Mixer) -> Option<Turning> {
    match mixer {
        Mixer::Attention(a) => a.rope.map(|rope| Turning { rope, part: 0..a.head_dim_k }),
        Mixer::Latent(a) => {
            let start = if matches!(a.expansion, Expansion::Absorbed { .. }) { a.rank } else { a.nope_dim };
            Some(Turning { rope: a.rope, part: start..start + a.rope_dim })
        }
        _ => None,
    }
}

/// Positions of one layer that go `by` positions back.
struct Moved<'a> {
    context: &'a Context<'a>,
    index: usize,
    shape: CacheShape,
    positions: Range<usize>,
    by: usize,
}

impl Moved<'_> {
    fn layer(&self, site: &mut Site, turning: Option<Turning>) -> Result<(), BackendError> {
        let layout = self.context.layout;
        let Cache { k, v } = site.cache(self.index)?;
        let [k_row, v_row] = rows(&self.shape, &layout.params)?;
        // Head by head in order of positions; all before any is written, because in a ring they overlap.
        let mut keys = self.read(&mut *site.device, k, k_row)?;
        if let Some(turning) = turning {
            self.turn(site, &turning, &mut keys, k_row)?;
        }
        self.write(&mut *site.device, k, k_row, &keys)?;
        if let Some(v) = v {
            let values = self.read(&mut *site.device, v, v_row)?;
            self.write(&mut *site.device, v, v_row, &values)?;
        }
        Ok(())
    }

    fn cells(&self) -> usize {
        let layout: &Layout = self.context.layout;
        layout.layers[self.index].cells
    }

    fn read(&self, device: &mut dyn Device, buffer: BufferId, row: usize) -> Result<Vec<u8>, BackendError> {
        let mut bytes = vec![0; self.shape.head_count_kv * self.positions.len() * row];
        let mut at = 0;
        for range in runs(self.shape.head_count_kv, self.cells(), row, self.positions.clone()) {
            let len = (range.end - range.start) as usize;
            device.read(buffer, range.start, &mut bytes[at..at + len])?;
            at += len;
        }
        Ok(bytes)
    }

    fn write(&self, device: &mut dyn Device, buffer: BufferId, row: usize, bytes: &[u8]) -> Result<(), BackendError> {
        let positions = self.positions.start - self.by..self.positions.end - self.by;
        let mut at = 0;
        for range in runs(self.shape.head_count_kv, self.cells(), row, positions) {
            let len = (range.end - range.start) as usize;
            device.write(buffer, range.start, &bytes[at..at + len])?;
            at += len;
        }
        Ok(())
    }

    /// Turns keys back on the layer's device. Mirrored vectors turn the other way round.
    fn turn(&self, site: &mut Site, turning: &Turning, keys: &mut [u8], row: usize) -> Result<(), BackendError> {
        let (ty, width) = (self.context.layout.params.kv_type_k, turning.part.len());
        let mut rope = turning.rope;
        // Lengths are what they shall be already.
        rope.spec.attn_factor /= rope.spec.magnitude();
        let most = self.context.layout.params.ubatch as usize;
        let mut row_values = vec![0f32; self.shape.head_dim_k];
        for rows in keys.chunks_mut(most * row) {
            let n = rows.len() / row;
            let mut values = Vec::with_capacity(n * width);
            for bytes in rows.chunks_exact(row) {
                quant::dequantize_row(ty, bytes, &mut row_values).map_err(invalid)?;
                values.extend_from_slice(&row_values[turning.part.clone()]);
            }
            mirror(&mut values, width, &rope);
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let positions: Vec<u8> = (0..n).flat_map(|_| (self.by as u32).to_le_bytes()).collect();
            let (slot, at) = (site.slot(Slot::K)?, site.slot(Slot::Positions)?);
            site.device.write(slot.buffer, 0, &bytes)?;
            site.device.write(at.buffer, 0, &positions)?;
            let mut ops = Ops { context: self.context, site, experts_site: None, index: self.index, n, start: 0 };
            ops.rope(Some(&rope), View::new(slot.buffer), 1, width)?;
            let mut bytes = bytes;
            site.device.read(slot.buffer, 0, &mut bytes)?;
            from_bytes(&bytes, &mut values);
            mirror(&mut values, width, &rope);
            for (bytes, turned) in rows.chunks_exact_mut(row).zip(values.chunks_exact(width)) {
                quant::dequantize_row(ty, bytes, &mut row_values).map_err(invalid)?;
                row_values[turning.part.clone()].copy_from_slice(turned);
                quant::quantize_cache_row(ty, &row_values, bytes).map_err(invalid)?;
            }
        }
        Ok(())
    }
}

/// Changes the sign of the second value of every pair.
fn mirror(values: &mut [f32], width: usize, rope: &Rope) {
    let dims = rope.spec.dims;
    for head in values.chunks_exact_mut(width) {
        for i in 0..dims / 2 {
            let second = if rope.spec.pairs == RopePairs::Adjacent { 2 * i + 1 } else { dims / 2 + i };
            head[second] = -head[second];
        }
    }
}

fn invalid(error: quant::QuantError) -> BackendError {
    BackendError::Invalid { op: "shift", detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_with_the_longest_rest_is_found() {
        let all: Vec<u32> = (0..200).collect();
        let without = |range: Range<usize>| [&all[..range.start], &all[range.end..]].concat();
        assert_eq!(Gap::find(&all, &without(10..90)), Some(Gap { before: 10, lost: 80, after: 110 }));
        assert_eq!(Gap::find(&all, &[&without(10..90)[..], &[7, 8]].concat()).map(|gap| gap.after), Some(110));
        assert_eq!(Gap::find(&all, &without(10..180)), None, "the rest is short");
        assert_eq!(Gap::find(&all, &all), None);
        assert_eq!(Gap::find(&[], &all), None);
        assert_eq!(Gap::find(&[1; 100], &[1; 60]), None, "nothing is left out");
        // What turns have in common belongs to what comes before.
        let turn = |n: u32| [vec![900, 901], (n..n + 40).collect()].concat();
        let (sequence, prompt) = ([turn(100), turn(200), turn(300)].concat(), [turn(200), turn(300)].concat());
        assert_eq!(Gap::find(&sequence, &prompt), Some(Gap { before: 2, lost: 42, after: 82 }));
    }
}
