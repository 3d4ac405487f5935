//! Q4_0 and Q5_0 for rows that are written at every token: a few scales are tried, where files get one or a long search.

use super::{extreme, inverse};
use crate::blocks::{BlockQ4_0, BlockQ5_0};
use crate::quantize::legacy::{fifth_bits, pack4};
use half::f16;

type Row = [f32; 32];

/// What the element of largest magnitude is of the lowest level. Values are about normal once they are rotated: cutting off
/// or leaving out the ends of the range by a little costs them less than a coarser grid does.
const REACH: [f32; 5] = [1.0, 1.06, 0.94, 1.12, 0.88];

/// The levels, and the scale that fits them best, of the candidate with the least squared error.
fn around_zero(x: &Row, half: f32) -> (f16, [u8; 32]) {
    let inverse = -half * inverse(extreme(x));
    let (mut best, mut scale, mut chosen) = (-1.0, 0.0, [half; 32]);
    for reach in REACH {
        let levels = x.map(|x| (x * (inverse * reach) + (half + 0.5)).trunc().clamp(0.0, 2.0 * half - 1.0));
        let (mut qx, mut qq) = ([0f32; 8], [0f32; 8]);
        for (x, levels) in x.as_chunks::<8>().0.iter().zip(levels.as_chunks::<8>().0) {
            for lane in 0..8 {
                let q = levels[lane] - half;
                qx[lane] += q * x[lane];
                qq[lane] += q * q;
            }
        }
        let (qx, qq) = (qx.iter().sum::<f32>(), qq.iter().sum::<f32>());
        // With the scale qx / qq the squared error is the sum of x^2 less this.
        let taken = if qq > 0.0 { qx * qx / qq } else { 0.0 };
        if taken > best {
            (best, scale, chosen) = (taken, if qq > 0.0 { qx / qq } else { 0.0 }, levels);
        }
    }
    (f16::from_f32(scale), chosen.map(|level| level as u8))
}

pub(super) fn q4_0(x: &Row) -> BlockQ4_0 {
    let (d, levels) = around_zero(x, 8.0);
    BlockQ4_0 { d, qs: pack4(&levels) }
}

pub(super) fn q5_0(x: &Row) -> BlockQ5_0 {
    let (d, levels) = around_zero(x, 16.0);
    BlockQ5_0 { d, qh: fifth_bits(&levels), qs: pack4(&levels) }
}
