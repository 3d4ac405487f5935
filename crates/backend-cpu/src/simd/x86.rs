//! AVX2 and AVX-512 VNNI. Everything generic is inlined into the functions with `target_feature`.

use super::{ActivationRow, ROWS, RowForm, WeightRow, portable};
use std::arch::x86_64::*;

/// Products of 32 unsigned with 32 signed bytes, summed by fours into 8 lanes. No lane can overflow or saturate as long
/// as the unsigned bytes are at most 128 and the signed ones at least -127.
trait Products: Copy {
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn products(unsigned: __m256i, signed: __m256i) -> __m256i;
}

#[derive(Clone, Copy)]
struct Avx2;
#[derive(Clone, Copy)]
struct Vnni;

impl Products for Avx2 {
    #[inline(always)]
    unsafe fn products(unsigned: __m256i, signed: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned, signed), _mm256_set1_epi16(1)) }
    }
}

impl Products for Vnni {
    #[inline(always)]
    unsafe fn products(unsigned: __m256i, signed: __m256i) -> __m256i {
        // SAFETY: the caller has AVX-512 VL and VNNI.
        unsafe { _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned, signed) }
    }
}

/// # Safety
/// AVX2 and FMA; the lengths of rows, activations and results fit each other.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn dot_rows_avx2(
    form: RowForm,
    rows: &[WeightRow<'_>; ROWS],
    acts: &[ActivationRow<'_>],
    out: &mut [[f32; ROWS]],
) {
    // SAFETY: passed on.
    unsafe { dispatch::<Avx2>(form, rows, acts, out) }
}

/// # Safety
/// AVX2, FMA, AVX-512 F, BW, VL, VNNI; the lengths of rows, activations and results fit each other.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn dot_rows_avx512(
    form: RowForm,
    rows: &[WeightRow<'_>; ROWS],
    acts: &[ActivationRow<'_>],
    out: &mut [[f32; ROWS]],
) {
    // SAFETY: passed on.
    unsafe { dispatch::<Vnni>(form, rows, acts, out) }
}

#[inline(always)]
unsafe fn dispatch<P: Products>(
    form: RowForm,
    rows: &[WeightRow<'_>; ROWS],
    acts: &[ActivationRow<'_>],
    out: &mut [[f32; ROWS]],
) {
    // SAFETY: passed on; two activations only where there are two.
    unsafe {
        match (form.signed, form.groups_of_32, acts) {
            (true, true, [a]) => kernel::<P, true, true, 1>(rows, [a], out),
            (true, true, [a, b]) => kernel::<P, true, true, 2>(rows, [a, b], out),
            (true, false, [a]) => kernel::<P, true, false, 1>(rows, [a], out),
            (true, false, [a, b]) => kernel::<P, true, false, 2>(rows, [a, b], out),
            (false, true, [a]) => kernel::<P, false, true, 1>(rows, [a], out),
            (false, true, [a, b]) => kernel::<P, false, true, 2>(rows, [a, b], out),
            (false, false, [a]) => kernel::<P, false, false, 1>(rows, [a], out),
            (false, false, [a, b]) => kernel::<P, false, false, 2>(rows, [a, b], out),
            _ => {}
        }
    }
}

/// # Safety
/// AVX2, FMA and what `P` needs; every slice has the length that the first row's columns ask for.
#[inline(always)]
unsafe fn kernel<P: Products, const SIGNED: bool, const GROUPS_OF_32: bool, const T: usize>(
    rows: &[WeightRow<'_>; ROWS],
    acts: [&ActivationRow<'_>; T],
    out: &mut [[f32; ROWS]],
) {
    // SAFETY: all pointers stay inside slices of `chunks * 32` bytes, `chunks * 2` weight scales and `chunks` activation
    // scales, as the caller has seen to.
    unsafe {
        let chunks = rows[0].q.len() / 32;
        let mut sums = [[_mm256_setzero_ps(); ROWS]; T];
        for c in 0..chunks {
            let mut a = [_mm256_setzero_si256(); T];
            let mut a_scale = [_mm256_setzero_ps(); T];
            for t in 0..T {
                a[t] = _mm256_loadu_si256(acts[t].q.as_ptr().add(32 * c).cast());
                a_scale[t] = _mm256_broadcast_ss(&*acts[t].scales.as_ptr().add(c));
            }
            for r in 0..ROWS {
                let w = _mm256_loadu_si256(rows[r].q.as_ptr().add(32 * c).cast());
                let scales = rows[r].scales.as_ptr().add(2 * c);
                let w_scale = if GROUPS_OF_32 {
                    _mm256_broadcast_ss(&*scales)
                } else {
                    _mm256_set_m128(_mm_broadcast_ss(&*scales.add(1)), _mm_broadcast_ss(&*scales))
                };
                for t in 0..T {
                    let integers = if SIGNED {
                        P::products(_mm256_abs_epi8(w), _mm256_sign_epi8(a[t], w))
                    } else {
                        P::products(w, a[t])
                    };
                    let scale = _mm256_mul_ps(w_scale, a_scale[t]);
                    sums[t][r] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(integers), sums[t][r]);
                }
            }
        }
        for t in 0..T {
            for r in 0..ROWS {
                let mut total = reduce(sums[t][r]);
                if !rows[r].mins.is_empty() {
                    total -= dot_inline(rows[r].mins, acts[t].sums);
                }
                out[t][r] = total;
            }
        }
    }
}

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
pub unsafe fn quantize_avx2(x: &[f32], q: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
    portable::quantize(x, q, scales, sums);
}

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn exp_minus_avx2(x: &mut [f32], max: f32) -> f32 {
    portable::exp_minus(x, max)
}

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn swiglu_avx2(gate: &mut [f32], up: &[f32]) {
    portable::swiglu(gate, up);
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
