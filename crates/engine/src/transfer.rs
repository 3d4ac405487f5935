//! What a layer remembers, copied from one device to another: cells of its cache, its recurrent state.

use crate::site::{Cache, Site};
use backend::{BackendError, BufferId, Device};
use model::{CacheShape, Layer, Layout, LayoutParams};
use std::ops::Range;

/// Copies everything that `computed` tokens left in layer `index`, and fills the copy of a cache that it reads, unless
/// that was there before.
pub(crate) fn copy_layer(
    from: &mut Site,
    to: &mut Site,
    (index, layer): (usize, &Layer),
    layout: &Layout,
    computed: usize,
    had_copy: bool,
) -> Result<(), BackendError> {
    let Some(mixer) = layer.mixer.as_ref().map(|mixer| &mixer.part) else { return Ok(()) };
    if computed == 0 {
        return Ok(());
    }
    if let Some(shape) = mixer.cache() {
        copy_cache(from, to, index, &shape, layout, computed)?;
    }
    if let (Some(source), model::Mixer::Attention(attention)) = (mixer.cache_source(), mixer)
        && !had_copy
        && to.copy(source).is_some()
    {
        copy_cache(from, to, source, &attention.cache_shape(), layout, computed)?;
    }
    if layout.layers[index].state > 0 {
        let ((source, _), (target, _)) = (from.layer(index)?.state()?, to.layer(index)?.state()?);
        copy_bytes(&mut *from.device, source, &mut *to.device, target, 0..layout.layers[index].state)?;
    }
    Ok(())
}

fn copy_cache(
    from: &mut Site,
    to: &mut Site,
    index: usize,
    shape: &CacheShape,
    layout: &Layout,
    computed: usize,
) -> Result<(), BackendError> {
    let (source, target, cells) = (from.cache(index)?, to.cache(index)?, layout.layers[index].cells);
    // Of a ring that went round, every cell.
    let positions = computed.saturating_sub(cells)..computed;
    let (from, to) = ((&mut *from.device, source), (&mut *to.device, target));
    copy_cells(from, to, shape, &layout.params, cells, positions)
}

/// Copies the cells of `positions` from one cache of `capacity` cells to another.
pub(crate) fn copy_cells(
    (from, source): (&mut (dyn Device + 'static), Cache),
    (to, target): (&mut (dyn Device + 'static), Cache),
    shape: &CacheShape,
    params: &LayoutParams,
    capacity: usize,
    positions: Range<usize>,
) -> Result<(), BackendError> {
    let streams = [
        Some((source.k, target.k, params.kv_type_k.row_bytes(shape.head_dim_k))),
        source.v.zip(target.v).map(|(source, target)| (source, target, params.kv_type_v.row_bytes(shape.head_dim_v))),
    ];
    for (source, target, row) in streams.into_iter().flatten() {
        let row = row.ok_or_else(|| invalid("heads are not whole blocks"))?;
        // Heads are contiguous streams: only their used part is touched, so unused memory stays uncommitted.
        for head in 0..shape.head_count_kv {
            let mut next = positions.start;
            while next < positions.end {
                let cell = next % capacity;
                let count = (positions.end - next).min(capacity - cell);
                let start = ((head * capacity + cell) * row) as u64;
                copy_bytes(from, source, to, target, start..start + (count * row) as u64)?;
                next += count;
            }
        }
    }
    Ok(())
}

fn copy_bytes(
    from: &mut dyn Device,
    source: BufferId,
    to: &mut dyn Device,
    target: BufferId,
    range: Range<u64>,
) -> Result<(), BackendError> {
    let mut staging = vec![0u8; (range.end - range.start) as usize];
    from.read(source, range.start, &mut staging)?;
    to.write(target, range.start, &staging)
}

fn invalid(detail: &str) -> BackendError {
    BackendError::Invalid { op: "cache", detail: detail.into() }
}
