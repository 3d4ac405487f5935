//! Points of the lattices of the IQ types for AVX-512: looked up as codes of 16 bits, 32 at a time, in tables that registers
//! hold in pieces, because a load for each point takes longer.

use super::k512::mask;
use std::arch::x86_64::*;

/// Groups of 16 values in registers of [`of_eights`].
pub const EIGHTS: [u8; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];
/// Groups of 16 values in registers of [`of_fours`], of two registers of codes.
pub const FOURS: [u8; 16] = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15];

/// Codes of 32 points; an index is below `N`.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
pub unsafe fn look_up<const N: usize>(codes: &[u16; N], index: __m512i) -> __m512i {
    const { assert!(N % 64 == 0) };
    // SAFETY: the caller's; loads are inside the table.
    unsafe {
        let piece = _mm512_srli_epi16::<6>(index);
        let mut found = index;
        for (i, codes) in codes.as_chunks::<64>().0.iter().enumerate() {
            let own = _mm512_cmpeq_epi16_mask(piece, _mm512_set1_epi16(i as i16));
            let (low, high) =
                (_mm512_loadu_si512(codes.as_ptr().cast()), _mm512_loadu_si512(codes[32..].as_ptr().cast()));
            // Lanes that are not of this piece stay what they are: an index, or a code found before.
            found = _mm512_mask2_permutex2var_epi16(low, found, own, high);
        }
        found
    }
}

/// Eight values of 2 bits of each of 32 codes, by `values`.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
pub unsafe fn of_eights(codes: __m512i, values: &[u8; 16]) -> [__m512i; 4] {
    // SAFETY: the caller's; the load is of the whole array.
    unsafe {
        // Values 0 and 4 of each code, 1 and 5, ...
        let (a, b) = (mask(codes, 3), mask(_mm512_srli_epi16::<2>(codes), 3));
        let (c, d) = (mask(_mm512_srli_epi16::<4>(codes), 3), mask(_mm512_srli_epi16::<6>(codes), 3));
        let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
        let values = _mm512_broadcast_i32x4(_mm_loadu_si128(values.as_ptr().cast()));
        [
            _mm512_shuffle_epi8(values, _mm512_unpacklo_epi16(ab, cd)),
            _mm512_shuffle_epi8(values, _mm512_unpackhi_epi16(ab, cd)),
            _mm512_shuffle_epi8(values, _mm512_unpacklo_epi16(ab_high, cd_high)),
            _mm512_shuffle_epi8(values, _mm512_unpackhi_epi16(ab_high, cd_high)),
        ]
    }
}

/// Four values of 4 bits of each of 32 codes, by `values`.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn of_32_fours(codes: __m512i, values: &[u8; 16]) -> [__m512i; 2] {
    // SAFETY: the caller's; the load is of the whole array.
    unsafe {
        let (even, odd) = (mask(codes, 15), mask(_mm512_srli_epi16::<4>(codes), 15));
        let values = _mm512_broadcast_i32x4(_mm_loadu_si128(values.as_ptr().cast()));
        [
            _mm512_shuffle_epi8(values, _mm512_unpacklo_epi8(even, odd)),
            _mm512_shuffle_epi8(values, _mm512_unpackhi_epi8(even, odd)),
        ]
    }
}

/// Four values of 4 bits of each of 64 codes, by `values`.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
pub unsafe fn of_fours(codes: [__m512i; 2], values: &[u8; 16]) -> [__m512i; 4] {
    // SAFETY: the caller's.
    unsafe {
        let ([a, b], [c, d]) = (of_32_fours(codes[0], values), of_32_fours(codes[1], values));
        [a, b, c, d]
    }
}

/// 32 bytes as 16-bit lanes.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
pub unsafe fn widened(bytes: &[u8; 32]) -> __m512i {
    // SAFETY: the caller's; the load is of the whole array.
    unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.as_ptr().cast())) }
}

/// Bits of 256 values for registers that hold groups of 16 in this order.
///
/// # Safety
/// AVX-512 BW and VL.
#[inline(always)]
pub unsafe fn in_order(bits: __m256i, order: &[u8; 16]) -> [u64; 4] {
    let mut out = [0u64; 4];
    // SAFETY: the caller's; the load and the store are of whole arrays.
    unsafe {
        let order = _mm256_cvtepu8_epi16(_mm_loadu_si128(order.as_ptr().cast()));
        _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_permutexvar_epi16(order, bits));
    }
    out
}
