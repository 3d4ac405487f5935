//! The scales of whole wide blocks.

use quant::blocks::*;
use quant::unpack::{Unpack, iq1m_scale};

/// The scales of a whole wide block, as f16 bits.
pub trait SuperScales: Unpack {
    /// The block's scale is this times `d`.
    const FACTOR: f32 = 1.0;
    fn d(&self) -> u16;
    fn dmin(&self) -> u16 {
        0
    }
}

macro_rules! super_scales {
    ($($block:ident $factor:literal),*) => {$(
        impl SuperScales for $block {
            const FACTOR: f32 = $factor;
            #[inline(always)]
            fn d(&self) -> u16 {
                self.d.to_bits()
            }
        }
    )*};
    (min: $($block:ident),*) => {$(
        impl SuperScales for $block {
            #[inline(always)]
            fn d(&self) -> u16 {
                self.d.to_bits()
            }
            #[inline(always)]
            fn dmin(&self) -> u16 {
                self.dmin.to_bits()
            }
        }
    )*};
}
super_scales!(min: BlockQ2_K, BlockQ4_K, BlockQ5_K);
super_scales!(
    BlockQ3_K 1.0,
    BlockQ6_K 1.0,
    BlockIQ1_S 0.125,
    BlockIQ2_XXS 0.125,
    BlockIQ2_XS 0.125,
    BlockIQ2_S 0.125,
    BlockIQ3_XXS 0.25,
    BlockIQ3_S 1.0,
    BlockIQ4_XS 1.0,
    BlockTQ1_0 1.0,
    BlockTQ2_0 1.0
);
impl SuperScales for BlockIQ1_M {
    const FACTOR: f32 = 0.125;
    #[inline(always)]
    fn d(&self) -> u16 {
        iq1m_scale(&self.scales).to_bits()
    }
}
