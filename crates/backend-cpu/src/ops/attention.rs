//! KV caches and attention over them: online softmax over tiles of cells (Dao et al. 2022, arXiv 2205.14135), one pass.
//!
//! Tiles begin at multiples of [`TILE`] whatever the batch, so a row's result does not depend on the rows beside it.

use super::{invalid, product};
use crate::buffers::{Buffers, Bytes};
use crate::cpu::Machine;
use backend::{AttentionSpec, BackendError, KvCache, View};
use quant::GgmlType;

/// Cells of a tile: K and V of a head as f32 stay in the first-level cache.
const TILE: usize = 32;
/// Rows of queries in a chunk of work: they share the tiles.
const QUERIES: usize = 16;

/// One of K and V of a cache.
#[derive(Clone, Copy)]
struct Stream {
    bytes: Bytes,
    ty: GgmlType,
    dim: usize,
    /// Bytes from one cell to the next.
    row: usize,
    /// Bytes of a cell that hold `dim` values.
    used: usize,
    capacity: usize,
}

impl Stream {
    fn new(
        op: &'static str,
        buffers: &Buffers,
        cache: &KvCache,
        buffer: backend::BufferId,
        ty: GgmlType,
        dim: usize,
    ) -> Result<Stream, BackendError> {
        let row = ty.row_bytes(dim).filter(|row| *row > 0);
        let row = row.ok_or_else(|| invalid(op, format!("heads of {dim} values cannot be cached as {ty}")))?;
        let len = product(op, &[cache.head_count_kv, cache.capacity, row])?;
        Ok(Stream { bytes: buffers.bytes(op, buffer, len)?, ty, dim, row, used: row, capacity: cache.capacity })
    }

    fn both(op: &'static str, buffers: &Buffers, cache: &KvCache) -> Result<[Stream; 2], BackendError> {
        let k = Stream::new(op, buffers, cache, cache.k, cache.k_type, cache.head_dim_k)?;
        let v = match cache.v {
            Some(v) => Stream::new(op, buffers, cache, v, cache.v_type, cache.head_dim_v)?,
            None => {
                let used = k.ty.row_bytes(cache.head_dim_v).filter(|_| cache.head_dim_v <= cache.head_dim_k);
                let used = used.ok_or_else(|| invalid(op, "V is no part of K"))?;
                Stream { bytes: k.bytes, dim: cache.head_dim_v, used, ..k }
            }
        };
        Ok([k, v])
    }

    /// Positions `start..start + count` of a head as f32. The cells are a ring.
    fn load(&self, machine: &Machine, head: usize, start: usize, count: usize, out: &mut [f32]) {
        let mut done = 0;
        while done < count {
            let first = (start + done) % self.capacity;
            let piece = (count - done).min(self.capacity - first);
            self.load_cells(machine, head, first, &mut out[done * self.dim..(done + piece) * self.dim]);
            done += piece;
        }
    }

    fn load_cells(&self, machine: &Machine, head: usize, first: usize, out: &mut [f32]) {
        let offset = (head * self.capacity + first) * self.row;
        let count = out.len() / self.dim.max(1);
        // SAFETY: caches are only read while attention runs.
        let bytes = unsafe { self.bytes.read(offset, count * self.row) };
        if self.used == self.row {
            return self.widen(machine, bytes, out);
        }
        for (bytes, out) in bytes.chunks_exact(self.row).zip(out.chunks_exact_mut(self.dim)) {
            self.widen(machine, &bytes[..self.used], out);
        }
    }

    fn widen(&self, machine: &Machine, bytes: &[u8], out: &mut [f32]) {
        match self.ty {
            GgmlType::F16 => {
                if let Ok(narrow) = bytemuck::try_cast_slice(bytes) {
                    return machine.simd.widen_f16(narrow, out);
                }
            }
            GgmlType::F32 => {
                if let Ok(values) = bytemuck::try_cast_slice::<u8, f32>(bytes) {
                    return out.copy_from_slice(values);
                }
            }
            _ => {}
        }
        // Lengths fit: `used` is what this type makes of `dim` values.
        if quant::dequantize_row(self.ty, bytes, out).is_err() {
            out.fill(f32::NAN);
        }
    }
}

pub(crate) fn store(
    machine: &Machine,
    buffers: &Buffers,
    cache: &KvCache,
    [k, v]: [View; 2],
    n: usize,
    start: usize,
) -> Result<(), BackendError> {
    const OP: &str = "StoreKv";
    let streams = Stream::both(OP, buffers, cache)?;
    cache.check_cells(OP, start, n, None)?;
    let heads = cache.head_count_kv;
    let inputs = [
        buffers.span(OP, k, product(OP, &[n, heads, cache.head_dim_k])?)?,
        buffers.span(OP, v, product(OP, &[n, heads, cache.head_dim_v])?)?,
    ];
    // V that is a part of K is stored with it.
    let stored = if cache.v.is_some() { 2 } else { 1 };
    machine.run(OP, n, &|_, token| {
        for (stream, input) in streams.iter().zip(inputs).take(stored) {
            for head in 0..heads {
                let cell = (start + token) % stream.capacity;
                let offset = (head * stream.capacity + cell) * stream.row;
                // SAFETY: the input is not written; every cell of a head is written by the one chunk of its token.
                let (values, out) = unsafe {
                    (
                        input.read((token * heads + head) * stream.dim, stream.dim),
                        stream.bytes.write(offset, stream.row),
                    )
                };
                // Lengths fit: `row` is what this type makes of `dim` values.
                if quant::quantize_cache_row(stream.ty, values, out).is_err() {
                    out.fill(0xff);
                }
            }
        }
    })
}

pub(crate) fn attention(
    machine: &Machine,
    buffers: &Buffers,
    cache: &KvCache,
    spec: &AttentionSpec,
    [q, out]: [View; 2],
    n: usize,
    start: usize,
) -> Result<(), BackendError> {
    const OP: &str = "Attention";
    let [k, v] = Stream::both(OP, buffers, cache)?;
    let (heads, heads_kv) = (spec.head_count, cache.head_count_kv);
    if heads_kv == 0 || heads % heads_kv != 0 {
        return Err(invalid(OP, format!("{heads} heads cannot share {heads_kv}")));
    }
    cache.check_cells(OP, start, n, Some(spec.window))?;
    let q = buffers.span(OP, q, product(OP, &[n, heads, cache.head_dim_k])?)?;
    let out = buffers.span_mut(OP, out, product(OP, &[n, heads, cache.head_dim_v])?)?;
    let sinks = spec.sinks.map(|sinks| buffers.span(OP, sinks, heads)).transpose()?;
    if out.overlaps(q) {
        return Err(invalid(OP, "the result overlaps the queries"));
    }
    let group = heads / heads_kv;
    let blocks = n.div_ceil(QUERIES);
    let (dim_k, dim_v) = (cache.head_dim_k, cache.head_dim_v);
    machine.run(OP, heads_kv * blocks, &|worker, chunk| {
        let (head_kv, block) = (chunk % heads_kv, chunk / heads_kv);
        let rows = block * QUERIES..n.min((block + 1) * QUERIES);
        // Queries of the block: every row with every head of the group.
        let queries: Vec<(usize, usize)> =
            rows.clone().flat_map(|row| (0..group).map(move |g| (row, head_kv * group + g))).collect();
        let mut scratch = machine.scratch.worker(worker);
        let super::Worker { floats, more_floats, .. } = &mut *scratch;
        floats.resize(TILE * (dim_k + dim_v), 0.0);
        let (k_tile, v_tile) = floats.split_at_mut(TILE * dim_k);
        more_floats.clear();
        more_floats.resize(queries.len() * dim_v, 0.0);
        let mut states: Vec<(f32, f32)> = queries
            .iter()
            .map(|(_, head)| match sinks {
                // SAFETY: sinks are not written during the operation. A sink is a score without a value.
                Some(sinks) => (unsafe { sinks.read(*head, 1) }[0], 1.0),
                None => (f32::NEG_INFINITY, 0.0),
            })
            .collect();
        let first_seen = |row: usize| if spec.window == 0 { 0 } else { (start + row + 1).saturating_sub(spec.window) };
        let begin = first_seen(rows.start) / TILE * TILE;
        let end = start + rows.end;
        for tile in (begin..end).step_by(TILE) {
            let cells = TILE.min(end - tile);
            k.load(machine, head_kv, tile, cells, &mut k_tile[..cells * dim_k]);
            v.load(machine, head_kv, tile, cells, &mut v_tile[..cells * dim_v]);
            for (index, (row, head)) in queries.iter().enumerate() {
                let seen = first_seen(*row).max(tile)..(start + row + 1).min(tile + cells);
                if seen.is_empty() {
                    continue;
                }
                let seen = seen.start - tile..seen.end - tile;
                // SAFETY: queries are not written during the operation.
                let query = unsafe { q.read((row * heads + head) * dim_k, dim_k) };
                let values = &mut more_floats[index * dim_v..][..dim_v];
                fold_tile(machine, spec, query, seen, k_tile, v_tile, &mut states[index], values);
            }
        }
        for (index, (row, head)) in queries.iter().enumerate() {
            let values = &more_floats[index * dim_v..][..dim_v];
            // SAFETY: this chunk alone has this row and head.
            let out = unsafe { out.write((row * heads + head) * dim_v, dim_v) };
            let sum = states[index].1;
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value / sum);
        }
    })
}

/// Adds a tile's cells to a query's running softmax: `state` is (maximum, sum), `values` the weighted sum of V.
fn fold_tile(
    machine: &Machine,
    spec: &AttentionSpec,
    query: &[f32],
    seen: std::ops::Range<usize>,
    k_tile: &[f32],
    v_tile: &[f32],
    state: &mut (f32, f32),
    values: &mut [f32],
) {
    let (dim_k, dim_v) = (query.len(), values.len());
    let mut scores = [0f32; TILE];
    let scores = &mut scores[..seen.len()];
    let mut max = state.0;
    for (score, cell) in scores.iter_mut().zip(seen.clone()) {
        *score = machine.simd.dot(query, &k_tile[cell * dim_k..][..dim_k]) * spec.scale;
        if spec.softcap != 0.0 {
            *score = spec.softcap * (*score / spec.softcap).tanh();
        }
        max = max.max(*score);
    }
    if max > state.0 {
        // What was summed up so far was relative to the old maximum.
        let factor = crate::simd::exp(state.0 - max);
        values.iter_mut().for_each(|value| *value *= factor);
        state.1 *= factor;
        state.0 = max;
    }
    state.1 += machine.simd.exp_minus(scores, max);
    for (share, cell) in scores.iter().zip(seen) {
        machine.simd.axpy(*share, &v_tile[cell * dim_v..][..dim_v], values);
    }
}
