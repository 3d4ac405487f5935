//! AVX2. Everything generic is inlined into the functions with `target_feature`.

use super::portable;
use std::arch::x86_64::*;

/// # Safety
/// AVX.
#[inline(always)]
unsafe fn reduce(x: __m256) -> f32 {
    // SAFETY: the caller has AVX.
    unsafe {
        let half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
    }
}

/// # Safety
/// AVX2 and FMA; equal lengths.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    // SAFETY: passed on.
    unsafe { dot_inline(a, b) }
}

/// # Safety
/// AVX2 and FMA; equal lengths.
#[inline(always)]
unsafe fn dot_inline(a: &[f32], b: &[f32]) -> f32 {
    let whole = a.len() / 32 * 32;
    // SAFETY: loads are below `whole`, which is at most the length of both.
    let mut total = unsafe {
        let mut sums = [_mm256_setzero_ps(); 4];
        let mut at = 0;
        while at < whole {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_loadu_ps(a.as_ptr().add(at + 8 * lane));
                let y = _mm256_loadu_ps(b.as_ptr().add(at + 8 * lane));
                *sum = _mm256_fmadd_ps(x, y, *sum);
            }
            at += 32;
        }
        reduce(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])))
    };
    for (a, b) in a[whole..].iter().zip(&b[whole..]) {
        total += a * b;
    }
    total
}

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn axpy_avx2(a: f32, x: &[f32], y: &mut [f32]) {
    portable::axpy(a, x, y);
}

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn exp_minus_avx2(x: &mut [f32], max: f32) -> f32 {
    portable::exp_minus::<8>(x, max)
}

/// # Safety
/// AVX-512 F.
#[target_feature(enable = "avx512f,avx2,fma")]
pub unsafe fn exp_minus_avx512(x: &mut [f32], max: f32) -> f32 {
    portable::exp_minus::<16>(x, max)
}

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn softcap_avx2(x: &mut [f32], cap: f32) {
    portable::softcap(x, cap);
}

/// # Safety
/// AVX-512 F.
#[target_feature(enable = "avx512f,avx2,fma")]
pub unsafe fn softcap_avx512(x: &mut [f32], cap: f32) {
    portable::softcap(x, cap);
}

/// # Safety
/// AVX2.
#[target_feature(enable = "avx2")]
pub unsafe fn max_avx2(x: &[f32], least: f32) -> f32 {
    portable::max(x, least)
}

/// # Safety
/// AVX2.
#[target_feature(enable = "avx2")]
pub unsafe fn scale_avx2(x: &mut [f32], factor: f32) {
    portable::scale(x, factor);
}

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn swiglu_avx2(gate: &mut [f32], up: &[f32]) {
    portable::swiglu(gate, up);
}

/// # Safety
/// AVX-512 F.
#[target_feature(enable = "avx512f,avx2,fma")]
pub unsafe fn swiglu_avx512(gate: &mut [f32], up: &[f32]) {
    portable::swiglu(gate, up);
}

/// # Safety
/// AVX2.
#[target_feature(enable = "avx2")]
pub unsafe fn squares_avx2(x: &[f32], mean: f64) -> f64 {
    portable::squares(x, mean)
}

/// # Safety
/// AVX2.
#[target_feature(enable = "avx2")]
pub unsafe fn normalize_avx2(x: &[f32], by: [f32; 2], weight: Option<&[f32]>, bias: Option<&[f32]>, out: &mut [f32]) {
    portable::normalize(x, by, weight, bias, out);
}

/// # Safety
/// F16C; equal lengths.
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn narrow_f16_avx2(x: &[f32], out: &mut [u16]) {
    let whole = x.len() / 8 * 8;
    for at in (0..whole).step_by(8) {
        // SAFETY: 8 values from `at` on are below the length of both.
        unsafe {
            let narrow = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.as_ptr().add(at)));
            _mm_storeu_si128(out.as_mut_ptr().add(at).cast(), narrow);
        }
    }
    portable::narrow_f16(&x[whole..], &mut out[whole..]);
}

/// # Safety
/// AVX2.
#[target_feature(enable = "avx2")]
pub unsafe fn hadamard_avx2(x: &mut [f32]) {
    portable::hadamard(x);
}

/// # Safety
/// F16C; equal lengths.
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn widen_f16_avx2(x: &[u16], out: &mut [f32]) {
    let whole = x.len() / 8 * 8;
    let mut at = 0;
    while at < whole {
        // SAFETY: 8 values from `at` on are below the length of both.
        unsafe {
            let narrow = _mm_loadu_si128(x.as_ptr().add(at).cast());
            _mm256_storeu_ps(out.as_mut_ptr().add(at), _mm256_cvtph_ps(narrow));
        }
        at += 8;
    }
    portable::widen_f16(&x[whole..], &mut out[whole..]);
}

/// # Safety
/// AVX-512 F; equal lengths.
#[target_feature(enable = "avx512f,avx2,f16c")]
pub unsafe fn widen_f16_avx512(x: &[u16], out: &mut [f32]) {
    let whole = x.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: 16 values from `at` on are below the length of both.
        unsafe {
            let narrow = _mm256_loadu_si256(x.as_ptr().add(at).cast());
            _mm512_storeu_ps(out.as_mut_ptr().add(at), _mm512_cvtph_ps(narrow));
        }
    }
    portable::widen_f16(&x[whole..], &mut out[whole..]);
}
