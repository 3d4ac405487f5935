//! Narrow blocks for registers of 256 bits, eight at a time.

use super::super::activations::NarrowBlock;
use super::decode::widen4;
use super::decode_narrow::DecodeNarrow;
use super::halves::four_columns;
use super::lanes::Products;
use super::rows512::{Kernel, LANES, Terms};
use bytemuck::Pod;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Narrow blocks taken together.
const EIGHT: usize = 8;

/// Activations of eight narrow blocks.
#[repr(C, align(64))]
pub struct Eight {
    q: [[i8; 32]; EIGHT],
    d: [f32; EIGHT],
    sums: [f32; EIGHT],
    offsets: [i32; EIGHT],
}

/// The kernel of a type with the products of `P`.
pub struct Narrow256<P, B>(PhantomData<(P, B)>);

impl<P: Products, B: DecodeNarrow> Narrow256<P, B> {
    /// What unsigned bytes are too large by; `None`: bytes have signs that products mind.
    const PLUS: Option<u8> = match (B::OFFSET, B::SMALL) {
        (Some(offset), _) => Some(offset),
        (None, true) => Some(16),
        (None, false) if P::OFFSET => Some(128),
        (None, false) => None,
    };
    /// The bytes are so small that sums of eight products fit 16 bits, and products of pairs are 16 bits.
    const SMALL: bool = !P::OFFSET && Self::PLUS.is_some();
}

// SAFETY: every field of the group is written; one or two values are written for each of eight blocks.
unsafe impl<P: Products, B: DecodeNarrow + Pod> Kernel for Narrow256<P, B> {
    type Block = B;
    type Activation = NarrowBlock;
    type Group = Eight;
    type Tables = ();
    const AT_ONCE: usize = EIGHT;
    const TERMS: usize = if B::HAS_MINS { 2 } else { 1 };

    #[inline(always)]
    unsafe fn prepare(activations: &[NarrowBlock], group: *mut Eight) {
        let missing = NarrowBlock::default();
        for index in 0..EIGHT {
            let a = activations.get(index).unwrap_or(&missing);
            // SAFETY: the caller has a group that may be written; indices are inside its arrays.
            unsafe {
                (*group).q[index] = a.q;
                (*group).d[index] = a.d;
                (*group).sums[index] = a.sum;
                (*group).offsets[index] = a.offset;
            }
        }
    }

    #[inline(always)]
    unsafe fn tables() {}

    /// AVX2, F16C and the instructions of `P`.
    #[inline(always)]
    unsafe fn terms(blocks: &[B], a: &Eight, _tables: &(), out: *mut f32) {
        let blocks: &[B; EIGHT] = blocks.try_into().expect("eight blocks");
        // SAFETY: the caller has the instructions and room for the terms; loads are of whole arrays.
        unsafe {
            let mut x = [_mm256_setzero_si256(); EIGHT];
            for i in 0..EIGHT {
                let (q, bytes) = (blocks[i].quants(0), _mm256_loadu_si256(a.q[i].as_ptr().cast()));
                let plus = Self::PLUS.unwrap_or(0).wrapping_sub(B::OFFSET.unwrap_or(0));
                let unsigned = _mm256_add_epi8(q, _mm256_set1_epi8(plus as i8));
                x[i] = match (Self::PLUS, Self::SMALL) {
                    (None, _) => P::dot4_signed(q, bytes, 0),
                    (_, true) => _mm256_maddubs_epi16(unsigned, bytes),
                    (_, false) => P::dot4(_mm256_setzero_si256(), unsigned, bytes),
                };
            }
            let low = four_sums([x[0], x[1], x[2], x[3]], Self::SMALL);
            let high = four_sums([x[4], x[5], x[6], x[7]], Self::SMALL);
            let halves = [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)];
            let mut sums = _mm256_add_epi32(halves[0], halves[1]);
            if let Some(plus @ 1..) = Self::PLUS {
                // They are -128 times the sum of the activations.
                let down = _mm_cvtsi32_si128((128 / i32::from(plus)).ilog2() as i32);
                let offsets = _mm256_sra_epi32(_mm256_loadu_si256(a.offsets.as_ptr().cast()), down);
                sums = _mm256_add_epi32(sums, offsets);
            }
            let [b0, b1, b2, b3, b4, b5, b6, b7] = blocks;
            let [low, high] = [[b0, b1, b2, b3], [b4, b5, b6, b7]];
            let d = _mm256_set_m128(B::scales(high.map(|b| b.scale(0))), B::scales(low.map(|b| b.scale(0))));
            let scales = _mm256_mul_ps(d, _mm256_loadu_ps(a.d.as_ptr()));
            let products = _mm256_mul_ps(scales, _mm256_cvtepi32_ps(sums));
            if B::HAS_MINS {
                // What is added per value is what is kept.
                let mins = _mm256_set_m128(widen4(high.map(|b| b.min())), widen4(low.map(|b| b.min())));
                let mins = _mm256_mul_ps(mins, _mm256_loadu_ps(a.sums.as_ptr()));
                let (even, odd) = (_mm256_unpacklo_ps(products, mins), _mm256_unpackhi_ps(products, mins));
                _mm256_storeu_ps(out, _mm256_permute2f128_ps::<0x20>(even, odd));
                _mm256_storeu_ps(out.add(EIGHT), _mm256_permute2f128_ps::<0x31>(even, odd));
            } else {
                _mm256_storeu_ps(out, products);
            }
        }
    }

    /// AVX2.
    #[inline(always)]
    unsafe fn add_up(terms: &Terms, some: usize, count: usize, out: &mut [f32]) {
        assert!((1..=LANES).contains(&some) && count <= super::rows512::KEPT && out.len() == LANES);
        for first in (0..some).step_by(8) {
            // SAFETY: the caller's. Rows that are missing have terms that nobody wrote: they are the last one again.
            unsafe {
                let row = |i: usize| terms[(first + i).min(some - 1)].as_ptr().cast::<f32>();
                let mut sums = _mm256_loadu_ps(out.as_ptr().add(first));
                for at in (0..count).step_by(4) {
                    let columns = four_columns([0, 1, 2, 3, 4, 5, 6, 7].map(|i| row(i).add(at)));
                    for column in columns.iter().take(count - at) {
                        sums = _mm256_add_ps(sums, *column);
                    }
                }
                _mm256_storeu_ps(out.as_mut_ptr().add(first), sums);
            }
        }
    }
}

/// The sums of the lanes of four vectors, those of their lower halves in the lower half. Lanes are i32, or pairs of i16.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn four_sums(x: [__m256i; 4], pairs: bool) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let (ab, cd) = (
            add(_mm256_unpacklo_epi32(x[0], x[1]), _mm256_unpackhi_epi32(x[0], x[1]), pairs),
            add(_mm256_unpacklo_epi32(x[2], x[3]), _mm256_unpackhi_epi32(x[2], x[3]), pairs),
        );
        let sums = add(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd), pairs);
        if pairs { _mm256_madd_epi16(sums, _mm256_set1_epi16(1)) } else { sums }
    }
}

#[inline(always)]
unsafe fn add(x: __m256i, y: __m256i, pairs: bool) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { if pairs { _mm256_add_epi16(x, y) } else { _mm256_add_epi32(x, y) } }
}
