//! The row kernel for AVX-512 VNNI, and for narrow types on all: one row of activations meets rows of packed weights.
//!
//! Blocks are taken by fours or sixteens, so that scales, conversions and the sums of lanes cost one vector operation for
//! all of them. Rows go by one after the other, as they lie in memory; the terms of each are kept, and those of 16 rows are
//! then added block by block, a row in each lane: the sum of a row alone would wait for itself.

use super::super::super::prefetch;
use super::super::activations::Unit;
use super::super::{ROWS, blocks};
use bytemuck::{Pod, Zeroable as _};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// How blocks of a type meet activations.
///
/// # Safety
/// Methods may only be called on CPUs with AVX2, F16C and AVX-512 F, BW, VL, VNNI, or those that the implementation names. `prepare`
/// fills its group, and `terms` writes as many values as it should.
pub unsafe trait Kernel {
    type Block: Pod;
    /// Of one block.
    type Activation;
    /// Activations of several blocks, as registers want them.
    type Group;
    /// What is loaded once for many rows.
    type Tables: Copy;
    /// Blocks that are taken together.
    const AT_ONCE: usize;
    /// What a block adds to a row's sum.
    const TERMS: usize;

    /// Fills a group from at most [`Kernel::AT_ONCE`] activations; others are zero.
    unsafe fn prepare(activations: &[Self::Activation], group: *mut Self::Group);
    unsafe fn tables() -> Self::Tables;
    /// The terms of [`Kernel::AT_ONCE`] blocks, in order.
    unsafe fn terms(blocks: &[Self::Block], group: &Self::Group, tables: &Self::Tables, out: *mut f32);
    /// Adds `count` terms of each of `some` rows to `out`, from first to last: those of whole groups were written, and `out`
    /// has [`LANES`] values.
    #[inline(always)]
    unsafe fn add_up(terms: &Terms, some: usize, count: usize, out: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe { add_up(terms, some, count, out) }
    }
}

/// Rows whose terms are added together.
pub const LANES: usize = 16;
/// Terms of a row that are kept.
pub const KEPT: usize = 256;
/// What ends the last group of a row that is not whole: as many blocks as any type takes together.
const PADDED: usize = 16;

/// Bytes ahead: what memory delivers to a thread in the time that it takes to answer, twice.
const AHEAD: usize = 8192;

pub type Terms = [MaybeUninit<[f32; KEPT]>; LANES];

/// Puts groups of activations, one after the other, in the place of what `out` has.
///
/// # Safety
/// The CPU has the instructions of `K`.
#[inline(always)]
pub unsafe fn prepare<K: Kernel>(activation: &[K::Activation], out: &mut Vec<Unit>) {
    const { assert!(align_of::<K::Group>() <= align_of::<Unit>() && size_of::<K::Group>() % size_of::<Unit>() == 0) };
    let units = size_of::<K::Group>() / size_of::<Unit>();
    out.resize(activation.len().div_ceil(K::AT_ONCE) * units, Unit::default());
    for (activations, group) in activation.chunks(K::AT_ONCE).zip(out.chunks_exact_mut(units)) {
        // SAFETY: the caller has the instructions; the group has its size and alignment.
        unsafe { K::prepare(activations, group.as_mut_ptr().cast()) };
    }
}

/// Products of rows of `len` blocks with prepared activations.
///
/// # Safety
/// The CPU has the instructions of `K`, and `groups` are of [`prepare`] for `K`.
#[inline(always)]
pub unsafe fn rows<K: Kernel>(rows: &[u8], count: usize, len: usize, groups: &[Unit], out: &mut [f32; ROWS]) {
    const { assert!(K::AT_ONCE <= PADDED && K::AT_ONCE * K::TERMS <= KEPT) };
    let rows = blocks::<K::Block>(rows);
    assert_eq!(rows.len(), count * len, "blocks of {count} rows");
    let units = size_of::<K::Group>() / size_of::<Unit>();
    assert_eq!(groups.len(), len.div_ceil(K::AT_ONCE) * units, "prepared activations");
    let at_once = KEPT / (K::AT_ONCE * K::TERMS) * K::AT_ONCE;
    // What comes next is in the same row, or in the next one where a row takes several turns.
    let ahead = if len <= at_once { AHEAD } else { len * size_of::<K::Block>() };
    let mut terms: Terms = [const { MaybeUninit::uninit() }; LANES];
    let mut padded = [const { MaybeUninit::<K::Block>::uninit() }; PADDED];
    // Only where a row's last group is not whole: zeros for nothing would take as long as a row.
    if len % K::AT_ONCE > 0 {
        padded[..K::AT_ONCE].fill(MaybeUninit::new(K::Block::zeroed()));
    }
    out.fill(0.0);
    // SAFETY: the caller has the instructions, and prepared the groups, of which there are as many as a row needs; terms of
    // `n` blocks fit their arrays, and those that are added were written. A group that is not whole is at a row's end, for
    // which the padding has blocks of zeros.
    unsafe {
        let tables = K::tables();
        for start in (0..len).step_by(at_once) {
            let n = at_once.min(len - start);
            let groups = groups.as_ptr().add(start / K::AT_ONCE * units).cast::<K::Group>();
            for first in (0..count).step_by(LANES) {
                let some = LANES.min(count - first);
                for (row, terms) in (first..first + some).zip(&mut terms) {
                    let row = &rows[row * len + start..][..n];
                    let terms = terms.as_mut_ptr().cast::<f32>();
                    for (index, mut blocks) in row.chunks(K::AT_ONCE).enumerate() {
                        // At page ends, and with short rows, the CPU's own prefetcher comes late.
                        prefetch(blocks.as_ptr().cast::<u8>().wrapping_add(ahead), size_of_val(blocks));
                        if blocks.len() < K::AT_ONCE {
                            let padded = padded.as_mut_ptr().cast::<K::Block>();
                            padded.copy_from_nonoverlapping(blocks.as_ptr(), blocks.len());
                            blocks = std::slice::from_raw_parts(padded, K::AT_ONCE);
                        }
                        let out = terms.add(index * K::AT_ONCE * K::TERMS);
                        K::terms(blocks, &*groups.add(index), &tables, out);
                    }
                }
                K::add_up(&terms, some, n * K::TERMS, &mut out[first..][..LANES]);
            }
        }
    }
}

/// Adds `count` terms of each of `some` rows to `out`, from first to last.
///
/// # Safety
/// AVX-512 F; as many terms of these rows were written; `out` has [`LANES`] values.
#[inline(always)]
unsafe fn add_up(terms: &Terms, some: usize, count: usize, out: &mut [f32]) {
    assert!((1..=LANES).contains(&some) && count <= KEPT && out.len() == LANES);
    // SAFETY: the caller's. Rows that are missing are the last one again.
    unsafe {
        let mut sums = _mm512_loadu_ps(out.as_ptr());
        for at in (0..count).step_by(LANES) {
            let left = LANES.min(count - at);
            let mask = (u32::MAX >> (32 - left)) as u16;
            let mut x = [_mm512_setzero_ps(); LANES];
            for (row, x) in x.iter_mut().enumerate() {
                *x = _mm512_maskz_loadu_ps(mask, terms[row.min(some - 1)].as_ptr().cast::<f32>().add(at));
            }
            for x in transposed(x).iter().take(left) {
                sums = _mm512_add_ps(sums, *x);
            }
        }
        _mm512_storeu_ps(out.as_mut_ptr(), sums);
    }
}

/// Rows to columns.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub unsafe fn transposed(x: [__m512; LANES]) -> [__m512; LANES] {
    // SAFETY: the caller's.
    unsafe {
        let zero = _mm512_setzero_ps();
        // Squares of 4 x 4 inside the quarters of four rows.
        let mut squares = [zero; LANES];
        for (x, out) in x.as_chunks::<4>().0.iter().zip(squares.as_chunks_mut::<4>().0) {
            let (ab, cd) = (_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpacklo_ps(x[2], x[3]));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            out[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
            out[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
            let (ab, cd) = (_mm512_unpackhi_ps(x[0], x[1]), _mm512_unpackhi_ps(x[2], x[3]));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            out[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
            out[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
        }
        // Quarters: `squares[4 r + c]` has columns c, 4 + c, 8 + c, 12 + c of rows 4 r to 4 r + 3.
        let mut out = [zero; LANES];
        for c in 0..4 {
            let [a, b, x, y] = [squares[c], squares[4 + c], squares[8 + c], squares[12 + c]];
            let (ab_even, ab_odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            let (xy_even, xy_odd) = (_mm512_shuffle_f32x4::<0x88>(x, y), _mm512_shuffle_f32x4::<0xdd>(x, y));
            out[c] = _mm512_shuffle_f32x4::<0x88>(ab_even, xy_even);
            out[4 + c] = _mm512_shuffle_f32x4::<0x88>(ab_odd, xy_odd);
            out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(ab_even, xy_even);
            out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(ab_odd, xy_odd);
        }
        out
    }
}

/// Lanes of each quarter of four vectors added: those of vector `i` become lane `i` of every quarter.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub unsafe fn quarters(x: [__m512i; 4]) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let (x, y) = (pair(x[0], x[1]), pair(x[2], x[3]));
        _mm512_add_epi32(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y))
    }
}

/// Every second lane of each added, the ones of `x` and `y` in turn.
#[inline(always)]
unsafe fn pair(x: __m512i, y: __m512i) -> __m512i {
    // SAFETY: the caller has AVX-512 F.
    unsafe { _mm512_add_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y)) }
}
