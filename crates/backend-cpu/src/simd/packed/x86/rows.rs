//! The row kernel: rows of packed weights meet one row of activations, unpacked in registers.

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
            Row::Wide(a) => for_wide!(ty, B => each_row::<B>(rows, count, a.len(), out, |row| wide::<P, B>(row, a)),
                _ => panic!("{ty} does not meet these activations")),
            Row::Narrow(a) => for_narrow!(ty, B => {
                let len = a.len() * NARROW / B::TYPE.block_size();
                each_row::<B>(rows, count, len, out, |row| narrow::<P, B>(row, a))
            }, _ => panic!("{ty} does not meet these activations")),
        }
    }
}

/// Row after row: weights are read in the order in which they lie in memory, which is what the CPU's prefetcher is for.
#[inline(always)]
fn each_row<B: Unpack>(rows: &[u8], count: usize, len: usize, out: &mut [f32; ROWS], dot: impl Fn(&[B]) -> f32) {
    let rows = blocks::<B>(rows);
    assert_eq!(rows.len(), count * len, "blocks of {count} rows");
    for (row, out) in rows.chunks_exact(len).zip(out) {
        *out = dot(row);
    }
}

/// Asks for weights a few kilobytes ahead: at page ends, and with short rows, the CPU's own prefetcher comes late.
#[inline(always)]
fn prefetch<B>(block: &B) {
    let ahead = std::ptr::from_ref(block).cast::<i8>().wrapping_add(AHEAD);
    for line in (0..size_of::<B>()).step_by(64) {
        // SAFETY: prefetching is allowed at any address, also behind the last row.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line)) };
    }
}

/// Bytes ahead; about what memory delivers in the time that it takes to answer.
const AHEAD: usize = 3072;

/// Shuffles that spread scale `c` of each half of a vector over that half.
static SPREAD: [[[u8; 2]; 16]; 8] = [
    [[0, 1]; 16],
    [[2, 3]; 16],
    [[4, 5]; 16],
    [[6, 7]; 16],
    [[8, 9]; 16],
    [[10, 11]; 16],
    [[12, 13]; 16],
    [[14, 15]; 16],
];

/// # Safety
/// AVX2, FMA, F16C and the instructions of `P`.
#[inline(always)]
unsafe fn wide<P: Products, B: DecodeWide>(row: &[B], activation: &[WideBlock]) -> f32 {
    let mut sum = 0f32;
    for (row, activation) in row.chunks(AT_ONCE).zip(activation.chunks(AT_ONCE)) {
        let mut terms = Terms::default();
        // SAFETY: passed on.
        unsafe {
            for (i, (block, a)) in row.iter().zip(activation).enumerate() {
                terms.add_wide::<P, B>(i, block, a);
            }
            sum = terms.sum(sum, row.len(), B::HAS_MINS);
        }
    }
    sum
}

/// # Safety
/// AVX2, FMA, F16C and the instructions of `P`.
#[inline(always)]
unsafe fn narrow<P: Products, B: DecodeNarrow>(row: &[B], activation: &[NarrowBlock]) -> f32 {
    let (count, shared) = narrow_count::<B>();
    let (mut sum, total) = (0f32, row.len() * count);
    for start in (0..total).step_by(AT_ONCE) {
        let present = AT_ONCE.min(total - start);
        let mut terms = Terms::default();
        // SAFETY: passed on.
        unsafe {
            for i in 0..present {
                let at = start + i;
                terms.add_narrow::<P, B>(i, &row[at / count], at % count, &activation[at / shared]);
            }
            sum = terms.sum(sum, present, B::HAS_MINS);
        }
    }
    sum
}

/// Blocks whose lanes are added together.
const AT_ONCE: usize = 4;

/// Integer sums of neighbouring blocks, still spread over lanes, and their scales.
struct Terms {
    products: [__m256i; AT_ONCE],
    scales: [f32; AT_ONCE],
    offsets: [__m256i; AT_ONCE],
    offset_scales: [f32; AT_ONCE],
    /// Narrow blocks have their offsets as they are.
    narrow_offsets: Option<[f32; AT_ONCE]>,
}

impl Default for Terms {
    #[inline(always)]
    fn default() -> Terms {
        // SAFETY: 32 zero bytes are a vector.
        let zero: __m256i = unsafe { std::mem::zeroed() };
        let (products, offsets) = ([zero; AT_ONCE], [zero; AT_ONCE]);
        Terms { products, scales: [0.0; 4], offsets, offset_scales: [0.0; 4], narrow_offsets: None }
    }
}

impl Terms {
    #[inline(always)]
    unsafe fn add_wide<P: Products, B: DecodeWide>(&mut self, i: usize, block: &B, a: &WideBlock) {
        // SAFETY: the caller has the instructions; loads are of whole arrays.
        unsafe {
            prefetch(block);
            let w = block.registers();
            let mut products = _mm256_setzero_si256();
            for c in 0..8 {
                let a = _mm256_loadu_si256(a.q.as_ptr().add(32 * c).cast());
                let pairs = match B::SIGNED {
                    true => _mm256_maddubs_epi16(_mm256_abs_epi8(w.q[c]), _mm256_sign_epi8(a, w.q[c])),
                    false => _mm256_maddubs_epi16(w.q[c], a),
                };
                let spread = _mm256_loadu_si256(SPREAD[c].as_ptr().cast());
                products = P::add_pairs(products, pairs, _mm256_shuffle_epi8(w.scales, spread));
            }
            let a_sums = _mm256_loadu_si256(a.sums.as_ptr().cast());
            if B::OFFSET != 0 {
                let scaled = _mm256_madd_epi16(w.scales, a_sums);
                let offset = _mm256_mullo_epi32(scaled, _mm256_set1_epi32(i32::from(B::OFFSET)));
                products = _mm256_sub_epi32(products, offset);
            }
            if B::HAS_MINS {
                self.offsets[i] = _mm256_madd_epi16(w.mins, a_sums);
                self.offset_scales[i] = w.dmin * a.d;
            }
            self.products[i] = products;
            self.scales[i] = w.d * a.d;
        }
    }

    #[inline(always)]
    unsafe fn add_narrow<P: Products, B: DecodeNarrow>(&mut self, i: usize, block: &B, part: usize, a: &NarrowBlock) {
        // SAFETY: the caller has the instructions; the load is of the whole array.
        unsafe {
            if part == 0 {
                prefetch(block);
            }
            let w = block.registers(part);
            let bytes = _mm256_loadu_si256(a.q.as_ptr().cast());
            self.products[i] = match B::HAS_MINS {
                true => P::dot4(w.q, bytes),
                false => P::dot4(_mm256_abs_epi8(w.q), _mm256_sign_epi8(bytes, w.q)),
            };
            self.scales[i] = w.d * a.d;
            if B::HAS_MINS {
                self.narrow_offsets.get_or_insert([0.0; AT_ONCE])[i] = w.dmin * a.sum;
            }
        }
    }

    /// `sum` and the terms of `count` blocks, one after the other.
    #[inline(always)]
    unsafe fn sum(&self, mut sum: f32, count: usize, has_mins: bool) -> f32 {
        // SAFETY: the caller has AVX2; loads and stores are of whole arrays.
        unsafe {
            let values = |lanes, scales: &[f32; AT_ONCE]| {
                let mut out = [0f32; AT_ONCE];
                let scaled = _mm_mul_ps(_mm_loadu_ps(scales.as_ptr()), _mm_cvtepi32_ps(reduce(lanes)));
                _mm_storeu_ps(out.as_mut_ptr(), scaled);
                out
            };
            let products = values(self.products, &self.scales);
            if !has_mins {
                // Blocks that are missing are zero, and add nothing.
                return products.iter().fold(sum, |sum, product| sum + product);
            }
            let offsets = self.narrow_offsets.unwrap_or_else(|| values(self.offsets, &self.offset_scales));
            for (product, offset) in products.iter().zip(offsets).take(count) {
                sum = sum + product - offset;
            }
            sum
        }
    }
}

/// The sum of each vector's lanes.
#[inline(always)]
unsafe fn reduce(x: [__m256i; AT_ONCE]) -> __m128i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
        _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs))
    }
}
