//! KV caches and attention over them: online softmax over tiles of cells (Dao et al. 2022, arXiv 2205.14135), one pass.
//!
//! Scores and results of a tile are matrix products of all queries that share its keys: some rows, and the heads of a group.
//! Tiles begin at multiples of [`TILE`] whatever the batch, and the order of each sum is that of the cells, so a row's result
//! does not depend on the rows beside it.

use super::{invalid, product};
use crate::buffers::{Buffers, Bytes};
use crate::cpu::Machine;
use crate::simd::tiles::Product;
use backend::{AttentionSpec, BackendError, KvCache, View};
use quant::GgmlType;
use std::ops::Range;

/// Cells of a tile.
const TILE: usize = 64;
/// Queries that share the tiles of a chunk of work, about.
const QUERIES: usize = 64;

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
    let per_block = (QUERIES / group).max(1);
    let (dim_k, dim_v) = (cache.head_dim_k, cache.head_dim_v);
    machine.run(OP, heads_kv * n.div_ceil(per_block), &|worker, chunk| {
        let (head_kv, block) = (chunk % heads_kv, chunk / heads_kv);
        let rows = block * per_block..n.min((block + 1) * per_block);
        let first_seen = |row: usize| if spec.window == 0 { 0 } else { (start + row + 1).saturating_sub(spec.window) };
        let mut scratch = machine.scratch.worker(worker);
        let super::Worker { floats, more_floats, .. } = &mut *scratch;
        let mut tile = Tile::new(floats, dim_k, dim_v);
        let mut queries = Queries::new(more_floats, rows.len() * group, dim_k, dim_v);
        for (index, row) in rows.clone().enumerate() {
            let first = row * heads + head_kv * group;
            // SAFETY: queries and sinks are not written during the operation.
            unsafe {
                let sinks = sinks.map(|sinks| sinks.read(head_kv * group, group));
                queries.set(index * group, q.read(first * dim_k, group * dim_k), spec.scale, sinks);
            }
        }
        let (begin, end) = (first_seen(rows.start) / TILE * TILE, start + rows.end);
        for first in (begin..end).step_by(TILE) {
            let cells = TILE.min(end - first);
            tile.load(machine, [&k, &v], head_kv, first, cells);
            queries.score(machine, &tile);
            let whole = first + TILE <= start + rows.start + 1 && first_seen(rows.end - 1) <= first;
            for (index, row) in rows.clone().enumerate() {
                let seen = first_seen(row).max(first)..(start + row + 1).min(first + cells);
                for query in index * group..(index + 1) * group {
                    if !seen.is_empty() {
                        queries.soften(machine, spec, query, seen.start - first..seen.end - first);
                    }
                    if !seen.is_empty() && !whole {
                        queries.add(machine, &tile, query..query + 1, seen.start - first..seen.end - first);
                    }
                }
            }
            if whole {
                queries.add(machine, &tile, 0..queries.states.len(), 0..TILE);
            }
        }
        for (index, row) in rows.enumerate() {
            for head in 0..group {
                // SAFETY: this chunk alone has this row and head.
                let out = unsafe { out.write((row * heads + head_kv * group + head) * dim_v, dim_v) };
                queries.write(index * group + head, out);
            }
        }
    })
}

/// Keys and values of the cells that are looked at together.
struct Tile<'a> {
    dim_k: usize,
    dim_v: usize,
    /// Keys as they are stored, f32 [TILE, dim_k]
    rows: &'a mut [f32],
    /// The same the other way round, f32 [dim_k, TILE]
    k: &'a mut [f32],
    /// f32 [TILE, dim_v]
    v: &'a mut [f32],
}

impl<'a> Tile<'a> {
    fn new(floats: &'a mut Vec<f32>, dim_k: usize, dim_v: usize) -> Tile<'a> {
        floats.resize(TILE * (2 * dim_k + dim_v), 0.0);
        let (rows, rest) = floats.split_at_mut(TILE * dim_k);
        let (k, v) = rest.split_at_mut(TILE * dim_k);
        Tile { dim_k, dim_v, rows, k, v }
    }

    /// What is beyond the last cell stays what it was, and is not looked at.
    fn load(&mut self, machine: &Machine, [k, v]: [&Stream; 2], head: usize, first: usize, cells: usize) {
        let rows = &mut self.rows[..cells * self.dim_k];
        k.load(machine, head, first, cells, rows);
        machine.simd.transpose(rows, [cells, self.dim_k], self.k, TILE);
        v.load(machine, head, first, cells, &mut self.v[..cells * self.dim_v]);
    }
}

/// Queries that share keys, with what they have seen so far.
struct Queries<'a> {
    dim_k: usize,
    dim_v: usize,
    /// f32 [queries, dim_k], with the scale of the scores
    q: &'a mut [f32],
    /// f32 [queries, TILE]: scores, then shares
    scores: &'a mut [f32],
    /// f32 [queries, dim_v]: sums of values by share
    values: &'a mut [f32],
    /// Maximum of the scores, and the sum of their exponentials relative to it.
    states: Vec<(f32, f32)>,
}

impl<'a> Queries<'a> {
    fn new(floats: &'a mut Vec<f32>, count: usize, dim_k: usize, dim_v: usize) -> Queries<'a> {
        floats.clear();
        floats.resize(count * (dim_k + TILE + dim_v), 0.0);
        let (q, rest) = floats.split_at_mut(count * dim_k);
        let (scores, values) = rest.split_at_mut(count * TILE);
        Queries { dim_k, dim_v, q, scores, values, states: vec![(f32::NEG_INFINITY, 0.0); count] }
    }

    /// Queries of one row, from number `first` on. A sink is a score without a value.
    fn set(&mut self, first: usize, q: &[f32], scale: f32, sinks: Option<&[f32]>) {
        let scaled = &mut self.q[first * self.dim_k..][..q.len()];
        scaled.iter_mut().zip(q).for_each(|(scaled, q)| *scaled = q * scale);
        for (state, sink) in self.states[first..].iter_mut().zip(sinks.unwrap_or_default()) {
            *state = (*sink, 1.0);
        }
    }

    /// Scores of all queries with all cells, also those that are not to be seen.
    fn score(&mut self, machine: &Machine, tile: &Tile<'_>) {
        self.scores.fill(0.0);
        let strides = [self.dim_k, TILE, TILE];
        let product = Product { m: self.states.len(), k: self.dim_k, n: TILE, strides };
        machine.simd.product(&product, self.q, tile.k, self.scores);
    }

    /// Turns a query's scores of the cells in `seen` into shares, and what was summed up before to the same maximum.
    fn soften(&mut self, machine: &Machine, spec: &AttentionSpec, query: usize, seen: Range<usize>) {
        let scores = &mut self.scores[query * TILE..][..TILE][seen];
        if spec.softcap != 0.0 {
            scores.iter_mut().for_each(|score| *score = spec.softcap * (*score / spec.softcap).tanh());
        }
        let state = &mut self.states[query];
        let max = scores.iter().fold(state.0, |max, score| max.max(*score));
        if max > state.0 {
            let factor = crate::simd::exp(state.0 - max);
            self.values[query * self.dim_v..][..self.dim_v].iter_mut().for_each(|value| *value *= factor);
            *state = (max, state.1 * factor);
        }
        state.1 += machine.simd.exp_minus(scores, max);
    }

    /// Adds the values of the cells in `seen` by their shares.
    fn add(&mut self, machine: &Machine, tile: &Tile<'_>, queries: Range<usize>, seen: Range<usize>) {
        let product =
            Product { m: queries.len(), k: seen.len(), n: self.dim_v, strides: [TILE, self.dim_v, self.dim_v] };
        let shares = &self.scores[queries.start * TILE + seen.start..queries.end * TILE];
        let values = &mut self.values[queries.start * self.dim_v..queries.end * self.dim_v];
        machine.simd.product(&product, shares, &tile.v[seen.start * self.dim_v..], values);
    }

    fn write(&self, query: usize, out: &mut [f32]) {
        let (values, sum) = (&self.values[query * self.dim_v..][..self.dim_v], self.states[query].1);
        out.iter_mut().zip(values).for_each(|(out, value)| *out = value / sum);
    }
}
