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

/// As [`tiles::transpose`], 8 x 8 values at a time.
///
/// # Safety
/// AVX2; `x` has `rows * cols` values, `out` has `cols` rows of `stride`, which is at least `rows`.
#[target_feature(enable = "avx2")]
pub unsafe fn transpose_avx2(x: &[f32], [rows, cols]: [usize; 2], out: &mut [f32], stride: usize) {
    let (whole_rows, whole_cols) = (rows / 8 * 8, cols / 8 * 8);
    for i in (0..whole_rows).step_by(8) {
        for j in (0..whole_cols).step_by(8) {
            // SAFETY: 8 rows from `i` on of 8 values from `j` on are within both matrices.
            unsafe { eight(x.as_ptr().add(i * cols + j), cols, out.as_mut_ptr().add(j * stride + i), stride) };
        }
    }
    for i in 0..rows {
        let first = if i < whole_rows { whole_cols } else { 0 };
        for j in first..cols {
            out[j * stride + i] = x[i * cols + j];
        }
    }
}

/// # Safety
/// AVX; the pointers are to 8 rows of 8 values that start every `from_stride` and `to_stride` values.
#[inline(always)]
unsafe fn eight(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut x = [_mm256_setzero_ps(); 8];
        // Rows i and i + 4 share a vector: four values of each.
        for i in 0..4 {
            for half in 0..2 {
                let low = _mm_loadu_ps(from.add(i * from_stride + 4 * half));
                let high = _mm_loadu_ps(from.add((i + 4) * from_stride + 4 * half));
                x[4 * half + i] = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high);
            }
        }
        for half in 0..2 {
            let [a, b, c, d] = [x[4 * half], x[4 * half + 1], x[4 * half + 2], x[4 * half + 3]];
            let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
            let rows = [
                _mm256_shuffle_ps::<0x44>(ab, cd),
                _mm256_shuffle_ps::<0xee>(ab, cd),
                _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
            ];
            for (j, row) in rows.into_iter().enumerate() {
                _mm256_storeu_ps(to.add((4 * half + j) * to_stride), row);
            }
        }
    }
}
