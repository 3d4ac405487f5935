//! Mixtures of experts: routing, products grouped by expert, the weighted sum.

use super::matmul::{Operand, PANEL_TOKENS, Results, Rows, chunk_rows, run};
use super::{invalid, product};
use crate::buffers::Buffers;
use crate::cpu::Machine;
use backend::{BackendError, Gating, Router, View, Weight};

pub(crate) struct Shape {
    pub n: usize,
    pub used: usize,
    pub experts: usize,
    pub input_per_slot: bool,
}

pub(crate) struct Operands {
    pub input: View,
    pub ids: View,
    pub weight: Weight,
    pub bias: Option<View>,
    pub scales: Option<View>,
    pub out: View,
}

pub(crate) fn expert_matmul(
    machine: &Machine,
    buffers: &Buffers,
    shape: Shape,
    operands: &Operands,
) -> Result<(), BackendError> {
    const OP: &str = "ExpertMatMul";
    let (weight, slots) = (operands.weight, product(OP, &[shape.n, shape.used])?);
    if slots == 0 || weight.rows == 0 || weight.cols == 0 {
        return Ok(());
    }
    let inputs = if shape.input_per_slot { slots } else { shape.n };
    let input = buffers.span(OP, operands.input, product(OP, &[inputs, weight.cols])?)?;
    let out = buffers.span_mut(OP, operands.out, product(OP, &[slots, weight.rows])?)?;
    let bytes = buffers.weight(OP, &weight, shape.experts)?;
    let ids = buffers.span(OP, operands.ids, slots)?;
    let bias_len = product(OP, &[shape.experts, weight.rows])?;
    let bias = operands.bias.map(|bias| buffers.span(OP, bias, bias_len)).transpose()?;
    let scales = operands.scales.map(|scales| buffers.span(OP, scales, shape.experts)).transpose()?;
    if out.overlaps(input) || out.overlaps(ids) {
        return Err(invalid(OP, "the result overlaps an input"));
    }
    // Slots of each expert, in order.
    let mut of_expert: Vec<Vec<usize>> = vec![Vec::new(); shape.experts];
    for slot in 0..slots {
        // SAFETY: ids are not written during the operation.
        let id = unsafe { ids.read(slot, 1) }[0].to_bits() as usize;
        of_expert.get_mut(id).ok_or_else(|| invalid(OP, format!("there is no expert {id}")))?.push(slot);
    }
    let expert_bytes = bytes.len() / shape.experts.max(1);
    let rows_of = |expert: usize| Rows::new(machine, weight, &bytes[expert * expert_bytes..][..expert_bytes]);
    let mut activations = machine.scratch.activations();
    if let Some(form) = rows_of(0).form {
        activations.fill(machine, OP, form, input, [inputs, weight.cols, weight.cols])?;
        if of_expert.iter().any(|slots| (1..PANEL_TOKENS).contains(&slots.len())) {
            activations.prepare(machine, OP, &[(weight.ty, form)])?;
        }
    }
    let activations = &*activations;
    let chosen = (0..shape.experts).filter(|expert| !of_expert[*expert].is_empty());
    let total = product(OP, &[chosen.clone().count(), weight.rows])?;
    let chunk_rows = chunk_rows(machine, shape.n, total, &weight);
    let chunks: Vec<(usize, usize)> =
        chosen.flat_map(|expert| (0..weight.rows).step_by(chunk_rows).map(move |row| (expert, row))).collect();
    run(machine, OP, chunks.len(), &|worker, chunk| {
        let (expert, first) = chunks[chunk];
        let range = first..weight.rows.min(first + chunk_rows);
        let slots = &of_expert[expert];
        let tokens: Vec<usize> =
            slots.iter().map(|slot| if shape.input_per_slot { *slot } else { slot / shape.used }).collect();
        // SAFETY: biases and scales are not written during the operation.
        let (scale, bias) = unsafe {
            let scale = scales.map_or(1.0, |scales| scales.read(expert, 1)[0]);
            (scale, bias.map(|bias| bias.read(expert * weight.rows, weight.rows)))
        };
        let operand = Operand { input, activations, tokens: &tokens };
        let results = Results { out, stride: weight.rows, places: slots, scale, bias };
        // SAFETY: a slot has one expert, and this chunk alone has these rows of it.
        unsafe { rows_of(expert).compute(machine, worker, range, &operand, &results) }
    })
}

pub(crate) fn route(
    buffers: &Buffers,
    router: &Router,
    logits: View,
    n: usize,
    bias: Option<View>,
    ids: View,
    weights: View,
) -> Result<(), BackendError> {
    const OP: &str = "Route";
    let (experts, used) = (router.experts, router.used);
    router.check(OP)?;
    let logits = buffers.span(OP, logits, product(OP, &[n, experts])?)?;
    let (ids, weights) = (product(OP, &[n, used])?, (ids, weights)).to_spans(buffers, OP)?;
    let bias = bias.map(|bias| buffers.span(OP, bias, experts)).transpose()?;
    for token in 0..n {
        // SAFETY: nothing else runs; ids and weights are other buffers than logits and bias, or the caller's mistake
        // gives wrong numbers, which are copied out first.
        let (scores, bias) = unsafe {
            (logits.read(token * experts, experts).to_vec(), bias.map(|bias| bias.read(0, experts).to_vec()))
        };
        let scores = gate(router.gating, scores);
        let key = |i: usize| scores[i] + bias.as_ref().map_or(0.0, |bias| bias[i]);
        let mut order = candidates(router, &key);
        order.sort_by(|a, b| key(*b).total_cmp(&key(*a)).then(a.cmp(b)));
        let chosen = &order[..used];
        let mut shares: Vec<f32> = chosen.iter().map(|i| scores[*i]).collect();
        if router.gating == Gating::SoftmaxOfChosen {
            softmax(&mut shares);
        }
        let sum: f32 = shares.iter().sum();
        for share in &mut shares {
            // Sums this small only come from logits that say nothing.
            *share = *share / if router.normalize { sum.max(f32::MIN_POSITIVE) } else { 1.0 } * router.scale;
        }
        // SAFETY: nothing else runs.
        unsafe {
            for (out, id) in ids.write(token * used, used).iter_mut().zip(chosen) {
                *out = f32::from_bits(*id as u32);
            }
            weights.write(token * used, used).copy_from_slice(&shares);
        }
    }
    Ok(())
}

/// The experts that may be chosen: all, or those of the best groups.
fn candidates(router: &Router, key: &dyn Fn(usize) -> f32) -> Vec<usize> {
    if router.groups <= 1 {
        return (0..router.experts).collect();
    }
    let size = router.experts / router.groups;
    // The sum of a group's two best.
    let score = |group: &usize| {
        let mut keys: Vec<f32> = (group * size..(group + 1) * size).map(key).collect();
        keys.sort_by(|a, b| b.total_cmp(a));
        keys.iter().take(2).sum::<f32>()
    };
    let mut groups: Vec<usize> = (0..router.groups).collect();
    groups.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
    groups.truncate(router.groups_used);
    groups.iter().flat_map(|group| group * size..(group + 1) * size).collect()
}

/// Looks two results of the same length up.
trait ToSpans {
    fn to_spans(
        self,
        buffers: &Buffers,
        op: &'static str,
    ) -> Result<(crate::buffers::Span, crate::buffers::Span), BackendError>;
}

impl ToSpans for (usize, (View, View)) {
    fn to_spans(
        self,
        buffers: &Buffers,
        op: &'static str,
    ) -> Result<(crate::buffers::Span, crate::buffers::Span), BackendError> {
        let (len, (a, b)) = self;
        Ok((buffers.span_mut(op, a, len)?, buffers.span_mut(op, b, len)?))
    }
}

fn gate(gating: Gating, mut logits: Vec<f32>) -> Vec<f32> {
    match gating {
        Gating::Softmax => softmax(&mut logits),
        Gating::SoftmaxOfChosen => {}
        Gating::Sigmoid => logits.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
    }
    logits
}

fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}

pub(crate) fn combine(
    machine: &Machine,
    buffers: &Buffers,
    [input, weights, out]: [View; 3],
    n: usize,
    used: usize,
    dim: usize,
) -> Result<(), BackendError> {
    const OP: &str = "Combine";
    let slots = product(OP, &[n, used])?;
    let input = buffers.span(OP, input, product(OP, &[slots, dim])?)?;
    let weights = buffers.span(OP, weights, slots)?;
    let out = buffers.span_mut(OP, out, product(OP, &[n, dim])?)?;
    if out.overlaps(input) || out.overlaps(weights) {
        return Err(invalid(OP, "the result overlaps an input"));
    }
    machine.run(OP, n, &|_, token| {
        // SAFETY: tokens are disjoint; inputs are not written.
        let (out, shares) = unsafe { (out.write(token * dim, dim), weights.read(token * used, used)) };
        out.fill(0.0);
        for (slot, share) in shares.iter().enumerate() {
            // SAFETY: inputs are not written.
            machine.simd.axpy(*share, unsafe { input.read((token * used + slot) * dim, dim) }, out);
        }
    })
}
