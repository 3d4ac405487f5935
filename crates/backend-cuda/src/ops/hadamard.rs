//! The Walsh-Hadamard transform.

use super::heads::LARGEST as LARGEST_OF_HEADS;
use super::{Run, int, let_go, rounding};
use crate::Driver;
use crate::arguments::HadamardArgs;
use crate::buffers::Span;
use backend::check::hadamard as check;
use backend::{BackendError, View};
use quant::GgmlType;

const OP: &str = "Hadamard";
/// Threads of a block at most (`kernels/hadamard.cu`).
const THREADS: usize = 256;
/// Values that shared memory holds on every GPU; heads are far smaller.
const LARGEST: usize = 8192;

/// A transform that may be that of values which are stored next.
#[derive(Clone, Copy)]
pub(crate) struct Rotation {
    pub arguments: HadamardArgs,
    pub x: Span,
}

pub(crate) fn hadamard<D: Driver>(run: &mut Run<'_, D>, x: View, len: usize, block: usize) -> Result<(), BackendError> {
    check(OP, len, block)?;
    let x = run.buffers.span_mut(OP, x, len)?;
    if block > LARGEST {
        return Err(run.unsupported(OP, GgmlType::F32));
    }
    if len == 0 {
        return Ok(());
    }
    let scale = 1.0 / (block as f32).sqrt();
    let arguments = HadamardArgs { x: x.address, rounded: 0, block: int(OP, block)?, scale };
    int(OP, len / block)?;
    let rotation = Rotation { arguments, x };
    let held = &mut *run.held;
    if let (Some(heads), None, None, true) = (&held.heads, &held.norm, &held.rotation, block <= LARGEST_OF_HEADS) {
        match heads.rotated(&rotation) {
            Some(all) => held.heads = Some(all),
            None => held.rotation = Some(rotation),
        }
        return Ok(());
    }
    let_go(run)?;
    rotation.launch(run)
}

impl Rotation {
    pub fn launch<D: Driver>(&self, run: &mut Run<'_, D>) -> Result<(), BackendError> {
        let block = self.arguments.block as usize;
        let threads = (block / 2).clamp(32, THREADS) as u32;
        let grid = [(self.x.bytes / (4 * block as u64)) as u32, 1, 1];
        let rounded = rounding::beside(run, self.x, block);
        let arguments = HadamardArgs { rounded, ..self.arguments };
        // SAFETY: the operand was checked to have whole blocks when it came, and whoever frees it lets go first; shared memory
        // holds one; where the result is rounded, there is room.
        unsafe { run.launch("hadamard", "hadamard", (grid, threads, 4 * block as u32), &arguments) }?;
        rounding::made(run, self.x, rounded);
        Ok(())
    }
}
