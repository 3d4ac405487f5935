//! The row kernel: rows of packed weights meet one row of activations, unpacked in registers.

use super::super::activations::{NarrowBlock, Row, WideBlock, scrambled};
use super::super::portable::narrow_count;
use super::super::super_scales::SuperScales;
use super::super::{NARROW, ROWS, blocks, for_narrow, for_wide};
use super::decode::DecodeWide;
use super::decode_narrow::DecodeNarrow;
use super::lanes::Products;
use super::widen;
use quant::GgmlType;
use quant::blocks::Block as _;
use quant::unpack::Unpack;
use std::arch::aarch64::*;

/// Blocks whose lanes are added together.
const AT_ONCE: usize = 4;

/// # Safety
/// The instructions of `P`.
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

/// # Safety
/// The instructions of `P`.
#[inline(always)]
unsafe fn wide<P: Products, B: DecodeWide>(row: &[B], activation: &[WideBlock]) -> f32 {
    let mut sum = 0f32;
    let (fours, rest) = row.as_chunks::<AT_ONCE>();
    let (a_fours, a_rest) = activation.as_chunks::<AT_ONCE>();
    // SAFETY: passed on.
    unsafe {
        for (blocks, activations) in fours.iter().zip(a_fours) {
            sum = add_wide::<P, B, AT_ONCE>(sum, blocks, activations);
        }
        for (block, activation) in rest.iter().zip(a_rest) {
            sum = add_wide::<P, B, 1>(sum, std::array::from_ref(block), std::array::from_ref(activation));
        }
    }
    sum
}

/// `sum` and the terms of `N` blocks, one after the other.
///
/// # Safety
/// The instructions of `P`.
#[inline(always)]
unsafe fn add_wide<P: Products, B: DecodeWide, const N: usize>(
    sum: f32,
    blocks: &[B; N],
    activations: &[WideBlock; N],
) -> f32 {
    // SAFETY: passed on; NEON is part of AArch64.
    unsafe {
        let (mut products, mut offsets) = ([vdupq_n_s32(0); AT_ONCE], [vdupq_n_s32(0); AT_ONCE]);
        let (mut d, mut dmin, mut a) = ([0u16; AT_ONCE], [0u16; AT_ONCE], [0f32; AT_ONCE]);
        for i in 0..N {
            (products[i], offsets[i]) = wide_block::<P, B>(&blocks[i], &activations[i]);
            (d[i], dmin[i], a[i]) = (blocks[i].d(), blocks[i].dmin(), activations[i].d);
        }
        let products = scaled::<B>(d, a, products);
        if !B::HAS_MINS {
            return products[..N].iter().fold(sum, |sum, product| sum + product);
        }
        let offsets = scaled::<B>(dmin, a, offsets);
        products[..N].iter().zip(offsets).fold(sum, |sum, (product, offset)| sum + product - offset)
    }
}

/// Integers whose lanes together are the sums of the products and of the mins.
///
/// # Safety
/// The instructions of `P`.
#[inline(always)]
unsafe fn wide_block<P: Products, B: DecodeWide>(block: &B, a: &WideBlock) -> (int32x4_t, int32x4_t) {
    // SAFETY: the caller has the instructions; loads are inside the arrays.
    unsafe {
        let w = block.registers();
        let widened = |x: int16x8_t| [opaque(vmovl_s16(vget_low_s16(x))), opaque(vmovl_high_s16(x))];
        let [a_scales, b_scales] = w.scales.map(widened);
        let scales = [a_scales[0], a_scales[1], b_scales[0], b_scales[1]];
        let bytes = |i: usize| vld1q_s8(a.q.as_ptr().add(16 * i));
        let mut products = vdupq_n_s32(0);
        if B::GROUP < 32 {
            for g in 0..16 {
                let dots = P::dot4(vdupq_n_s32(0), w.q[g], bytes(g));
                products = add_scaled(products, dots, &scales, scrambled(g));
            }
        } else {
            for g in 0..8 {
                let dots = P::dot4(vdupq_n_s32(0), w.q[2 * g], bytes(2 * g));
                let dots = P::dot4(dots, w.q[2 * g + 1], bytes(2 * g + 1));
                products = add_scaled(products, dots, &scales, g);
            }
        }
        let sums = [vld1q_s16(a.sums.as_ptr()), vld1q_s16(a.sums.as_ptr().add(8))];
        if B::OFFSET != 0 {
            let scaled = add_pairs(add_pairs(vdupq_n_s32(0), w.scales[0], sums[0]), w.scales[1], sums[1]);
            products = vmlsq_n_s32(products, scaled, i32::from(B::OFFSET));
        }
        let offsets = match (B::HAS_MINS, B::GROUP < 32) {
            (false, _) => vdupq_n_s32(0),
            (true, true) => add_pairs(add_pairs(vdupq_n_s32(0), w.mins[0], sums[0]), w.mins[1], sums[1]),
            (true, false) => add_pairs(vdupq_n_s32(0), w.mins[0], vld1q_s16(a.sums32.as_ptr())),
        };
        (products, offsets)
    }
}

/// `sum` and `x` times a scale, which is a lane.
#[inline(always)]
fn add_scaled(sum: int32x4_t, x: int32x4_t, scales: &[int32x4_t; 4], index: usize) -> int32x4_t {
    let scales = scales[index / 4];
    // SAFETY: NEON is part of AArch64.
    unsafe {
        match index % 4 {
            0 => vmlaq_laneq_s32::<0>(sum, x, scales),
            1 => vmlaq_laneq_s32::<1>(sum, x, scales),
            2 => vmlaq_laneq_s32::<2>(sum, x, scales),
            _ => vmlaq_laneq_s32::<3>(sum, x, scales),
        }
    }
}

/// The same, in a register that the compiler knows nothing about: of widened lanes it would spread each one before
/// it widens it, which takes two instructions more for every scale.
#[inline(always)]
fn opaque(x: int32x4_t) -> int32x4_t {
    let mut out = x;
    // SAFETY: no instruction.
    unsafe { std::arch::asm!("/* {0:v} */", inout(vreg) out, options(pure, nomem, nostack, preserves_flags)) };
    out
}

/// `sum` and the products of 8 lanes.
#[inline(always)]
fn add_pairs(sum: int32x4_t, x: int16x8_t, y: int16x8_t) -> int32x4_t {
    // SAFETY: NEON is part of AArch64.
    unsafe { vmlal_high_s16(vmlal_s16(sum, vget_low_s16(x), vget_low_s16(y)), x, y) }
}

/// The sum of each one's lanes.
#[inline(always)]
fn reduce(x: [int32x4_t; AT_ONCE]) -> int32x4_t {
    // SAFETY: NEON is part of AArch64.
    unsafe { vpaddq_s32(vpaddq_s32(x[0], x[1]), vpaddq_s32(x[2], x[3])) }
}

/// Sums times the scales of weights and activations.
#[inline(always)]
fn scaled<B: SuperScales>(d: [u16; AT_ONCE], a: [f32; AT_ONCE], sums: [int32x4_t; AT_ONCE]) -> [f32; AT_ONCE] {
    times(widen(d).map(|d| d * B::FACTOR), a, reduce(sums))
}

/// `(d * a) * sums`
#[inline(always)]
fn times(d: [f32; AT_ONCE], a: [f32; AT_ONCE], sums: int32x4_t) -> [f32; AT_ONCE] {
    let mut out = [0f32; AT_ONCE];
    // SAFETY: NEON is part of AArch64; loads and the store are of whole arrays.
    unsafe {
        let scales = vmulq_f32(vld1q_f32(d.as_ptr()), vld1q_f32(a.as_ptr()));
        vst1q_f32(out.as_mut_ptr(), vmulq_f32(scales, vcvtq_f32_s32(sums)));
    }
    out
}

/// # Safety
/// The instructions of `P`.
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
/// The instructions of `P`.
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
    // SAFETY: passed on; loads are inside the arrays.
    unsafe {
        let mut products = [vdupq_n_s32(0); AT_ONCE];
        let (mut d, mut dmin) = ([B::Scale::default(); AT_ONCE], [0u16; AT_ONCE]);
        let (mut a, mut a_sums) = ([0f32; AT_ONCE], [0f32; AT_ONCE]);
        for i in 0..N {
            let (block, part, a_block) = (&row[i / count], (start + i) % count, &activation[i / shared]);
            let [low, high] = block.quants(part);
            let dots = P::dot4(vdupq_n_s32(0), low, vld1q_s8(a_block.q.as_ptr()));
            products[i] = P::dot4(dots, high, vld1q_s8(a_block.q.as_ptr().add(16)));
            (d[i], a[i]) = (block.scale(part), a_block.d);
            (dmin[i], a_sums[i]) = (block.min(), a_block.sum);
        }
        let products = times(B::scales(d), a, reduce(products));
        if !B::HAS_MINS {
            return products[..N].iter().fold(sum, |sum, product| sum + product);
        }
        // What is added per value is kept, what is taken off is wanted: `x - y * -m`.
        let dmin = widen(dmin);
        (0..N).fold(sum, |sum, i| sum + products[i] - -dmin[i] * a_sums[i])
    }
}
