//! The vectors of the panel kernel, and the products of the row kernel.

use super::super::lanes::{Lanes, Layout};
use super::super::panel::{LANES, Lanes32};
use super::rows512::transposed;
use std::arch::x86_64::*;

pub struct Avx2;
pub struct AvxVnni;
pub struct Vnni;

/// Products of bytes.
///
/// # Safety
/// Methods may only be called on CPUs that have the instructions of the implementation.
pub unsafe trait Products {
    /// Bytes of any sign meet activations plus 128, as their products do not saturate.
    const OFFSET: bool = true;
    /// `sum` plus products of unsigned with signed bytes, added by fours. Where `OFFSET` is not set, unsigned bytes are at
    /// most 128 and signed ones at least -127.
    unsafe fn dot4(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i;
    /// Products of weights with activations, the sum of which is -1/128 of `offset`.
    #[inline(always)]
    unsafe fn dot4_signed(w: __m256i, a: __m256i, offset: i32) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            let start = _mm256_zextsi128_si256(_mm_cvtsi32_si128(offset));
            Self::dot4(start, _mm256_xor_si256(w, _mm256_set1_epi8(-128)), a)
        }
    }
}

// SAFETY: the caller has AVX2.
unsafe impl Products for Avx2 {
    const OFFSET: bool = false;
    #[inline(always)]
    unsafe fn dot4(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2. No pair exceeds 2 * 128 * 127, so nothing saturates.
        unsafe {
            let pairs = _mm256_maddubs_epi16(unsigned, signed);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn dot4_signed(w: __m256i, a: __m256i, _offset: i32) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { Self::dot4(_mm256_setzero_si256(), _mm256_abs_epi8(w), _mm256_sign_epi8(a, w)) }
    }
}

// SAFETY: the caller has AVX-VNNI.
unsafe impl Products for AvxVnni {
    #[inline(always)]
    unsafe fn dot4(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        // SAFETY: the caller has AVX-VNNI.
        unsafe { _mm256_dpbusd_avx_epi32(sum, unsigned, signed) }
    }
}

// SAFETY: the caller has AVX-512 VL and VNNI.
unsafe impl Products for Vnni {
    #[inline(always)]
    unsafe fn dot4(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        // SAFETY: the caller has AVX-512 VL and VNNI.
        unsafe { _mm256_dpbusd_epi32(sum, unsigned, signed) }
    }
}

// SAFETY: methods say what they need: AVX-512 F, BW, VL, VNNI.
unsafe impl Layout for Vnni {
    const OFFSET: bool = true;
    #[inline(always)]
    unsafe fn turn(rows: *const u8, stride: usize, flip: u32, out: &mut [Lanes32<u32>; 16], vector: usize) {
        // SAFETY: the caller has AVX-512 F; rows have 64 bytes, and stores are of whole arrays.
        unsafe {
            let mut words = [_mm512_setzero_ps(); LANES];
            for (lane, words) in words.iter_mut().enumerate() {
                *words = _mm512_loadu_ps(rows.add(lane * stride).cast());
            }
            let flip = _mm512_set1_epi32(flip as i32);
            for (column, out) in transposed(words).into_iter().zip(out) {
                let column = _mm512_xor_si512(_mm512_castps_si512(column), flip);
                _mm512_storeu_si512(out[vector].0.as_mut_ptr().cast(), column);
            }
        }
    }
}

// SAFETY: as above.
unsafe impl Lanes for Vnni {
    type I = __m512i;
    type F = __m512;
    type W = __m512i;
    type A = __m512i;

    #[inline(always)]
    unsafe fn splat(x: i32) -> Self::I {
        // SAFETY: the caller has AVX-512 F and VNNI; so in all of these.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn splat_f(x: f32) -> Self::F {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn weights(w: &[u32; LANES]) -> Self::W {
        // SAFETY: as above; the array is 64 bytes.
        unsafe { _mm512_loadu_si512(w.as_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn bytes(a: i32) -> Self::A {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(a) }
    }
    #[inline(always)]
    unsafe fn dot4(sum: Self::I, w: Self::W, a: Self::A) -> Self::I {
        // SAFETY: as above. Signed weights are stored plus 128.
        unsafe { _mm512_dpbusd_epi32(sum, w, a) }
    }
    #[inline(always)]
    unsafe fn scales(x: &[u32; LANES]) -> Self::I {
        // SAFETY: as above; the array is 64 bytes.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn add_scaled(sum: Self::I, x: Self::I, scales: Self::I) -> Self::I {
        // SAFETY: as above.
        unsafe { _mm512_add_epi32(sum, _mm512_mullo_epi32(x, scales)) }
    }
    #[inline(always)]
    unsafe fn add_pairs(sum: Self::I, x: &[u32; LANES], y: i32) -> Self::I {
        // SAFETY: as above; the array is 64 bytes.
        unsafe { add_pairs(sum, _mm512_loadu_si512(x.as_ptr().cast()), _mm512_set1_epi32(y)) }
    }
    #[inline(always)]
    unsafe fn to_f(x: Self::I) -> Self::F {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(x: &[f32; LANES]) -> Self::F {
        // SAFETY: as above; the array is 64 bytes.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store(x: Self::F, out: &mut [f32; LANES]) {
        // SAFETY: as above; the array is 64 bytes.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
    }
    #[inline(always)]
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: as above.
        unsafe { _mm512_sub_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(x, y) }
    }
}

/// `sum + x[0] * y[0] + x[1] * y[1]` for pairs of i16, in one instruction: the compiler makes two of the intrinsic, and the
/// addition takes a place where others multiply.
///
/// # Safety
/// AVX-512 F and VNNI.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn add_pairs(mut sum: __m512i, x: __m512i, y: __m512i) -> __m512i {
    // SAFETY: only the named registers are used.
    unsafe {
        std::arch::asm!(
            "vpdpwssd {sum}, {x}, {y}",
            sum = inout(zmm_reg) sum, x = in(zmm_reg) x, y = in(zmm_reg) y,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
