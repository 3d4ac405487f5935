//! Feed-forwards by the names that converters give their tensors: dense, experts, shared experts.

use super::standard::{Builder, block};
use crate::*;
use backend::{Activation, Gating, Router};

const MAX_FEED_FORWARD: u64 = 1 << 24;
const MAX_EXPERTS: u64 = 1 << 12;

/// How a family's router works where the file does not say.
#[derive(Clone, Copy)]
pub(crate) struct Routing {
    pub gating: Gating,
    pub normalize: bool,
}

pub(crate) const SOFTMAX: Routing = Routing { gating: Gating::Softmax, normalize: true };
pub(crate) const SIGMOID: Routing = Routing { gating: Gating::Sigmoid, normalize: true };

impl Builder<'_> {
    /// `ffn_gate`, `ffn_up`, `ffn_down`; gate and up may be one tensor, and without a gate there is none.
    pub fn dense(&self, index: usize, act: Activation) -> Result<Dense, ModelError> {
        let ff = self
            .header
            .layer_count("feed_forward_length", index, MAX_FEED_FORWARD)?
            .ok_or_else(|| ModelError::MissingKey("feed_forward_length".into()))?;
        let up = block(index, "ffn_up");
        let fused = self.header.shape(&format!("{up}.weight")).and_then(|shape| shape.get(1)) == Some(&(2 * ff as u64));
        let names = ["ffn_gate", "ffn_up", "ffn_down"];
        self.dense_of(index, names, ff, fused, act)
    }

    fn dense_of(
        &self,
        index: usize,
        [gate, up, down]: [&str; 3],
        ff: usize,
        fused: bool,
        act: Activation,
    ) -> Result<Dense, ModelError> {
        let width = self.sizes.embedding_length;
        let (gate, up) = if fused {
            let both = self.linear(index, up, 2 * ff, width)?;
            (Some(both.part(0, ff)), both.part(ff, ff))
        } else {
            (self.header.linear_or(&block(index, gate), ff, width)?, self.linear(index, up, ff, width)?)
        };
        Ok(Dense { gate, up, down: self.linear(index, down, width, ff)?, act, sparsity: None })
    }

    /// `ffn_*_exps` with their router, and `ffn_*_shexp` where the file has them.
    pub fn experts(&self, index: usize, routing: Routing, act: Activation) -> Result<Experts, ModelError> {
        let (header, width) = (self.header, self.sizes.embedding_length);
        let router = self.router(routing)?;
        let count = router.experts;
        let ff = match header.u64_or("expert_feed_forward_length") {
            Some(_) => header.count("expert_feed_forward_length", MAX_FEED_FORWARD)?,
            None => header.count("feed_forward_length", MAX_FEED_FORWARD)?,
        };
        let linear = |name: &str, rows, cols| header.expert_linear(&block(index, name), count, rows, cols);
        let has = |name: &str| header.has(&(block(index, name) + ".weight"));
        let input = if has("ffn_gate_up_exps") {
            ExpertInput::Fused(linear("ffn_gate_up_exps", 2 * ff, width)?)
        } else if has("ffn_gate_exps") {
            ExpertInput::Gated { gate: linear("ffn_gate_exps", ff, width)?, up: linear("ffn_up_exps", ff, width)? }
        } else {
            ExpertInput::Up(linear("ffn_up_exps", ff, width)?)
        };
        Ok(Experts {
            logits_norm: None,
            logits: self.linear(index, "ffn_gate_inp", count, width)?,
            logits_scale: 1.0,
            router,
            router_bias: header.vector_or(&block(index, "exp_probs_b.bias"), &[count])?,
            norm: None,
            post_norm: None,
            input,
            down: linear("ffn_down_exps", width, ff)?,
            act,
            shared: if has("ffn_up_shexp") { Some(self.shared_expert(index, act)?) } else { None },
        })
    }

    fn shared_expert(&self, index: usize, act: Activation) -> Result<SharedExpert, ModelError> {
        let ff = self.header.rows(&(block(index, "ffn_up_shexp") + ".weight"))?;
        let names = ["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"];
        Ok(SharedExpert {
            norm: None,
            dense: self.dense_of(index, names, ff, false, act)?,
            post_norm: None,
            gate: self.header.linear_or(&block(index, "ffn_gate_inp_shexp"), 1, self.sizes.embedding_length)?,
        })
    }

    fn router(&self, routing: Routing) -> Result<Router, ModelError> {
        let header = self.header;
        let experts = header.count("expert_count", MAX_EXPERTS)?;
        let used = header.count("expert_used_count", MAX_EXPERTS)?;
        let group =
            |name: &str| header.u64_or(name).filter(|n| *n > 0).map_or(Ok(1), |_| header.count(name, MAX_EXPERTS));
        let (groups, groups_used) = (group("expert_group_count")?, group("expert_group_used_count")?);
        if experts % groups != 0 || groups_used > groups {
            return Err(header.bad_value("expert_group_count", groups, "the divisors of expert_count"));
        }
        if used > experts / groups * groups_used {
            return Err(header.bad_value("expert_used_count", used, "1 to the experts that can be chosen"));
        }
        let gating = match header.u64_or("expert_gating_func") {
            None | Some(0) => routing.gating,
            Some(1) => Gating::Softmax,
            Some(2) => Gating::Sigmoid,
            Some(3) => Gating::SoftmaxOfChosen,
            Some(other) => return Err(header.bad_value("expert_gating_func", other, "1 to 3")),
        };
        let scale = header.f32_at_least("expert_weights_scale", 1.0, 0.0)?;
        Ok(Router {
            experts,
            used,
            gating,
            normalize: header.bool_or("expert_weights_norm").unwrap_or(routing.normalize),
            // Files without a factor may say 0.
            scale: if scale == 0.0 { 1.0 } else { scale },
            groups,
            groups_used,
        })
    }

    /// Experts from the layer on that `leading_dense_block_count` says, dense before, all with SiLU.
    pub fn experts_after_dense(&self, index: usize, routing: Routing) -> Result<FeedForward, ModelError> {
        let dense = self.header.u64_or("leading_dense_block_count").unwrap_or(0);
        if (index as u64) < dense {
            return Ok(FeedForward::Dense(self.dense(index, Activation::Silu)?));
        }
        Ok(FeedForward::Experts(self.experts(index, routing, Activation::Silu)?))
    }
}
