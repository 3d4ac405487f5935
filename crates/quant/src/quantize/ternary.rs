//! TQ1_0, TQ2_0, Q1_0, Q2_0.

use super::{extreme, inverse, k::pack_two_bits};
use crate::blocks::{BlockQ1_0, BlockQ2_0, BlockTQ1_0, BlockTQ2_0};
use half::f16;

/// The largest magnitude as scale, and 0, 1, 2 for elements nearest to `-d`, 0, `d`.
fn trits<const N: usize>(x: &[f32; N]) -> (f16, [u8; N]) {
    let d = extreme(x).abs();
    let inverse = inverse(d);
    (f16::from_f32(d), x.map(|x| ((x * inverse).round() as i8).clamp(-1, 1) as u8).map(|q| q.wrapping_add(1)))
}

/// Digits of base 3, the first most significant, as a fraction of 256 rounded up; missing digits are 0.
fn base3_byte(digits: impl Iterator<Item = u8>) -> u8 {
    let (number, missing) =
        digits.fold((0u16, 5), |(number, missing), digit| (number * 3 + u16::from(digit), missing - 1));
    (number * 3u16.pow(missing) * 256).div_ceil(243) as u8
}

pub(super) fn tq1_0(x: &[f32; 256]) -> BlockTQ1_0 {
    let (d, q) = trits(x);
    let column = |start: usize, stride: usize, count: usize| base3_byte((0..count).map(move |n| q[start + n * stride]));
    BlockTQ1_0 {
        qs: std::array::from_fn(|i| if i < 32 { column(i, 32, 5) } else { column(160 + i - 32, 16, 5) }),
        qh: std::array::from_fn(|i| column(240 + i, 4, 4)),
        d,
    }
}

pub(super) fn tq2_0(x: &[f32; 256]) -> BlockTQ2_0 {
    let (d, q) = trits(x);
    BlockTQ2_0 { qs: pack_two_bits(&q), d }
}

pub(super) fn q1_0(x: &[f32; 128]) -> BlockQ1_0 {
    let d = x.iter().fold(0.0, |sum, x| sum + x.abs()) / 128.0;
    let bits = |i: usize| (0..8).fold(0, |byte, bit| byte | u8::from(x[8 * i + bit] >= 0.0) << bit);
    BlockQ1_0 { d: f16::from_f32(d), qs: std::array::from_fn(bits) }
}

pub(super) fn q2_0(x: &[f32; 64]) -> BlockQ2_0 {
    let (d, q) = trits(x);
    BlockQ2_0 { d, qs: std::array::from_fn(|i| (0..4).fold(0, |byte, n| byte | q[4 * i + n] << (2 * n))) }
}
