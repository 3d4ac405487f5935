//! Every block-quantized type in one integer form, from which both dequantization and the integer dot product follow.

pub mod codes;
mod fp4;
mod grids;
mod iq;
mod k;
mod legacy;
mod ternary;

pub use fp4::{FP4_VALUES, e8m0_half, ue4m3_half};
pub use grids::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID};
pub use iq::{IQ4_VALUES, iq1m_scale};
pub use k::{unpack_scales_mins, unpack_scales_q3};

use crate::blocks::{Block, QK_K};

/// One block as integers. With `g = j / GROUP`, element `j` is `(d * scales[g]) * q[j] - dmin * mins[g]`.
///
/// Every `d * scales[g]` and `dmin * mins[g]` is exact in f32 (11 + 6 significant bits at most), so the formula gives the
/// same bits as any other order of evaluation.
#[derive(Clone, Debug)]
pub struct Unpacked {
    pub d: f32,
    pub dmin: f32,
    /// One per group; the rest is not defined.
    pub scales: [i32; 16],
    /// One per group where the type has offsets ([`Unpack::HAS_MINS`]); not defined elsewhere.
    pub mins: [i32; 16],
    /// One per element of the block; the rest is not defined.
    pub q: [i8; QK_K],
}

impl Unpacked {
    /// A place to unpack into.
    pub const fn new() -> Unpacked {
        Unpacked { d: 0.0, dmin: 0.0, scales: [1; 16], mins: [1; 16], q: [0; QK_K] }
    }

    /// The values of the block: `block_size` of `B`'s type.
    pub fn values<B: Unpack>(&self, out: &mut [f32]) {
        for (g, out) in out.chunks_exact_mut(B::GROUP).enumerate() {
            let scale = self.d * self.scales[g] as f32;
            let q = &self.q[g * B::GROUP..][..B::GROUP];
            if B::HAS_MINS {
                let min = self.dmin * self.mins[g] as f32;
                for (x, &q) in out.iter_mut().zip(q) {
                    *x = scale * f32::from(q) - min;
                }
            } else {
                for (x, &q) in out.iter_mut().zip(q) {
                    *x = scale * f32::from(q);
                }
            }
        }
    }
}

impl Default for Unpacked {
    fn default() -> Unpacked {
        Unpacked::new()
    }
}

/// A block that unpacks to integers.
pub trait Unpack: Block {
    /// Elements that share a scale: 16 or 32.
    const GROUP: usize;
    /// Whether values have an offset (`dmin * mins[g]`).
    const HAS_MINS: bool = false;
    /// Write `d` and the block's `q`; `scales`, `dmin` and `mins` where the type has them. A type without group scales
    /// sets them to 1.
    fn unpack(&self, out: &mut Unpacked);
}

/// Evaluate `$body` with the type alias `$B` bound to the block struct of `$ty`; `$other` for types without blocks.
macro_rules! with_block {
    ($ty:expr, $B:ident => $body:expr, _ => $other:expr) => {
        with_block!(@ $ty, $B, $body, $other,
            BlockQ4_0 Q4_0, BlockQ4_1 Q4_1, BlockQ5_0 Q5_0, BlockQ5_1 Q5_1, BlockQ8_0 Q8_0, BlockQ8_1 Q8_1,
            BlockQ2_K Q2_K, BlockQ3_K Q3_K, BlockQ4_K Q4_K, BlockQ5_K Q5_K, BlockQ6_K Q6_K, BlockQ8_K Q8_K,
            BlockIQ2_XXS IQ2_XXS, BlockIQ2_XS IQ2_XS, BlockIQ2_S IQ2_S, BlockIQ3_XXS IQ3_XXS, BlockIQ3_S IQ3_S,
            BlockIQ1_S IQ1_S, BlockIQ1_M IQ1_M, BlockIQ4_NL IQ4_NL, BlockIQ4_XS IQ4_XS,
            BlockTQ1_0 TQ1_0, BlockTQ2_0 TQ2_0, BlockMXFP4 MXFP4, BlockNVFP4 NVFP4, BlockQ1_0 Q1_0, BlockQ2_0 Q2_0)
    };
    (@ $ty:expr, $B:ident, $body:expr, $other:expr, $($block:ident $name:ident),*) => {
        match $ty {
            $(crate::GgmlType::$name => { type $B = crate::blocks::$block; $body })*
            _ => $other,
        }
    };
}
pub(crate) use with_block;
