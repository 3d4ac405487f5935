//! Narrow blocks of weights in registers.

use super::super::portable::{Narrows, unpack_narrow};
use super::decode::{look_up, nibbles};
use super::widen;
use quant::blocks::*;
use quant::unpack::{FP4_VALUES, IQ4_VALUES, Unpack};
use std::arch::aarch64::*;

/// Blocks of narrow blocks that can be taken into registers.
pub trait DecodeNarrow: Unpack {
    /// A block's scale as it is stored.
    type Scale: Copy + Default;
    /// The values of narrow block `part` of those that [`super::super::portable::narrow_count`] says there are.
    fn quants(&self, part: usize) -> [int8x16_t; 2];
    fn scale(&self, part: usize) -> Self::Scale;
    fn scales(scales: [Self::Scale; 4]) -> [f32; 4];
    /// What is added to every value, as f16 bits.
    #[inline(always)]
    fn min(&self) -> u16 {
        0
    }
}

#[inline(always)]
fn sixteen(qs: &[u8; 16]) -> uint8x16_t {
    // SAFETY: NEON is part of AArch64; the load is of the whole array.
    unsafe { vld1q_u8(qs.as_ptr()) }
}

#[inline(always)]
fn thirty_two(q: &[i8; 32]) -> [int8x16_t; 2] {
    // SAFETY: NEON is part of AArch64; both loads are inside the array.
    unsafe { [vld1q_s8(q.as_ptr()), vld1q_s8(q.as_ptr().add(16))] }
}

#[inline(always)]
fn minus(x: [uint8x16_t; 2], offset: i8) -> [int8x16_t; 2] {
    // SAFETY: NEON is part of AArch64.
    unsafe { x.map(|x| vsubq_s8(vreinterpretq_s8_u8(x), vdupq_n_s8(offset))) }
}

/// Nibbles, and bit `j` of `qh` as bit 4 of value `j`.
#[inline(always)]
fn five_bits(qs: &[u8; 16], qh: [u8; 4]) -> [uint8x16_t; 2] {
    const SELECT: [u8; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
    let low = nibbles(sixteen(qs));
    // SAFETY: NEON is part of AArch64; the load is of the whole array.
    unsafe {
        let select = vld1_u8(SELECT.as_ptr());
        let select = vcombine_u8(select, select);
        let high = |a: u8, b: u8| {
            let own = vcombine_u8(vdup_n_u8(a), vdup_n_u8(b));
            vandq_u8(vtstq_u8(own, select), vdupq_n_u8(16))
        };
        [vorrq_u8(low[0], high(qh[0], qh[1])), vorrq_u8(low[1], high(qh[2], qh[3]))]
    }
}

macro_rules! narrow {
    ($block:ident, $self:ident => $q:expr $(, $min:ident)?) => {
        impl DecodeNarrow for $block {
            type Scale = u16;
            #[inline(always)]
            fn quants(&$self, _part: usize) -> [int8x16_t; 2] {
                $q
            }
            #[inline(always)]
            fn scale(&self, _part: usize) -> u16 {
                self.d.to_bits()
            }
            #[inline(always)]
            fn scales(scales: [u16; 4]) -> [f32; 4] {
                widen(scales)
            }
            $(#[inline(always)]
            fn min(&self) -> u16 {
                self.$min.to_bits()
            })?
        }
    };
}
narrow!(BlockQ8_0, self => thirty_two(&self.qs));
narrow!(BlockQ4_0, self => minus(nibbles(sixteen(&self.qs)), 8));
narrow!(BlockQ4_1, self => minus(nibbles(sixteen(&self.qs)), 0), m);
narrow!(BlockQ5_0, self => minus(five_bits(&self.qs, self.qh), 16));
narrow!(BlockQ5_1, self => minus(five_bits(&self.qs, self.qh), 0), m);
narrow!(BlockIQ4_NL, self => look_up(&IQ4_VALUES, sixteen(&self.qs)));

/// Types whose scales are not f16, or that are unpacked by the scalar code.
macro_rules! narrow_with_scale {
    ($($block:ident, $self:ident, $part:ident => $q:expr, $scale:expr;)*) => {$(
        impl DecodeNarrow for $block {
            type Scale = f32;
            #[inline(always)]
            fn quants(&$self, $part: usize) -> [int8x16_t; 2] {
                $q
            }
            #[inline(always)]
            fn scale(&$self, $part: usize) -> f32 {
                $scale
            }
            #[inline(always)]
            fn scales(scales: [f32; 4]) -> [f32; 4] {
                scales
            }
        }
    )*};
}
narrow_with_scale! {
    BlockMXFP4, self, _part => look_up(&FP4_VALUES, sixteen(&self.qs)), quant::unpack::e8m0_half(self.e);
    BlockNVFP4, self, part => by_scalar(self, part), quant::unpack::ue4m3_half(self.d[part]);
    BlockQ1_0, self, part => by_scalar(self, part), { let _ = part; self.d.to_f32() };
    BlockQ2_0, self, part => by_scalar(self, part), { let _ = part; self.d.to_f32() };
}

#[inline(always)]
fn by_scalar<B: Unpack>(block: &B, part: usize) -> [int8x16_t; 2] {
    let mut all = Narrows::new();
    unpack_narrow(block, 0, &mut all);
    thirty_two(&all.q[part])
}

/// Values of blocks of 32; `false` if the bytes are not aligned as blocks. Nothing is fused, as in the scalar code.
#[inline(always)]
pub fn values<B: DecodeNarrow>(bytes: &[u8], out: &mut [f32]) -> bool {
    let Ok(blocks) = bytemuck::try_cast_slice::<u8, B>(bytes) else { return false };
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<32>().0) {
        let d = B::scales([block.scale(0); 4])[0];
        let min = widen([block.min(); 4])[0];
        for (q, out) in block.quants(0).into_iter().zip(out.as_chunks_mut::<16>().0) {
            // SAFETY: NEON is part of AArch64; stores are inside the array.
            unsafe {
                let (low, high) = (vmovl_s8(vget_low_s8(q)), vmovl_high_s8(q));
                let quads = [
                    vmovl_s16(vget_low_s16(low)),
                    vmovl_high_s16(low),
                    vmovl_s16(vget_low_s16(high)),
                    vmovl_high_s16(high),
                ];
                for (quad, out) in quads.into_iter().zip(out.as_chunks_mut::<4>().0) {
                    let scaled = vmulq_n_f32(vcvtq_f32_s32(quad), d);
                    let value = if B::HAS_MINS { vaddq_f32(scaled, vdupq_n_f32(min)) } else { scaled };
                    vst1q_f32(out.as_mut_ptr(), value);
                }
            }
        }
    }
    true
}
