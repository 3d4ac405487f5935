//! Which tensors a part has: what must be on its device, what a token reads and computes, what that asks of a device.

use crate::*;
use backend::Need;

/// Everything of a part that lies in the file.
#[derive(Default)]
struct Used {
    tensors: Vec<Tensor>,
    /// Multiply-adds for one token.
    adds: u64,
    /// What the products and the choice of experts need for one token.
    needs: Vec<Need>,
}

impl Used {
    fn tensor(&mut self, tensor: impl Into<Option<Tensor>>) {
        let Some(tensor) = tensor.into() else { return };
        // Products may share a tensor.
        if self.tensors.iter().all(|known| known.index != tensor.index) {
            self.tensors.push(tensor);
        }
    }

    /// A product that a token computes `times` times.
    fn linear(&mut self, linear: &Linear, times: usize, need: Need) {
        for tensor in [Some(linear.weight), linear.bias, linear.scale] {
            self.tensor(tensor);
        }
        self.adds += linear.size() * times as u64;
        self.needs.push(need);
    }

    fn linears<'a>(&mut self, linears: impl IntoIterator<Item = &'a Linear>) {
        for linear in linears {
            self.linear(linear, 1, Need::MatMul { ty: linear.weight.ty, n: 1, cols: linear.weight.cols });
        }
    }

    /// A product with `slots` experts, which read the token's one input or `slots` of them.
    fn experts(&mut self, linear: &Linear, slots: usize, inputs: usize) {
        let (ty, cols) = (linear.weight.ty, linear.weight.cols);
        self.linear(linear, slots, Need::ExpertMatMul { ty, inputs, slots, cols });
    }

    fn norm<'a>(&mut self, norm: impl Into<Option<&'a Norm>>) {
        if let Some(norm) = norm.into() {
            self.tensor(norm.weight);
            self.tensor(norm.bias);
        }
    }

    fn rope(&mut self, rope: &Rope) {
        self.tensor(rope.factors);
        self.tensor(rope.long_factors);
    }

    fn mixer(&mut self, mixer: &Mixer) {
        match mixer {
            Mixer::Attention(m) => self.attention(m),
            Mixer::Latent(m) => self.latent(m),
            Mixer::ShortConv(m) => {
                self.linears([&m.b, &m.c, &m.x, &m.output]);
                self.tensor(m.conv_weight);
            }
            Mixer::DeltaNet(m) => {
                self.linears([&m.output]);
                match &m.input {
                    DeltaInput::Apart { qkv, z } => self.linears([qkv, z]),
                    DeltaInput::ByKeyHead(all) => self.linears([all]),
                }
                match &m.beta_alpha {
                    BetaAlpha::Apart { beta, alpha } => self.linears([beta, alpha]),
                    BetaAlpha::ByKeyHead(both) => self.linears([both]),
                }
                [m.conv_weight, m.dt_bias, m.a].into_iter().for_each(|tensor| self.tensor(tensor));
                self.norm(&m.norm);
                self.adds += 3 * (m.spec.heads_v * m.spec.head_dim * m.spec.head_dim) as u64;
            }
            Mixer::Mamba(m) => {
                self.linears([&m.z, &m.xbc, &m.dt, &m.output]);
                [m.conv_weight, m.dt_bias, m.a, m.skip].into_iter().for_each(|tensor| self.tensor(tensor));
                self.tensor(m.conv_bias);
                self.tensor(m.norm.map(|norm| norm.weight));
                self.adds += 3 * (m.spec.heads * m.spec.head_dim * m.spec.state_size) as u64;
            }
        }
    }

    fn attention(&mut self, a: &Attention) {
        self.linears([&a.q, &a.output]);
        self.norm(&a.q_norm);
        if let KeysValues::Own { k, v, k_norm, v_norm } = &a.kv {
            self.linears([Some(k), v.as_ref()].into_iter().flatten());
            self.norm(k_norm);
            self.norm(v_norm);
        }
        if let Some(rope) = &a.rope {
            self.rope(rope);
        }
        self.tensor(a.sinks);
    }

    fn latent(&mut self, a: &LatentAttention) {
        if let Some((q_a, norm)) = &a.q_a {
            self.linears([q_a]);
            self.norm(norm);
        }
        self.linears([&a.q, &a.kv_a, &a.output]);
        self.norm(&a.kv_a_norm);
        match &a.expansion {
            Expansion::Absorbed { k_b, v_b } => {
                self.experts(k_b, a.head_count, a.head_count);
                self.experts(v_b, a.head_count, a.head_count);
            }
            Expansion::Full { kv_b } => self.linears([kv_b]),
        }
        self.rope(&a.rope);
    }

    fn dense(&mut self, f: &Dense) {
        self.linears([f.gate.as_ref(), Some(&f.up), Some(&f.down)].into_iter().flatten());
    }

    /// What the chosen experts read and compute, but for their norms.
    fn routed(&mut self, f: &Experts) {
        let used = f.router.used;
        f.input.linears().into_iter().for_each(|linear| self.experts(linear, used, 1));
        self.experts(&f.down, used, used);
    }

    /// With its routed experts, or all but these.
    fn feed_forward(&mut self, feed_forward: &FeedForward, routed: bool) {
        match feed_forward {
            FeedForward::Dense(dense) => self.dense(dense),
            FeedForward::Experts(f) => {
                [f.logits_norm, f.norm, f.post_norm].iter().for_each(|norm| self.norm(norm));
                self.linears([&f.logits]);
                self.linears(f.latent.iter().flat_map(|latent| [&latent.down, &latent.up]));
                self.needs.push(Need::Route { experts: f.router.experts });
                self.tensor(f.router_bias);
                if routed {
                    self.routed(f);
                }
                if let Some(shared) = &f.shared {
                    [shared.norm, shared.post_norm].iter().for_each(|norm| self.norm(norm));
                    self.dense(&shared.dense);
                    self.linears(&shared.gate);
                }
            }
        }
    }

    fn layer(layer: &Layer, routed: bool) -> Used {
        let mut used = Used::default();
        if let Some(mixer) = &layer.mixer {
            used.norm(&mixer.norm);
            used.mixer(&mixer.part);
            used.norm(&mixer.post_norm);
        }
        if let Some(feed_forward) = &layer.feed_forward {
            used.norm(&feed_forward.norm);
            used.feed_forward(&feed_forward.part, routed);
            used.norm(&feed_forward.post_norm);
        }
        if let Some(per_layer) = &layer.per_layer {
            used.linears([&per_layer.gate, &per_layer.projection]);
            used.norm(&per_layer.norm);
        }
        used.tensor(layer.output_scale);
        if let Some(alt_up) = &layer.alt_up {
            used.norm(&alt_up.router_norm);
            used.linears([&alt_up.router, &alt_up.predict, &alt_up.correct]);
            used.tensor(alt_up.correct_scale);
        }
        if let Some(laurel) = &layer.laurel {
            used.linears([&laurel.left, &laurel.right]);
            used.norm(&laurel.norm);
        }
        used
    }
}

impl ExpertInput {
    pub fn linears(&self) -> Vec<&Linear> {
        match self {
            ExpertInput::Gated { gate, up } => vec![gate, up],
            ExpertInput::Fused(linear) | ExpertInput::Up(linear) => vec![linear],
        }
    }
}

impl Experts {
    /// The tensors of which a token reads what its experts have, in the order of use.
    pub fn stacks(&self) -> Vec<Tensor> {
        self.input.linears().into_iter().chain([&self.down]).map(|linear| linear.weight).collect()
    }
}

impl Layer {
    /// Every tensor that must be on the layer's device, each once.
    pub fn tensors(&self) -> Vec<Tensor> {
        Used::layer(self, true).tensors
    }

    /// Those of the routed experts: they may be on another device than the rest of the layer.
    pub fn expert_tensors(&self) -> Vec<Tensor> {
        let mut used = Used::default();
        self.experts().iter().for_each(|experts| used.routed(experts));
        used.tensors
    }

    /// The others.
    pub fn tensors_without_experts(&self) -> Vec<Tensor> {
        Used::layer(self, false).tensors
    }

    /// What computing micro-batches asks of the layer's device, with the routed experts or without.
    pub fn needs(&self, params: &LayoutParams, routed: bool) -> Vec<Need> {
        let mut needs = batch(Used::layer(self, routed).needs, params);
        needs.extend(self.mixer.as_ref().and_then(|mixer| mixer.part.attention_need(params)));
        needs
    }

    /// Bytes of weights that computing one token reads: of experts those that are chosen.
    pub fn bytes_per_token(&self) -> u64 {
        self.tensors().iter().map(|tensor| self.share(tensor)).sum()
    }

    /// Those of them that routed experts are.
    pub fn expert_bytes_per_token(&self) -> u64 {
        self.expert_tensors().iter().map(|tensor| self.share(tensor)).sum()
    }

    fn share(&self, tensor: &Tensor) -> u64 {
        match self.experts().map(|experts| experts.router) {
            Some(router) if tensor.experts == router.experts && tensor.experts > 1 => {
                tensor.bytes / tensor.experts as u64 * router.used as u64
            }
            _ => tensor.bytes,
        }
    }

    /// Multiply-adds that computing one token takes in the matrices.
    pub fn multiply_adds_per_token(&self) -> u64 {
        Used::layer(self, true).adds
    }

    /// Those of the chosen experts.
    pub fn expert_multiply_adds_per_token(&self) -> u64 {
        let mut used = Used::default();
        self.experts().iter().for_each(|experts| used.routed(experts));
        used.adds
    }
}

impl Model {
    /// Every tensor of a layer, or of the output layer after the last one, that the host computes with.
    pub fn host_tensors(&self, index: usize, placement: &Placement) -> Vec<Tensor> {
        match self.layers.get(index) {
            Some(layer) if placement.without_experts(index) => layer.expert_tensors(),
            _ if placement.on_accelerator(index) => Vec::new(),
            Some(layer) => layer.tensors(),
            None => self.output.tensors(),
        }
    }

    /// Every tensor that the host computes with before the first layer (embeddings are only looked up).
    pub fn input_tensors(&self) -> Vec<Tensor> {
        let mut used = Used::default();
        if let Some(input) = &self.per_layer_input {
            used.linears([&input.projection]);
            used.norm(&input.norm);
        }
        used.linears(self.alt_up.as_ref().map(|alt_up| &alt_up.expansion));
        used.tensors
    }
}

impl Output {
    fn used(&self) -> Used {
        let mut used = Used::default();
        if let Some(merge) = &self.merge {
            used.linears([&merge.projection]);
        }
        used.norm(&self.norm);
        used.linears([&self.weight]);
        used
    }

    pub fn tensors(&self) -> Vec<Tensor> {
        self.used().tensors
    }

    /// What computing logits asks of the output layer's device.
    pub fn needs(&self, params: &LayoutParams) -> Vec<Need> {
        batch(self.used().needs, &LayoutParams { ubatch: params.logits_rows, ..*params })
    }
}

impl Mixer {
    fn attention_need(&self, params: &LayoutParams) -> Option<Need> {
        let (shape, head_count) = self.attended()?;
        let shape = shape.stored(params);
        let (n, context) = (params.ubatch as usize, params.context as usize);
        Some(Need::Attention {
            k_type: params.kv_type_k,
            v_type: if shape.v_in_k { params.kv_type_k } else { params.kv_type_v },
            head_count,
            head_count_kv: shape.head_count_kv,
            head_dim_k: shape.head_dim_k,
            head_dim_v: shape.head_dim_v,
            n,
            cells: if shape.window == 0 { context } else { context.min(shape.window.saturating_add(n)) },
        })
    }
}

/// One token's needs as those of a micro-batch, each once.
fn batch(needs: Vec<Need>, params: &LayoutParams) -> Vec<Need> {
    let rows = params.ubatch as usize;
    let mut all: Vec<Need> = Vec::new();
    for need in needs {
        let need = match need {
            Need::MatMul { ty, n, cols } => Need::MatMul { ty, n: rows * n, cols },
            Need::ExpertMatMul { ty, inputs, slots, cols } => {
                Need::ExpertMatMul { ty, inputs: rows * inputs, slots: rows * slots, cols }
            }
            other => other,
        };
        if !all.contains(&need) {
            all.push(need);
        }
    }
    all
}
