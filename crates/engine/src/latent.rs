//! Operations of multi-head latent attention.

use crate::ops::Ops;
use backend::{AttentionSpec, BackendError, Op, View};
use model::{Expansion, LatentAttention, Linear, Slot};

impl Ops<'_> {
    pub fn latent(&mut self, a: &LatentAttention, input: View, out: View) -> Result<(), BackendError> {
        let (n, heads, shape) = (self.n, a.head_count, a.cache_shape());
        let (q, k) = (self.slot(Slot::Q)?, self.slot(Slot::K)?);
        let (gate, up, attended) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?, self.slot(Slot::Attended)?);
        match &a.q_a {
            Some((q_a, norm)) => {
                self.linears(input, &[(q_a, gate), (&a.kv_a, k)])?;
                self.norm(norm, gate, n * norm.dim, gate)?;
                self.linears(gate, &[(&a.q, up)])?;
            }
            None => self.linears(input, &[(&a.q, up), (&a.kv_a, k)])?,
        }
        // Queries lie in `up`, the latent vector and the turning part of the key in `k`.
        match &a.expansion {
            Expansion::Absorbed { k_b, .. } => self.absorb(a, k_b)?,
            Expansion::Full { kv_b } => self.expand(a, kv_b)?,
        }
        if a.temperature.is_some() {
            let factors = self.slot(Slot::Temperatures)?;
            self.run(&Op::ScaleRows { x: q, factors, rows: n, dim: heads * shape.head_dim_k })?;
        }
        let spec = AttentionSpec { head_count: heads, scale: a.scale, softcap: 0.0, window: 0, sinks: None };
        self.attend(&shape, self.index, spec)?;
        match &a.expansion {
            Expansion::Absorbed { v_b, .. } => {
                self.head_linear(v_b, heads, attended, gate)?;
                self.linears(gate, &[(&a.output, out)])
            }
            Expansion::Full { .. } => self.linears(attended, &[(&a.output, out)]),
        }
    }

    /// The part of the queries that does not turn is multiplied into the latent space, the other one turns; the one key
    /// has the same order.
    fn absorb(&mut self, a: &LatentAttention, k_b: &Linear) -> Result<(), BackendError> {
        let (n, heads) = (self.n, a.head_count);
        let (q, k, v) = (self.slot(Slot::Q)?, self.slot(Slot::K)?, self.slot(Slot::V)?);
        let (gate, up, attended) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?, self.slot(Slot::Attended)?);
        let (nope, turned, rank) = (a.nope_dim, a.rope_dim, a.rank);
        let (head, wide) = (nope + turned, rank + turned);
        self.copy(up, gate, [head, nope], n * heads, nope)?;
        self.head_linear(k_b, heads, gate, attended)?;
        self.copy(attended, q, [rank, wide], n * heads, rank)?;
        self.turn(a, (up.at(nope), head), (q.at(rank), wide), heads)?;
        self.copy(k, v, [wide, rank], n, rank)?;
        self.norm(&a.kv_a_norm, v, n * rank, v)?;
        self.turn(a, (k.at(rank), wide), (k.at(rank), wide), 1)?;
        self.copy(v, k, [rank, wide], n, rank)
    }

    /// Every head gets its key and value.
    fn expand(&mut self, a: &LatentAttention, kv_b: &Linear) -> Result<(), BackendError> {
        let (n, heads) = (self.n, a.head_count);
        let (q, k, v) = (self.slot(Slot::Q)?, self.slot(Slot::K)?, self.slot(Slot::V)?);
        let (gate, up) = (self.slot(Slot::Gate)?, self.slot(Slot::Up)?);
        let (nope, turned, rank, dim_v) = (a.nope_dim, a.rope_dim, a.rank, a.head_dim_v);
        let (head, both) = (nope + turned, nope + dim_v);
        self.copy(up, q, [head, head], n * heads, nope)?;
        self.turn(a, (up.at(nope), head), (q.at(nope), head), heads)?;
        self.copy(k, v, [rank + turned, rank], n, rank)?;
        self.norm(&a.kv_a_norm, v, n * rank, v)?;
        self.linears(v, &[(kv_b, up)])?;
        // The turning part is read before keys take its place, and is the same for all heads.
        self.copy(k.at(rank), gate, [rank + turned, turned], n, turned)?;
        self.rope(Some(&a.rope), gate, 1, turned)?;
        for index in 0..heads {
            self.copy(gate, k.at(index * head + nope), [turned, heads * head], n, turned)?;
        }
        self.copy(up, k, [both, head], n * heads, nope)?;
        self.copy(up.at(nope), v, [both, dim_v], n * heads, dim_v)
    }

    /// Turns `heads` pieces a row on their way from one place and distance to another.
    fn turn(
        &mut self,
        a: &LatentAttention,
        (from, from_stride): (View, usize),
        (to, to_stride): (View, usize),
        heads: usize,
    ) -> Result<(), BackendError> {
        let (gate, rows, dim) = (self.slot(Slot::Gate)?, self.n * heads, a.rope_dim);
        self.copy(from, gate, [from_stride, dim], rows, dim)?;
        self.rope(Some(&a.rope), gate, heads, dim)?;
        self.copy(gate, to, [dim, to_stride], rows, dim)
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
