//! Q2_K to Q6_K: search a scale (and offset) per group, quantize the scales, then the elements again with those.

use super::search::{
    Candidates, FINE, TINY, nearest, positive_scale, scale_and_offset, signed_scale, signed_scale_by_descent,
};
use super::{extreme, pack_nibbles};
use crate::blocks::{BlockQ2_K, BlockQ3_K, BlockQ4_K, BlockQ5_K, BlockQ6_K};
use half::f16;

type Row = [f32; 256];

fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, x| sum + x * x)
}

/// Weights of a group's errors: importance, and more for larger elements.
fn weights<const N: usize>(x: &[f32; N], importance: &[f32], variance: f32) -> [f32; N] {
    std::array::from_fn(|j| importance[j] * (variance + x[j] * x[j]).sqrt())
}

/// The types with offsets (Q2_K, Q4_K, Q5_K).
struct Offset {
    top: i32,
    scale_top: i32,
    plain: Candidates,
    /// Weights without importance are the magnitude, plus this times the group's root mean square.
    rms_share: f32,
    /// With importance: the variance in the weights, as a multiple of the mean square of the super-block.
    variance_share: f32,
}

const Q2_K: Offset = Offset {
    top: 3,
    scale_top: 15,
    plain: Candidates { start: -0.5, step: 0.1, steps: 15, absolute: true },
    rms_share: 0.0,
    variance_share: 1.0,
};
const Q4_K: Offset = Offset {
    top: 15,
    scale_top: 63,
    plain: Candidates { start: -1.0, step: 0.1, steps: 20, absolute: false },
    rms_share: 1.0,
    variance_share: 2.0,
};
const Q5_K: Offset =
    Offset { top: 31, plain: Candidates { start: -0.5, step: 0.1, steps: 15, absolute: false }, ..Q4_K };

struct OffsetBlock {
    d: f16,
    dmin: f16,
    scales: [u8; 16],
    mins: [u8; 16],
    levels: [u8; 256],
}

impl Offset {
    /// Quantize a super-block with groups of `N`; only the first `256 / N` scales and mins are used.
    fn quantize<const N: usize>(&self, x: &Row, importance: Option<&Row>) -> OffsetBlock {
        let groups = 256 / N;
        let mut levels = [0; 256];
        let (mut scales, mut offsets, mut sums) = ([0.0; 16], [0.0; 16], [0.0; 16]);
        let variance = self.variance_share * sum_of_squares(x) / 256.0;
        for (g, x) in x.as_chunks::<N>().0.iter().enumerate() {
            let (weights, candidates) = match importance {
                Some(importance) => (weights(x, &importance[g * N..], variance), FINE),
                None => {
                    let rms = self.rms_share * (sum_of_squares(x) / N as f32).sqrt();
                    (x.map(|x| rms + x.abs()), self.plain)
                }
            };
            sums[g] = weights.iter().fold(0.0, |sum, w| sum + w);
            (scales[g], offsets[g]) = scale_and_offset(x, &weights, self.top, &mut levels[g * N..][..N], candidates);
        }
        let quantize_scales = |values: &[f32]| match importance {
            Some(_) => self.weighted_scales(values, &sums[..groups]),
            None => self.plain_scales(values),
        };
        let (d, scales) = quantize_scales(&scales[..groups]);
        let (dmin, mins) = quantize_scales(&offsets[..groups]);
        for (g, (x, levels)) in x.chunks_exact(N).zip(levels.chunks_exact_mut(N)).enumerate() {
            let scale = d.to_f32() * f32::from(scales[g]);
            let min = dmin.to_f32() * f32::from(mins[g]);
            if scale != 0.0 {
                for (level, &x) in levels.iter_mut().zip(x) {
                    *level = nearest((x + min) / scale).clamp(0, self.top) as u8;
                }
            }
        }
        OffsetBlock { d, dmin, scales, mins, levels }
    }

    fn plain_scales(&self, values: &[f32]) -> (f16, [u8; 16]) {
        let top = self.scale_top as f32;
        let max = values.iter().fold(0.0, |max: f32, &v| max.max(v));
        let inverse = if max > 0.0 { top / max } else { 0.0 };
        let mut levels = [0; 16];
        for (level, &value) in levels.iter_mut().zip(values) {
            *level = nearest(inverse * value).clamp(0, self.scale_top) as u8;
        }
        (f16::from_f32(max / top), levels)
    }

    fn weighted_scales(&self, values: &[f32], sums: &[f32]) -> (f16, [u8; 16]) {
        let mut levels = [0; 16];
        let d = positive_scale(values, sums, self.scale_top, &mut levels[..values.len()]);
        (f16::from_f32(d), levels)
    }
}

/// See [`crate::unpack::unpack_scales_mins`].
fn pack_scales_mins(scales: &[u8; 16], mins: &[u8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = mins[j] | mins[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 15 | mins[j + 4] << 4;
    }
    packed
}

/// See [`crate::unpack::unpack_scales_q3`]; `scales` are 6-bit, not offset.
fn pack_scales_q3(scales: &[u8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (j, &scale) in scales.iter().enumerate() {
        packed[j % 8] |= (scale & 15) << (4 * (j / 8));
        packed[8 + j % 4] |= scale >> 4 << (2 * (j / 4));
    }
    packed
}

/// Two bits per element, four groups of 32 per 32 bytes.
pub(super) fn pack_two_bits(levels: &[u8; 256]) -> [u8; 64] {
    std::array::from_fn(|i| {
        let start = i / 32 * 128 + i % 32;
        (0..4).fold(0, |byte, shift| byte | (levels[start + 32 * shift] & 3) << (2 * shift))
    })
}

fn pack_four_bits(levels: &[u8; 256]) -> [u8; 128] {
    let mut qs = [0; 128];
    for (levels, qs) in levels.chunks_exact(64).zip(qs.chunks_exact_mut(32)) {
        pack_nibbles(levels, qs);
    }
    qs
}

/// One bit per element: bit `g` of byte `l` is bit `from` of level `32 g + l`.
fn pack_high_bits(levels: &[u8; 256], from: u32) -> [u8; 32] {
    std::array::from_fn(|l| (0..8).fold(0, |byte, g| byte | (levels[32 * g + l] >> from & 1) << g))
}

pub(super) fn q2_k(x: &Row, importance: Option<&Row>) -> BlockQ2_K {
    let block = Q2_K.quantize::<16>(x, importance);
    let scales = std::array::from_fn(|g| block.scales[g] | block.mins[g] << 4);
    BlockQ2_K { scales, qs: pack_two_bits(&block.levels), d: block.d, dmin: block.dmin }
}

pub(super) fn q4_k(x: &Row, importance: Option<&Row>) -> BlockQ4_K {
    let block = Q4_K.quantize::<32>(x, importance);
    BlockQ4_K {
        d: block.d,
        dmin: block.dmin,
        scales: pack_scales_mins(&block.scales, &block.mins),
        qs: pack_four_bits(&block.levels),
    }
}

pub(super) fn q5_k(x: &Row, importance: Option<&Row>) -> BlockQ5_K {
    let block = Q5_K.quantize::<32>(x, importance);
    BlockQ5_K {
        d: block.d,
        dmin: block.dmin,
        scales: pack_scales_mins(&block.scales, &block.mins),
        qh: pack_high_bits(&block.levels, 4),
        qs: pack_four_bits(&block.levels),
    }
}

/// Levels of the elements for given group scales: `x / (d * scale)`, stored plus `half`.
fn requantize_signed(x: &Row, d: f16, scales: &[i8; 16], half: i32, levels: &mut [u8; 256]) {
    for ((x, levels), &scale) in x.chunks_exact(16).zip(levels.chunks_exact_mut(16)).zip(scales) {
        let scale = d.to_f32() * f32::from(scale);
        if scale != 0.0 {
            for (level, &x) in levels.iter_mut().zip(x) {
                *level = (nearest(x / scale).clamp(-half, half - 1) + half) as u8;
            }
        }
    }
}

pub(super) fn q3_k(x: &Row, importance: Option<&Row>) -> BlockQ3_K {
    let mut levels = [0; 256];
    let (mut scales, mut sums) = ([0.0; 16], [0.0; 16]);
    let variance = 2.0 * sum_of_squares(x) / 256.0;
    for (g, x) in x.as_chunks::<16>().0.iter().enumerate() {
        let levels = &mut levels[16 * g..][..16];
        scales[g] = match importance {
            None => signed_scale_by_descent(x, 4, levels),
            Some(importance) => {
                let weights = weights(x, &importance[16 * g..], variance);
                sums[g] = weights.iter().fold(0.0, |sum, w| sum + w);
                signed_scale(x, &weights, 4, levels)
            }
        };
    }
    // 6-bit scales around 32.
    let mut packed = [0; 16];
    let d = if importance.is_some() {
        signed_scale(&scales, &sums, 32, &mut packed)
    } else {
        let extreme = extreme(&scales);
        let inverse = if extreme == 0.0 { 0.0 } else { -32.0 / extreme };
        if inverse != 0.0 {
            packed = scales.map(|scale| (nearest(inverse * scale).clamp(-32, 31) + 32) as u8);
        }
        super::inverse(inverse)
    };
    let d = f16::from_f32(d);
    requantize_signed(x, d, &packed.map(|scale| scale as i8 - 32), 4, &mut levels);
    BlockQ3_K { hmask: pack_high_bits(&levels, 2), qs: pack_two_bits(&levels), scales: pack_scales_q3(&packed), d }
}

pub(super) fn q6_k(x: &Row, importance: Option<&Row>) -> BlockQ6_K {
    let mut levels = [0; 256];
    let mut scales = [0.0; 16];
    for (g, x) in x.as_chunks::<16>().0.iter().enumerate() {
        let levels = &mut levels[16 * g..][..16];
        scales[g] = match importance {
            Some(importance) => signed_scale(x, &importance[16 * g..][..16], 32, levels),
            None => signed_scale(x, &x.map(|x| x * x), 32, levels),
        };
    }
    let extreme = extreme(&scales);
    if !(extreme.abs() >= TINY) {
        return bytemuck::Zeroable::zeroed();
    }
    let inverse = -128.0 / extreme;
    let d = f16::from_f32(1.0 / inverse);
    let scales = scales.map(|scale| nearest(inverse * scale).min(127) as i8);
    requantize_signed(x, d, &scales, 32, &mut levels);

    let mut ql = [0; 128];
    for (levels, ql) in levels.chunks_exact(128).zip(ql.chunks_exact_mut(64)) {
        pack_nibbles(levels, ql);
    }
    BlockQ6_K { ql, qh: pack_two_bits(&levels.map(|level| level >> 4)), scales, d }
}
