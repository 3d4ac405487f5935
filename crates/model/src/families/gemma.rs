//! Gemma 1 to 3: scaled embeddings, GeGLU; then norms on both sides, windows, soft-caps; then norms of q and k, and a
//! rotary base of their own for layers with a window.

use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn gemma(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    finish(&builder, |attention, _| Ok(attention))
}

pub(crate) fn gemma2(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    finish(&builder, |attention, index| {
        let scale = if builder.sizes.block_count == 46 { by_width(&builder, &attention) } else { attention.scale };
        builder.windowed(index, 2, Attention { scale, ..attention })
    })
}

pub(crate) fn gemma3(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    finish(&builder, |attention, index| {
        let window = builder.window(index, 6)?;
        let scale = if builder.sizes.block_count == 62 { by_width(&builder, &attention) } else { attention.scale };
        let rope = if window > 0 { window_rope(&builder, attention.rope)? } else { attention.rope };
        Ok(Attention { window, scale, rope, ..attention })
    })
}

/// The 27B models scale scores by the width that a head would have if heads shared the embedding's.
fn by_width(builder: &Builder<'_>, attention: &Attention) -> f32 {
    1.0 / (builder.sizes.embedding_length as f32 / attention.head_count as f32).sqrt()
}

/// Layers with a window keep the base and the scale of short contexts.
pub(super) fn window_rope(builder: &Builder<'_>, rope: Option<Rope>) -> Result<Option<Rope>, ModelError> {
    let freq_base = builder.header.f32_at_least("rope.freq_base_swa", 10000.0, f32::MIN_POSITIVE)?;
    Ok(rope.map(|rope| Rope {
        spec: backend::RopeSpec { freq_base, freq_scale: 1.0, ext_factor: 0.0, ..rope.spec },
        ..rope
    }))
}

fn finish(
    builder: &Builder<'_>,
    change: impl Fn(Attention, usize) -> Result<Attention, ModelError>,
) -> Result<Model, ModelError> {
    let model = builder.model(|index| {
        let attention = change(builder.attention(index, RopePairs::Halves)?, index)?;
        builder.dense_layer(index, attention, Activation::GeluTanh)
    })?;
    Ok(Model { embedding_scale: (builder.sizes.embedding_length as f32).sqrt(), ..model })
}
