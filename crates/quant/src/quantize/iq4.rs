//! IQ4_NL and IQ4_XS: nibbles into a table of 16 uneven values.

use super::pack_nibbles;
use super::search::{TINY, nearest};
use crate::blocks::{BlockIQ4_NL, BlockIQ4_XS};
use crate::unpack::IQ4_VALUES;
use half::f16;

/// How many stretched scales are tried on either side of the plain one.
const TRIES: i32 = 7;

/// Halfway between neighbours in the table.
const MIDPOINTS: [f32; 15] = {
    let mut midpoints = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        midpoints[i] = (IQ4_VALUES[i] as f32 + IQ4_VALUES[i + 1] as f32) / 2.0;
        i += 1;
    }
    midpoints
};

/// The index of the table value nearest to `x`, the upper one at a tie.
fn nearest_value(x: f32) -> u8 {
    MIDPOINTS.iter().map(|&midpoint| u8::from(x >= midpoint)).sum()
}

fn value(level: u8) -> f32 {
    f32::from(IQ4_VALUES[usize::from(level)])
}

/// Without a search: the extreme element gets the lowest value, then the scale is refitted. For rows that are written at every
/// token.
pub(super) fn iq4_nl_fast(x: &[f32; 32]) -> BlockIQ4_NL {
    let extreme = super::extreme(x);
    let inverse = if extreme.abs() >= TINY { f32::from(IQ4_VALUES[0]) / extreme } else { 0.0 };
    let levels = x.map(|x| nearest_value(inverse * x));
    let (qx, qq) = x.iter().zip(levels).fold((0.0, 0.0), |(qx, qq), (&x, level)| {
        let (w, q) = (x * x, value(level));
        (qx + w * q * x, qq + w * q * q)
    });
    let mut qs = [0; 16];
    pack_nibbles(&levels, &mut qs);
    BlockIQ4_NL { d: f16::from_f32(if qq > 0.0 { qx / qq } else { 0.0 }), qs }
}

/// The scale with the least weighted error among fifteen candidates, for 32 elements.
fn scale(x: &[f32; 32], importance: Option<&[f32]>, variance: f32) -> f32 {
    let extreme = super::extreme(x);
    if !(extreme.abs() >= TINY) {
        return 0.0;
    }
    let weight = |j: usize| match importance {
        Some(importance) => importance[j] * (variance + x[j] * x[j]).sqrt(),
        None => x[j] * x[j],
    };
    let weights: [f32; 32] = std::array::from_fn(weight);
    let sums = |inverse: f32| {
        x.iter().zip(&weights).fold((0.0, 0.0), |(qx, qq), (&x, &w)| {
            let q = value(nearest_value(inverse * x));
            (qx + w * q * x, qq + w * q * q)
        })
    };
    let lowest = f32::from(IQ4_VALUES[0]);
    let (qx, qq) = sums(1.0 / (-extreme / lowest));
    let mut d = if qq > 0.0 { qx / qq } else { 0.0 };
    let mut best = d * qx;
    for step in -TRIES..=TRIES {
        let (qx, qq) = sums((step as f32 + lowest) / extreme);
        if qq > 0.0 && qx * qx > best * qq {
            d = qx / qq;
            best = d * qx;
        }
    }
    d
}

fn levels(x: &[f32; 32], d: f32) -> [u8; 16] {
    let inverse = super::inverse(d);
    let mut qs = [0; 16];
    pack_nibbles(&x.map(|x| nearest_value(inverse * x)), &mut qs);
    qs
}

fn variance(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, x| sum + x * x) * 2.0 / x.len() as f32
}

pub(super) fn iq4_nl(x: &[f32; 32], importance: Option<&[f32; 32]>) -> BlockIQ4_NL {
    let d = scale(x, importance.map(|w| &w[..]), variance(x));
    BlockIQ4_NL { d: f16::from_f32(d), qs: levels(x, d) }
}

pub(super) fn iq4_xs(x: &[f32; 256], importance: Option<&[f32; 256]>) -> BlockIQ4_XS {
    let variance = variance(x);
    let groups = x.as_chunks::<32>().0;
    let scales: [f32; 8] = std::array::from_fn(|g| scale(&groups[g], importance.map(|w| &w[32 * g..][..32]), variance));
    let d = -super::extreme(&scales) / 32.0;
    let inverse = super::inverse(d);
    let mut block = BlockIQ4_XS { d: f16::from_f32(d), scales_h: 0, scales_l: [0; 4], qs: [0; 128] };
    for (g, x) in groups.iter().enumerate() {
        let scale = nearest(inverse * scales[g]).clamp(-32, 31);
        block.qs[16 * g..][..16].copy_from_slice(&levels(x, d * scale as f32));
        let packed = (scale + 32) as u8;
        block.scales_l[g / 2] |= (packed & 15) << (4 * (g % 2));
        block.scales_h |= u16::from(packed >> 4) << (2 * g);
    }
    block
}
