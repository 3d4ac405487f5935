//! Activations of one operation, rounded to 8 bits once and used by every matrix that reads them.

use crate::buffers::Span;
use crate::cpu::Machine;
use crate::simd::ActivationRow;
use backend::BackendError;
use std::sync::Mutex;

#[derive(Default)]
pub(crate) struct Activations {
    cols: usize,
    q: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<f32>,
}

impl Activations {
    /// Rounds `n` rows of `cols` values (a multiple of 32).
    pub fn fill(
        &mut self,
        machine: &Machine,
        op: &'static str,
        input: Span,
        n: usize,
        cols: usize,
    ) -> Result<(), BackendError> {
        self.cols = cols;
        self.q.resize(n * cols, 0);
        self.scales.resize(n * cols / 32, 0.0);
        self.sums.resize(n * cols / 16, 0.0);
        let rows = self.q.chunks_exact_mut(cols).zip(self.scales.chunks_exact_mut(cols / 32));
        let rows = rows.zip(self.sums.chunks_exact_mut(cols / 16));
        // Locks hand each row to the one chunk that writes it.
        let rows: Vec<_> = rows.map(|((q, scales), sums)| Mutex::new((q, scales, sums))).collect();
        machine.run(op, n, &|_, row| {
            let mut parts = rows[row].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (q, scales, sums) = &mut *parts;
            // SAFETY: the input is only read during this operation.
            machine.simd.quantize(unsafe { input.read(row * cols, cols) }, q, scales, sums);
        })
    }

    pub fn row(&self, index: usize) -> ActivationRow<'_> {
        let cols = self.cols;
        ActivationRow {
            q: &self.q[index * cols..][..cols],
            scales: &self.scales[index * cols / 32..][..cols / 32],
            sums: &self.sums[index * cols / 16..][..cols / 16],
        }
    }
}
