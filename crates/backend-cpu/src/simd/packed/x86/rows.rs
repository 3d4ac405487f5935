//! The row kernel: 4 rows of packed weights meet one row of activations, unpacked in registers.

use super::super::activations::{NarrowBlock, Row, WideBlock};
use super::super::portable::narrow_count;
use super::super::{NARROW, ROWS, blocks, for_narrow, for_wide};
use super::decode::{DecodeNarrow, DecodeWide};
use super::lanes::Products;
use quant::GgmlType;
use quant::blocks::Block as _;
use quant::unpack::Unpack;
use std::arch::x86_64::*;

/// # Safety
/// AVX2, FMA, F16C and the instructions of `P`.
#[inline(always)]
pub unsafe fn dot<P: Products>(ty: GgmlType, rows: &[u8], count: usize, activation: Row<'_>, out: &mut [f32; ROWS]) {
    // SAFETY: passed on.
    unsafe {
        match activation {
            Row::Wide(a) => for_wide!(ty, B => wide::<P, B>(four::<B>(rows, count, a.len()), a, out),
                _ => panic!("{ty} does not meet these activations")),
            Row::Narrow(a) => {
                for_narrow!(ty, B => {
                    narrow::<P, B>(four::<B>(rows, count, a.len() * NARROW / B::TYPE.block_size()), a, out)
                }, _ => panic!("{ty} does not meet these activations"))
            }
        }
    }
}

/// Rows of exactly `len` blocks each. Rows that are missing are the last one again.
#[inline(always)]
fn four<B: Unpack>(rows: &[u8], count: usize, len: usize) -> [&[B]; ROWS] {
    let rows = blocks::<B>(rows);
    assert_eq!(rows.len(), count * len, "blocks of {count} rows");
    std::array::from_fn(|r| &rows[r.min(count - 1) * len..][..len])
}

/// Bytes that spread scale `c` of each half of a vector over that half.
#[inline(always)]
fn spread(c: usize) -> __m256i {
    // SAFETY: a plain array of 32 bytes is a vector of 32 bytes.
    unsafe { std::mem::transmute([[2 * c as u8, 2 * c as u8 + 1]; 16]) }
}

#[inline(always)]
unsafe fn wide<P: Products, B: DecodeWide>(rows: [&[B]; ROWS], activation: &[WideBlock], out: &mut [f32; ROWS]) {
    // SAFETY: the caller has the instructions; loads are of whole arrays.
    unsafe {
        let mut sums = _mm_setzero_ps();
        for (index, a) in activation.iter().enumerate() {
            let mut products = [_mm256_setzero_si256(); ROWS];
            let mut offsets = [_mm256_setzero_si256(); ROWS];
            let (mut d, mut dmin) = ([0f32; ROWS], [0f32; ROWS]);
            let a_sums = _mm256_loadu_si256(a.sums.as_ptr().cast());
            for r in 0..ROWS {
                let w = rows[r][index].registers();
                for c in 0..8 {
                    let a = _mm256_loadu_si256(a.q.as_ptr().add(32 * c).cast());
                    let pairs = match B::SIGNED {
                        true => _mm256_maddubs_epi16(_mm256_abs_epi8(w.q[c]), _mm256_sign_epi8(a, w.q[c])),
                        false => _mm256_maddubs_epi16(w.q[c], a),
                    };
                    let scales = _mm256_shuffle_epi8(w.scales, spread(c));
                    products[r] = P::add_pairs(products[r], pairs, scales);
                }
                if B::OFFSET != 0 {
                    let scaled = _mm256_madd_epi16(w.scales, a_sums);
                    let offset = _mm256_mullo_epi32(scaled, _mm256_set1_epi32(i32::from(B::OFFSET)));
                    products[r] = _mm256_sub_epi32(products[r], offset);
                }
                if B::HAS_MINS {
                    offsets[r] = _mm256_madd_epi16(w.mins, a_sums);
                    dmin[r] = w.dmin;
                }
                d[r] = w.d;
            }
            let a_d = _mm_set1_ps(a.d);
            let scale = _mm_mul_ps(_mm_loadu_ps(d.as_ptr()), a_d);
            sums = _mm_add_ps(sums, _mm_mul_ps(scale, _mm_cvtepi32_ps(reduce(products))));
            if B::HAS_MINS {
                let scale = _mm_mul_ps(_mm_loadu_ps(dmin.as_ptr()), a_d);
                sums = _mm_sub_ps(sums, _mm_mul_ps(scale, _mm_cvtepi32_ps(reduce(offsets))));
            }
        }
        _mm_storeu_ps(out.as_mut_ptr(), sums);
    }
}

#[inline(always)]
unsafe fn narrow<P: Products, B: DecodeNarrow>(rows: [&[B]; ROWS], activation: &[NarrowBlock], out: &mut [f32; ROWS]) {
    let (count, shared) = narrow_count::<B>();
    // SAFETY: the caller has the instructions; loads are of whole arrays.
    unsafe {
        let mut sums = _mm_setzero_ps();
        for (index, activations) in activation.chunks_exact(count / shared).enumerate() {
            for part in 0..count {
                let a = &activations[part / shared];
                let bytes = _mm256_loadu_si256(a.q.as_ptr().cast());
                let mut products = [_mm256_setzero_si256(); ROWS];
                let (mut d, mut dmin) = ([0f32; ROWS], [0f32; ROWS]);
                for r in 0..ROWS {
                    let w = rows[r][index].registers(part);
                    products[r] = match B::HAS_MINS {
                        true => P::dot4(w.q, bytes),
                        false => P::dot4(_mm256_abs_epi8(w.q), _mm256_sign_epi8(bytes, w.q)),
                    };
                    d[r] = w.d;
                    dmin[r] = w.dmin;
                }
                let scale = _mm_mul_ps(_mm_loadu_ps(d.as_ptr()), _mm_set1_ps(a.d));
                sums = _mm_add_ps(sums, _mm_mul_ps(scale, _mm_cvtepi32_ps(reduce(products))));
                if B::HAS_MINS {
                    sums = _mm_sub_ps(sums, _mm_mul_ps(_mm_loadu_ps(dmin.as_ptr()), _mm_set1_ps(a.sum)));
                }
            }
        }
        _mm_storeu_ps(out.as_mut_ptr(), sums);
    }
}

/// The sum of each vector's lanes.
#[inline(always)]
unsafe fn reduce(x: [__m256i; ROWS]) -> __m128i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
        _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs))
    }
}
