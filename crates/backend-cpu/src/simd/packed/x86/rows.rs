//! The row kernel: rows of packed weights meet one row of activations, unpacked in registers.

use super::super::super::prefetch;
use super::super::activations::{NarrowBlock, Prepared, Row, Unit, WideBlock};
use super::super::portable::narrow_count;
use super::super::{NARROW, ROWS, blocks, for_narrow, for_wide};
use super::decode::{DecodeWide, SuperScales, Take, widen4};
use super::decode_narrow::DecodeNarrow;
use super::lanes::{Products, Vnni};
use super::narrow256::Narrow256;
use super::narrow512::Narrow512;
use super::rows512;
use super::wide512::Wide512;
use quant::GgmlType;
use quant::blocks::*;
use quant::unpack::Unpack;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Evaluates `$body` with `$B` as the block struct of a narrow type whose blocks are taken several at a time.
macro_rules! for_several {
    ($ty:expr, $B:ident => $body:expr, _ => $other:expr) => {
        for_several!(@ $ty, $B, $body, $other, BlockQ4_0 Q4_0, BlockQ4_1 Q4_1, BlockQ5_0 Q5_0, BlockQ5_1 Q5_1,
            BlockQ8_0 Q8_0, BlockIQ4_NL IQ4_NL, BlockMXFP4 MXFP4)
    };
    (@ $ty:expr, $B:ident, $body:expr, $other:expr, $($block:ident $name:ident),*) => {
        match $ty {
            $(GgmlType::$name => { type $B = $block; $body })*
            _ => $other,
        }
    };
}

/// # Safety
/// AVX2, FMA, F16C and the instructions of `P`.
#[inline(always)]
pub unsafe fn prepare_avx2<P: Products>(ty: GgmlType, activation: Row<'_>, out: &mut Vec<Unit>) {
    // SAFETY: passed on.
    unsafe {
        match activation {
            Row::Wide(_) => out.clear(),
            Row::Narrow(a) => {
                for_several!(ty, B => rows512::prepare::<Narrow256<P, B>>(a, out), _ => out.clear())
            }
        }
    }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI.
#[inline(always)]
pub unsafe fn prepare_vnni(ty: GgmlType, activation: Row<'_>, out: &mut Vec<Unit>) {
    // SAFETY: passed on.
    unsafe {
        match activation {
            Row::Wide(a) => for_wide!(ty, B => rows512::prepare::<Wide512<B>>(a, out),
                _ => panic!("{ty} does not meet these activations")),
            Row::Narrow(a) => for_several!(ty, B => rows512::prepare::<Narrow512<B>>(a, out), _ => out.clear()),
        }
    }
}

/// # Safety
/// AVX2, FMA, F16C and the instructions of `P`, for which the activations were prepared.
#[inline(always)]
pub unsafe fn dot_avx2<P: Products>(
    rows: &[u8],
    count: usize,
    activation: Row<'_>,
    prepared: &Prepared,
    out: &mut [f32; ROWS],
) {
    let ty = prepared.ty;
    // SAFETY: passed on.
    unsafe {
        match activation {
            Row::Wide(a) => for_wide!(ty, B => each_row::<B>(rows, count, a.len(), out, |row| wide(row, a)),
                _ => panic!("{ty} does not meet these activations")),
            Row::Narrow(a) => for_several!(ty,
                B => rows512::rows::<Narrow256<P, B>>(rows, count, a.len(), &prepared.groups, out),
                _ => dot_narrow::<P>(ty, rows, count, a, out)),
        }
    }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI, for which the activations were prepared.
#[inline(always)]
pub unsafe fn dot_vnni(rows: &[u8], count: usize, activation: Row<'_>, prepared: &Prepared, out: &mut [f32; ROWS]) {
    let ty = prepared.ty;
    // SAFETY: passed on.
    unsafe {
        match activation {
            Row::Wide(a) => for_wide!(ty,
                B => rows512::rows::<Wide512<B>>(rows, count, a.len(), &prepared.groups, out),
                _ => panic!("{ty} does not meet these activations")),
            Row::Narrow(a) => for_several!(ty,
                B => rows512::rows::<Narrow512<B>>(rows, count, a.len(), &prepared.groups, out),
                _ => dot_narrow::<Vnni>(ty, rows, count, a, out)),
        }
    }
}

/// # Safety
/// AVX2, FMA, F16C and the instructions of `P`.
#[inline(always)]
unsafe fn dot_narrow<P: Products>(ty: GgmlType, rows: &[u8], count: usize, a: &[NarrowBlock], out: &mut [f32; ROWS]) {
    // SAFETY: passed on.
    unsafe {
        for_narrow!(ty, B => {
            let len = a.len() * NARROW / B::TYPE.block_size();
            each_row::<B>(rows, count, len, out, |row| narrow::<P, B>(row, a))
        }, _ => panic!("{ty} does not meet these activations"));
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
fn ask_ahead<B>(block: &B) {
    prefetch(std::ptr::from_ref(block).cast::<u8>().wrapping_add(AHEAD), size_of::<B>());
}

/// Bytes ahead; about what memory delivers in the time that it takes to answer.
const AHEAD: usize = 3072;

/// Blocks whose lanes are added together.
const AT_ONCE: usize = 4;

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

/// Adds products with activations as registers come.
struct Sum<'a, B> {
    a: &'a WideBlock,
    spread: &'a [[[u8; 2]; 16]; 8],
    scales: __m256i,
    sum: __m256i,
    block: PhantomData<B>,
}

impl<B: DecodeWide> Take for Sum<'_, B> {
    #[inline(always)]
    unsafe fn take(&mut self, c: usize, q: __m256i, signs: __m256i) {
        // SAFETY: the caller has AVX2; loads are inside arrays.
        unsafe {
            let a = _mm256_loadu_si256(self.a.q[32 * c..][..32].as_ptr().cast());
            let pairs = _mm256_maddubs_epi16(q, if B::SIGNED { _mm256_sign_epi8(a, signs) } else { a });
            let scale = _mm256_shuffle_epi8(self.scales, _mm256_loadu_si256(self.spread[c].as_ptr().cast()));
            self.sum = _mm256_add_epi32(self.sum, _mm256_madd_epi16(pairs, scale));
        }
    }
}

/// The lanes of a block's sum of products and, in four lanes, of the mins.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn block<B: DecodeWide>(block: &B, a: &WideBlock, spread: &[[[u8; 2]; 16]; 8]) -> (__m256i, __m128i) {
    // SAFETY: the caller has AVX2; the load is of a whole array.
    unsafe {
        let [scales, mins] = block.scales_mins();
        let mut products = Sum::<B> { a, spread, scales, sum: _mm256_setzero_si256(), block: PhantomData };
        block.quants(&mut products);
        let mut products = products.sum;
        let a_sums = _mm256_loadu_si256(a.sums.as_ptr().cast());
        if B::OFFSET != 0 {
            let scaled = _mm256_madd_epi16(scales, a_sums);
            let offset = _mm256_mullo_epi32(scaled, _mm256_set1_epi32(i32::from(B::OFFSET)));
            products = _mm256_sub_epi32(products, offset);
        }
        let offsets = if B::HAS_MINS { halves(_mm256_madd_epi16(mins, a_sums)) } else { _mm_setzero_si128() };
        (products, offsets)
    }
}

/// The sum of each one's lanes.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn reduce(x: [__m256i; AT_ONCE]) -> __m128i {
    // SAFETY: the caller has AVX2.
    unsafe { halves(_mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]))) }
}

/// Both halves added.
#[inline(always)]
pub unsafe fn halves(x: __m256i) -> __m128i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x)) }
}

/// # Safety
/// AVX2, FMA, F16C.
#[inline(always)]
unsafe fn wide<B: DecodeWide>(row: &[B], activation: &[WideBlock]) -> f32 {
    let mut sum = 0f32;
    // SAFETY: passed on.
    unsafe {
        // The compiler would make two shuffles of each of these if it knew them.
        let spread = std::hint::black_box(&SPREAD);
        let (blocks, activations) = (row.chunks_exact(AT_ONCE), activation.chunks_exact(AT_ONCE));
        let rest = blocks.remainder().iter().zip(activations.remainder());
        for (blocks, activations) in blocks.zip(activations) {
            sum = add_wide::<B, AT_ONCE>(sum, blocks, activations, spread);
        }
        for (block, activation) in rest {
            sum = add_wide::<B, 1>(sum, std::slice::from_ref(block), std::slice::from_ref(activation), spread);
        }
    }
    sum
}

/// `sum` and the terms of `N` blocks, one after the other.
///
/// # Safety
/// AVX2, FMA, F16C.
#[inline(always)]
unsafe fn add_wide<B: DecodeWide, const N: usize>(
    sum: f32,
    blocks: &[B],
    activations: &[WideBlock],
    spread: &[[[u8; 2]; 16]; 8],
) -> f32 {
    assert!(blocks.len() == N && activations.len() == N);
    // SAFETY: passed on.
    unsafe {
        let (mut products, mut offsets) = ([_mm256_setzero_si256(); AT_ONCE], [_mm_setzero_si128(); AT_ONCE]);
        let (mut d, mut dmin, mut a) = ([0u16; AT_ONCE], [0u16; AT_ONCE], [0f32; AT_ONCE]);
        for i in 0..N {
            ask_ahead(&blocks[i]);
            (products[i], offsets[i]) = block(&blocks[i], &activations[i], spread);
            (d[i], dmin[i], a[i]) = (blocks[i].d(), blocks[i].dmin(), activations[i].d);
        }
        let a = _mm_setr_ps(a[0], a[1], a[2], a[3]);
        let products = scaled::<B>(d, a, reduce(products));
        if !B::HAS_MINS {
            return products[..N].iter().fold(sum, |sum, product| sum + product);
        }
        let offsets = _mm_hadd_epi32(_mm_hadd_epi32(offsets[0], offsets[1]), _mm_hadd_epi32(offsets[2], offsets[3]));
        let offsets = scaled::<B>(dmin, a, offsets);
        products[..N].iter().zip(offsets).fold(sum, |sum, (product, offset)| sum + product - offset)
    }
}

/// Sums times the scales of weights and activations.
///
/// # Safety
/// AVX2 and F16C.
#[inline(always)]
unsafe fn scaled<B: SuperScales>(d: [u16; AT_ONCE], a: __m128, sums: __m128i) -> [f32; AT_ONCE] {
    let mut out = [0f32; AT_ONCE];
    // SAFETY: the caller's; the store is of the whole array.
    unsafe {
        let d = _mm_mul_ps(widen4(d), _mm_set1_ps(B::FACTOR));
        _mm_storeu_ps(out.as_mut_ptr(), _mm_mul_ps(_mm_mul_ps(d, a), _mm_cvtepi32_ps(sums)));
    }
    out
}

/// # Safety
/// AVX2, FMA, F16C and the instructions of `P`.
#[inline(always)]
unsafe fn narrow<P: Products, B: DecodeNarrow>(row: &[B], activation: &[NarrowBlock]) -> f32 {
    let (count, _) = narrow_count::<B>();
    let (mut sum, total) = (0f32, row.len() * count);
    let whole = total / AT_ONCE * AT_ONCE;
    // SAFETY: passed on.
    unsafe {
        for start in (0..whole).step_by(AT_ONCE) {
            sum = add_narrow::<P, B, AT_ONCE>(sum, row, start, activation);
        }
        for start in whole..total {
            sum = add_narrow::<P, B, 1>(sum, row, start, activation);
        }
    }
    sum
}

/// `sum` and the terms of `N` narrow blocks from `start` on, one after the other.
///
/// # Safety
/// AVX2, FMA, F16C and the instructions of `P`.
#[inline(always)]
unsafe fn add_narrow<P: Products, B: DecodeNarrow, const N: usize>(
    sum: f32,
    row: &[B],
    start: usize,
    activation: &[NarrowBlock],
) -> f32 {
    let (count, shared) = narrow_count::<B>();
    // A group of blocks of the file, or a part of one.
    let row = &row[start / count..][..N.div_ceil(count)];
    let activation = &activation[start / shared..][..N.div_ceil(shared)];
    // SAFETY: passed on.
    unsafe {
        let mut products = [_mm256_setzero_si256(); AT_ONCE];
        let (mut d, mut dmin) = ([B::Scale::default(); AT_ONCE], [0u16; AT_ONCE]);
        let (mut a, mut a_sums) = ([0f32; AT_ONCE], [0f32; AT_ONCE]);
        for i in 0..N {
            let (block, part) = (&row[i / count], (start + i) % count);
            if part == 0 {
                ask_ahead(block);
            }
            let a_block = &activation[i / shared];
            let q = block.quants(part);
            let bytes = _mm256_loadu_si256(a_block.q.as_ptr().cast());
            products[i] = match B::OFFSET {
                None => P::dot4_signed(q, bytes, a_block.offset),
                Some(0) => P::dot4(_mm256_setzero_si256(), q, bytes),
                // The offset is -128 times the sum of activations.
                Some(offset) => {
                    let start = _mm_cvtsi32_si128(a_block.offset / (128 / i32::from(offset)));
                    P::dot4(_mm256_zextsi128_si256(start), q, bytes)
                }
            };
            (d[i], a[i]) = (block.scale(part), a_block.d);
            (dmin[i], a_sums[i]) = (block.min(), a_block.sum);
        }
        let sums =
            _mm256_hadd_epi32(_mm256_hadd_epi32(products[0], products[1]), _mm256_hadd_epi32(products[2], products[3]));
        let scales = _mm_mul_ps(B::scales(d), _mm_setr_ps(a[0], a[1], a[2], a[3]));
        let mut products = [0f32; AT_ONCE];
        _mm_storeu_ps(products.as_mut_ptr(), _mm_mul_ps(scales, _mm_cvtepi32_ps(halves(sums))));
        if !B::HAS_MINS {
            return products[..N].iter().fold(sum, |sum, product| sum + product);
        }
        // What is added per value is kept, what is taken off is wanted: `x - y * -m`.
        let minus = _mm_xor_ps(widen4(dmin), _mm_set1_ps(-0.0));
        let mut offsets = [0f32; AT_ONCE];
        _mm_storeu_ps(offsets.as_mut_ptr(), _mm_mul_ps(minus, _mm_setr_ps(a_sums[0], a_sums[1], a_sums[2], a_sums[3])));
        products[..N].iter().zip(offsets).fold(sum, |sum, (product, offset)| sum + product - offset)
    }
}
