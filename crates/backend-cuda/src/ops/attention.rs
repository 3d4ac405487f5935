//! KV caches and attention over them.

use super::{Held, MOST_ACROSS, Run, SHARED, across, apart, int, invalid, let_go, product, rounding};
use crate::Driver;
use crate::arguments::{AttentionArgs, StoreKvArgs, Stream, optional};
use crate::buffers::Span;
use backend::{AttentionSpec, BackendError, BufferId, KvCache, Need, View};
use quant::GgmlType;

/// Cells of a split, and of a tile (`kernels/softmax.h`).
const SPLIT: usize = 256;
const TILE: usize = 32;
const WARPS: usize = 4;
/// Blocks that keep a large GPU busy. With fewer, splits are computed beside each other.
const ENOUGH_BLOCKS: usize = 256;
/// What the splits' results may take.
const MOST_PARTIAL: usize = 32 << 20;

fn cached(ty: GgmlType) -> bool {
    use GgmlType::*;
    matches!(ty, F32 | F16 | BF16 | Q8_0 | Q5_1 | Q5_0 | Q4_1 | Q4_0 | IQ4_NL)
}

fn stream<D: Driver>(
    run: &Run<'_, D>,
    op: &'static str,
    cache: &KvCache,
    buffer: BufferId,
    ty: GgmlType,
    dim: usize,
) -> Result<Stream, BackendError> {
    if !cached(ty) {
        return Err(run.unsupported(op, ty));
    }
    let row = ty.row_bytes(dim).filter(|row| *row > 0 && dim % 2 == 0);
    let row = row.ok_or_else(|| invalid(op, format!("heads of {dim} values cannot be cached as {ty}")))?;
    let bytes = product(op, &[cache.head_count_kv, cache.capacity, row])?;
    let cells = run.buffers.range_mut(op, buffer, 0, bytes as u64)?.address;
    // ggml's number of the type is the kernels' too.
    Ok(Stream { cells, row_bytes: row as i64, ty: ty.id() as i32, dim: int(op, dim)? })
}

/// All that belongs to a stream.
fn cells(stream: &Stream, cache: &KvCache) -> Span {
    let rows = cache.head_count_kv as u64 * cache.capacity as u64;
    Span { address: stream.cells, bytes: rows * stream.row_bytes as u64 }
}

/// K and V, which may be a part of K.
fn both<D: Driver>(run: &Run<'_, D>, op: &'static str, cache: &KvCache) -> Result<[Stream; 2], BackendError> {
    let k = stream(run, op, cache, cache.k, cache.k_type, cache.head_dim_k)?;
    let Some(v) = cache.v else {
        let dim = cache.head_dim_v;
        if dim > cache.head_dim_k || cache.k_type.row_bytes(dim).is_none() || dim % 2 != 0 {
            return Err(invalid(op, "V is no part of K"));
        }
        return Ok([k, Stream { dim: int(op, dim)?, ..k }]);
    };
    Ok([k, stream(run, op, cache, v, cache.v_type, cache.head_dim_v)?])
}

pub(crate) fn store<D: Driver>(
    run: &mut Run<'_, D>,
    cache: &KvCache,
    [k, v]: [View; 2],
    n: usize,
    start: usize,
) -> Result<(), BackendError> {
    const OP: &str = "StoreKv";
    let [k_stream, v_stream] = both(run, OP, cache)?;
    cache.check_cells(OP, start, n, None)?;
    int(OP, start + n)?;
    let heads = cache.head_count_kv;
    let k = run.buffers.span(OP, k, product(OP, &[n, heads, cache.head_dim_k])?)?;
    let v = run.buffers.span(OP, v, product(OP, &[n, heads, cache.head_dim_v])?)?;
    let arguments = StoreKvArgs {
        k: k_stream,
        v: v_stream,
        k_input: k.address,
        v_input: v.address,
        n: int(OP, n)?,
        heads: int(OP, heads)?,
        capacity: int(OP, cache.capacity)?,
        start: int(OP, start)?,
    };
    // Whole warps, which are whole blocks of quantized types: their rows are multiples of 32.
    let threads = cache.head_dim_k.max(cache.head_dim_v).next_multiple_of(32).min(256);
    // V that is a part of K is stored with it.
    let stored = if cache.v.is_some() { 2 } else { 1 };
    let grid = [int(OP, n)? as u32, across(OP, heads)?, stored];
    // Heads that have just been turned take it along. Queries may be rotated yet.
    let cells = [k_stream, v_stream].map(|stream| cells(&stream, cache));
    if let (Held { heads: Some(turned), norm: None, rotation, .. }, true) = (&*run.held, cache.v.is_some())
        && let Some(all) = turned.stored(&arguments, v, rotation.as_ref(), &cells)
    {
        *run.held = Held { heads: Some(all), ..Held::default() };
        return Ok(());
    }
    let_go(run)?;
    // SAFETY: inputs and caches have just been checked to have these sizes; a cell is its position modulo the capacity.
    unsafe { run.launch("store_kv", "store_kv", (grid, threads as u32, 0), &arguments) }
}

/// How queries are shared out.
struct Shape {
    kernel: &'static str,
    /// Queries of a block.
    queries: usize,
    shared: usize,
}

impl Shape {
    /// Most heads' sizes fit several queries of a warp, or of several; `count` is how many share a head of K and V.
    fn new(tensor_cores: bool, [dim_k, dim_v]: [usize; 2], count: usize) -> Option<Shape> {
        let shape = if tensor_cores { tensor_shape(dim_k, dim_v, count) } else { lanes_shape(dim_k, dim_v, count) };
        shape.filter(|shape| shape.shared <= SHARED)
    }
}

/// The kernels of `kernels/attention_lanes.h`.
fn lanes_shape(dim_k: usize, dim_v: usize, count: usize) -> Option<Shape> {
    /// Values of a head that are in shared memory at once.
    const SLICE: usize = 256;
    let (kernel, per_warp) = match (dim_k.max(dim_v), count < 2 * WARPS) {
        (0..=64, true) => ("attention_1_2", 1),
        (0..=64, false) => ("attention_4_2", 4),
        (0..=128, true) => ("attention_1_4", 1),
        (0..=128, false) => ("attention_4_4", 4),
        (0..=256, true) => ("attention_1_8", 1),
        (0..=256, false) => ("attention_2_8", 2),
        _ if dim_v <= 512 => ("attention_1_16", 1),
        _ => return None,
    };
    let (padded_k, padded_v) = (dim_k.next_multiple_of(4), dim_v.next_multiple_of(2));
    let queries = WARPS * per_warp;
    let shared = 4 * (queries * padded_k + TILE * (padded_k.max(padded_v).min(SLICE) + 1));
    Some(Shape { kernel, queries, shared })
}

/// The kernels of `kernels/attention_tensor.h`: 16 queries are a tile of their products.
fn tensor_shape(dim_k: usize, dim_v: usize, count: usize) -> Option<Shape> {
    /// Values of a head that are in shared memory at once.
    const SLICE: usize = 64;
    let (kernel, tiles) = match (dim_k.max(dim_v), dim_v, count <= 16) {
        (0..=64, _, false) => ("attention_tensor_4_1", 4),
        (0..=256, 0..=128, false) => ("attention_tensor_2_2", 2),
        (0..=256, _, false) => ("attention_tensor_2_4", 2),
        (_, 0..=64, _) => ("attention_tensor_1_1", 1),
        (_, 0..=128, _) => ("attention_tensor_1_2", 1),
        (_, 0..=256, _) => ("attention_tensor_1_4", 1),
        (_, 0..=512, _) => ("attention_tensor_1_8", 1),
        _ => return None,
    };
    let (queries, words) = (16 * tiles, dim_k.next_multiple_of(16) / 2 + 4);
    // Both halves of queries and of a tile, scores, what queries and cells were scaled by, a word for each warp.
    let shared = 4 * (2 * queries * words + TILE * SLICE + queries * TILE + queries + 2 * TILE + WARPS);
    Some(Shape { kernel, queries, shared })
}

/// Bytes of scratch memory for the splits of any attention up to this one, if there are kernels for it.
pub(super) fn scratch(need: &Need) -> Option<u64> {
    let Need::Attention { k_type, v_type, head_count, head_count_kv, head_dim_k, head_dim_v, n, cells } = *need else {
        return None;
    };
    let fits = |ty: GgmlType, dim: usize| cached(ty) && dim % 2 == 0 && ty.row_bytes(dim).is_some_and(|row| row > 0);
    if !fits(k_type, head_dim_k) || !fits(v_type, head_dim_v) || head_count_kv == 0 || head_count % head_count_kv != 0 {
        return None;
    }
    // What one GPU can, all can.
    let count = n.checked_mul(head_count / head_count_kv)?;
    for tensor_cores in [false, true] {
        let shape = Shape::new(tensor_cores, [head_dim_k, head_dim_v], count)?;
        if count.div_ceil(shape.queries) > MOST_ACROSS || head_count > MOST_ACROSS {
            return None;
        }
    }
    // A window may begin and end within a split.
    let splits = cells / SPLIT + 2;
    let partial =
        [n, head_count, splits, head_dim_v + 2, 4].iter().try_fold(1usize, |all, size| all.checked_mul(*size));
    Some(partial.map_or(MOST_PARTIAL, |bytes| bytes.min(MOST_PARTIAL)) as u64)
}

pub(crate) fn attention<D: Driver>(
    run: &mut Run<'_, D>,
    cache: &KvCache,
    spec: &AttentionSpec,
    [q, out]: [View; 2],
    n: usize,
    start: usize,
) -> Result<(), BackendError> {
    const OP: &str = "Attention";
    let [k, v] = both(run, OP, cache)?;
    let (heads, heads_kv) = (spec.head_count, cache.head_count_kv);
    if heads_kv == 0 || heads % heads_kv != 0 {
        return Err(invalid(OP, format!("{heads} heads cannot share {heads_kv}")));
    }
    cache.check_cells(OP, start, n, Some(spec.window))?;
    int(OP, start + n)?;
    let (dim_k, dim_v) = (cache.head_dim_k, cache.head_dim_v);
    let q = run.buffers.span(OP, q, product(OP, &[n, heads, dim_k])?)?;
    let out = run.buffers.span_mut(OP, out, product(OP, &[n, heads, dim_v])?)?;
    apart(OP, out, &[q])?;
    let sinks = run.buffers.optional(OP, spec.sinks, heads)?;
    if n == 0 || heads == 0 {
        return Ok(());
    }
    let per_head = n * (heads / heads_kv);
    let Some(shape) = Shape::new(run.gpu.architecture().tensor_cores(), [dim_k, dim_v], per_head) else {
        return Err(run.unsupported(OP, cache.k_type));
    };
    // Splits that some row sees.
    let low = if spec.window == 0 { 0 } else { (start + 1).saturating_sub(spec.window) };
    let first_split = low / SPLIT;
    let splits = (start + n).div_ceil(SPLIT) - first_split;
    let mut arguments = AttentionArgs {
        k,
        v,
        q: q.address,
        sinks: optional(sinks),
        out: out.address,
        rounded: 0,
        partial: 0,
        n: int(OP, n)?,
        start: int(OP, start)?,
        heads: int(OP, heads)?,
        heads_kv: int(OP, heads_kv)?,
        capacity: int(OP, cache.capacity)?,
        window: int(OP, spec.window)?,
        first_split: int(OP, first_split)?,
        splits: int(OP, splits)?,
        scale: spec.scale,
        softcap: spec.softcap,
    };
    let blocks = per_head.div_ceil(shape.queries);
    let partial = product(OP, &[n, heads, splits, dim_v + 2, 4])?;
    let apart = splits > 1 && !run.gpu.whole_attention && blocks * heads_kv < ENOUGH_BLOCKS && partial <= MOST_PARTIAL;
    let mut grid = [1, across(OP, blocks)?, across(OP, heads_kv)?];
    let mut merged = None;
    if apart {
        arguments.partial = run.gpu.scratch(&mut run.scratch.splits, partial as u64)?;
        grid[0] = splits as u32;
        merged = Some([int(OP, n)? as u32, across(OP, heads)?, 1]);
    }
    arguments.rounded = rounding::beside(run, out, dim_v);
    // SAFETY: queries, caches, sinks and results have just been checked to have these sizes, and scratch memory has room
    // for every split's result, and for roundings where they are made; cells are positions modulo the capacity.
    unsafe { run.launch("attention", shape.kernel, (grid, 32 * WARPS as u32, shape.shared as u32), &arguments) }?;
    if let Some(grid) = merged {
        // SAFETY: as above.
        unsafe { run.launch("attention", "merge_splits", (grid, 512, 0), &arguments) }?;
    }
    rounding::made(run, out, arguments.rounded);
    Ok(())
}
