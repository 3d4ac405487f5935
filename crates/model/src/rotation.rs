//! In which form caches hold heads: in whole blocks, and rotated.

use crate::{CacheShape, LayoutParams};
use quant::GgmlType;

/// How many neighbouring values of a head are multiplied by a Walsh-Hadamard matrix before they are stored, if any are.
/// Values of a block share a scale, so one large value takes the precision of all; rotated, it is spread evenly over them
/// (QuaRot, arXiv 2404.00456). Scores stay as they are if queries are rotated like keys; what attention makes of rotated
/// values is rotated back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub k: Option<usize>,
    pub v: Option<usize>,
}

impl CacheShape {
    /// The shape that is stored: heads of quantized types end with zeros where they are not whole blocks. That changes no
    /// score and adds zeros to what attention makes. Values that are a part of the keys stay as they are.
    pub fn stored(&self, params: &LayoutParams) -> CacheShape {
        CacheShape {
            head_dim_k: self.head_dim_k.next_multiple_of(params.kv_type_k.block_size()),
            head_dim_v: match self.v_in_k {
                true => self.head_dim_v,
                false => self.head_dim_v.next_multiple_of(params.kv_type_v.block_size()),
            },
            ..*self
        }
    }

    /// Keys and values are rotated where they are quantized, as much of a stored head at once as a power of two divides.
    pub fn rotation(&self, params: &LayoutParams) -> Rotation {
        let CacheShape { head_dim_k, head_dim_v, v_in_k, .. } = self.stored(params);
        if v_in_k {
            // Values are a part of the keys: no block may reach over their end.
            let both = rotated(params.kv_type_k, head_dim_k | head_dim_v);
            return Rotation { k: both, v: both };
        }
        Rotation { k: rotated(params.kv_type_k, head_dim_k), v: rotated(params.kv_type_v, head_dim_v) }
    }
}

/// The largest power of two that divides `dim`, for types with blocks.
fn rotated(ty: GgmlType, dim: usize) -> Option<usize> {
    (ty.block_size() > 1).then(|| dim & dim.wrapping_neg()).filter(|block| *block > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(k: (GgmlType, usize), v: (GgmlType, usize), v_in_k: bool) -> (Option<usize>, Option<usize>) {
        let shape = CacheShape { head_count_kv: 2, head_dim_k: k.1, head_dim_v: v.1, v_in_k, window: 0 };
        let params = LayoutParams { context: 64, ubatch: 8, kv_type_k: k.0, kv_type_v: v.0, logits_rows: 1 };
        let Rotation { k, v } = shape.rotation(&params);
        (k, v)
    }

    #[test]
    fn quantized_heads_are_rotated_in_the_largest_blocks_that_divide_them() {
        use GgmlType::{BF16, F16, F32, Q4_0, Q8_0};
        assert_eq!(rotation((Q8_0, 128), (Q4_0, 64), false), (Some(128), Some(64)));
        assert_eq!(rotation((Q4_0, 96), (Q4_0, 160), false), (Some(32), Some(32)));
        assert_eq!(rotation((F16, 128), (Q4_0, 128), false), (None, Some(128)));
        assert_eq!(rotation((Q4_0, 128), (BF16, 128), false), (Some(128), None));
        assert_eq!(rotation((F32, 128), (F16, 128), false), (None, None));
        // Stored as 96 and 128 values.
        assert_eq!(rotation((Q8_0, 80), (Q4_0, 112), false), (Some(32), Some(128)));
        // Latent attention: 512 values and a part that turns; the type of V does not count.
        assert_eq!(rotation((Q8_0, 576), (F16, 512), true), (Some(64), Some(64)));
        assert_eq!(rotation((F16, 576), (Q8_0, 512), true), (None, None));
    }
}
