//! KV caches: rings of cells, of f32 or packed.

use super::{invalid, product};
use crate::buffers::{Buffers, Bytes};
use crate::cpu::Machine;
use crate::simd::cells::Cells;
use backend::{BackendError, KvCache, View};
use quant::GgmlType;

/// One of K and V of a cache.
#[derive(Clone, Copy)]
pub(super) struct Stream {
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

    pub fn both(op: &'static str, buffers: &Buffers, cache: &KvCache) -> Result<[Stream; 2], BackendError> {
        let k = Stream::new(op, buffers, cache, cache.k, cache.k_type, cache.head_dim_k)?;
        let v = match cache.v {
            Some(v) => Stream::new(op, buffers, cache, v, cache.v_type, cache.head_dim_v)?,
            None => {
                let used =
                    k.ty.row_bytes(cache.head_dim_v).filter(|used| *used > 0 && cache.head_dim_v <= cache.head_dim_k);
                let used = used.ok_or_else(|| invalid(op, "V is no part of K"))?;
                Stream { bytes: k.bytes, dim: cache.head_dim_v, used, ..k }
            }
        };
        Ok([k, v])
    }

    /// Positions `start..start + count` of a head as they are kept, and the stride from one to the next: where their type
    /// is read so, and they lie in one piece.
    pub fn cells(&self, head: usize, start: usize, count: usize) -> Option<(Cells<'_>, usize)> {
        let first = start % self.capacity;
        if first + count > self.capacity {
            return None;
        }
        // SAFETY: caches are only read while attention runs.
        let bytes = unsafe { self.bytes.read((head * self.capacity + first) * self.row, count * self.row) };
        Cells::packed(self.ty, bytes, self.row)
    }

    /// Positions `start..start + count` of a head as f32. The cells are a ring.
    pub fn load(&self, machine: &Machine, head: usize, start: usize, count: usize, out: &mut [f32]) {
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
        // Lengths fit: `used` is what this type makes of `dim` values.
        if machine.simd.dequantize(self.ty, bytes, out).is_err() {
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
                if machine.simd.quantize_cache_row(stream.ty, values, out).is_err() {
                    out.fill(0xff);
                }
            }
        }
    })
}
