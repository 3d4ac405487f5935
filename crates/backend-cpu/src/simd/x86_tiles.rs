//! Products of small matrices with AVX2 and AVX-512.

use super::cells::Cells;
use super::tiles::{self, Product, Vector};
use std::arch::x86_64::*;

// SAFETY: the trait's promise is that of the intrinsics: AVX2, FMA and F16C.
unsafe impl Vector for __m256 {
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn widen_f16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn widen_bf16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn integers(from: *const i8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn nibbles_less_8(from: *const u8, shift: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
            let nibbles = _mm256_srl_epi32(bytes, _mm_cvtsi32_si128(shift as i32));
            let nibbles = _mm256_and_si256(nibbles, _mm256_set1_epi32(15));
            _mm256_cvtepi32_ps(_mm256_sub_epi32(nibbles, _mm256_set1_epi32(8)))
        }
    }
    #[inline(always)]
    unsafe fn splat_f16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_set1_epi16(from.read_unaligned() as i16)) }
    }
    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn add_product(self, x: Self, y: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_fmadd_ps(x, y, self) }
    }
    #[inline(always)]
    unsafe fn sums(x: [Self; 4]) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { ends(_mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]))) }
    }
}

// SAFETY: the trait's promise is that of the intrinsics: AVX-512 F.
unsafe impl Vector for __m512 {
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn widen_f16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn widen_bf16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn integers(from: *const i8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn nibbles_less_8(from: *const u8, shift: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
            let nibbles = _mm512_srl_epi32(bytes, _mm_cvtsi32_si128(shift as i32));
            let nibbles = _mm512_and_si512(nibbles, _mm512_set1_epi32(15));
            _mm512_cvtepi32_ps(_mm512_sub_epi32(nibbles, _mm512_set1_epi32(8)))
        }
    }
    #[inline(always)]
    unsafe fn nibble_pair(nibbles: *const u8, _: usize) -> [Self; 2] {
        // SAFETY: the caller's promise; the block is the pair. A lookup minds the lower four bits alone.
        unsafe {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(nibbles.cast()));
            let values = _mm512_setr_ps(-8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.);
            let high = _mm512_srli_epi32::<4>(bytes);
            [_mm512_permutexvar_ps(bytes, values), _mm512_permutexvar_ps(high, values)]
        }
    }
    #[inline(always)]
    unsafe fn splat_f16(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(from.read_unaligned() as i16)) }
    }
    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn add_product(self, x: Self, y: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_fmadd_ps(x, y, self) }
    }
    #[inline(always)]
    unsafe fn sums(x: [Self; 4]) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let pair = |x, y| _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
            let (x, y) = (_mm512_castps_pd(pair(x[0], x[1])), _mm512_castps_pd(pair(x[2], x[3])));
            let (low, high) = (_mm512_unpacklo_pd(x, y), _mm512_unpackhi_pd(x, y));
            // Each quarter has a part of the four sums, in order.
            let parts = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(parts)));
            ends(_mm256_add_ps(_mm512_castps512_ps256(parts), high))
        }
    }
}

/// Both halves added.
///
/// # Safety
/// AVX.
#[inline(always)]
unsafe fn ends(x: __m256) -> [f32; 4] {
    let mut out = [0f32; 4];
    // SAFETY: the caller's; the store is of the whole array.
    unsafe {
        _mm_storeu_ps(out.as_mut_ptr(), _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)));
    }
    out
}

/// # Safety
/// AVX2 and FMA; [`Product::fits`].
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn product_avx2(p: &Product, a: &[f32], b: Cells<'_>, c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { tiles::product::<__m256, 2>(p, a, b, c) }
}

/// # Safety
/// AVX-512 F; [`Product::fits`].
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub unsafe fn product_avx512(p: &Product, a: &[f32], b: Cells<'_>, c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { tiles::product::<__m512, 4>(p, a, b, c) }
}

/// # Safety
/// AVX2 and FMA; [`Product::fits_dots`].
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn dots_avx2(p: &Product, a: &[f32], b: Cells<'_>, c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { tiles::dots::<__m256, 2>(p, a, b, c) }
}

/// # Safety
/// AVX-512 F; [`Product::fits_dots`].
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub unsafe fn dots_avx512(p: &Product, a: &[f32], b: Cells<'_>, c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { tiles::dots::<__m512, 4>(p, a, b, c) }
}
