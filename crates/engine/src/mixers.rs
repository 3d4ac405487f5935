//! Operations of attention, with its own or a latent cache.

use crate::ops::Ops;
use backend::{Activation, AttentionSpec, BackendError, Op, View};
use model::{Attention, KeysValues, LatentAttention, Linear, Norm, Rope, Slot};

impl Ops<'_> {
    pub fn attention(&mut self, a: &Attention, input: View, out: View) -> Result<(), BackendError> {
        let n = self.n;
        let (q, attended) = (self.slot(Slot::Q)?, self.slot(Slot::Attended)?);
        let q_len = n * a.head_count * a.head_dim_k;
        // Queries that come with their gates are taken apart after the product.
        let q_out = if a.gated { self.slot(Slot::Gate)? } else { q };
        let source = match &a.kv {
            KeysValues::Own { k, v, k_norm, v_norm } => {
                self.own_keys_values(a, input, q_out, (k, v.as_ref()), (k_norm.as_ref(), v_norm.as_ref()))?;
                self.index
            }
            KeysValues::Shared { layer } => {
                self.linears(input, &[(&a.q, q_out)])?;
                *layer
            }
        };
        if a.gated {
            self.take_gates_apart(a, q_out, q)?;
        }
        if let Some(norm) = &a.q_norm {
            self.norm(norm, q, q_len, q)?;
        }
        self.rope(a.rope.as_ref(), q, a.head_count, a.head_dim_k)?;
        if a.temperature.is_some() {
            let factors = self.slot(Slot::Temperatures)?;
            self.run(&Op::ScaleRows { x: q, factors, rows: n, dim: q_len / n })?;
        }
        let shape = a.cache_shape();
        let cache = self.site.kv_cache(source, &shape, self.context.layout)?;
        if source == self.index {
            let (k, v) = (self.slot(Slot::K)?, self.slot(Slot::V)?);
            self.run(&Op::StoreKv { cache, k, v, n, start: self.start })?;
        }
        let sinks = self.view(a.sinks)?;
        let spec =
            AttentionSpec { head_count: a.head_count, scale: a.scale, softcap: a.softcap, window: a.window, sinks };
        self.run(&Op::Attention { cache, spec, q, n, start: self.start, out: attended })?;
        if a.gated {
            let (gate, len) = (self.slot(Slot::Up)?, n * a.head_count * a.head_dim_v);
            self.run(&Op::Activate { act: Activation::Sigmoid, x: gate, len })?;
            self.run(&Op::Mul { a: attended, b: gate, len, out: attended })?;
        }
        self.linears(attended, &[(&a.output, out)])
    }

    /// Queries, keys and values of one input; keys and values ready for the cache.
    fn own_keys_values(
        &mut self,
        a: &Attention,
        input: View,
        q: View,
        (k_linear, v_linear): (&Linear, Option<&Linear>),
        (k_norm, v_norm): (Option<&Norm>, Option<&Norm>),
    ) -> Result<(), BackendError> {
        let (k, v) = (self.slot(Slot::K)?, self.slot(Slot::V)?);
        let (k_len, v_len) = (self.n * a.head_count_kv * a.head_dim_k, self.n * a.head_count_kv * a.head_dim_v);
        match v_linear {
            Some(v_linear) => self.linears(input, &[(&a.q, q), (k_linear, k), (v_linear, v)])?,
            None => {
                self.linears(input, &[(&a.q, q), (k_linear, k)])?;
                self.copy(k, v, [k_len; 2], 1, k_len)?;
            }
        }
        for (norm, x, len) in [(k_norm, k, k_len), (v_norm, v, v_len)] {
            if let Some(norm) = norm {
                self.norm(norm, x, len, x)?;
            }
        }
        self.rope(a.rope.as_ref(), k, a.head_count_kv, a.head_dim_k)
    }

    /// Each head's query and gate lie beside each other.
    fn take_gates_apart(&mut self, a: &Attention, both: View, q: View) -> Result<(), BackendError> {
        let (dim, rows, gate) = (a.head_dim_k, self.n * a.head_count, self.slot(Slot::Up)?);
        self.copy(both, q, [2 * dim, dim], rows, dim)?;
        self.copy(both.at(dim), gate, [2 * dim, dim], rows, dim)
    }

    fn rope(&mut self, rope: Option<&Rope>, x: View, heads: usize, head_dim: usize) -> Result<(), BackendError> {
        let Some(rope) = rope else { return Ok(()) };
        let factors = self.view(rope.factors_for(self.context.layout.params.context))?;
        let positions = self.slot(Slot::Positions)?;
        self.run(&Op::Rope { x, n: self.n, heads, head_dim, spec: rope.spec, positions, factors })
    }

    pub fn latent(&mut self, a: &LatentAttention, input: View, out: View) -> Result<(), BackendError> {
        let (n, heads) = (self.n, a.head_count);
        let (q, k, v) = (self.slot(Slot::Q)?, self.slot(Slot::K)?, self.slot(Slot::V)?);
        let (gate, up, attended) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?, self.slot(Slot::Attended)?);
        match &a.q_a {
            Some((q_a, norm)) => {
                self.linears(input, &[(q_a, gate), (&a.kv_a, k)])?;
                self.norm(norm, gate, n * norm.dim, gate)?;
                self.linears(gate, &[(&a.q, up)])?;
            }
            None => self.linears(input, &[(&a.q, up), (&a.kv_a, k)])?,
        }
        let (nope, turned, rank) = (a.nope_dim, a.rope_dim, a.rank);
        let (head, wide) = (nope + turned, rank + turned);
        // Queries: the part that does not turn is multiplied into the latent space, the other one turns.
        self.copy(up, gate, [head, nope], n * heads, nope)?;
        self.head_linear(&a.k_b, heads, gate, attended)?;
        self.copy(attended, q, [rank, wide], n * heads, rank)?;
        self.copy(up.at(nope), gate, [head, turned], n * heads, turned)?;
        self.rope(Some(&a.rope), gate, heads, turned)?;
        self.copy(gate, q.at(rank), [turned, wide], n * heads, turned)?;
        // The one key in the same order.
        self.copy(k, v, [wide, rank], n, rank)?;
        self.norm(&a.kv_a_norm, v, n * rank, v)?;
        self.copy(k.at(rank), gate, [wide, turned], n, turned)?;
        self.rope(Some(&a.rope), gate, 1, turned)?;
        self.copy(gate, k.at(rank), [turned, wide], n, turned)?;
        self.copy(v, k, [rank, wide], n, rank)?;
        if a.temperature.is_some() {
            let factors = self.slot(Slot::Temperatures)?;
            self.run(&Op::ScaleRows { x: q, factors, rows: n, dim: heads * wide })?;
        }
        let cache = self.site.kv_cache(self.index, &a.cache_shape(), self.context.layout)?;
        self.run(&Op::StoreKv { cache, k, v, n, start: self.start })?;
        let spec = AttentionSpec { head_count: heads, scale: a.scale, softcap: 0.0, window: 0, sinks: None };
        self.run(&Op::Attention { cache, spec, q, n, start: self.start, out: attended })?;
        self.head_linear(&a.v_b, heads, attended, gate)?;
        self.linears(gate, &[(&a.output, out)])
    }

    /// A product with a matrix of its own for every head: heads are experts that every token takes in order.
    fn head_linear(&mut self, linear: &Linear, heads: usize, input: View, out: View) -> Result<(), BackendError> {
        let op = Op::ExpertMatMul {
            input,
            input_per_slot: true,
            n: self.n,
            ids: self.slot(Slot::HeadIds)?,
            used: heads,
            experts: heads,
            weight: self.weight(linear)?,
            bias: self.view(linear.bias)?,
            scales: self.view(linear.scale)?,
            out,
        };
        self.run(&op)
    }
}
