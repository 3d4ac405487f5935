//! The nearest points of an IQ lattice, and the scale of a group whose elements are such points.

use super::search::nearest;
use crate::unpack;
use std::sync::LazyLock;

/// A set of points of `D` levels each. Level `l` stands for the magnitude `2 l + 1`.
pub(super) struct Lattice<const D: usize> {
    points: Vec<[u8; D]>,
    levels: usize,
    /// For cell `Σ level_i * levels^i`: where its list in `neighbours` starts; one more entry at the end.
    starts: Vec<u32>,
    /// For each cell the point it is, or else the points near it.
    neighbours: Vec<u16>,
}

impl<const D: usize> Lattice<D> {
    /// `shells` is the number of different distances within which points count as near.
    fn new(points: impl Iterator<Item = [u8; D]>, levels: usize, shells: usize) -> Lattice<D> {
        let points: Vec<_> = points.collect();
        let mut lattice = Lattice { points, levels, starts: vec![0], neighbours: Vec::new() };
        for cell in 0..levels.pow(D as u32) {
            lattice.add_cell(cell, shells);
        }
        lattice
    }

    fn add_cell(&mut self, cell: usize, shells: usize) {
        let mut rest = cell;
        let center: [u8; D] = std::array::from_fn(|_| {
            let level = rest % self.levels;
            rest /= self.levels;
            level as u8
        });
        let distance = |point: &[u8; D]| -> u32 {
            point.iter().zip(&center).map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2)).sum()
        };
        let distances: Vec<u32> = self.points.iter().map(distance).collect();
        let mut limit = distances.iter().copied().min().unwrap_or(0);
        if limit > 0 {
            for _ in 1..shells {
                limit = distances.iter().copied().filter(|&d| d > limit).min().unwrap_or(limit);
            }
        }
        let near = distances.iter().enumerate().filter(|&(_, &d)| d <= limit).map(|(point, _)| point as u16);
        self.neighbours.extend(near);
        self.starts.push(self.neighbours.len() as u32);
    }

    /// The point that these levels are, or else the points near them; never none.
    pub(super) fn near(&self, levels: &[u8; D]) -> &[u16] {
        let cell = levels.iter().rev().fold(0, |cell, &level| cell * self.levels + usize::from(level));
        &self.neighbours[self.starts[cell] as usize..self.starts[cell + 1] as usize]
    }

    /// A point's levels.
    pub(super) fn point(&self, index: u16) -> [u8; D] {
        self.points[usize::from(index)]
    }

    /// The point for `x / scale`, and whether rounding each element gave it.
    fn choose(&self, x: &[f32; D], roots: &[f32; D], inverse: f32, scale: f32) -> (u16, bool) {
        let top = self.levels as i32 - 1;
        let level = |x: f32| nearest(0.5 * (inverse * x - 1.0)).clamp(0, top) as u8;
        let levels = x.map(level);
        let near = self.near(&levels);
        let (mut best, mut least) = (near[0], f32::MAX);
        if near.len() > 1 {
            for &index in near {
                let point = self.points[usize::from(index)];
                let error = (0..D).fold(0.0, |sum, i| {
                    let difference = scale * odd(point[i]) - x[i];
                    sum + roots[i] * difference * difference
                });
                if error < least {
                    (best, least) = (index, error);
                }
            }
        }
        (best, self.points[usize::from(best)] == levels)
    }

    /// `Σ w x q` and `Σ w q²`.
    fn sums(&self, x: &[f32], w: &[f32], points: &[u16]) -> (f32, f32) {
        let magnitudes = points.iter().flat_map(|&point| self.points[usize::from(point)]).map(odd);
        x.iter().zip(w).zip(magnitudes).fold((0.0, 0.0), |(xq, qq), ((&x, &w), q)| (xq + w * x * q, qq + w * q * q))
    }

    /// The scale and the points for magnitudes `x` with error weights `w`: `candidates` stretch `reach`, the value at the top
    /// level, then points that were not simply rounded are chosen again for the best scale.
    pub(super) fn fit(
        &self,
        x: &[f32],
        w: &[f32],
        reach: f32,
        candidates: impl Iterator<Item = f32>,
        points: &mut [u16],
    ) -> f32 {
        let (x_points, _) = x.as_chunks::<D>();
        let roots: Vec<f32> = w.iter().map(|w| w.sqrt()).collect();
        let (roots, _) = roots.as_chunks::<D>();
        let top = (2 * self.levels - 1) as f32;
        let (mut scale, mut best) = (reach / top, 0.0);
        let mut rounded = vec![true; points.len()];
        let mut tried = vec![(0, true); points.len()];
        for stretch in candidates {
            let inverse = (top + stretch) / reach;
            for ((tried, x), roots) in tried.iter_mut().zip(x_points).zip(roots) {
                *tried = self.choose(x, roots, inverse, 1.0 / inverse);
            }
            let indices: Vec<u16> = tried.iter().map(|&(index, _)| index).collect();
            let (xq, qq) = self.sums(x, w, &indices);
            if qq > 0.0 && xq * xq > best * qq {
                scale = xq / qq;
                best = scale * xq;
                points.copy_from_slice(&indices);
                for (rounded, &(_, tried)) in rounded.iter_mut().zip(&tried) {
                    *rounded = tried;
                }
            }
        }
        if scale > 0.0 && rounded.contains(&false) {
            for (i, _) in rounded.iter().enumerate().filter(|&(_, &rounded)| !rounded) {
                (points[i], _) = self.choose(&x_points[i], &roots[i], 1.0 / scale, scale);
            }
            let (xq, qq) = self.sums(x, w, points);
            if qq > 0.0 {
                scale = xq / qq;
            }
        }
        scale
    }
}

fn odd(level: u8) -> f32 {
    f32::from(2 * level + 1)
}

/// Levels of the 2-bit magnitudes 8, 25, 43, which stand for 1, 3, 5 (times 8, and a little apart from it).
fn two_bit_levels(point: &u64) -> [u8; 8] {
    point.to_le_bytes().map(|magnitude| magnitude / 17)
}

/// Levels 0, 1, 2 for -1, 0, 1.
pub(super) static IQ1: LazyLock<Lattice<8>> = LazyLock::new(|| {
    Lattice::new(unpack::IQ1_GRID.iter().map(|point| point.to_le_bytes().map(|value| value.wrapping_add(1))), 3, 3)
});
pub(super) static IQ2_XXS: LazyLock<Lattice<8>> =
    LazyLock::new(|| Lattice::new(unpack::IQ2_XXS_GRID.iter().map(two_bit_levels), 3, 2));
pub(super) static IQ2_XS: LazyLock<Lattice<8>> =
    LazyLock::new(|| Lattice::new(unpack::IQ2_XS_GRID.iter().map(two_bit_levels), 3, 2));
pub(super) static IQ2_S: LazyLock<Lattice<8>> =
    LazyLock::new(|| Lattice::new(unpack::IQ2_S_GRID.iter().map(two_bit_levels), 3, 1));
pub(super) static IQ3_XXS: LazyLock<Lattice<4>> =
    LazyLock::new(|| Lattice::new(unpack::IQ3_XXS_GRID.iter().map(|point| point.to_le_bytes().map(|m| m / 8)), 8, 2));
pub(super) static IQ3_S: LazyLock<Lattice<4>> =
    LazyLock::new(|| Lattice::new(unpack::IQ3_S_GRID.iter().map(|point| point.to_le_bytes().map(|m| m / 2)), 8, 3));
