//! The Walsh-Hadamard transform.

use super::{Run, int};
use crate::Driver;
use crate::arguments::HadamardArgs;
use backend::check::hadamard as check;
use backend::{BackendError, View};
use quant::GgmlType;

const OP: &str = "Hadamard";
/// Threads of a block at most (`kernels/hadamard.cu`).
const THREADS: usize = 256;
/// Values that shared memory holds on every GPU; heads are far smaller.
const LARGEST: usize = 8192;

pub(crate) fn hadamard<D: Driver>(run: &mut Run<'_, D>, x: View, len: usize, block: usize) -> Result<(), BackendError> {
    check(OP, len, block)?;
    let x = run.buffers.span_mut(OP, x, len)?;
    if block > LARGEST {
        return Err(run.unsupported(OP, GgmlType::F32));
    }
    if len == 0 {
        return Ok(());
    }
    let arguments = HadamardArgs { x: x.address, block: int(OP, block)?, scale: 1.0 / (block as f32).sqrt() };
    let threads = (block / 2).clamp(32, THREADS) as u32;
    let grid = [int(OP, len / block)? as u32, 1, 1];
    // SAFETY: the operand has just been checked to have `len` values, which are whole blocks; shared memory holds one.
    unsafe { run.launch("hadamard", "hadamard", (grid, threads, 4 * block as u32), &arguments) }
}
