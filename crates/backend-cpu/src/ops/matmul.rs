//! Matrix products: one token's rows at the speed of memory, a prompt's in panels that are unpacked once.

use super::activations::Activations;
use super::{invalid, product, reused};
use crate::buffers::{Buffers, Span};
use crate::cpu::{Machine, Precision};
use crate::simd::cells::Cells;
use crate::simd::packed::{self, Form, Lanes32, PANEL_ROWS, PANEL_VALUES, Panel, ROWS, Row, Stripe};
use crate::simd::tiles::Product;
use backend::{BackendError, Linear, View, Weight};
use quant::GgmlType;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

const OP: &str = "MatMul";
/// Rows of weights in a chunk of work: two panels, which share the activations that the second-level cache has.
const CHUNK_ROWS: usize = 2 * PANEL_ROWS;
/// The same where few activations meet them: what is left for the last thread is short.
const FEW_ROWS: usize = 16;
/// Activations that meet a panel before it holds other values: the second-level cache has room for as many of theirs.
const PANEL_INPUTS: usize = 512;
/// Activations that meet it without a look at anything else: a multiple of what any kernel takes at a time.
const PANEL_STEP: usize = 48;
/// Activations from which on unpacking a panel pays. Both ways give the same bits.
const PANEL_TOKENS: usize = 4;
/// Rows that are made f32 together for few activations: they stay in the first-level cache.
const FLOAT_ROWS: usize = 4;
/// Rows that are made f32 together for more of them, and how many meet them at a time.
const FLOAT_GROUP: usize = 32;
const TILE: usize = 8;

/// One product with everything looked up.
struct Task<'a> {
    rows: Rows<'a>,
    bias: Option<Span>,
    scale: f32,
    out: Span,
}

pub(crate) fn matmul(
    machine: &Machine,
    buffers: &Buffers,
    input: View,
    n: usize,
    products: &[Linear],
) -> Result<(), BackendError> {
    let Some(first) = products.first() else { return Ok(()) };
    let cols = first.weight.cols;
    if n == 0 || cols == 0 {
        return Ok(());
    }
    let input = buffers.span(OP, input, product(OP, &[n, cols])?)?;
    let mut tasks = Vec::with_capacity(products.len());
    let mut chunks = Vec::new();
    for linear in products {
        let weight = linear.weight;
        if weight.cols != cols {
            return Err(invalid(OP, format!("weights of {} and {cols} columns read the same input", weight.cols)));
        }
        let rows = Rows::new(machine, weight, buffers.weight(OP, &weight, 1)?);
        let out = buffers.span_mut(OP, linear.out, product(OP, &[n, weight.rows])?)?;
        if out.overlaps(input) {
            return Err(invalid(OP, "the result overlaps the input"));
        }
        let bias = linear.bias.map(|bias| buffers.span(OP, bias, weight.rows)).transpose()?;
        chunks.extend((0..weight.rows).step_by(chunk_rows(n)).map(|row| (tasks.len(), row)));
        tasks.push(Task { rows, bias, scale: linear.scale, out });
    }
    let mut activations = machine.scratch.activations();
    for form in [Form::Wide, Form::Narrow] {
        if tasks.iter().any(|task| task.rows.form == Some(form)) {
            activations.fill(machine, OP, form, input, n, cols)?;
        }
    }
    let tokens: Vec<usize> = (0..n).collect();
    let operand = Operand { input, activations: &activations, tokens: &tokens };
    run(machine, OP, chunks.len(), &|worker, chunk| {
        let (task, first) = chunks[chunk];
        let task = &tasks[task];
        let count = task.rows.weight.rows;
        let range = first..count.min(first + chunk_rows(n));
        task.rows.compute(machine, worker, range, &operand, &mut |token, row, values| {
            // SAFETY: this chunk alone writes these rows of the result; biases are not written during the operation.
            let (out, bias) = unsafe {
                let out = task.out.write(token * count + row, values.len());
                (out, task.bias.map(|bias| bias.read(row, values.len())))
            };
            finish(out, values, task.scale, bias);
        })
    })
}

/// Rows of weights in a chunk of work for so many tokens.
pub(crate) fn chunk_rows(tokens: usize) -> usize {
    if tokens < PANEL_TOKENS { FEW_ROWS } else { CHUNK_ROWS }
}

/// `out = values * scale + bias`
pub(crate) fn finish(out: &mut [f32], values: &[f32], scale: f32, bias: Option<&[f32]>) {
    if scale == 1.0 {
        out.copy_from_slice(values);
    } else {
        out.iter_mut().zip(values).for_each(|(out, value)| *out = value * scale);
    }
    if let Some(bias) = bias {
        out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
    }
}

/// Runs chunks that may fail; one of the failures is the operation's.
pub(crate) fn run(
    machine: &Machine,
    op: &'static str,
    chunks: usize,
    chunk: &(dyn Fn(usize, usize) -> Result<(), BackendError> + Sync),
) -> Result<(), BackendError> {
    let failure = Mutex::new(None);
    machine.run(op, chunks, &|worker, index| {
        if let Err(error) = chunk(worker, index) {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    })?;
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// What weights are multiplied with: rows `tokens` of an input, as they are and rounded.
pub(crate) struct Operand<'a> {
    pub input: Span,
    /// Filled in the forms of the weights that have one.
    pub activations: &'a Activations,
    pub tokens: &'a [usize],
}

/// A matrix of weights.
pub(crate) struct Rows<'a> {
    pub weight: Weight,
    bytes: &'a [u8],
    row_bytes: usize,
    /// How they are multiplied in integers, if they are.
    pub form: Option<Form>,
}

/// Takes results: index of the token, first row, values of rows from there on.
type Write<'a> = &'a mut dyn FnMut(usize, usize, &[f32]);

impl<'a> Rows<'a> {
    pub fn new(machine: &Machine, weight: Weight, bytes: &'a [u8]) -> Rows<'a> {
        let row_bytes = bytes.len() / weight.rows.max(1);
        let form = packed::form(weight.ty).filter(|_| machine.precision == Precision::Fast);
        Rows { weight, bytes, row_bytes, form }
    }

    /// Rows `range` times the operand.
    pub fn compute(
        &self,
        machine: &Machine,
        worker: usize,
        range: Range<usize>,
        operand: &Operand<'_>,
        write: Write<'_>,
    ) -> Result<(), BackendError> {
        match self.form {
            None => return self.floats(machine, worker, range, operand, write),
            Some(form) if operand.tokens.len() < PANEL_TOKENS => self.alone(machine, form, range, operand, write),
            Some(form) => self.panels(machine, worker, form, range, operand, write),
        }
        Ok(())
    }

    fn packed(&self, first: usize, count: usize) -> &[u8] {
        &self.bytes[first * self.row_bytes..][..count * self.row_bytes]
    }

    fn alone(&self, machine: &Machine, form: Form, range: Range<usize>, operand: &Operand<'_>, write: Write<'_>) {
        for first in range.clone().step_by(ROWS) {
            let count = ROWS.min(range.end - first);
            for (index, token) in operand.tokens.iter().enumerate() {
                let mut out = [0f32; ROWS];
                let activation = operand.activations.row(form, *token);
                machine.simd.dot_rows(self.weight.ty, self.packed(first, count), count, activation, &mut out);
                write(index, first, &out[..count]);
            }
        }
    }

    fn panels(
        &self,
        machine: &Machine,
        worker: usize,
        form: Form,
        range: Range<usize>,
        operand: &Operand<'_>,
        write: Write<'_>,
    ) {
        let mut scratch = machine.scratch.worker(worker);
        let super::Worker { panel, sums, .. } = &mut *scratch;
        let size = self.weight.ty.block_size();
        let (blocks, at_once) = (self.weight.cols / size, (PANEL_VALUES / size).max(1));
        let mut before = 0;
        for tokens in operand.tokens.chunks(PANEL_INPUTS) {
            let rows: Vec<Row<'_>> = tokens.iter().map(|token| operand.activations.row(form, *token)).collect();
            let parts: Vec<Range<usize>> =
                range.clone().step_by(PANEL_ROWS).map(|first| first..range.end.min(first + PANEL_ROWS)).collect();
            if sums.len() < parts.len() * tokens.len() {
                sums.resize(parts.len() * tokens.len(), Lanes32::default());
            }
            for block in (0..blocks).step_by(at_once) {
                for (index, part) in parts.iter().enumerate() {
                    self.fill_panel(machine, &parts, index, block..blocks.min(block + at_once), panel);
                    // Results of some activations are on their way to memory while the next ones are computed.
                    let sums = &mut sums[index * tokens.len()..][..tokens.len()];
                    for (step, sums) in sums.chunks_mut(PANEL_STEP).enumerate() {
                        let first = step * PANEL_STEP;
                        machine.simd.dot_panel(panel, &rows[first..first + sums.len()], block * size, sums);
                        let done = if block + at_once >= blocks { &*sums } else { &[] };
                        for (token, sums) in (before + first..).zip(done) {
                            write(token, part.start, &bytemuck::cast_slice(sums)[..part.len()]);
                        }
                    }
                }
            }
            before += tokens.len();
        }
    }

    /// Unpacks some blocks of the part `index` of the rows, and asks for what is unpacked next.
    fn fill_panel(
        &self,
        machine: &Machine,
        parts: &[Range<usize>],
        index: usize,
        blocks: Range<usize>,
        panel: &mut Panel,
    ) {
        let row_blocks = self.weight.cols / self.weight.ty.block_size();
        let stripe = |rows: Range<usize>, blocks: Range<usize>| Stripe {
            bytes: self.packed(rows.start, rows.len()),
            row_bytes: self.row_bytes,
            rows: rows.len(),
            first: blocks.start,
            blocks: blocks.len(),
        };
        machine.simd.fill_panel(self.weight.ty, &stripe(parts[index].clone(), blocks.clone()), panel);
        let next = match parts.get(index + 1) {
            Some(rows) => stripe(rows.clone(), blocks),
            None if blocks.end < row_blocks => {
                stripe(parts[0].clone(), blocks.end..row_blocks.min(blocks.end + blocks.len()))
            }
            // Probably the next rows, from their start.
            None => {
                let end = parts[index].end;
                stripe(end..self.weight.rows.min(end + PANEL_ROWS), 0..blocks.len())
            }
        };
        next.prefetch(self.weight.ty.type_size());
    }

    fn floats(
        &self,
        machine: &Machine,
        worker: usize,
        range: Range<usize>,
        operand: &Operand<'_>,
        write: Write<'_>,
    ) -> Result<(), BackendError> {
        let cols = self.weight.cols;
        let mut scratch = machine.scratch.worker(worker);
        // One token's rows are read as they are kept; those that several meet are made f32 once. Both give the same bits.
        let few = operand.tokens.len() < PANEL_TOKENS;
        let group = if few { FLOAT_ROWS } else { FLOAT_GROUP };
        for first in range.clone().step_by(group) {
            let count = group.min(range.end - first);
            let (weights, stride) = self.rows(machine, (first, count), few, &mut scratch.floats)?;
            let mut index = 0;
            for tokens in operand.tokens.chunk_by(|a, b| a + 1 == *b).flat_map(|run| run.chunks(TILE)) {
                // SAFETY: the input is not written during the operation.
                let input = unsafe { operand.input.read(tokens[0] * cols, tokens.len() * cols) };
                let mut out = [0f32; TILE * FLOAT_GROUP];
                let strides = [cols, stride, FLOAT_GROUP];
                let dots = Product { m: tokens.len(), k: cols, n: count.next_multiple_of(4), strides };
                machine.simd.dots(&dots, input, weights, &mut out);
                for out in out.chunks_exact(FLOAT_GROUP).take(tokens.len()) {
                    write(index, first, &out[..count]);
                    index += 1;
                }
            }
        }
        Ok(())
    }

    /// Rows and the stride from one to the next, with rows of anything up to a multiple of four: as they are kept where that
    /// is wanted or they are f32, else in `scratch`.
    fn rows<'s>(
        &'s self,
        machine: &Machine,
        (first, count): (usize, usize),
        kept: bool,
        scratch: &'s mut Vec<f32>,
    ) -> Result<(Cells<'s>, usize), BackendError> {
        let (bytes, cols) = (self.packed(first, count), self.weight.cols);
        if count % 4 == 0
            && (kept || self.weight.ty == GgmlType::F32)
            && let Some(rows) = Cells::packed(self.weight.ty, bytes, self.row_bytes)
        {
            return Ok(rows);
        }
        let scratch = reused(scratch, count.next_multiple_of(4) * cols);
        for (bytes, row) in bytes.chunks_exact(self.row_bytes).zip(scratch.chunks_exact_mut(cols)) {
            machine.simd.dequantize(self.weight.ty, bytes, row).map_err(|error| invalid(OP, error.to_string()))?;
        }
        Ok((Cells::F32(scratch), cols))
    }
}
