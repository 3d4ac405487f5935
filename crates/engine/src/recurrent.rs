//! Operations of mixers with a state of fixed size.

use crate::ops::Ops;
use backend::{Activation, BackendError, ConvSpec, NormKind, Op, View};
use model::{BetaAlpha, DeltaInput, DeltaNet, Mamba, ShortConv, Slot, Tensor};

impl Ops<'_> {
    pub fn short_conv(&mut self, m: &ShortConv, input: View, out: View) -> Result<(), BackendError> {
        let (b, c, x) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?, self.slot(Slot::Q)?);
        let (mixed, len) = (self.slot(Slot::Attended)?, self.n * m.conv.channels);
        self.linears(input, &[(&m.b, b), (&m.c, c), (&m.x, x)])?;
        self.run(&Op::Mul { a: b, b: x, len, out: b })?;
        self.conv(m.conv, b, &m.conv_weight, None, mixed)?;
        self.run(&Op::Mul { a: mixed, b: c, len, out: mixed })?;
        self.linears(mixed, &[(&m.output, out)])
    }

    /// The layer's convolution; its state comes first.
    fn conv(
        &mut self,
        spec: ConvSpec,
        input: View,
        weight: &Tensor,
        bias: Option<Tensor>,
        out: View,
    ) -> Result<(), BackendError> {
        let state = self.state(0, (spec.kernel - 1) * spec.channels)?;
        let (weight, bias) = (self.required(weight)?, self.view(bias)?);
        self.run(&Op::Conv { spec, input, n: self.n, weight, bias, state, out })
    }

    pub fn delta_net(&mut self, m: &DeltaNet, input: View, out: View) -> Result<(), BackendError> {
        let (mixed, z, qkv) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?, self.slot(Slot::Q)?);
        let (beta, alpha, attended) = (self.slot(Slot::K)?, self.slot(Slot::V)?, self.slot(Slot::Attended)?);
        let (n, heads, dim) = (self.n, m.spec.heads_v, m.spec.head_dim);
        match &m.beta_alpha {
            BetaAlpha::Apart { beta: b, alpha: a } => self.linears(input, &[(b, beta), (a, alpha)])?,
            BetaAlpha::ByKeyHead(both) => {
                self.linears(input, &[(both, mixed)])?;
                let share = heads / m.spec.heads_k;
                self.copy(mixed, beta, [2 * share, share], n * m.spec.heads_k, share)?;
                self.copy(mixed.at(share), alpha, [2 * share, share], n * m.spec.heads_k, share)?;
            }
        }
        match &m.input {
            DeltaInput::Apart { qkv, z: gate } => self.linears(input, &[(qkv, mixed), (gate, z)])?,
            DeltaInput::ByKeyHead(all) => {
                self.linears(input, &[(all, qkv)])?;
                self.take_key_heads_apart(m, qkv, mixed, z)?;
            }
        }
        self.conv(m.conv, mixed, &m.conv_weight, None, qkv)?;
        let state = self.state((m.conv.kernel - 1) * m.conv.channels, heads * dim * dim)?;
        let (dt_bias, a) = (self.required(&m.dt_bias)?, self.required(&m.a)?);
        self.run(&Op::DeltaNet { spec: m.spec, qkv, alpha, beta, dt_bias, a, n, state, out: attended })?;
        self.norm(&m.norm, attended, n * heads * dim, attended)?;
        let (rows, stride) = (n, heads * dim);
        self.run(&Op::Glu { act: Activation::Silu, gate: z, up: attended, rows, dim: stride, stride, out: z })?;
        self.linears(z, &[(&m.output, out)])
    }

    /// From [query, key, values, gates] of every key head to [queries, keys, values] and gates of all.
    fn take_key_heads_apart(&mut self, m: &DeltaNet, all: View, qkv: View, z: View) -> Result<(), BackendError> {
        let (dim, heads_k, channels) = (m.spec.head_dim, m.spec.heads_k, m.conv.channels);
        let values = m.spec.heads_v / heads_k * dim;
        let (piece, row) = (2 * (dim + values), 2 * heads_k * (dim + values));
        for head in 0..heads_k {
            let from = all.at(head * piece);
            let (q, k) = (qkv.at(head * dim), qkv.at((heads_k + head) * dim));
            let v = qkv.at(2 * heads_k * dim + head * values);
            self.copy(from, q, [row, channels], self.n, dim)?;
            self.copy(from.at(dim), k, [row, channels], self.n, dim)?;
            self.copy(from.at(2 * dim), v, [row, channels], self.n, values)?;
            let z = z.at(head * values);
            self.copy(from.at(2 * dim + values), z, [row, heads_k * values], self.n, values)?;
        }
        Ok(())
    }

    pub fn mamba(&mut self, m: &Mamba, input: View, out: View) -> Result<(), BackendError> {
        let (mixed, z, xbc) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?, self.slot(Slot::Q)?);
        let (dt, attended) = (self.slot(Slot::K)?, self.slot(Slot::Attended)?);
        let (n, dim, spec) = (self.n, m.z.rows, m.spec);
        self.linears(input, &[(&m.z, z), (&m.xbc, mixed), (&m.dt, dt)])?;
        self.conv(m.conv, mixed, &m.conv_weight, m.conv_bias, xbc)?;
        let len = spec.heads * spec.head_dim * spec.state_size;
        let state = self.state((m.conv.kernel - 1) * m.conv.channels, len)?;
        let (dt_bias, a, skip) = (self.required(&m.dt_bias)?, self.required(&m.a)?, self.required(&m.skip)?);
        self.run(&Op::StateSpace { spec, xbc, dt, dt_bias, a, skip, n, state, out: attended })?;
        self.run(&Op::Glu { act: Activation::Silu, gate: z, up: attended, rows: n, dim, stride: dim, out: z })?;
        let mut result = z;
        if let Some(norm) = &m.norm {
            let (kind, dim, rows) = (NormKind::Rms, dim / norm.groups, n * norm.groups);
            self.run(&Op::Norm { kind, input: z, rows, dim, eps: norm.eps, weight: None, bias: None, out: z })?;
            // A convolution over one row scales every channel by its weight.
            let (spec, weight) = (ConvSpec { channels: m.z.rows, kernel: 1, act: None }, self.required(&norm.weight)?);
            let state = self.state(0, 0)?;
            self.run(&Op::Conv { spec, input: z, n, weight, bias: None, state, out: attended })?;
            result = attended;
        }
        self.linears(result, &[(&m.output, out)])
    }
}
