//! How panels of bytes are added with registers of 256 bits: in 16 bits, or in 32 where there is an instruction for it.

use super::super::activations::{NarrowBlock, WideBlock};
use super::lanes::{Avx2, AvxVnni};
use std::arch::asm;
use std::arch::x86_64::*;

/// Sums of products of a panel's bytes with activations.
///
/// # Safety
/// Methods may only be called on CPUs that have the instructions of the implementation. What is added to a sum between
/// a start and its use stays inside the bounds that the implementation names.
pub unsafe trait Sums {
    /// Steps in which narrow blocks with mins are added.
    const STEPS_WITH_MINS: usize;
    /// The products of four unsigned bytes with four signed ones in each lane.
    unsafe fn first(w: __m256i, a: __m256i) -> __m256i;
    /// `sum` and these products.
    unsafe fn add(sum: __m256i, w: __m256i, a: __m256i) -> __m256i;
    /// As i32.
    unsafe fn whole(sum: __m256i) -> __m256i;
    /// `total + sum * scales`, scales as the panel has them.
    unsafe fn add_scaled(total: __m256i, sum: __m256i, scales: __m256i) -> __m256i;
    /// What the sum of step `step` of `STEPS` of a block starts at, where more was added to weights than their mins account for.
    fn start<const STEPS: usize>(a: &WideBlock, step: usize) -> i32;
    /// The same of a narrow block.
    fn narrow_start(a: &NarrowBlock) -> i32;
}

/// Two sums of 16 bits in each lane. They wrap, so only the products of a pair of bytes and the last sum must fit: pairs do where
/// weights are at most 129, as activations are at most 127; sums of 16 values do where the weights, less what was added to
/// them, are at most 32, and sums of 32 values where they are at most 16.
// SAFETY: the caller has AVX2.
unsafe impl Sums for Avx2 {
    const STEPS_WITH_MINS: usize = 2;
    #[inline(always)]
    unsafe fn first(w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2; so in all of these.
        unsafe { _mm256_maddubs_epi16(w, a) }
    }
    #[inline(always)]
    unsafe fn add(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { add_quads(sum, w, a) }
    }
    #[inline(always)]
    unsafe fn whole(sum: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_madd_epi16(sum, _mm256_set1_epi16(1)) }
    }
    #[inline(always)]
    unsafe fn add_scaled(total: __m256i, sum: __m256i, scales: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_add_epi32(total, _mm256_madd_epi16(sum, scales)) }
    }
    #[inline(always)]
    fn start<const STEPS: usize>(a: &WideBlock, step: usize) -> i32 {
        debug_assert!(STEPS == 16);
        a.offsets[step]
    }
    #[inline(always)]
    fn narrow_start(a: &NarrowBlock) -> i32 {
        a.pairs
    }
}

// SAFETY: the caller has AVX-VNNI.
unsafe impl Sums for AvxVnni {
    const STEPS_WITH_MINS: usize = 1;
    #[inline(always)]
    unsafe fn first(w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { Self::add(_mm256_setzero_si256(), w, a) }
    }
    #[inline(always)]
    unsafe fn add(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: the caller has AVX-VNNI; so in all of these.
        unsafe { _mm256_dpbusd_avx_epi32(sum, w, a) }
    }
    #[inline(always)]
    unsafe fn whole(sum: __m256i) -> __m256i {
        sum
    }
    #[inline(always)]
    unsafe fn add_scaled(total: __m256i, sum: __m256i, scales: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_add_epi32(total, _mm256_mullo_epi32(sum, scales)) }
    }
    #[inline(always)]
    fn start<const STEPS: usize>(a: &WideBlock, step: usize) -> i32 {
        if STEPS == 8 { a.offsets32[step] } else { a.offsets[step] }
    }
    #[inline(always)]
    fn narrow_start(a: &NarrowBlock) -> i32 {
        a.offset
    }
}

// The compiler knows that the order of additions does not matter, and would choose one for which there are not enough
// registers. So they are instructions in an order that it does not see into.

/// `sum` and products of bytes, of 16 bits.
///
/// # Safety
/// AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_quads(mut sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
    // SAFETY: the caller's; only registers change.
    unsafe {
        asm!("vpmaddubsw {pairs}, {w}, {a}", "vpaddw {sum}, {sum}, {pairs}", pairs = out(ymm_reg) _, w = in(ymm_reg) w,
            a = in(ymm_reg) a, sum = inout(ymm_reg) sum, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum` and products of words, of 32 bits.
///
/// # Safety
/// AVX2.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn add_pairs(mut sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
    // SAFETY: the caller's; only registers change.
    unsafe {
        asm!("vpmaddwd {pairs}, {w}, {a}", "vpaddd {sum}, {sum}, {pairs}", pairs = out(ymm_reg) _, w = in(ymm_reg) w,
            a = in(ymm_reg) a, sum = inout(ymm_reg) sum, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}
