//! Bytes from one device to another, straight where the two can do that: what a layer remembers (cells of its cache, its
//! recurrent state), and the stream. Nobody waits for that: whether the source had failed is to be asked of it.

use crate::site::{Cache, Site};
use crate::sites::Fault;
use backend::{BackendError, BufferId};
use model::{CacheShape, Layer, Layout, LayoutParams, Place};
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
) -> Result<(), Fault> {
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
        let state = |site: &Site| {
            let found = site.layer(index).and_then(|layer| layer.state());
            found.map(|(buffer, _)| buffer).map_err(|error| Fault::at(site.place, error))
        };
        let (source, target) = (state(from)?, state(to)?);
        copy_bytes(from, source, to, target, 0..layout.layers[index].state)?;
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
) -> Result<(), Fault> {
    let cache = |site: &Site| site.cache(index).map_err(|error| Fault::at(site.place, error));
    let (source, target, cells) = (cache(from)?, cache(to)?, layout.layers[index].cells);
    // Of a ring that went round, every cell.
    let positions = computed.saturating_sub(cells)..computed;
    copy_cells((from, source), (to, target), shape, &layout.params, cells, positions)
}

/// Copies the cells of `positions` from one cache of `capacity` cells to another.
pub(crate) fn copy_cells(
    (from, source): (&mut Site, Cache),
    (to, target): (&mut Site, Cache),
    shape: &CacheShape,
    params: &LayoutParams,
    capacity: usize,
    positions: Range<usize>,
) -> Result<(), Fault> {
    let mut pairs = vec![(source.k, target.k)];
    pairs.extend(source.v.zip(target.v));
    let rows = rows(shape, params).map_err(|error| Fault::at(Place::Host, error))?;
    for ((source, target), row) in pairs.into_iter().zip(rows) {
        for range in runs(shape.head_count_kv, capacity, row, positions.clone()) {
            copy_bytes(from, source, to, target, range)?;
        }
    }
    Ok(())
}

/// Bytes of one head in one cell of K and of V.
pub(crate) fn rows(shape: &CacheShape, params: &LayoutParams) -> Result<[usize; 2], BackendError> {
    let shape = shape.stored(params);
    let row = |ty: quant::GgmlType, dim| ty.row_bytes(dim).ok_or_else(|| invalid("heads are not whole blocks"));
    let v_type = if shape.v_in_k { params.kv_type_k } else { params.kv_type_v };
    Ok([row(params.kv_type_k, shape.head_dim_k)?, row(v_type, shape.head_dim_v)?])
}

/// Where the cells of `positions` lie in a buffer, in bytes, in pieces of about [`PIECE`] at most. Heads are contiguous
/// streams: only their used part is touched, so unused memory stays uncommitted.
pub(crate) fn runs(heads: usize, capacity: usize, row: usize, positions: Range<usize>) -> Vec<Range<u64>> {
    let most = (PIECE / row.max(1)).max(1);
    let mut runs = Vec::new();
    for head in 0..heads {
        let mut next = positions.start;
        while next < positions.end {
            let cell = next % capacity;
            let count = (positions.end - next).min(capacity - cell).min(most);
            let start = ((head * capacity + cell) * row) as u64;
            runs.push(start..start + (count * row) as u64);
            next += count;
        }
    }
    runs
}

/// Bytes that are copied at once.
pub(crate) const PIECE: usize = 1 << 20;

pub(crate) fn copy_bytes(
    from: &mut Site,
    source: BufferId,
    to: &mut Site,
    target: BufferId,
    range: Range<u64>,
) -> Result<(), Fault> {
    let bytes = range.end - range.start;
    if to.device.copy_from((target, range.start), &mut *from.device, (source, range.start), bytes) {
        return Ok(());
    }
    let mut staging = vec![0u8; bytes as usize];
    from.device.read(source, range.start, &mut staging).map_err(|error| Fault::at(from.place, error))?;
    to.device.write(target, range.start, &staging).map_err(|error| Fault::at(to.place, error))
}

fn invalid(detail: &str) -> BackendError {
    BackendError::Invalid { op: "cache", detail: detail.into() }
}
