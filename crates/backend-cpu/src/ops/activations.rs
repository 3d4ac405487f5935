//! Activations of one operation, rounded to 8 bits once and used by every matrix that reads them.

use crate::buffers::Span;
use crate::cpu::Machine;
use crate::simd::packed::{Form, Inputs, NARROW, NarrowBlock, Prepared, Row, WIDE, WideBlock};
use backend::BackendError;
use quant::GgmlType;
use std::sync::{Mutex, PoisonError};

/// Values that a thread rounds at a time.
const CHUNK: usize = 8192;

/// Rows in either form; what an operation does not need keeps the values of an earlier one. They lie in groups of columns,
/// and inside a group one after the other.
#[derive(Default)]
pub(crate) struct Activations {
    wide: Vec<WideBlock>,
    narrow: Vec<NarrowBlock>,
    /// Of every row, for so many types each.
    prepared: Vec<Prepared>,
    types: usize,
    n: usize,
    cols: usize,
    group: usize,
}

impl Activations {
    /// Rounds `n` rows of `cols` values, a multiple of the form's block. Groups have `group` columns: all where rows are
    /// wanted whole, those of a panel where all rows meet one after the other, so that they come in the order of memory.
    pub fn fill(
        &mut self,
        machine: &Machine,
        op: &'static str,
        form: Form,
        input: Span,
        [n, cols, group]: [usize; 3],
    ) -> Result<(), BackendError> {
        // What was prepared were other values.
        (self.n, self.cols, self.group, self.types) = (n, cols, group, 0);
        // SAFETY: the input is only read during this operation.
        let values = |row: usize, start: usize, len: usize| unsafe { input.read(row * cols + start, len) };
        match form {
            Form::Wide => {
                self.wide.resize(n * cols / WIDE, WideBlock::default());
                let round = |x: &[f32], out: &mut [WideBlock]| machine.simd.quantize_wide(x, out);
                each(machine, op, &mut self.wide, [n, cols, group, WIDE], &values, &round)
            }
            Form::Narrow => {
                self.narrow.resize(n * cols / NARROW, NarrowBlock::default());
                let round = |x: &[f32], out: &mut [NarrowBlock]| machine.simd.quantize_narrow(x, out);
                each(machine, op, &mut self.narrow, [n, cols, group, NARROW], &values, &round)
            }
        }
    }

    /// Prepares all rows, which were filled and lie in one group, for weights of these types that meet them alone.
    pub fn prepare(
        &mut self,
        machine: &Machine,
        op: &'static str,
        types: &[(GgmlType, Form)],
    ) -> Result<(), BackendError> {
        let mut prepared = std::mem::take(&mut self.prepared);
        prepared.resize_with(self.n * types.len(), Prepared::default);
        // Locks hand each row to the one chunk that writes it.
        let rows: Vec<_> = prepared.chunks_mut(types.len().max(1)).map(Mutex::new).collect();
        let done = machine.run(op, rows.len(), &|_, index| {
            let mut row = rows[index].lock().unwrap_or_else(PoisonError::into_inner);
            for ((ty, form), out) in types.iter().zip(row.iter_mut()) {
                machine.simd.prepare(*ty, self.row(*form, index), out);
            }
        });
        (self.prepared, self.types) = (prepared, types.len());
        done
    }

    /// A row as it was prepared for a type.
    ///
    /// # Panics
    /// It was not.
    pub fn prepared(&self, ty: GgmlType, index: usize) -> &Prepared {
        let of_types = &self.prepared[index * self.types..][..self.types];
        of_types.iter().find(|prepared| prepared.ty() == ty).expect("prepared activations")
    }

    /// A whole row, where there is one group.
    pub fn row(&self, form: Form, index: usize) -> Row<'_> {
        assert!(self.group >= self.cols, "rows lie in groups");
        match form {
            Form::Wide => Row::Wide(&self.wide[index * self.cols / WIDE..][..self.cols / WIDE]),
            Form::Narrow => Row::Narrow(&self.narrow[index * self.cols / NARROW..][..self.cols / NARROW]),
        }
    }

    /// Rows `places` from value `start` on: to their end, or to the end of its group.
    pub fn inputs<'a>(&'a self, form: Form, start: usize, places: &'a [usize]) -> Inputs<'a> {
        let group = start / self.group * self.group;
        let width = self.group.min(self.cols - group);
        let (from, to) = (group * self.n, (group + width) * self.n);
        let (blocks, size) = match form {
            Form::Wide => (Row::Wide(&self.wide[from / WIDE..to / WIDE]), WIDE),
            Form::Narrow => (Row::Narrow(&self.narrow[from / NARROW..to / NARROW]), NARROW),
        };
        Inputs { blocks, stride: width / size, first: (start - group) / size, places }
    }
}

/// Calls `round` for every row of every group of columns, on all threads.
fn each<'a, B: Send>(
    machine: &Machine,
    op: &'static str,
    out: &mut [B],
    [n, cols, group, block]: [usize; 4],
    values: &(dyn Fn(usize, usize, usize) -> &'a [f32] + Sync),
    round: &(dyn Fn(&[f32], &mut [B]) + Sync),
) -> Result<(), BackendError> {
    // Locks hand each part to the one chunk that writes it.
    let (mut parts, mut rest) = (Vec::new(), out);
    for start in (0..cols).step_by(group) {
        let width = group.min(cols - start);
        let (own, others) = rest.split_at_mut(n * width / block);
        rest = others;
        let rows = (CHUNK / width).max(1);
        let chunks = own.chunks_mut(rows * width / block).enumerate();
        parts.extend(chunks.map(|(index, out)| (start, width, index * rows, Mutex::new(out))));
    }
    machine.run(op, parts.len(), &|_, index| {
        let (start, width, first, out) = &parts[index];
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        for (row, out) in out.chunks_exact_mut(width / block).enumerate() {
            round(values(first + row, *start, *width), out);
        }
    })
}
