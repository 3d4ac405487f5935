//! EXAONE 4: norms after attention and feed-forward only, norms of each q and k head; where some layers have a window, the
//! others have no positions.

use super::standard::Builder;
use crate::describe::Header;
use crate::*;
use backend::{Activation, RopePairs};

pub(crate) fn describe(header: &Header<'_>) -> Result<Model, ModelError> {
    let builder = Builder::new(header)?;
    let windows = header.u64_or("attention.sliding_window").unwrap_or(0) > 0;
    builder.model(|index| {
        let mut attention = builder.windowed(index, 4, builder.attention(index, RopePairs::Halves)?)?;
        attention.rope = attention.rope.filter(|_| attention.window > 0 || !windows);
        builder.dense_layer(index, attention, Activation::Silu)
    })
}
