//! Activations rounded to 8 bits with AVX-512: the numbers of [`super::super::activations`].

use super::super::activations::{self, NarrowBlock, WideBlock, to_f16_and_back};
use super::super::{NARROW, WIDE};
use super::rows512::quarters;
use std::arch::x86_64::*;

/// What rounds to the nearest integer when it is added, and has that integer in its low bits then.
const ROUND: f32 = 12_582_912.0;

/// # Safety
/// AVX-512 F, BW, VL, VNNI.
#[inline(always)]
pub unsafe fn wide(x: &[f32], out: &mut [WideBlock]) {
    let rows = x.as_chunks::<WIDE>().0;
    for i in 0..out.len().min(rows.len()) {
        // SAFETY: the caller's.
        if !unsafe { wide_block(&rows[i], &mut out[i]) } {
            activations::wide(&rows[i], &mut out[i..i + 1]);
        }
    }
}

/// `false` for a block of zeros or without a finite scale.
///
/// # Safety
/// AVX-512 F, BW, VL, VNNI.
#[inline(always)]
unsafe fn wide_block(x: &[f32; WIDE], out: &mut WideBlock) -> bool {
    // SAFETY: the caller's; loads and stores are inside the arrays.
    unsafe {
        // What is no number is passed over: these give the second one then.
        let (mut low, mut high) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
        for i in 0..WIDE / 16 {
            let x = _mm512_loadu_ps(x.as_ptr().add(16 * i));
            low[i % 2] = _mm512_min_ps(x, low[i % 2]);
            high[i % 2] = _mm512_max_ps(x, high[i % 2]);
        }
        let low = _mm512_reduce_min_ps(_mm512_min_ps(low[0], low[1]));
        let high = _mm512_reduce_max_ps(_mm512_max_ps(high[0], high[1]));
        let extreme = if high >= -low { high } else { low };
        if extreme == 0.0 || !extreme.is_finite() {
            return false;
        }
        let inverse = -127.0 / extreme;
        out.d = 1.0 / inverse;
        round(x, inverse, &mut out.q);
        // Sums of four groups of 16 in each quarter.
        let mut fours = [_mm512_setzero_si512(); 4];
        for (c, fours) in fours.iter_mut().enumerate() {
            let q = _mm512_loadu_si512(out.q.as_ptr().add(64 * c).cast());
            *fours = _mm512_dpbusd_epi32(*fours, _mm512_set1_epi8(1), q);
        }
        // Lane `i` of quarter `l` has group `4 i + l`.
        let sums = quarters(fours);
        let in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let sums = _mm512_permutexvar_epi32(in_order, sums);
        let minus = _mm512_slli_epi32::<7>(_mm512_sub_epi32(_mm512_setzero_si512(), sums));
        _mm512_storeu_si512(out.offsets.as_mut_ptr().cast(), minus);
        let scrambled = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
        let scrambled = _mm512_permutexvar_epi32(scrambled, sums);
        _mm256_storeu_si256(out.sums.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(scrambled));
        let (even, odd) = (_mm512_castsi512_si256(scrambled), _mm512_extracti64x4_epi64::<1>(scrambled));
        let sums32 = _mm256_add_epi32(even, odd);
        _mm_storeu_si128(out.sums32.as_mut_ptr().cast(), _mm256_cvtepi32_epi16(sums32));
        let minus = _mm256_slli_epi32::<7>(_mm256_sub_epi32(_mm256_setzero_si256(), sums32));
        _mm256_storeu_si256(out.offsets32.as_mut_ptr().cast(), minus);
        true
    }
}

/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn round<const N: usize>(x: &[f32; N], inverse: f32, out: &mut [i8; N]) {
    // SAFETY: the caller's; loads and stores are inside the arrays.
    unsafe {
        let inverse = _mm512_set1_ps(inverse);
        for at in (0..N / 16 * 16).step_by(16) {
            let scaled = _mm512_mul_ps(_mm512_loadu_ps(x.as_ptr().add(at)), inverse);
            let bits = _mm512_castps_si512(_mm512_add_ps(scaled, _mm512_set1_ps(ROUND)));
            _mm_storeu_si128(out.as_mut_ptr().add(at).cast(), _mm512_cvtepi32_epi8(bits));
        }
    }
}

/// # Safety
/// AVX-512 F, VL, VNNI, F16C.
#[inline(always)]
pub unsafe fn narrow(x: &[f32], out: &mut [NarrowBlock]) {
    let rows = x.as_chunks::<NARROW>().0;
    for i in 0..out.len().min(rows.len()) {
        // SAFETY: the caller's.
        if !unsafe { narrow_block(&rows[i], &mut out[i]) } {
            activations::narrow(&rows[i], &mut out[i..i + 1]);
        }
    }
}

/// `false` for a block of zeros or without a finite scale.
///
/// # Safety
/// AVX-512 F, VL, VNNI, F16C.
#[inline(always)]
unsafe fn narrow_block(x: &[f32; NARROW], out: &mut NarrowBlock) -> bool {
    // SAFETY: the caller's; loads and stores are inside the arrays.
    unsafe {
        let zero = _mm512_setzero_ps();
        let (a, b) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
        let (a, b) = (_mm512_max_ps(_mm512_abs_ps(a), zero), _mm512_max_ps(_mm512_abs_ps(b), zero));
        let extreme = _mm512_reduce_max_ps(_mm512_max_ps(a, b));
        if extreme == 0.0 || !extreme.is_finite() {
            return false;
        }
        let d = extreme / 127.0;
        round(x, 127.0 / extreme, &mut out.q);
        let q = _mm256_loadu_si256(out.q.as_ptr().cast());
        let fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), q);
        let twos = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256::<1>(fours));
        let ones = _mm_add_epi32(twos, _mm_shuffle_epi32::<0x4e>(twos));
        let sum = _mm_cvtsi128_si32(_mm_add_epi32(ones, _mm_shuffle_epi32::<0xb1>(ones)));
        // Numbers that f16 has.
        let exact = [d, d * sum as f32];
        let narrow = _mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_setr_ps(exact[0], exact[1], 0.0, 0.0));
        let mut rounded = [0f32; 4];
        _mm_storeu_ps(rounded.as_mut_ptr(), _mm_cvtph_ps(narrow));
        out.d = if rounded[0].is_finite() { rounded[0] } else { to_f16_and_back(exact[0]) };
        out.sum = if rounded[1].is_finite() { rounded[1] } else { to_f16_and_back(exact[1]) };
        out.offset = -128 * sum;
        true
    }
}
