//! Matrix products: one token's rows at the speed of memory, a prompt's in panels that are unpacked once.

use super::activations::Activations;
use super::{invalid, product, reused};
use crate::buffers::{Buffers, Span};
use crate::cpu::{Machine, Precision};
use crate::simd::cells::Cells;
use crate::simd::packed::{self, Form, Lanes32, PANEL_ROWS, PANEL_VALUES, ROWS, Stripe};
use crate::simd::tiles::Product;
use backend::{BackendError, Linear, View, Weight};
use quant::GgmlType;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

const OP: &str = "MatMul";
/// Rows of weights in a chunk of work: two panels, which share the activations that the second-level cache has.
const CHUNK_ROWS: usize = 2 * PANEL_ROWS;
/// The same where few activations meet them: at least so many, and twice as many where these are less than so many bytes.
const FEW_ROWS: usize = 16;
const FEW_BYTES: usize = 16 << 10;
/// There, chunks of each thread: each begins with an empty pipeline, and the last one may keep the others waiting.
const FEW_CHUNKS: usize = 16;
/// What a chunk reads there at most.
const MANY_BYTES: usize = 1024 << 10;
/// Activations that meet a panel before it holds other values: the second-level cache has room for as many of theirs.
const PANEL_INPUTS: usize = 512;
/// Activations that meet it without a look at anything else: a multiple of what any kernel takes at a time.
const PANEL_STEP: usize = 48;
/// Activations from which on unpacking a panel pays. Both ways give the same bits.
pub(crate) const PANEL_TOKENS: usize = 4;
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
    let total = products.iter().fold(0usize, |sum, linear| sum.saturating_add(linear.weight.rows));
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
        let rows_at_once = chunk_rows(machine, n, total, &weight);
        let ranges = (0..weight.rows).step_by(rows_at_once).map(|first| first..weight.rows.min(first + rows_at_once));
        chunks.extend(ranges.map(|range| (tasks.len(), range)));
        tasks.push(Task { rows, bias, scale: linear.scale, out });
    }
    let mut activations = machine.scratch.activations();
    for form in [Form::Wide, Form::Narrow] {
        if tasks.iter().any(|task| task.rows.form == Some(form)) {
            let group = if n < PANEL_TOKENS { cols } else { PANEL_VALUES };
            activations.fill(machine, OP, form, input, [n, cols, group])?;
        }
    }
    if n < PANEL_TOKENS {
        let mut types: Vec<_> = tasks.iter().filter_map(|task| Some((task.rows.weight.ty, task.rows.form?))).collect();
        types.dedup();
        activations.prepare(machine, OP, &types)?;
    }
    let tokens: Vec<usize> = (0..n).collect();
    let operand = Operand { input, activations: &activations, tokens: &tokens };
    run(machine, OP, chunks.len(), &|worker, chunk| {
        let (task, range) = &chunks[chunk];
        let task = &tasks[*task];
        let count = task.rows.weight.rows;
        // SAFETY: biases are not written during the operation.
        let bias = task.bias.map(|bias| unsafe { bias.read(0, count) });
        let results = Results { out: task.out, stride: count, places: &tokens, scale: task.scale, bias };
        // SAFETY: this chunk alone writes these rows of the result.
        unsafe { task.rows.compute(machine, worker, range.clone(), &operand, &results) }
    })
}

/// Rows of weights in a chunk of work for so many tokens, of an operation with `total` rows.
pub(crate) fn chunk_rows(machine: &Machine, tokens: usize, total: usize, weight: &Weight) -> usize {
    if tokens >= PANEL_TOKENS {
        return CHUNK_ROWS;
    }
    let row_bytes = weight.ty.row_bytes(weight.cols).unwrap_or(0).max(1);
    let least = if FEW_ROWS * row_bytes < FEW_BYTES { ROWS } else { FEW_ROWS };
    let most = MANY_BYTES / row_bytes;
    let even = total / (FEW_CHUNKS * machine.pool.threads());
    (even.min(most) / FEW_ROWS * FEW_ROWS).max(least)
}

/// Where products go, and what is done to them: row `places[i]` of `out` has those of token `i`.
pub(crate) struct Results<'a> {
    pub out: Span,
    /// Values in a row of `out`, as many as there are rows of weights.
    pub stride: usize,
    pub places: &'a [usize],
    pub scale: f32,
    /// For a whole row.
    pub bias: Option<&'a [f32]>,
}

impl Results<'_> {
    /// Asks for the memory of a panel's results: rows lie far apart, and a store that waits for its line holds up all others.
    fn ask(&self, index: usize, row: usize) {
        let start = self.places[index] * self.stride + row;
        self.out.prefetch(start, PANEL_ROWS);
    }

    /// Keeps `values * scale + bias`, results of some rows of weights from `row` on.
    ///
    /// # Safety
    /// Nobody else reads or writes them meanwhile.
    unsafe fn write(&self, index: usize, row: usize, values: &[f32]) {
        // SAFETY: the caller's.
        let out = unsafe { self.out.write(self.places[index] * self.stride + row, values.len()) };
        match (<&mut [f32; PANEL_ROWS]>::try_from(&mut *out), <&[f32; PANEL_ROWS]>::try_from(values)) {
            // Not worth a call.
            (Ok(out), Ok(values)) if self.scale == 1.0 => *out = *values,
            _ if self.scale == 1.0 => out.copy_from_slice(values),
            _ => out.iter_mut().zip(values).for_each(|(out, value)| *out = value * self.scale),
        }
        if let Some(bias) = self.bias {
            out.iter_mut().zip(&bias[row..]).for_each(|(out, bias)| *out += bias);
        }
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

impl<'a> Rows<'a> {
    pub fn new(machine: &Machine, weight: Weight, bytes: &'a [u8]) -> Rows<'a> {
        let row_bytes = bytes.len() / weight.rows.max(1);
        let form = packed::form(weight.ty).filter(|_| machine.precision == Precision::Fast);
        Rows { weight, bytes, row_bytes, form }
    }

    /// Rows `range` times the operand.
    ///
    /// # Safety
    /// Nobody else reads or writes their results meanwhile.
    pub unsafe fn compute(
        &self,
        machine: &Machine,
        worker: usize,
        range: Range<usize>,
        operand: &Operand<'_>,
        results: &Results<'_>,
    ) -> Result<(), BackendError> {
        // SAFETY: passed on.
        unsafe {
            match self.form {
                None => return self.floats(machine, worker, range, operand, results),
                Some(form) if operand.tokens.len() < PANEL_TOKENS => self.alone(machine, form, range, operand, results),
                Some(form) => self.panels(machine, worker, form, range, operand, results),
            }
        }
        Ok(())
    }

    fn packed(&self, first: usize, count: usize) -> &[u8] {
        &self.bytes[first * self.row_bytes..][..count * self.row_bytes]
    }

    /// # Safety
    /// As [`Rows::compute`]'s.
    unsafe fn alone(
        &self,
        machine: &Machine,
        form: Form,
        range: Range<usize>,
        operand: &Operand<'_>,
        results: &Results<'_>,
    ) {
        for first in range.clone().step_by(ROWS) {
            let count = ROWS.min(range.end - first);
            for (index, token) in operand.tokens.iter().enumerate() {
                let mut out = [0f32; ROWS];
                let activation = operand.activations.row(form, *token);
                let prepared = operand.activations.prepared(self.weight.ty, *token);
                machine.simd.dot_rows(self.packed(first, count), count, activation, prepared, &mut out);
                // SAFETY: the caller's.
                unsafe { results.write(index, first, &out[..count]) };
            }
        }
    }

    /// # Safety
    /// As [`Rows::compute`]'s.
    unsafe fn panels(
        &self,
        machine: &Machine,
        worker: usize,
        form: Form,
        range: Range<usize>,
        operand: &Operand<'_>,
        results: &Results<'_>,
    ) {
        let mut scratch = machine.scratch.worker(worker);
        let super::Worker { panel, sums, .. } = &mut *scratch;
        let size = self.weight.ty.block_size();
        let (blocks, at_once) = (self.weight.cols / size, (PANEL_VALUES / size).max(1));
        let mut before = 0;
        for tokens in operand.tokens.chunks(PANEL_INPUTS) {
            let parts: Vec<Range<usize>> =
                range.clone().step_by(PANEL_ROWS).map(|first| first..range.end.min(first + PANEL_ROWS)).collect();
            if sums.len() < parts.len() * tokens.len() {
                sums.resize(parts.len() * tokens.len(), Lanes32::default());
            }
            // The last but one: memory takes less time than what is left to do then, and caches do not lose it again.
            let asking = tokens.len().div_ceil(PANEL_STEP).saturating_sub(1);
            for block in (0..blocks).step_by(at_once) {
                let (end, last) = (blocks.min(block + at_once), block + at_once >= blocks);
                for (index, part) in parts.iter().enumerate() {
                    machine.simd.fill_panel(self.weight.ty, &self.stripe(part.clone(), block..end), panel);
                    let sums = &mut sums[index * tokens.len()..][..tokens.len()];
                    for (step, sums) in sums.chunks_mut(PANEL_STEP).enumerate() {
                        let first = step * PANEL_STEP;
                        if last {
                            (0..sums.len()).for_each(|token| results.ask(before + first + token, part.start));
                        }
                        if step == asking {
                            self.after(&parts, index, block..end).prefetch(self.weight.ty.type_size());
                        }
                        let places = &tokens[first..first + sums.len()];
                        let inputs = operand.activations.inputs(form, block * size, places);
                        machine.simd.dot_panel(panel, &inputs, block == 0, sums);
                        // These are on their way to memory while the next ones are computed.
                        let done = if last { &*sums } else { &[] };
                        for (token, sums) in (before + first..).zip(done) {
                            // SAFETY: the caller's.
                            unsafe { results.write(token, part.start, &bytemuck::cast_slice(sums)[..part.len()]) };
                        }
                    }
                }
            }
            before += tokens.len();
        }
    }

    fn stripe(&self, rows: Range<usize>, blocks: Range<usize>) -> Stripe<'_> {
        let (count, bytes) = (rows.len(), self.packed(rows.start, rows.len()));
        Stripe { bytes, row_bytes: self.row_bytes, rows: count, first: blocks.start, blocks: blocks.len() }
    }

    /// What is unpacked after these blocks of the part `index` of the rows.
    fn after(&self, parts: &[Range<usize>], index: usize, blocks: Range<usize>) -> Stripe<'_> {
        let row_blocks = self.weight.cols / self.weight.ty.block_size();
        match parts.get(index + 1) {
            Some(rows) => self.stripe(rows.clone(), blocks),
            None if blocks.end < row_blocks => {
                self.stripe(parts[0].clone(), blocks.end..row_blocks.min(blocks.end + blocks.len()))
            }
            // Probably the next rows, from their start.
            None => {
                let end = parts[index].end;
                self.stripe(end..self.weight.rows.min(end + PANEL_ROWS), 0..blocks.len())
            }
        }
    }

    /// # Safety
    /// As [`Rows::compute`]'s.
    unsafe fn floats(
        &self,
        machine: &Machine,
        worker: usize,
        range: Range<usize>,
        operand: &Operand<'_>,
        results: &Results<'_>,
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
                    // SAFETY: the caller's.
                    unsafe { results.write(index, first, &out[..count]) };
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
