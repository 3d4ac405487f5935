//! IQ2 and IQ3: magnitudes on a lattice, signs apart, a 4-bit scale per group.

use super::lattice::{IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, Lattice};
use super::search::{TINY, nearest, positive_scale};
use crate::blocks::{BlockIQ2_S, BlockIQ2_XS, BlockIQ2_XXS, BlockIQ3_S, BlockIQ3_XXS};
use half::f16;

type Row = [f32; 256];

/// A super-block before it is packed.
struct Groups {
    d: f16,
    /// Per group, 0..16; it stands for `2 s + 1`.
    scales: [u8; 16],
    /// Sign bits of 8 elements.
    signs: [u8; 32],
    /// Lattice points.
    points: [u16; 64],
}

struct Search<'a, const D: usize> {
    lattice: &'a Lattice<D>,
    /// Elements that share a scale.
    group: usize,
    /// Only seven signs of eight are stored: the number of negative ones is even.
    even_signs: bool,
    /// Candidates on either side, and the stretch of one.
    steps: i32,
    step: f32,
    /// Share of the super-block's variance in the weights without importance (`share * variance + x²`).
    plain_share: f32,
    /// A correction of the super-scale: the magnitudes are not quite multiples of the smallest.
    d_factor: f32,
    /// Stretch what a scale for levels 0..=4 reaches, not the largest magnitude.
    reach_by_fit: bool,
}

impl<const D: usize> Search<'_, D> {
    fn quantize(&self, x: &Row, importance: Option<&Row>) -> Groups {
        let mut groups = Groups { d: f16::ZERO, scales: [0; 16], signs: [0; 32], points: [0; 64] };
        let mut scales = [0.0; 16];
        let variance = 2.0 * x.iter().fold(0.0, |sum, x| sum + x * x) / 256.0;
        for (g, x) in x.chunks_exact(self.group).enumerate() {
            let start = g * self.group;
            let weight = |(j, &x): (usize, &f32)| match importance {
                Some(importance) => importance[start + j] * (variance + x * x).sqrt(),
                None => self.plain_share * variance + x * x,
            };
            let weights: Vec<f32> = x.iter().enumerate().map(weight).collect();
            let signs = &mut groups.signs[start / 8..][..self.group / 8];
            let points = &mut groups.points[start / D..][..self.group / D];
            scales[g] = self.fit(x, &weights, signs, points);
        }
        let max = scales.iter().fold(0.0, |max: f32, &scale| max.max(scale));
        if max > 0.0 {
            let d = max / 31.0;
            groups.d = f16::from_f32(d * self.d_factor);
            let inverse = 1.0 / d;
            groups.scales = scales.map(|scale| nearest(0.5 * (inverse * scale - 1.0)).clamp(0, 15) as u8);
        }
        groups
    }

    /// The scale of one group.
    fn fit(&self, x: &[f32], w: &[f32], signs: &mut [u8], points: &mut [u16]) -> f32 {
        let mut magnitudes: Vec<f32> = x.iter().map(|x| x.abs()).collect();
        for (i, signs) in signs.iter_mut().enumerate() {
            let range = 8 * i..8 * i + 8;
            *signs = x[range.clone()].iter().rev().fold(0, |bits, &x| bits << 1 | u8::from(x < 0.0));
            if self.even_signs && signs.count_ones() % 2 == 1 {
                let cost = |j: &usize| w[8 * i + j] * x[8 * i + j] * x[8 * i + j];
                let cheapest = (0..8).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(0);
                magnitudes[range.start + cheapest] *= -1.0;
                *signs ^= 1 << cheapest;
            }
        }
        let mut reach = magnitudes.iter().fold(0.0, |max: f32, &x| max.max(x));
        if !(reach >= TINY) {
            return 0.0;
        }
        if self.reach_by_fit {
            let mut levels = [0; 32];
            reach = 3.0 * positive_scale(&magnitudes, w, 4, &mut levels[..x.len()]);
            if !(reach > 0.0) {
                return 0.0;
            }
        }
        let candidates = (-self.steps..=self.steps).map(|i| i as f32 * self.step);
        let scale = self.lattice.fit(&magnitudes, w, reach, candidates, points);
        if scale < 0.0 {
            for signs in signs {
                *signs = !*signs;
            }
        }
        scale.abs()
    }
}

/// Four 7-bit sign indices and the scale of 32 elements.
fn tail(groups: &Groups, g: usize) -> u32 {
    let signs = (0..4).fold(0, |bits, i| bits | u32::from(groups.signs[4 * g + i] & 127) << (7 * i));
    signs | u32::from(groups.scales[g]) << 28
}

fn nibble_scales<const N: usize>(groups: &Groups) -> [u8; N] {
    std::array::from_fn(|i| groups.scales[2 * i] | groups.scales[2 * i + 1] << 4)
}

pub(super) fn iq2_xxs(x: &Row, importance: &Row) -> BlockIQ2_XXS {
    let search = Search {
        lattice: &IQ2_XXS,
        group: 32,
        even_signs: true,
        steps: 6,
        step: 0.1,
        plain_share: 0.0,
        d_factor: 1.0,
        reach_by_fit: true,
    };
    let groups = search.quantize(x, Some(importance));
    let pair = |i: usize| groups.points[i] | groups.points[i + 1] << 8;
    let qs = std::array::from_fn(|i| match i % 4 {
        half @ (0 | 1) => pair(i / 4 * 4 + 2 * half),
        half => (tail(&groups, i / 4) >> (16 * (half - 2))) as u16,
    });
    BlockIQ2_XXS { d: groups.d, qs }
}

pub(super) fn iq2_xs(x: &Row, importance: &Row) -> BlockIQ2_XS {
    let search = Search {
        lattice: &IQ2_XS,
        group: 16,
        even_signs: true,
        steps: 9,
        step: 0.1,
        plain_share: 0.0,
        d_factor: 1.0,
        reach_by_fit: false,
    };
    let groups = search.quantize(x, Some(importance));
    let qs = std::array::from_fn(|i| groups.points[i] | u16::from(groups.signs[i] & 127) << 9);
    BlockIQ2_XS { d: groups.d, qs, scales: nibble_scales(&groups) }
}

pub(super) fn iq2_s(x: &Row, importance: Option<&Row>) -> BlockIQ2_S {
    let search = Search {
        lattice: &IQ2_S,
        group: 16,
        even_signs: false,
        steps: 9,
        step: 0.1,
        plain_share: 0.25,
        d_factor: 0.9875,
        reach_by_fit: false,
    };
    let groups = search.quantize(x, importance);
    let mut block = BlockIQ2_S { d: groups.d, qs: [0; 64], qh: [0; 8], scales: nibble_scales(&groups) };
    for (i, &point) in groups.points[..32].iter().enumerate() {
        block.qs[i] = point as u8;
        block.qh[i / 4] |= ((point >> 8) as u8) << (2 * (i % 4));
    }
    block.qs[32..].copy_from_slice(&groups.signs);
    block
}

pub(super) fn iq3_xxs(x: &Row, importance: Option<&Row>) -> BlockIQ3_XXS {
    let search = Search {
        lattice: &IQ3_XXS,
        group: 32,
        even_signs: true,
        steps: 15,
        step: 0.2,
        plain_share: 0.0,
        d_factor: 1.0125,
        reach_by_fit: false,
    };
    let groups = search.quantize(x, importance);
    let qs = std::array::from_fn(|i| match i.checked_sub(64) {
        None => groups.points[i] as u8,
        Some(i) => tail(&groups, i / 4).to_le_bytes()[i % 4],
    });
    BlockIQ3_XXS { d: groups.d, qs }
}

pub(super) fn iq3_s(x: &Row, importance: Option<&Row>) -> BlockIQ3_S {
    let search = Search {
        lattice: &IQ3_S,
        group: 32,
        even_signs: false,
        steps: 9,
        step: 0.2,
        plain_share: 0.0,
        d_factor: 1.033,
        reach_by_fit: false,
    };
    let groups = search.quantize(x, importance);
    let mut block = BlockIQ3_S {
        d: groups.d,
        qs: groups.points.map(|point| point as u8),
        qh: [0; 8],
        signs: groups.signs,
        scales: nibble_scales(&groups),
    };
    for (i, point) in groups.points.iter().enumerate() {
        block.qh[i / 8] |= ((point >> 8) as u8) << (i % 8);
    }
    block
}
