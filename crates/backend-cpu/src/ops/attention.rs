//! Attention over KV caches: online softmax over tiles of cells (Dao et al. 2022, arXiv 2205.14135), one pass.
//!
//! Scores and results of a tile are matrix products of all queries that share its keys: some rows, and the heads of a group.
//! Cells are summed up in pieces, each from nothing, and pieces are added in order (as in Flash-Decoding, Dao et al. 2023).
//! Tiles and pieces begin at multiples of [`TILE`] and [`PIECE`] whatever the batch, so a row's result depends neither on
//! the rows beside it nor on whether one thread computes its pieces or several do.

use super::cache::Stream;
use super::{invalid, product, reused};
use crate::buffers::{Buffers, Span};
use crate::cpu::Machine;
use crate::simd::cells::Cells;
use crate::simd::tiles::Product;
use backend::{AttentionSpec, BackendError, KvCache, View};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Cells of a tile.
const TILE: usize = 64;
/// Cells of a piece.
const PIECE: usize = 512;
/// Queries that share the tiles of a chunk of work, about.
const QUERIES: usize = 64;
/// Queries up to which cells are read as they are kept: each four of them widen a cell anew, in registers.
const FEW: usize = 8;
/// Chunks for each thread from which on they keep all threads busy.
const CHUNKS: usize = 4;
/// Sums of pieces that are kept until all are there, at most: 4 MB where a head has 128 values.
const KEPT: usize = 8192;

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
    let streams = Stream::both(OP, buffers, cache)?;
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
    let dims = [cache.head_dim_k, cache.head_dim_v];
    if n == 0 || heads == 0 {
        return Ok(());
    }
    let attend = Attend { machine, streams, spec, q, sinks, out, dims, heads, group: heads / heads_kv, start };
    let per_block = (QUERIES / attend.group).max(1);
    let chunks = heads_kv * n.div_ceil(per_block);
    let part = |chunk: usize| {
        let first = chunk / heads_kv * per_block;
        Part { head_kv: chunk % heads_kv, rows: first..n.min(first + per_block) }
    };
    let pieces = attend.pieces(&(0..n));
    let threads = machine.pool.threads();
    if threads == 1 || chunks >= CHUNKS * threads || pieces.len() < 2 || n * heads * pieces.len() > KEPT {
        return machine.run(OP, chunks, &|worker, chunk| attend.whole(worker, &part(chunk)));
    }
    let size = attend.sums_len(per_block);
    let mut kept = machine.scratch.sums();
    let kept = reused(&mut kept, chunks * pieces.len() * size);
    // Locks hand each piece's sums to the one chunk that computes them.
    let sums: Vec<Mutex<&mut [f32]>> = kept.chunks_exact_mut(size).map(Mutex::new).collect();
    machine.run(OP, sums.len(), &|worker, index| {
        let mut sums = sums[index].lock().unwrap_or_else(PoisonError::into_inner);
        attend.one(worker, &part(index / pieces.len()), pieces.start + index % pieces.len(), &mut sums);
    })?;
    machine.run(OP, chunks, &|worker, chunk| {
        attend.add_up(worker, &part(chunk), &sums[chunk * pieces.len()..][..pieces.len()]);
    })
}

/// The operation, with everything looked up.
struct Attend<'a> {
    machine: &'a Machine,
    streams: [Stream; 2],
    spec: &'a AttentionSpec,
    q: Span,
    sinks: Option<Span>,
    out: Span,
    /// Of keys and of values.
    dims: [usize; 2],
    heads: usize,
    /// Heads that share keys.
    group: usize,
    start: usize,
}

/// Queries that are computed together: the heads of a group in some rows.
struct Part {
    head_kv: usize,
    rows: Range<usize>,
}

impl Attend<'_> {
    /// The first position that a row sees.
    fn first_seen(&self, row: usize) -> usize {
        if self.spec.window == 0 { 0 } else { (self.start + row + 1).saturating_sub(self.spec.window) }
    }

    /// Pieces that rows see.
    fn pieces(&self, rows: &Range<usize>) -> Range<usize> {
        self.first_seen(rows.start) / PIECE..(self.start + rows.end).div_ceil(PIECE)
    }

    fn sums_len(&self, rows: usize) -> usize {
        rows * self.group * (self.dims[1] + 2)
    }

    fn whole(&self, worker: usize, part: &Part) {
        let mut scratch = self.machine.scratch.worker(worker);
        let super::Worker { floats, more_floats, .. } = &mut *scratch;
        let mut work = Work::new(self, part, floats);
        let len = self.sums_len(part.rows.len());
        let (total, piece_sums) = reused(more_floats, 2 * len).split_at_mut(len);
        let (mut total, mut sums) = (Sums::new(total, self.dims[1]), Sums::new(piece_sums, self.dims[1]));
        self.begin(part, &mut total);
        for piece in self.pieces(&part.rows) {
            work.piece(piece, &mut sums);
            total.add(self.machine, &sums);
        }
        self.write(part, &total);
    }

    fn one(&self, worker: usize, part: &Part, piece: usize, sums: &mut [f32]) {
        let mut scratch = self.machine.scratch.worker(worker);
        let mut work = Work::new(self, part, &mut scratch.floats);
        let sums = &mut sums[..self.sums_len(part.rows.len())];
        work.piece(piece, &mut Sums::new(sums, self.dims[1]));
    }

    fn add_up(&self, worker: usize, part: &Part, pieces: &[Mutex<&mut [f32]>]) {
        let mut scratch = self.machine.scratch.worker(worker);
        let len = self.sums_len(part.rows.len());
        let mut total = Sums::new(reused(&mut scratch.more_floats, len), self.dims[1]);
        self.begin(part, &mut total);
        for sums in pieces {
            let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
            total.add(self.machine, &Sums::new(&mut sums[..len], self.dims[1]));
        }
        self.write(part, &total);
    }

    /// Sums of no cells. A sink is a score without a value.
    fn begin(&self, part: &Part, total: &mut Sums<'_>) {
        total.clear();
        if let Some(sinks) = self.sinks {
            // SAFETY: sinks are not written during the operation.
            let sinks = unsafe { sinks.read(part.head_kv * self.group, self.group) };
            for (state, sink) in total.states.iter_mut().zip(sinks.iter().cycle()) {
                *state = [*sink, 1.0];
            }
        }
    }

    fn write(&self, part: &Part, total: &Sums<'_>) {
        let dim = self.dims[1];
        for (index, row) in part.rows.clone().enumerate() {
            let first = row * self.heads + part.head_kv * self.group;
            // SAFETY: this chunk alone has these heads of this row.
            let out = unsafe { self.out.write(first * dim, self.group * dim) };
            let values = &total.values[index * self.group * dim..];
            let states = &total.states[index * self.group..];
            for ((out, values), [_, sum]) in out.chunks_exact_mut(dim).zip(values.chunks_exact(dim)).zip(states) {
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value / sum);
            }
        }
    }
}

/// What queries have seen.
struct Sums<'a> {
    dim: usize,
    /// f32 [queries, dim]: sums of values by share
    values: &'a mut [f32],
    /// Maximum of the scores, and the sum of their exponentials relative to it.
    states: &'a mut [[f32; 2]],
}

impl<'a> Sums<'a> {
    fn new(floats: &'a mut [f32], dim: usize) -> Sums<'a> {
        let count = floats.len() / (dim + 2);
        let (values, states) = floats.split_at_mut(count * dim);
        Sums { dim, values, states: states.as_chunks_mut().0 }
    }

    fn clear(&mut self) {
        self.values.fill(0.0);
        self.states.fill([f32::NEG_INFINITY, 0.0]);
    }

    /// Adds a piece's cells.
    fn add(&mut self, machine: &Machine, piece: &Sums<'_>) {
        let values = self.values.chunks_exact_mut(self.dim).zip(piece.values.chunks_exact(self.dim));
        for ((values, more), (state, [max, sum])) in values.zip(self.states.iter_mut().zip(&*piece.states)) {
            // Nothing of the piece is seen.
            if *max == f32::NEG_INFINITY && *sum == 0.0 {
                continue;
            }
            let larger = if *max > state[0] { *max } else { state[0] };
            let factors = [state[0], *max].map(|max| crate::simd::exp(max - larger));
            machine.simd.scale(values, factors[0]);
            machine.simd.axpy(factors[1], more, values);
            *state = [larger, state[1] * factors[0] + sum * factors[1]];
        }
    }
}

/// What computing a piece takes.
struct Work<'a> {
    attend: &'a Attend<'a>,
    part: &'a Part,
    /// f32 [queries, dim of keys], with the scale of the scores
    q: &'a mut [f32],
    /// f32 [queries, TILE]: scores, then shares
    scores: &'a mut [f32],
    /// f32 [TILE, dim of keys]
    k: &'a mut [f32],
    /// f32 [TILE, dim of values]
    v: &'a mut [f32],
}

impl<'a> Work<'a> {
    fn new(attend: &'a Attend<'a>, part: &'a Part, floats: &'a mut Vec<f32>) -> Work<'a> {
        let (queries, [dim_k, dim_v]) = (part.rows.len() * attend.group, attend.dims);
        let floats = reused(floats, queries * (dim_k + TILE) + TILE * (dim_k + dim_v));
        let (q, rest) = floats.split_at_mut(queries * dim_k);
        let (scores, rest) = rest.split_at_mut(queries * TILE);
        let (k, v) = rest.split_at_mut(TILE * dim_k);
        for (row, scaled) in part.rows.clone().zip(q.chunks_exact_mut(attend.group * dim_k)) {
            let first = row * attend.heads + part.head_kv * attend.group;
            // SAFETY: queries are not written during the operation.
            let q = unsafe { attend.q.read(first * dim_k, scaled.len()) };
            scaled.iter_mut().zip(q).for_each(|(scaled, q)| *scaled = q * attend.spec.scale);
        }
        Work { attend, part, q, scores, k, v }
    }

    /// Sums up the cells of a piece.
    fn piece(&mut self, piece: usize, sums: &mut Sums<'_>) {
        sums.clear();
        let (attend, rows, group) = (self.attend, self.part.rows.clone(), self.attend.group);
        let begin = (attend.first_seen(rows.start) / TILE * TILE).max(piece * PIECE);
        let end = (attend.start + rows.end).min((piece + 1) * PIECE);
        for first in (begin..end).step_by(TILE) {
            let cells = TILE.min(end - first);
            let values = self.load(first, cells);
            let whole = first + TILE <= attend.start + rows.start + 1 && attend.first_seen(rows.end - 1) <= first;
            for (index, row) in rows.clone().enumerate() {
                let seen = attend.first_seen(row).max(first)..(attend.start + row + 1).min(first + cells);
                if seen.is_empty() {
                    continue;
                }
                let seen = seen.start - first..seen.end - first;
                let queries = index * group..(index + 1) * group;
                queries.clone().for_each(|query| self.soften(query, seen.clone(), sums));
                if !whole {
                    self.add(queries, seen, values, sums);
                }
            }
            if whole {
                self.add(0..rows.len() * group, 0..TILE, values, sums);
            }
        }
    }

    /// The scores of all queries with some cells, also those that are not to be seen, and where the cells' values are: in
    /// the cache, or else in `self.v`. Few queries read cells as they are kept; for many they are widened once.
    fn load(&mut self, first: usize, cells: usize) -> Option<(Cells<'a>, usize)> {
        let (attend, head, [dim_k, dim_v]) = (self.attend, self.part.head_kv, self.attend.dims);
        let [k, v] = &attend.streams;
        let queries = self.part.rows.len() * attend.group;
        // Up to three cells beyond the last one are what they were, and not looked at.
        let whole = cells.next_multiple_of(4);
        let kept = if queries <= FEW { k.cells(head, first, whole) } else { None };
        let (keys, stride) = match kept {
            Some(kept) => kept,
            None => {
                k.load(attend.machine, head, first, cells, &mut self.k[..cells * dim_k]);
                (Cells::F32(self.k), dim_k)
            }
        };
        let dots = Product { m: queries, k: dim_k, n: whole, strides: [dim_k, stride, TILE] };
        attend.machine.simd.dots(&dots, self.q, keys, self.scores);
        let values = if queries <= FEW { v.cells(head, first, cells) } else { None };
        if values.is_none() {
            v.load(attend.machine, head, first, cells, &mut self.v[..cells * dim_v]);
        }
        values
    }

    /// Turns a query's scores of the cells in `seen` into shares, and what was summed up before to the same maximum.
    fn soften(&mut self, query: usize, seen: Range<usize>, sums: &mut Sums<'_>) {
        let (simd, spec) = (self.attend.machine.simd, self.attend.spec);
        let scores = &mut self.scores[query * TILE..][..TILE][seen];
        if spec.softcap != 0.0 {
            simd.softcap(scores, spec.softcap);
        }
        let [before, sum] = sums.states[query];
        let max = simd.max(scores, before);
        let mut sum = sum;
        if max > before {
            let factor = crate::simd::exp(before - max);
            simd.scale(&mut sums.values[query * sums.dim..][..sums.dim], factor);
            sum *= factor;
        }
        sums.states[query] = [max, sum + simd.exp_minus(scores, max)];
    }

    /// Adds the values of the cells in `seen` by their shares.
    fn add(
        &mut self,
        queries: Range<usize>,
        seen: Range<usize>,
        kept: Option<(Cells<'a>, usize)>,
        sums: &mut Sums<'_>,
    ) {
        let dim = sums.dim;
        let (values, stride) = kept.unwrap_or((Cells::F32(self.v), dim));
        let product = Product { m: queries.len(), k: seen.len(), n: dim, strides: [TILE, stride, dim] };
        let shares = &self.scores[queries.start * TILE + seen.start..queries.end * TILE];
        let sums = &mut sums.values[queries.start * dim..queries.end * dim];
        self.attend.machine.simd.product(&product, shares, values.skip(seen.start * stride), sums);
    }
}
