//! Activations rounded to 8 bits with AVX2: the numbers of [`super::super::activations`], and what sums of 16 bits start at.

use super::super::activations::{self, NarrowBlock, WideBlock, to_f16_and_back};
use super::super::{NARROW, WIDE};
use super::halves::{NARROW_PLUS, WIDE_PLUS};
use super::rows::halves;
use std::arch::x86_64::*;

/// What rounds to the nearest integer when it is added, and has that integer in its low bits then.
const ROUND: f32 = 12_582_912.0;

/// `PAIRS`: offsets are those of sums of 16 bits.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn wide<const PAIRS: bool>(x: &[f32], out: &mut [WideBlock]) {
    let rows = x.as_chunks::<WIDE>().0;
    for i in 0..out.len().min(rows.len()) {
        // SAFETY: the caller's.
        if !unsafe { wide_block::<PAIRS>(&rows[i], &mut out[i]) } {
            activations::wide(&rows[i], &mut out[i..i + 1]);
        }
    }
}

/// `false` for a block of zeros or without a finite scale.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn wide_block<const PAIRS: bool>(x: &[f32; WIDE], out: &mut WideBlock) -> bool {
    // SAFETY: the caller's; loads and stores are inside the arrays.
    unsafe {
        // What is no number is passed over: these give the second one then.
        let (mut low, mut high) = ([_mm256_setzero_ps(); 2], [_mm256_setzero_ps(); 2]);
        for i in 0..WIDE / 8 {
            let x = _mm256_loadu_ps(x.as_ptr().add(8 * i));
            low[i % 2] = _mm256_min_ps(x, low[i % 2]);
            high[i % 2] = _mm256_max_ps(x, high[i % 2]);
        }
        let low = -largest(_mm256_sub_ps(_mm256_setzero_ps(), _mm256_min_ps(low[0], low[1])));
        let high = largest(_mm256_max_ps(high[0], high[1]));
        let extreme = if high >= -low { high } else { low };
        if extreme == 0.0 || !extreme.is_finite() {
            return false;
        }
        let inverse = -127.0 / extreme;
        out.d = 1.0 / inverse;
        let inverse = _mm256_set1_ps(inverse);
        // In the lowest lane of each half the sums of a group of 16: of all and, as two of 16 bits, of parts.
        let (mut all, mut parts) = ([_mm256_setzero_si256(); 8], [_mm256_setzero_si256(); 8]);
        for c in 0..8 {
            let q = round(x.as_ptr().add(32 * c), inverse);
            _mm256_storeu_si256(out.q.as_mut_ptr().add(32 * c).cast(), q);
            parts[c] = sums(q);
            all[c] = _mm256_madd_epi16(parts[c], _mm256_set1_epi16(1));
        }
        let mut sums32 = [_mm_setzero_si128(); 2];
        let mut sums = [_mm256_setzero_si256(); 2];
        for i in 0..2 {
            sums[i] = fours(&all[4 * i..][..4]);
            sums32[i] = halves(sums[i]);
            let offsets = match PAIRS {
                true => _mm256_mullo_epi16(fours(&parts[4 * i..][..4]), _mm256_set1_epi16(-i16::from(WIDE_PLUS))),
                false => _mm256_mullo_epi32(sums[i], _mm256_set1_epi32(-128)),
            };
            // Even groups are in the lower half, odd ones in the other.
            let (even, odd) = (_mm256_castsi256_si128(offsets), _mm256_extracti128_si256::<1>(offsets));
            let at = out.offsets.as_mut_ptr().add(8 * i);
            _mm_storeu_si128(at.cast(), _mm_unpacklo_epi32(even, odd));
            _mm_storeu_si128(at.add(4).cast(), _mm_unpackhi_epi32(even, odd));
            let minus = _mm_mullo_epi32(sums32[i], _mm_set1_epi32(-128));
            _mm_storeu_si128(out.offsets32.as_mut_ptr().add(4 * i).cast(), minus);
        }
        _mm256_storeu_si256(out.sums.as_mut_ptr().cast(), _mm256_packs_epi32(sums[0], sums[1]));
        _mm_storeu_si128(out.sums32.as_mut_ptr().cast(), _mm_packs_epi32(sums32[0], sums32[1]));
        true
    }
}

/// # Safety
/// AVX2, F16C.
#[inline(always)]
pub unsafe fn narrow<const PAIRS: bool>(x: &[f32], out: &mut [NarrowBlock]) {
    let rows = x.as_chunks::<NARROW>().0;
    for i in 0..out.len().min(rows.len()) {
        // SAFETY: the caller's.
        if !unsafe { narrow_block::<PAIRS>(&rows[i], &mut out[i]) } {
            activations::narrow(&rows[i], &mut out[i..i + 1]);
        }
    }
}

/// `false` for a block of zeros or without a finite scale.
///
/// # Safety
/// AVX2, F16C.
#[inline(always)]
unsafe fn narrow_block<const PAIRS: bool>(x: &[f32; NARROW], out: &mut NarrowBlock) -> bool {
    // SAFETY: the caller's; loads and stores are inside the arrays.
    unsafe {
        let mut high = _mm256_setzero_ps();
        for i in 0..NARROW / 8 {
            let x = _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_loadu_ps(x.as_ptr().add(8 * i)));
            high = _mm256_max_ps(x, high);
        }
        let extreme = largest(high);
        if extreme == 0.0 || !extreme.is_finite() {
            return false;
        }
        let d = extreme / 127.0;
        let q = round(x.as_ptr(), _mm256_set1_ps(127.0 / extreme));
        _mm256_storeu_si256(out.q.as_mut_ptr().cast(), q);
        let parts = sums(q);
        let parts = _mm_add_epi16(_mm256_castsi256_si128(parts), _mm256_extracti128_si256::<1>(parts));
        let sum = _mm_cvtsi128_si32(_mm_madd_epi16(parts, _mm_set1_epi16(1)));
        // Numbers that f16 has.
        let exact = [d, d * sum as f32];
        let narrow = _mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_setr_ps(exact[0], exact[1], 0.0, 0.0));
        let mut rounded = [0f32; 4];
        _mm_storeu_ps(rounded.as_mut_ptr(), _mm_cvtph_ps(narrow));
        out.d = if rounded[0].is_finite() { rounded[0] } else { to_f16_and_back(exact[0]) };
        out.sum = if rounded[1].is_finite() { rounded[1] } else { to_f16_and_back(exact[1]) };
        out.offset = -128 * sum;
        if PAIRS {
            out.pairs = _mm_cvtsi128_si32(_mm_mullo_epi16(parts, _mm_set1_epi16(-i16::from(NARROW_PLUS))));
        }
        true
    }
}

/// The largest lane.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn largest(x: __m256) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
    }
}

/// 32 values times `inverse` as bytes.
///
/// # Safety
/// AVX2; the values can be read.
#[inline(always)]
unsafe fn round(x: *const f32, inverse: __m256) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let mut bytes = [_mm256_setzero_si256(); 4];
        for i in 0..4 {
            let scaled = _mm256_mul_ps(_mm256_loadu_ps(x.add(8 * i)), inverse);
            let bits = _mm256_castps_si256(_mm256_add_ps(scaled, _mm256_set1_ps(ROUND)));
            bytes[i] = _mm256_and_si256(bits, _mm256_set1_epi32(255));
        }
        let (low, high) = (_mm256_packus_epi32(bytes[0], bytes[1]), _mm256_packus_epi32(bytes[2], bytes[3]));
        let in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), in_order)
    }
}

/// In the lowest lanes of each half the sums of its bytes: of the first two of each four, and of the others.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn sums(q: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
        let pairs = _mm256_add_epi16(pairs, _mm256_srli_si256::<8>(pairs));
        _mm256_add_epi16(pairs, _mm256_srli_si256::<4>(pairs))
    }
}

/// The lowest lanes of the halves of four vectors.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn fours(x: &[__m256i]) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_unpacklo_epi64(_mm256_unpacklo_epi32(x[0], x[1]), _mm256_unpacklo_epi32(x[2], x[3])) }
}
