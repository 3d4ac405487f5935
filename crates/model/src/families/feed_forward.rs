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
        let router = self.router(index, routing)?;
        let count = router.experts;
        let latent = self.latent_experts(index)?;
        let inner = latent.map_or(width, |latent| latent.down.rows);
        let linear = |name: &str, rows, cols| header.expert_linear(&block(index, name), count, rows, cols);
        let has = |name: &str| header.has(&(block(index, name) + ".weight"));
        // Layers may differ in the length of their experts, so the tensors say it.
        let rows = |name: &str| header.rows(&(block(index, name) + ".weight"));
        let (input, ff) = if has("ffn_gate_up_exps") {
            let ff = rows("ffn_gate_up_exps")? / 2;
            (ExpertInput::Fused(linear("ffn_gate_up_exps", 2 * ff, inner)?), ff)
        } else {
            let ff = rows("ffn_up_exps")?;
            let up = linear("ffn_up_exps", ff, inner)?;
            let gate = if has("ffn_gate_exps") { Some(linear("ffn_gate_exps", ff, inner)?) } else { None };
            (gate.map_or(ExpertInput::Up(up), |gate| ExpertInput::Gated { gate, up }), ff)
        };
        Ok(Experts {
            logits_norm: None,
            logits: self.linear(index, "ffn_gate_inp", count, width)?,
            logits_scale: 1.0,
            router,
            router_bias: header.vector_or(&block(index, "exp_probs_b.bias"), &[count])?,
            latent,
            norm: None,
            post_norm: None,
            input,
            down: linear("ffn_down_exps", inner, ff)?,
            act,
            shared: if has("ffn_up_shexp") { Some(self.shared_expert(index, act)?) } else { None },
        })
    }

    /// `ffn_latent_down` and `ffn_latent_up`, where the file has them.
    fn latent_experts(&self, index: usize) -> Result<Option<LatentExperts>, ModelError> {
        let down = block(index, "ffn_latent_down");
        if !self.header.has(&format!("{down}.weight")) {
            return Ok(None);
        }
        let (width, inner) = (self.sizes.embedding_length, self.header.rows(&format!("{down}.weight"))?);
        if inner > width {
            return Err(self.header.bad_value("moe_latent_size", inner, "1 to embedding_length"));
        }
        let up = self.linear(index, "ffn_latent_up", width, inner)?;
        Ok(Some(LatentExperts { down: self.linear(index, "ffn_latent_down", inner, width)?, up }))
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

    fn router(&self, index: usize, routing: Routing) -> Result<Router, ModelError> {
        let header = self.header;
        let experts = header.count("expert_count", MAX_EXPERTS)?;
        let used = header
            .layer_count("expert_used_count", index, MAX_EXPERTS)?
            .ok_or_else(|| ModelError::MissingKey("expert_used_count".into()))?;
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
