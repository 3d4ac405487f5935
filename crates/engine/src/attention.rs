//! Operations of attention.

use crate::ops::Ops;
use backend::{Activation, AttentionSpec, BackendError, Op, View};
use model::{Attention, CacheShape, KeysValues, Linear, Norm, Rope, Slot};

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
        self.norm_and_turn(a, a.q_norm.as_ref(), q, a.head_count)?;
        if a.temperature.is_some() {
            let factors = self.slot(Slot::Temperatures)?;
            self.run(&Op::ScaleRows { x: q, factors, rows: n, dim: q_len / n })?;
        }
        let sinks = self.view(a.sinks)?;
        let spec =
            AttentionSpec { head_count: a.head_count, scale: a.scale, softcap: a.softcap, window: a.window, sinks };
        self.attend(&a.cache_shape(), source, spec)?;
        if a.gated {
            let (gate, len) = (self.slot(Slot::Up)?, n * a.head_count * a.head_dim_v);
            self.run(&Op::Activate { act: Activation::Sigmoid, x: gate, len })?;
            self.run(&Op::Mul { a: attended, b: gate, len, out: attended })?;
        }
        self.linears(attended, &[(&a.output, out)])
    }

    /// Stores the layer's keys and values, if the cache is its own, and attends: from the slots Q, K and V to Attended.
    pub fn attend(&mut self, shape: &CacheShape, source: usize, spec: AttentionSpec) -> Result<(), BackendError> {
        let (n, start, heads) = (self.n, self.start, spec.head_count);
        let (q, out) = (self.slot(Slot::Q)?, self.slot(Slot::Attended)?);
        let params = &self.context.layout.params;
        let (stored, rotation) = (shape.stored(params), shape.rotation(params));
        let (dims_k, dims_v) = ([shape.head_dim_k, stored.head_dim_k], [shape.head_dim_v, stored.head_dim_v]);
        let cache = self.site.kv_cache(source, shape, self.context.layout)?;
        if source == self.index {
            let heads = shape.head_count_kv;
            let (k, mut v) = (self.slot(Slot::K)?, self.slot(Slot::V)?);
            let k = self.padded(Slot::PaddedK, k, heads, dims_k)?;
            self.rotate(rotation.k, k, n * heads * stored.head_dim_k)?;
            if !shape.v_in_k {
                v = self.padded(Slot::PaddedV, v, heads, dims_v)?;
                self.rotate(rotation.v, v, n * heads * stored.head_dim_v)?;
            }
            self.run(&Op::StoreKv { cache, k, v, n, start })?;
        }
        let q = self.padded(Slot::PaddedK, q, heads, dims_k)?;
        self.rotate(rotation.k, q, n * heads * stored.head_dim_k)?;
        let attended = if dims_v[0] == dims_v[1] { out } else { self.slot(Slot::PaddedV)? };
        self.run(&Op::Attention { cache, spec, q, n, start, out: attended })?;
        self.rotate(rotation.v, attended, n * heads * stored.head_dim_v)?;
        match dims_v[0] == dims_v[1] {
            true => Ok(()),
            false => self.copy(attended, out, [dims_v[1], dims_v[0]], n * heads, dims_v[0]),
        }
    }

    /// Heads of `dim` values with the zeros that make them `stored` values, if any do.
    fn padded(&mut self, slot: Slot, x: View, heads: usize, [dim, stored]: [usize; 2]) -> Result<View, BackendError> {
        if dim == stored {
            return Ok(x);
        }
        let (out, zeros, rows) = (self.slot(slot)?, self.slot(Slot::Zeros)?, self.n * heads);
        self.copy(x, out, [dim, stored], rows, dim)?;
        self.copy(zeros, out.at(dim), [stored - dim, stored], rows, stored - dim)?;
        Ok(out)
    }

    fn rotate(&mut self, block: Option<usize>, x: View, len: usize) -> Result<(), BackendError> {
        block.map_or(Ok(()), |block| self.run(&Op::Hadamard { x, len, block }))
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
        if let Some(norm) = v_norm {
            self.norm(norm, v, v_len, v)?;
        }
        self.norm_and_turn(a, k_norm, k, a.head_count_kv)
    }

    /// The norm of queries or keys and their rotary embedding, in the family's order.
    fn norm_and_turn(&mut self, a: &Attention, norm: Option<&Norm>, x: View, heads: usize) -> Result<(), BackendError> {
        let len = self.n * heads * a.head_dim_k;
        if let Some(norm) = norm.filter(|_| !a.rope_first) {
            self.norm(norm, x, len, x)?;
        }
        self.rope(a.rope.as_ref(), x, heads, a.head_dim_k)?;
        match norm.filter(|_| a.rope_first) {
            Some(norm) => self.norm(norm, x, len, x),
            None => Ok(()),
        }
    }

    /// Each head's query and gate lie beside each other.
    fn take_gates_apart(&mut self, a: &Attention, both: View, q: View) -> Result<(), BackendError> {
        let (dim, rows, gate) = (a.head_dim_k, self.n * a.head_count, self.slot(Slot::Up)?);
        self.copy(both, q, [2 * dim, dim], rows, dim)?;
        self.copy(both.at(dim), gate, [2 * dim, dim], rows, dim)
    }

    pub fn rope(&mut self, rope: Option<&Rope>, x: View, heads: usize, head_dim: usize) -> Result<(), BackendError> {
        let Some(rope) = rope else { return Ok(()) };
        let factors = self.view(rope.factors_for(self.context.layout.params.context))?;
        let positions = self.slot(Slot::Positions)?;
        self.run(&Op::Rope { x, n: self.n, heads, head_dim, spec: rope.spec, positions, factors })
    }
}
