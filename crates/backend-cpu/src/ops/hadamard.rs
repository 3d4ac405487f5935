//! The Walsh-Hadamard transform.

use crate::buffers::Buffers;
use crate::cpu::Machine;
use backend::check::hadamard as check;
use backend::{BackendError, View};

/// Values that a chunk has, about.
const CHUNK: usize = 1 << 13;

pub(crate) fn hadamard(
    machine: &Machine,
    buffers: &Buffers,
    x: View,
    len: usize,
    block: usize,
) -> Result<(), BackendError> {
    const OP: &str = "Hadamard";
    check(OP, len, block)?;
    let x = buffers.span_mut(OP, x, len)?;
    let per_chunk = (CHUNK / block).max(1) * block;
    machine.run(OP, len.div_ceil(per_chunk), &|_, chunk| {
        let first = chunk * per_chunk;
        // SAFETY: chunks are disjoint, and nothing else is read or written.
        let values = unsafe { x.write(first, per_chunk.min(len - first)) };
        values.chunks_exact_mut(block).for_each(|block| machine.simd.hadamard(block));
    })
}
