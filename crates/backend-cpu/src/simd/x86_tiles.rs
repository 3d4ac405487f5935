//! Products of small matrices with AVX2 and AVX-512.

use super::tiles::{self, Product, Vector};
use std::arch::x86_64::*;

// SAFETY: the trait's promise is that of the intrinsics: AVX and FMA.
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
#[target_feature(enable = "avx2,fma")]
pub unsafe fn product_avx2(p: &Product, a: &[f32], b: &[f32], c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { tiles::product::<__m256, 2>(p, a, b, c) }
}

/// # Safety
/// AVX-512 F; [`Product::fits`].
#[target_feature(enable = "avx512f,avx2,fma")]
pub unsafe fn product_avx512(p: &Product, a: &[f32], b: &[f32], c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { tiles::product::<__m512, 4>(p, a, b, c) }
}

/// # Safety
/// AVX2 and FMA; [`Product::fits_dots`].
#[target_feature(enable = "avx2,fma")]
pub unsafe fn dots_avx2(p: &Product, a: &[f32], b: &[f32], c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { tiles::dots::<__m256, 2>(p, a, b, c) }
}

/// # Safety
/// AVX-512 F; [`Product::fits_dots`].
#[target_feature(enable = "avx512f,avx2,fma")]
pub unsafe fn dots_avx512(p: &Product, a: &[f32], b: &[f32], c: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { tiles::dots::<__m512, 4>(p, a, b, c) }
}
