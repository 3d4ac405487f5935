//! Matrix products. Rows of weights are unpacked once (to integers, or to f32) and meet every row of activations.

use super::{invalid, product, rows};
use crate::buffers::{Buffers, Span};
use crate::cpu::{Machine, Precision};
use crate::simd::{ROWS, TOKENS};
use backend::{BackendError, Linear, View, Weight};
use quant::GgmlType;
use std::sync::Mutex;

const OP: &str = "MatMul";
/// Rows of weights in a chunk of work: enough to be worth taking, few enough to share out evenly.
const CHUNK_ROWS: usize = 16;

/// One product with everything looked up.
struct Task<'a> {
    weight: Weight,
    bytes: &'a [u8],
    row_bytes: usize,
    integers: bool,
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
        let bytes = buffers.weight(OP, &weight, 1)?;
        let out = buffers.span_mut(OP, linear.out, product(OP, &[n, weight.rows])?)?;
        if out.overlaps(input) {
            return Err(invalid(OP, "the result overlaps the input"));
        }
        let bias = linear.bias.map(|bias| buffers.span(OP, bias, weight.rows)).transpose()?;
        let row_bytes = bytes.len() / weight.rows.max(1);
        let integers = use_integers(machine, weight.ty, cols);
        chunks.extend((0..weight.rows).step_by(CHUNK_ROWS).map(|row| (tasks.len(), row)));
        tasks.push(Task { weight, bytes, row_bytes, integers, bias, scale: linear.scale, out });
    }
    let mut activations = machine.scratch.activations();
    if tasks.iter().any(|task| task.integers) {
        activations.fill(machine, OP, input, n, cols)?;
    }
    let activations = &*activations;
    let failure = Mutex::new(None);
    machine.run(OP, chunks.len(), &|worker, chunk| {
        let (task, first) = chunks[chunk];
        let task = &tasks[task];
        let last = task.weight.rows.min(first + CHUNK_ROWS);
        let result = if task.integers {
            integer_rows(machine, worker, task, first..last, &|t| activations.row(t), n)
        } else {
            float_rows(machine, worker, task, first..last, input, n)
        };
        if let Err(error) = result {
            *failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
        }
    })?;
    match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Whether a weight of this type is multiplied with 8-bit activations.
pub(crate) fn use_integers(machine: &Machine, ty: GgmlType, cols: usize) -> bool {
    machine.precision == Precision::Fast && cols % 32 == 0 && rows::form(ty).is_some()
}

fn finish(task: &Task<'_>, row: usize, value: f32) -> f32 {
    // SAFETY: biases are not written during the operation.
    value * task.scale + task.bias.map_or(0.0, |bias| unsafe { bias.read(row, 1) }[0])
}

fn integer_rows<'a>(
    machine: &Machine,
    worker: usize,
    task: &Task<'_>,
    range: std::ops::Range<usize>,
    activation: &dyn Fn(usize) -> crate::simd::ActivationRow<'a>,
    n: usize,
) -> Result<(), BackendError> {
    let form = rows::form(task.weight.ty).ok_or_else(|| invalid(OP, "no integer form"))?;
    let mut scratch = machine.scratch.worker(worker);
    let count = task.weight.rows;
    for first in range.clone().step_by(ROWS) {
        let present = ROWS.min(range.end - first);
        let bytes = &task.bytes[first * task.row_bytes..][..present * task.row_bytes];
        scratch.rows.fill(OP, task.weight.ty, bytes, task.weight.cols)?;
        let weights = scratch.rows.rows();
        for token in (0..n).step_by(TOKENS) {
            let mut out = [[0f32; ROWS]; TOKENS];
            let tokens = TOKENS.min(n - token);
            if tokens == TOKENS {
                machine.simd.dot_rows(form, &weights, &[activation(token), activation(token + 1)], &mut out);
            } else {
                machine.simd.dot_rows(form, &weights, &[activation(token)], &mut out[..1]);
            }
            for (t, values) in out.iter().enumerate().take(tokens) {
                // SAFETY: this chunk alone writes these rows of the result.
                let out = unsafe { task.out.write((token + t) * count + first, present) };
                for (r, (out, value)) in out.iter_mut().zip(values).enumerate() {
                    *out = finish(task, first + r, *value);
                }
            }
        }
    }
    Ok(())
}

fn float_rows(
    machine: &Machine,
    worker: usize,
    task: &Task<'_>,
    range: std::ops::Range<usize>,
    input: Span,
    n: usize,
) -> Result<(), BackendError> {
    let mut scratch = machine.scratch.worker(worker);
    let (count, cols) = (task.weight.rows, task.weight.cols);
    scratch.floats.resize(cols, 0.0);
    for row in range {
        let bytes = &task.bytes[row * task.row_bytes..][..task.row_bytes];
        let weights = floats(machine, task.weight.ty, bytes, &mut scratch.floats)?;
        for token in 0..n {
            // SAFETY: the input is not written; this chunk alone writes this row of the result.
            unsafe {
                let value = machine.simd.dot(weights, input.read(token * cols, cols));
                task.out.write(token * count + row, 1)[0] = finish(task, row, value);
            }
        }
    }
    Ok(())
}

/// A row of weights as f32: itself if it is that, else dequantized into `scratch`.
pub(crate) fn floats<'a>(
    machine: &Machine,
    ty: GgmlType,
    bytes: &'a [u8],
    scratch: &'a mut [f32],
) -> Result<&'a [f32], BackendError> {
    match ty {
        GgmlType::F32 => bytemuck::try_cast_slice(bytes).map_err(|error| invalid(OP, format!("f32 weights: {error}"))),
        GgmlType::F16 => {
            let narrow =
                bytemuck::try_cast_slice(bytes).map_err(|error| invalid(OP, format!("f16 weights: {error}")))?;
            machine.simd.widen_f16(narrow, scratch);
            Ok(scratch)
        }
        _ => {
            quant::dequantize_row(ty, bytes, scratch).map_err(|error| invalid(OP, error.to_string()))?;
            Ok(scratch)
        }
    }
}

/// Products of single rows of activations with a range of rows of weights, for experts: `out[r]` for each activation.
pub(crate) struct RowProduct<'a> {
    pub weight: Weight,
    pub bytes: &'a [u8],
}

impl RowProduct<'_> {
    /// For every `(token, out)`: rows `range` of the weight times that token's activations.
    pub fn compute(
        &self,
        machine: &Machine,
        worker: usize,
        range: std::ops::Range<usize>,
        tokens: &[usize],
        activations: &super::activations::Activations,
        input: Span,
        write: &dyn Fn(usize, usize, f32),
    ) -> Result<(), BackendError> {
        let cols = self.weight.cols;
        let row_bytes = self.bytes.len() / self.weight.rows.max(1);
        let mut scratch = machine.scratch.worker(worker);
        if !use_integers(machine, self.weight.ty, cols) {
            scratch.floats.resize(cols, 0.0);
            for row in range {
                let bytes = &self.bytes[row * row_bytes..][..row_bytes];
                let weights = floats(machine, self.weight.ty, bytes, &mut scratch.floats)?;
                for (index, token) in tokens.iter().enumerate() {
                    // SAFETY: the input is not written during the operation.
                    write(index, row, machine.simd.dot(weights, unsafe { input.read(token * cols, cols) }));
                }
            }
            return Ok(());
        }
        let form = rows::form(self.weight.ty).ok_or_else(|| invalid(OP, "no integer form"))?;
        for first in range.clone().step_by(ROWS) {
            let present = ROWS.min(range.end - first);
            let bytes = &self.bytes[first * row_bytes..][..present * row_bytes];
            scratch.rows.fill(OP, self.weight.ty, bytes, cols)?;
            let weights = scratch.rows.rows();
            for (index, pair) in tokens.chunks(TOKENS).enumerate() {
                let mut out = [[0f32; ROWS]; TOKENS];
                match pair {
                    [a, b] => {
                        let acts = [activations.row(*a), activations.row(*b)];
                        machine.simd.dot_rows(form, &weights, &acts, &mut out);
                    }
                    [a] => machine.simd.dot_rows(form, &weights, &[activations.row(*a)], &mut out[..1]),
                    _ => {}
                }
                for (t, values) in out.iter().enumerate().take(pair.len()) {
                    for (r, value) in values.iter().enumerate().take(present) {
                        write(index * TOKENS + t, first + r, *value);
                    }
                }
            }
        }
        Ok(())
    }
}
