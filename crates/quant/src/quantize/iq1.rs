//! IQ1_S and IQ1_M: eight elements are a point of a ternary lattice, all shifted by an eighth up or down.

use super::lattice::{IQ1, Lattice};
use super::search::nearest;
use crate::blocks::{BlockIQ1_M, BlockIQ1_S};
use half::f16;

type Row = [f32; 256];

/// Whether each eight elements of a group are shifted down.
type Shifts = [bool; 4];

const WHOLE: &[Shifts] = &[[false; 4], [true; 4]];
const BY_EIGHT: &[Shifts] = &[
    [false, false, false, false],
    [false, true, false, false],
    [true, false, false, false],
    [true, true, false, false],
];

/// A group of `N` elements before it is packed.
#[derive(Clone, Copy, Default)]
struct Group {
    scale: f32,
    shifts: Shifts,
    points: [u16; 4],
}

/// What level `level` (0, 1, 2) stands for.
fn value(level: u8, down: bool) -> f32 {
    f32::from(level) - 1.0 + if down { -0.125 } else { 0.125 }
}

/// `Σ w x` and `Σ w` of sorted elements up to each, of those that are shifted up and of those that are shifted down.
fn prefixes<const N: usize>(x: &[f32; N], w: &[f32; N], order: &[usize; N], shifts: &Shifts) -> [Vec<[f32; 2]>; 2] {
    let mut sums = [vec![[0.0; 2]], vec![[0.0; 2]]];
    for (at, &i) in order.iter().enumerate() {
        for (down, sums) in sums.iter_mut().enumerate() {
            let [wx, w_sum] = sums[at];
            let own = usize::from(shifts[i / 8]) == down;
            sums.push(if own { [wx + w[i] * x[i], w_sum + w[i]] } else { [wx, w_sum] });
        }
    }
    sums
}

/// The scale, the shifts and the level of each element: of all ways to cut the sorted elements into three levels the one
/// that explains most.
fn cut<const N: usize>(x: &[f32; N], w: &[f32; N], patterns: &[Shifts]) -> (f32, Shifts, [u8; N]) {
    let mut order: [usize; N] = std::array::from_fn(|i| i);
    order.sort_by(|a, b| x[*a].total_cmp(&x[*b]));
    let sums: Vec<_> = patterns.iter().map(|shifts| prefixes(x, w, &order, shifts)).collect();
    let (mut best, mut scale, mut chosen) = (-f32::MAX, 0.0, (0, 0, patterns[0]));
    for first in 0..=N {
        for second in first..=N {
            for (shifts, sums) in patterns.iter().zip(&sums) {
                let (mut xq, mut qq) = (0.0, 0.0);
                for (down, sums) in sums.iter().enumerate() {
                    for (level, (from, to)) in [(0, first), (first, second), (second, N)].into_iter().enumerate() {
                        let q = value(level as u8, down == 1);
                        xq += (sums[to][0] - sums[from][0]) * q;
                        qq += (sums[to][1] - sums[from][1]) * q * q;
                    }
                }
                if qq > 0.0 && xq * xq > best * qq {
                    (scale, chosen) = (xq / qq, (first, second, *shifts));
                    best = scale * xq;
                }
            }
        }
    }
    let (first, second, mut shifts) = chosen;
    let mut levels = [0; N];
    for (at, i) in order.into_iter().enumerate() {
        levels[i] = u8::from(at >= first) + u8::from(at >= second);
    }
    if scale < 0.0 {
        levels = levels.map(|level| 2 - level);
        shifts = shifts.map(|down| !down);
    }
    (scale.abs(), shifts, levels)
}

/// Elements below `tiny` count as zero.
fn fit<const N: usize>(x: &[f32; N], w: &[f32; N], patterns: &[Shifts], tiny: f32) -> Group {
    let lattice: &Lattice<8> = &IQ1;
    if !(x.iter().fold(0.0, |max: f32, x| max.max(x.abs())) >= tiny) {
        return Group::default();
    }
    let (mut scale, shifts, levels) = cut(x, w, patterns);
    let mut points = [0; 4];
    let mut exact = true;
    let (mut xq, mut qq) = (0.0, 0.0);
    let eights = x.as_chunks::<8>().0.iter().zip(w.as_chunks::<8>().0).zip(levels.as_chunks::<8>().0);
    for (((x, w), levels), (point, down)) in eights.zip(points.iter_mut().zip(shifts)) {
        let error = |index: &u16| {
            let levels = lattice.point(*index);
            (0..8).fold(0.0, |sum, i| {
                let difference = scale * value(levels[i], down) - x[i];
                sum + w[i] * difference * difference
            })
        };
        let near = lattice.near(levels);
        let nearest = near.iter().map(|index| (error(index), *index)).reduce(|a, b| if b.0 < a.0 { b } else { a });
        *point = nearest.map_or(near[0], |(_, index)| index);
        let found = lattice.point(*point);
        exact &= found == *levels;
        for i in 0..8 {
            let q = value(found[i], down);
            xq += w[i] * q * x[i];
            qq += w[i] * q * q;
        }
    }
    if !exact && xq > 0.0 && qq > 0.0 {
        scale = xq / qq;
    }
    Group { scale, shifts, points }
}

/// The groups of a super-block with their weights: `importance * sqrt(variance + x²)`, or `x²`.
fn groups<const N: usize>(
    x: &Row,
    importance: Option<&Row>,
    patterns: &[Shifts],
    tiny: f32,
) -> (Vec<Group>, Vec<[f32; N]>) {
    let variance = 2.0 * x.iter().fold(0.0, |sum, x| sum + x * x) / 256.0;
    let weight = |i: usize| match importance {
        Some(importance) => importance[i] * (variance + x[i] * x[i]).sqrt(),
        None => x[i] * x[i],
    };
    let x = x.as_chunks::<N>().0;
    let weights: Vec<[f32; N]> = (0..x.len()).map(|g| std::array::from_fn(|i| weight(g * N + i))).collect();
    (x.iter().zip(&weights).map(|(x, w)| fit(x, w, patterns, tiny)).collect(), weights)
}

/// The scale `1 / (2 s + 1)` of the largest group, and every group's `s`.
fn scales(groups: &[Group]) -> Option<(f32, Vec<u16>)> {
    let d = groups.iter().fold(0.0, |max: f32, group| max.max(group.scale)) / 15.0;
    let scale = |group: &Group| nearest(0.5 * (group.scale / d - 1.0)).clamp(0, 7) as u16;
    (d > 0.0).then(|| (d, groups.iter().map(scale).collect()))
}

pub(super) fn iq1_s(x: &Row, importance: &Row) -> BlockIQ1_S {
    let (groups, _) = groups::<32>(x, Some(importance), WHOLE, 1e-12);
    let mut block = BlockIQ1_S { d: f16::ZERO, qs: [0; 32], qh: [0; 8] };
    let Some((d, scales)) = scales(&groups) else { return block };
    // Small scales round up: a correction that holds for all.
    block.d = f16::from_f32(d * 1.125);
    for (g, (group, scale)) in groups.iter().zip(scales).enumerate() {
        block.qh[g] = scale << 12 | u16::from(group.shifts[0]) << 15;
        for (i, point) in group.points.iter().enumerate() {
            block.qs[4 * g + i] = *point as u8;
            block.qh[g] |= (point >> 8) << (3 * i);
        }
    }
    block
}

pub(super) fn iq1_m(x: &Row, importance: Option<&Row>) -> BlockIQ1_M {
    let (groups, weights) = groups::<16>(x, importance, BY_EIGHT, 1e-7);
    let mut block = BlockIQ1_M { qs: [0; 32], qh: [0; 16], scales: [0; 8] };
    let Some((mut d, scales)) = scales(&groups) else { return block };
    let mut words = [0u16; 4];
    let (mut xq, mut qq) = (0.0, 0.0);
    for (g, (group, scale)) in groups.iter().zip(scales).enumerate() {
        words[g / 4] |= scale << (3 * (g % 4));
        for half in 0..2 {
            let (i, point, down) = (2 * g + half, group.points[half], group.shifts[half]);
            block.qs[i] = point as u8;
            block.qh[g] |= ((point >> 8) as u8 | u8::from(down) << 3) << (4 * half);
            for (j, level) in IQ1.point(point).into_iter().enumerate() {
                let q = value(level, down) * f32::from(2 * scale + 1);
                let w = weights[g][8 * half + j];
                xq += w * q * x[8 * i + j];
                qq += w * q * q;
            }
        }
    }
    if qq > 0.0 {
        d = xq / qq;
    }
    let bits = f16::from_f32(d * 1.1125).to_bits();
    for (i, word) in words.iter_mut().enumerate() {
        *word |= (bits >> (4 * i) & 15) << 12;
        block.scales[2 * i..][..2].copy_from_slice(&word.to_le_bytes());
    }
    block
}
