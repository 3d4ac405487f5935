//! OLMo 2 and 3: norms after attention and feed-forward, q and k normalised over the whole row.

use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs, RopeSpec};

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    builder.model(|index| {
        let mut attention = builder.attention(index, RopePairs::Halves)?;
        attention.window = builder.window(index, 4)?;
        if attention.window > 0 {
            // Only layers that see everything are stretched.
            let plain = |spec| RopeSpec { freq_scale: 1.0, ext_factor: 0.0, attn_factor: 1.0, ..spec };
            attention.rope = attention.rope.map(|rope| Rope { spec: plain(rope.spec), ..rope });
        }
        builder.dense_layer(index, attention, Activation::Silu)
    })
}
