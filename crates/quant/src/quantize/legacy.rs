//! Q4_0, Q4_1, Q5_0, Q5_1 and the 8-bit types.

use super::search::{FINE, nearest, scale_and_offset, signed_scale};
use super::{extreme, inverse, pack_nibbles};
use crate::blocks::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, BlockQ8_1, BlockQ8_K};
use half::f16;

type Row = [f32; 32];

/// Levels around zero: the extreme element gets the lowest level, exactly.
fn around_zero(x: &Row, half: f32) -> (f16, [u8; 32]) {
    let d = extreme(x) / -half;
    let inverse = inverse(d);
    (f16::from_f32(d), x.map(|x| (x * inverse + (half + 0.5)).min(2.0 * half - 1.0) as u8))
}

/// Levels between the smallest and the largest element.
fn from_minimum(x: &Row, top: f32) -> (f16, f16, [u8; 32]) {
    let min = x.iter().copied().fold(f32::MAX, f32::min);
    let max = x.iter().copied().fold(f32::MIN, f32::max);
    let d = (max - min) / top;
    let inverse = inverse(d);
    let levels = x.map(|x| ((x - min) * inverse + 0.5).min(top) as u8);
    (f16::from_f32(d), f16::from_f32(min), levels)
}

/// An element counts by its importance, and more the larger it is.
fn weights(x: &Row, importance: &Row, variance: f32) -> Row {
    std::array::from_fn(|j| importance[j] * (variance + x[j] * x[j]).sqrt())
}

fn around_zero_weighted(x: &Row, importance: &Row, variance: f32, half: i32) -> (f16, [u8; 32]) {
    let mut levels = [0; 32];
    let d = signed_scale(x, &weights(x, importance, variance), half, &mut levels);
    (f16::from_f32(d), levels)
}

fn from_minimum_weighted(x: &Row, importance: &Row, variance: f32, top: i32) -> (f16, f16, [u8; 32]) {
    let mut levels = [0; 32];
    let (d, offset) = scale_and_offset(x, &weights(x, importance, variance), top, &mut levels, FINE);
    (f16::from_f32(d), f16::from_f32(-offset), levels)
}

pub(super) fn pack4(levels: &[u8; 32]) -> [u8; 16] {
    let mut qs = [0; 16];
    pack_nibbles(levels, &mut qs);
    qs
}

pub(super) fn fifth_bits(levels: &[u8; 32]) -> [u8; 4] {
    let bits = levels.iter().enumerate().fold(0u32, |bits, (j, level)| bits | u32::from(level >> 4 & 1) << j);
    bits.to_le_bytes()
}

pub(super) fn q4_0(x: &Row) -> BlockQ4_0 {
    let (d, levels) = around_zero(x, 8.0);
    BlockQ4_0 { d, qs: pack4(&levels) }
}

pub(super) fn q4_0_weighted(x: &Row, importance: &Row, variance: f32) -> BlockQ4_0 {
    let (d, levels) = around_zero_weighted(x, importance, variance, 8);
    BlockQ4_0 { d, qs: pack4(&levels) }
}

pub(super) fn q4_1(x: &Row) -> BlockQ4_1 {
    let (d, m, levels) = from_minimum(x, 15.0);
    BlockQ4_1 { d, m, qs: pack4(&levels) }
}

pub(super) fn q4_1_weighted(x: &Row, importance: &Row, variance: f32) -> BlockQ4_1 {
    let (d, m, levels) = from_minimum_weighted(x, importance, variance, 15);
    BlockQ4_1 { d, m, qs: pack4(&levels) }
}

pub(super) fn q5_0(x: &Row) -> BlockQ5_0 {
    let (d, levels) = around_zero(x, 16.0);
    BlockQ5_0 { d, qh: fifth_bits(&levels), qs: pack4(&levels) }
}

pub(super) fn q5_0_weighted(x: &Row, importance: &Row, variance: f32) -> BlockQ5_0 {
    let (d, levels) = around_zero_weighted(x, importance, variance, 16);
    BlockQ5_0 { d, qh: fifth_bits(&levels), qs: pack4(&levels) }
}

pub(super) fn q5_1(x: &Row) -> BlockQ5_1 {
    let (d, m, levels) = from_minimum(x, 31.0);
    BlockQ5_1 { d, m, qh: fifth_bits(&levels), qs: pack4(&levels) }
}

pub(super) fn q5_1_weighted(x: &Row, importance: &Row, variance: f32) -> BlockQ5_1 {
    let (d, m, levels) = from_minimum_weighted(x, importance, variance, 31);
    BlockQ5_1 { d, m, qh: fifth_bits(&levels), qs: pack4(&levels) }
}

/// The f32 scale `max |x| / 127`, and `x / d` rounded (ties away from zero).
fn eight_bits(x: &Row) -> (f32, [i8; 32]) {
    let d = extreme(x).abs() / 127.0;
    let inverse = inverse(d);
    (d, x.map(|x| (x * inverse).round() as i8))
}

impl BlockQ8_0 {
    /// Quantize 32 activations or weights.
    pub fn quantize(x: &[f32; 32]) -> BlockQ8_0 {
        let (d, qs) = eight_bits(x);
        BlockQ8_0 { d: f16::from_f32(d), qs }
    }
}

impl BlockQ8_1 {
    /// Quantize 32 activations.
    pub fn quantize(x: &[f32; 32]) -> BlockQ8_1 {
        let (d, qs) = eight_bits(x);
        let sum: i32 = qs.iter().map(|&q| i32::from(q)).sum();
        BlockQ8_1 { d: f16::from_f32(d), s: f16::from_f32(sum as f32 * d), qs }
    }
}

impl BlockQ8_K {
    /// Quantize 256 activations: the extreme one becomes -127, exactly.
    pub fn quantize(x: &[f32; 256]) -> BlockQ8_K {
        let extreme = extreme(x);
        let scale = if extreme == 0.0 { 0.0 } else { -127.0 / extreme };
        let qs = x.map(|x| nearest(scale * x).min(127) as i8);
        let mut bsums = [0; 16];
        for (sum, qs) in bsums.iter_mut().zip(qs.chunks_exact(16)) {
            *sum = qs.iter().map(|&q| i16::from(q)).sum();
        }
        BlockQ8_K { d: inverse(scale), qs, bsums }
    }
}
