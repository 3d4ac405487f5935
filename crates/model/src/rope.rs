//! Rotary embeddings from metadata.

use crate::ModelError;
use crate::describe::Header;
use backend::{RopePairs, RopeSpec};

impl Header<'_> {
    /// The rotary embedding as the metadata says, for heads of `head_dim` values.
    /// `dims` is the key for how many of them turn.
    pub fn rope_spec(
        &self,
        pairs: RopePairs,
        dims: &str,
        head_dim: usize,
        context_length: u32,
    ) -> Result<RopeSpec, ModelError> {
        let name = dims;
        let dims = match self.u64_or(name) {
            Some(dims) => self.checked(name, dims, head_dim as u64)?,
            None => head_dim,
        };
        if dims % 2 != 0 {
            return Err(self.bad_value(name, dims, "the even numbers"));
        }
        let scaling = self.str_or("rope.scaling.type").unwrap_or("linear");
        // `rope.scale_linear` is what old files have.
        let old_factor = self.f32_at_least("rope.scale_linear", 1.0, 0.0)?;
        let factor = self.f32_at_least("rope.scaling.factor", old_factor, 0.0)?;
        let scaled = factor > 0.0 && scaling != "none";
        let freq_scale = if scaled { 1.0 / factor } else { 1.0 };
        let yarn = scaling == "yarn" && scaled;
        let original = self.u64_or("rope.scaling.original_context_length").unwrap_or(u64::from(context_length));
        let mut attn_factor = self.f32_at_least("rope.scaling.attn_factor", 1.0, 0.0)?;
        if yarn {
            // The magnitude is then relative to that of a model with this multiplier in all dimensions.
            let multiplier = self.f32_at_least("rope.scaling.yarn_log_multiplier", 0.0, 0.0)?;
            attn_factor /= 1.0 + 0.1 * multiplier * factor.ln().max(0.0);
        }
        Ok(RopeSpec {
            pairs,
            dims,
            freq_base: self.f32_at_least("rope.freq_base", 10000.0, f32::MIN_POSITIVE)?,
            freq_scale,
            ext_factor: if yarn { self.f32_at_least("rope.scaling.yarn_ext_factor", 1.0, 0.0)? } else { 0.0 },
            attn_factor,
            beta_fast: self.f32_at_least("rope.scaling.yarn_beta_fast", 32.0, 0.0)?,
            beta_slow: self.f32_at_least("rope.scaling.yarn_beta_slow", 1.0, 0.0)?,
            original_context: original.clamp(1, u64::from(u32::MAX)) as u32,
        })
    }
}
