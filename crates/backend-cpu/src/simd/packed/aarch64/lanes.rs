//! The vectors of the panel kernel, and the products of the row kernel.

use super::super::lanes::{Lanes, Layout, Sums, by_fours};
use super::super::panel::{LANES, Lanes32};
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;
use std::hint::black_box;
use std::marker::PhantomData;

/// What every AArch64 has.
pub struct Neon;
/// With the instructions called dotprod.
pub struct NeonDot;
/// With those called i8mm, too, for panels that were paired.
pub struct NeonI8mm;

/// Products of bytes.
///
/// # Safety
/// Methods may only be called on CPUs that have the instructions of the implementation.
pub unsafe trait Products {
    /// The CPU has i8mm, too, and panels are paired.
    const PAIRED: bool = false;
    /// `sum` plus products of signed bytes, added by fours. Bytes of `a` are at least -127.
    unsafe fn dot4(sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t;
}

/// 16 x i32
type I = [int32x4_t; VECTORS];

// SAFETY: NEON is part of AArch64.
unsafe impl Products for Neon {
    #[inline(always)]
    unsafe fn dot4(sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of AArch64. No pair exceeds 2 * 128 * 127, so nothing overflows.
        unsafe {
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
            let high = vmull_high_s8(w, a);
            vpadalq_s16(sum, vpaddq_s16(low, high))
        }
    }
}

// SAFETY: the caller has dotprod.
unsafe impl Products for NeonDot {
    #[inline(always)]
    unsafe fn dot4(sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        let mut out = sum;
        // SAFETY: the caller has dotprod; the instruction works on registers alone. (Its intrinsic is not stable.)
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) out, in(vreg) w, in(vreg) a,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        out
    }
}

// SAFETY: the caller has dotprod and i8mm.
unsafe impl Products for NeonI8mm {
    const PAIRED: bool = true;
    #[inline(always)]
    unsafe fn dot4(sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        // SAFETY: the caller has dotprod.
        unsafe { NeonDot::dot4(sum, w, a) }
    }
}

/// `sum` plus the product of two rows of 8 bytes with two others: the first row's two sums, then the second's.
///
/// # Safety
/// i8mm.
#[inline(always)]
unsafe fn matrix(sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    let mut out = sum;
    // SAFETY: the caller has i8mm; the instruction works on registers alone. (Its intrinsic is not stable.)
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) out, in(vreg) w, in(vreg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    out
}

/// `rounds` times nothing but products of registers; the number of multiply-adds.
///
/// # Safety
/// i8mm.
pub unsafe fn matrices(rounds: u32) -> u64 {
    // SAFETY: the caller has i8mm.
    unsafe {
        let weights: [int8x16_t; 4] = from_fn(|i| vdupq_n_s8(black_box(i as i8)));
        let mut sums = [[vdupq_n_s32(0); 4]; 4];
        for round in 0..rounds {
            for t in 0..4 {
                // Not the same in any two rounds: nothing can be computed beforehand.
                let activations = vdupq_n_s8((round + t as u32) as i8);
                for (sums, w) in sums.iter_mut().zip(weights) {
                    sums[t] = matrix(sums[t], w, activations);
                }
            }
        }
        black_box(sums);
    }
    u64::from(rounds) * 16 * 32
}

/// [`Lanes::dots`] of a paired panel, eight values of two tokens at a time.
///
/// # Safety
/// i8mm; each token has at least four values for a quad.
#[inline(always)]
unsafe fn by_pairs<const T: usize>(sums: [I; T], quads: &[Lanes32<u32>], vector: usize, a: [*const i8; T]) -> [I; T] {
    // SAFETY: the caller's.
    unsafe {
        // For two tokens each; two rows in a vector. (A half of them is not used.)
        let mut dots = [[vdupq_n_s32(0); 2 * VECTORS]; T];
        for (i, quads) in quads.as_chunks::<2>().0.iter().enumerate() {
            let w: [int8x16_t; 2 * VECTORS] = from_fn(|v| {
                vreinterpretq_s8_u32(vld1q_u32(quads[v / VECTORS][vector].0.as_ptr().add(4 * (v % VECTORS))))
            });
            for pair in 0..T.div_ceil(2) {
                // A last token without another one meets itself.
                let (x, y) = (a[2 * pair].add(8 * i), a[(2 * pair + 1).min(T - 1)].add(8 * i));
                let both = vcombine_s8(vld1_s8(x), vld1_s8(y));
                for v in 0..2 * VECTORS {
                    dots[pair][v] = matrix(dots[pair][v], w[v], both);
                }
            }
        }
        from_fn(|t| {
            from_fn(|v| {
                let (low, high) = (dots[t / 2][2 * v], dots[t / 2][2 * v + 1]);
                let own = if t % 2 == 0 { vuzp1q_s32(low, high) } else { vuzp2q_s32(low, high) };
                vaddq_s32(sums[t][v], own)
            })
        })
    }
}

/// The lanes of the panel kernel.
pub struct Panels<P>(PhantomData<P>);

/// NEON vectors that make one of 16 lanes.
const VECTORS: usize = LANES / 4;

// SAFETY: nothing special is needed.
unsafe impl<P: Products> Layout for Panels<P> {
    const OFFSET: bool = false;
}

// SAFETY: methods need the instructions of `P`.
unsafe impl<P: Products> Lanes for Panels<P> {
    type I = I;
    type F = [float32x4_t; VECTORS];
    type W = [int8x16_t; VECTORS];
    type A = int8x16_t;

    #[inline(always)]
    unsafe fn splat(x: i32) -> Self::I {
        // SAFETY: NEON is part of AArch64; so in all of these.
        unsafe { [vdupq_n_s32(x); VECTORS] }
    }
    #[inline(always)]
    unsafe fn splat_f(x: f32) -> Self::F {
        // SAFETY: as above.
        unsafe { [vdupq_n_f32(x); VECTORS] }
    }
    #[inline(always)]
    unsafe fn weights(w: &[u32; LANES]) -> Self::W {
        // SAFETY: as above; loads are inside the array.
        from_fn(|i| unsafe { vreinterpretq_s8_u32(vld1q_u32(w.as_ptr().add(4 * i))) })
    }
    #[inline(always)]
    unsafe fn bytes(a: i32) -> Self::A {
        // SAFETY: as above.
        unsafe { vreinterpretq_s8_s32(vdupq_n_s32(a)) }
    }
    #[inline(always)]
    unsafe fn dot4(sum: Self::I, w: Self::W, a: Self::A) -> Self::I {
        // SAFETY: as above, and the caller has the instructions of `P`.
        unsafe {
            [P::dot4(sum[0], w[0], a), P::dot4(sum[1], w[1], a), P::dot4(sum[2], w[2], a), P::dot4(sum[3], w[3], a)]
        }
    }
    #[inline(always)]
    unsafe fn dots<const R: usize, const T: usize>(
        mut sums: Sums<Self, R, T>,
        quads: &[Lanes32<u32>],
        vector: usize,
        a: [*const i8; T],
    ) -> Sums<Self, R, T> {
        // SAFETY: the caller's; panels are paired where `P` says so.
        unsafe {
            if !P::PAIRED {
                return by_fours::<Self, R, T>(sums, quads, vector, a);
            }
            for r in 0..R {
                let own = by_pairs::<T>(sums.map(|sums| sums[r]), quads, vector + r, a);
                sums.iter_mut().zip(own).for_each(|(sums, own)| sums[r] = own);
            }
            sums
        }
    }
    #[inline(always)]
    unsafe fn scales(x: &[u32; LANES]) -> Self::I {
        // SAFETY: as above; loads are inside the array.
        from_fn(|i| unsafe { vreinterpretq_s32_u32(vld1q_u32(x.as_ptr().add(4 * i))) })
    }
    #[inline(always)]
    unsafe fn add_scaled(sum: Self::I, x: Self::I, scales: Self::I) -> Self::I {
        // SAFETY: as above.
        from_fn(|i| unsafe { vmlaq_s32(sum[i], x[i], scales[i]) })
    }
    #[inline(always)]
    unsafe fn add_pairs(sum: Self::I, x: &[u32; LANES], y: i32) -> Self::I {
        // SAFETY: as above; loads are inside the array.
        unsafe {
            let y = vreinterpretq_s16_s32(vdupq_n_s32(y));
            from_fn(|i| {
                let x = vld1q_s16(x.as_ptr().add(4 * i).cast());
                let low = vmull_s16(vget_low_s16(x), vget_low_s16(y));
                vaddq_s32(sum[i], vpaddq_s32(low, vmull_high_s16(x, y)))
            })
        }
    }
    #[inline(always)]
    unsafe fn to_f(x: Self::I) -> Self::F {
        // SAFETY: as above.
        from_fn(|i| unsafe { vcvtq_f32_s32(x[i]) })
    }
    #[inline(always)]
    unsafe fn load(x: &[f32; LANES]) -> Self::F {
        // SAFETY: as above; loads are inside the array.
        from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
    }
    #[inline(always)]
    unsafe fn store(x: Self::F, out: &mut [f32; LANES]) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: as above; stores are inside the array.
            unsafe { vst1q_f32(out.as_mut_ptr().add(4 * i), x) };
        }
    }
    #[inline(always)]
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: as above.
        from_fn(|i| unsafe { vaddq_f32(x[i], y[i]) })
    }
    #[inline(always)]
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: as above.
        from_fn(|i| unsafe { vsubq_f32(x[i], y[i]) })
    }
    #[inline(always)]
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: as above.
        from_fn(|i| unsafe { vmulq_f32(x[i], y[i]) })
    }
}
