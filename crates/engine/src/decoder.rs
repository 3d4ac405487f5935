//! The one decoder: turns an architecture description into operations on the devices that hold the layers.

use crate::Cancel;
use crate::file::Weights;
use crate::site::{LayerBuffers, Site};
use backend::{AttentionSpec, BackendError, Linear as Product, Op, View, Weight};
use model::{Attention, Dense, Experts, FeedForward, Layout, Linear, Model, Norm, Slot};

/// Why a step did not end.
#[derive(Debug)]
pub(crate) enum StepError {
    Cancelled,
    Host(BackendError),
    Accelerator(BackendError),
}

/// Everything that a step reads and that does not change during it.
pub(crate) struct Context<'a> {
    pub model: &'a Model,
    pub layout: &'a Layout,
    pub file: &'a Weights,
    pub cancel: &'a Cancel,
}

/// The two places where layers can be.
pub(crate) struct Sites {
    pub host: Site,
    pub accelerator: Option<Site>,
}

impl Sites {
    /// The site that holds layer `index`.
    pub fn of(&mut self, index: usize) -> &mut Site {
        match &mut self.accelerator {
            Some(site) if site.has(index) => site,
            _ => &mut self.host,
        }
    }

    pub fn on_accelerator(&self, index: usize) -> bool {
        self.accelerator.as_ref().is_some_and(|site| site.has(index))
    }
}

impl Context<'_> {
    /// Computes `tokens` at positions `start..`, and logits for the rows in `rows` (indices into `tokens`), which are
    /// given to `logits` in pieces of at most `logits_rows` rows x vocab_size, in order.
    ///
    /// Running the same step again after an error is sound: it only writes cells from `start` on.
    pub fn step(
        &self,
        sites: &mut Sites,
        tokens: &[u32],
        start: usize,
        rows: &[u32],
        logits: &mut dyn FnMut(&[f32]),
    ) -> Result<(), StepError> {
        let width = self.model.embedding_length;
        let mut hidden = vec![0f32; tokens.len() * width];
        for (token, row) in tokens.iter().zip(hidden.chunks_exact_mut(width)) {
            self.file.embedding(&self.model.token_embedding, *token, row).map_err(StepError::Host)?;
        }
        let positions: Vec<u8> = (start..start + tokens.len()).flat_map(|p| (p as u32).to_le_bytes()).collect();

        // Where the stream is now: None before it is on any device.
        let mut current: Option<bool> = None;
        for index in 0..=self.layout.block_count() {
            if self.cancel.is_cancelled() {
                return Err(StepError::Cancelled);
            }
            let last = index == self.layout.block_count();
            if last && rows.is_empty() {
                break;
            }
            let target = sites.on_accelerator(index);
            if current != Some(target) {
                if let Some(previous) = current {
                    let site = sites.of(index - 1);
                    self.read_hidden(site, &mut hidden).map_err(|error| wrap(previous, error))?;
                }
                let site = sites.of(index);
                self.write_hidden(site, &hidden, &positions).map_err(|error| wrap(target, error))?;
                current = Some(target);
            }
            let site = sites.of(index);
            let result =
                if last { self.output(site, rows, logits) } else { self.layer(site, index, tokens.len(), start) };
            result.map_err(|error| wrap(target, error))?;
        }
        Ok(())
    }

    fn read_hidden(&self, site: &mut Site, hidden: &mut [f32]) -> Result<(), BackendError> {
        let slot = site.slot(Slot::Hidden)?;
        let mut bytes = vec![0u8; hidden.len() * 4];
        site.device.read(slot.buffer, 0, &mut bytes)?;
        for (value, bytes) in hidden.iter_mut().zip(bytes.chunks_exact(4)) {
            *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Ok(())
    }

    fn write_hidden(&self, site: &mut Site, hidden: &[f32], positions: &[u8]) -> Result<(), BackendError> {
        let bytes: Vec<u8> = hidden.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (stream, places) = (site.slot(Slot::Hidden)?, site.slot(Slot::Positions)?);
        site.device.write(stream.buffer, 0, &bytes)?;
        site.device.write(places.buffer, 0, positions)
    }

    fn layer(&self, site: &mut Site, index: usize, n: usize, start: usize) -> Result<(), BackendError> {
        let layer = &self.model.layers[index];
        let width = self.model.embedding_length;
        let mut ops = Ops { context: self, site, index, n };
        let (hidden, delta) = (ops.slot(Slot::Hidden)?, ops.slot(Slot::Delta)?);
        let normed = ops.slot(Slot::Normed)?;

        ops.norm(&layer.attention_norm, hidden, n, width, normed)?;
        ops.attention(&layer.attention, normed, start, delta)?;
        ops.run(&Op::Add { a: hidden, b: delta, scale: 1.0, len: n * width, out: hidden })?;

        ops.norm(&layer.feed_forward_norm, hidden, n, width, normed)?;
        match &layer.feed_forward {
            FeedForward::Dense(dense) => ops.dense(dense, normed, delta)?,
            FeedForward::Experts(experts) => ops.experts(experts, normed, delta)?,
        }
        ops.run(&Op::Add { a: hidden, b: delta, scale: 1.0, len: n * width, out: hidden })
    }

    fn output(&self, site: &mut Site, rows: &[u32], logits: &mut dyn FnMut(&[f32])) -> Result<(), BackendError> {
        let width = self.model.embedding_length;
        let piece = self.layout.params.logits_rows.max(1) as usize;
        let mut values = vec![0f32; piece.min(rows.len()) * self.model.vocab_size];
        let mut bytes = vec![0u8; values.len() * 4];
        for rows in rows.chunks(piece) {
            let n = rows.len();
            let mut ops = Ops { context: self, site, index: self.layout.block_count(), n };
            let (hidden, selected) = (ops.slot(Slot::Hidden)?, ops.slot(Slot::Selected)?);
            let out = ops.slot(Slot::Logits)?;
            ops.run(&Op::Gather { input: hidden, rows, dim: width, out: selected })?;
            ops.norm(&self.model.output.norm, selected, n, width, selected)?;
            ops.linears(selected, &[(&self.model.output.weight, out)])?;
            let count = n * self.model.vocab_size;
            site.device.read(out.buffer, 0, &mut bytes[..count * 4])?;
            for (value, bytes) in values.iter_mut().zip(bytes[..count * 4].chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            logits(&values[..count]);
        }
        Ok(())
    }
}

fn wrap(accelerator: bool, error: BackendError) -> StepError {
    if accelerator { StepError::Accelerator(error) } else { StepError::Host(error) }
}

/// Issues the operations of one layer for `n` rows.
struct Ops<'a> {
    context: &'a Context<'a>,
    site: &'a mut Site,
    index: usize,
    n: usize,
}

impl Ops<'_> {
    fn run(&mut self, op: &Op<'_>) -> Result<(), BackendError> {
        self.site.device.run(op)
    }

    fn slot(&self, slot: Slot) -> Result<View, BackendError> {
        self.site.slot(slot)
    }

    fn buffers(&self) -> Result<&LayerBuffers, BackendError> {
        self.site.layer(self.index)
    }

    fn view(&self, tensor: Option<model::Tensor>) -> Result<Option<View>, BackendError> {
        tensor.map(|tensor| Ok(View::new(self.buffers()?.tensor(&tensor)?))).transpose()
    }

    fn weight(&self, linear: &Linear) -> Result<Weight, BackendError> {
        let tensor = &linear.weight;
        let buffer = self.buffers()?.tensor(tensor)?;
        Ok(Weight { buffer, offset: 0, ty: tensor.ty, rows: tensor.rows, cols: tensor.cols })
    }

    fn norm(&mut self, norm: &Norm, input: View, rows: usize, dim: usize, out: View) -> Result<(), BackendError> {
        let (weight, bias) = (self.view(Some(norm.weight))?, self.view(norm.bias)?);
        self.run(&Op::Norm { kind: norm.kind, input, rows, dim, eps: norm.eps, weight, bias, out })
    }

    /// Products of one input, each into its own view.
    fn linears(&mut self, input: View, linears: &[(&Linear, View)]) -> Result<(), BackendError> {
        let mut products = Vec::with_capacity(linears.len());
        for (linear, out) in linears {
            let scale = linear.scale.map_or(Ok(1.0), |tensor| self.context.file.scalar(&tensor))?;
            products.push(Product { weight: self.weight(linear)?, bias: self.view(linear.bias)?, scale, out: *out });
        }
        self.run(&Op::MatMul { input, n: self.n, products: &products })
    }

    fn attention(&mut self, a: &Attention, input: View, start: usize, out: View) -> Result<(), BackendError> {
        let n = self.n;
        let (q, k, v) = (self.slot(Slot::Q)?, self.slot(Slot::K)?, self.slot(Slot::V)?);
        let attended = self.slot(Slot::Attended)?;
        self.linears(input, &[(&a.q, q), (&a.k, k), (&a.v, v)])?;
        for (norm, x, heads) in [(a.q_norm, q, a.head_count), (a.k_norm, k, a.head_count_kv)] {
            if let Some(norm) = norm {
                self.norm(&norm, x, n * heads, a.head_dim_k, x)?;
            }
        }
        if let Some(rope) = a.rope {
            let (positions, factors) = (self.slot(Slot::Positions)?, self.view(rope.factors)?);
            for (x, heads) in [(q, a.head_count), (k, a.head_count_kv)] {
                let head_dim = a.head_dim_k;
                self.run(&Op::Rope { x, n, heads, head_dim, spec: rope.spec, positions, factors })?;
            }
        }
        let cache = self.buffers()?.cache(a, self.context.layout)?;
        self.run(&Op::StoreKv { cache, k, v, n, start })?;
        let spec = AttentionSpec { head_count: a.head_count, scale: a.scale, softcap: 0.0, window: 0, sinks: None };
        self.run(&Op::Attention { cache, spec, q, n, start, out: attended })?;
        self.linears(attended, &[(&a.output, out)])
    }

    fn dense(&mut self, f: &Dense, input: View, out: View) -> Result<(), BackendError> {
        let (gate, up) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?);
        let dim = f.up.weight.rows;
        self.linears(input, &[(&f.gate, gate), (&f.up, up)])?;
        self.run(&Op::Glu { act: f.act, gate, up, rows: self.n, dim, stride: dim, out: gate })?;
        self.linears(gate, &[(&f.down, out)])
    }

    fn experts(&mut self, f: &Experts, input: View, out: View) -> Result<(), BackendError> {
        let n = self.n;
        let (logits, ids) = (self.slot(Slot::RouterLogits)?, self.slot(Slot::ExpertIds)?);
        let (weights, deltas) = (self.slot(Slot::ExpertWeights)?, self.slot(Slot::ExpertDelta)?);
        let (gate, up) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?);
        let used = f.router.used;
        let dim = f.up.weight.rows;
        self.linears(input, &[(&f.logits, logits)])?;
        self.run(&Op::Route { router: f.router, logits, n, bias: None, ids, weights })?;
        for (linear, input, per_slot, out) in [(&f.gate, input, false, gate), (&f.up, input, false, up)] {
            self.expert_linear(linear, f, input, per_slot, ids, out)?;
        }
        self.run(&Op::Glu { act: f.act, gate, up, rows: n * used, dim, stride: dim, out: gate })?;
        self.expert_linear(&f.down, f, gate, true, ids, deltas)?;
        self.run(&Op::Combine { input: deltas, weights, n, used, dim: f.down.weight.rows, out })
    }

    fn expert_linear(
        &mut self,
        linear: &Linear,
        f: &Experts,
        input: View,
        input_per_slot: bool,
        ids: View,
        out: View,
    ) -> Result<(), BackendError> {
        let op = Op::ExpertMatMul {
            input,
            input_per_slot,
            n: self.n,
            ids,
            used: f.router.used,
            experts: f.router.experts,
            weight: self.weight(linear)?,
            bias: self.view(linear.bias)?,
            scales: self.view(linear.scale)?,
            out,
        };
        self.run(&op)
    }
}
