//! Activations of one operation, rounded to 8 bits once and used by every matrix that reads them.

use crate::buffers::Span;
use crate::cpu::Machine;
use crate::simd::packed::{Form, NARROW, NarrowBlock, Row, WIDE, WideBlock};
use backend::BackendError;
use std::sync::{Mutex, PoisonError};

/// Rows in either form; what an operation does not need keeps the values of an earlier one.
#[derive(Default)]
pub(crate) struct Activations {
    wide: Vec<WideBlock>,
    narrow: Vec<NarrowBlock>,
    cols: usize,
}

impl Activations {
    /// Rounds `n` rows of `cols` values, a multiple of the form's block.
    pub fn fill(
        &mut self,
        machine: &Machine,
        op: &'static str,
        form: Form,
        input: Span,
        n: usize,
        cols: usize,
    ) -> Result<(), BackendError> {
        self.cols = cols;
        // SAFETY: the input is only read during this operation.
        let row = |row: usize| unsafe { input.read(row * cols, cols) };
        match form {
            Form::Wide => {
                self.wide.resize(n * cols / WIDE, WideBlock::default());
                let rows = self.wide.chunks_exact_mut(cols / WIDE);
                each(machine, op, rows, &|index, out| machine.simd.quantize_wide(row(index), out))
            }
            Form::Narrow => {
                self.narrow.resize(n * cols / NARROW, NarrowBlock::default());
                let rows = self.narrow.chunks_exact_mut(cols / NARROW);
                each(machine, op, rows, &|index, out| machine.simd.quantize_narrow(row(index), out))
            }
        }
    }

    pub fn row(&self, form: Form, index: usize) -> Row<'_> {
        match form {
            Form::Wide => Row::Wide(&self.wide[index * self.cols / WIDE..][..self.cols / WIDE]),
            Form::Narrow => Row::Narrow(&self.narrow[index * self.cols / NARROW..][..self.cols / NARROW]),
        }
    }
}

/// Calls `fill` for every row, on all threads.
fn each<'a, B: Send + 'a>(
    machine: &Machine,
    op: &'static str,
    rows: impl Iterator<Item = &'a mut [B]>,
    fill: &(dyn Fn(usize, &mut [B]) + Sync),
) -> Result<(), BackendError> {
    // Locks hand each row to the one chunk that writes it.
    let rows: Vec<Mutex<&mut [B]>> = rows.map(Mutex::new).collect();
    machine.run(op, rows.len(), &|_, row| fill(row, &mut rows[row].lock().unwrap_or_else(PoisonError::into_inner)))
}
