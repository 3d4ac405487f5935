//! The IQ types: points of a lattice with signs, or nibbles into a table.

use super::grids::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID, SIGNS};
use super::{Unpack, Unpacked, legacy::nibbles};
use crate::blocks::{
    BlockIQ1_M, BlockIQ1_S, BlockIQ2_S, BlockIQ2_XS, BlockIQ2_XXS, BlockIQ3_S, BlockIQ3_XXS, BlockIQ4_NL, BlockIQ4_XS,
};
use half::f16;

/// The 16 values that IQ4_NL and IQ4_XS nibbles stand for.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Magnitudes with the signs applied, bit `j` of `signs` for element `j`.
fn signed(magnitudes: &[u8], signs: u8, q: &mut [i8]) {
    for (j, (q, &magnitude)) in q.iter_mut().zip(magnitudes).enumerate() {
        *q = if signs >> j & 1 == 1 { -(magnitude as i8) } else { magnitude as i8 };
    }
}

/// The stored 4-bit scales `s` of the 2-bit types and IQ3_XXS stand for `s + 1/2`: twice that, as an integer.
fn odd(scale: u8) -> i32 {
    2 * i32::from(scale) + 1
}

/// Scales of 16 groups from 8 bytes, low nibble first.
fn nibble_scales(scales: &[u8; 8]) -> [i32; 16] {
    std::array::from_fn(|g| odd(scales[g / 2] >> (4 * (g % 2)) & 15))
}

impl Unpack for BlockIQ2_XXS {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32() * 0.125;
        for (g, (qs, q)) in self.qs.chunks_exact(4).zip(out.q.chunks_exact_mut(32)).enumerate() {
            let tail = u32::from(qs[2]) | u32::from(qs[3]) << 16;
            out.scales[g] = odd((tail >> 28) as u8);
            for (i, q) in q.chunks_exact_mut(8).enumerate() {
                let index = qs[i / 2] >> (8 * (i % 2)) & 255;
                let signs = SIGNS[(tail >> (7 * i) & 127) as usize];
                signed(&IQ2_XXS_GRID[index as usize].to_le_bytes(), signs, q);
            }
        }
    }
}

impl Unpack for BlockIQ2_XS {
    const GROUP: usize = 16;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32() * 0.125;
        out.scales = nibble_scales(&self.scales);
        for (q, point) in out.q.chunks_exact_mut(8).zip(self.qs) {
            let magnitudes = IQ2_XS_GRID[usize::from(point & 511)].to_le_bytes();
            signed(&magnitudes, SIGNS[usize::from(point >> 9)], q);
        }
    }
}

impl Unpack for BlockIQ2_S {
    const GROUP: usize = 16;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32() * 0.125;
        out.scales = nibble_scales(&self.scales);
        for (i, q) in out.q.chunks_exact_mut(8).enumerate() {
            let high = self.qh[i / 4] >> (2 * (i % 4)) & 3;
            let index = usize::from(self.qs[i]) | usize::from(high) << 8;
            signed(&IQ2_S_GRID[index].to_le_bytes(), self.qs[32 + i], q);
        }
    }
}

impl Unpack for BlockIQ3_XXS {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32() * 0.25;
        let (points, tails) = self.qs.split_at(64);
        for (g, q) in out.q.chunks_exact_mut(32).enumerate() {
            let tail = &tails[4 * g..];
            let tail = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
            out.scales[g] = odd((tail >> 28) as u8);
            for (i, q) in q.chunks_exact_mut(8).enumerate() {
                let signs = SIGNS[(tail >> (7 * i) & 127) as usize];
                for (half, q) in q.chunks_exact_mut(4).enumerate() {
                    let point = IQ3_XXS_GRID[usize::from(points[8 * g + 2 * i + half])];
                    signed(&point.to_le_bytes(), signs >> (4 * half), q);
                }
            }
        }
    }
}

impl Unpack for BlockIQ3_S {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32();
        for g in 0..8 {
            out.scales[g] = odd(self.scales[g / 2] >> (4 * (g % 2)) & 15);
        }
        for (i, q) in out.q.chunks_exact_mut(4).enumerate() {
            let high = self.qh[i / 8] >> (i % 8) & 1;
            let point = IQ3_S_GRID[usize::from(self.qs[i]) | usize::from(high) << 8];
            signed(&point.to_le_bytes(), self.signs[i / 2] >> (4 * (i % 2)), q);
        }
    }
}

/// IQ1 values are `grid +- 1/8`; in eighths that is `8 grid +- 1`.
fn eighths(index: usize, negative: bool, q: &mut [i8]) {
    let delta = if negative { -1 } else { 1 };
    for (q, value) in q.iter_mut().zip(IQ1_GRID[index].to_le_bytes()) {
        *q = 8 * value as i8 + delta;
    }
}

impl Unpack for BlockIQ1_S {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32() * 0.125;
        for (g, q) in out.q.chunks_exact_mut(32).enumerate() {
            let qh = self.qh[g];
            out.scales[g] = odd((qh >> 12 & 7) as u8);
            for (i, q) in q.chunks_exact_mut(8).enumerate() {
                let index = usize::from(self.qs[4 * g + i]) | usize::from(qh >> (3 * i) & 7) << 8;
                eighths(index, qh >> 15 == 1, q);
            }
        }
    }
}

/// The super-scale of an IQ1_M block: the top nibbles of its four 16-bit scale words, the first word lowest.
pub fn iq1m_scale(scales: &[u8; 8]) -> f16 {
    let nibble = |i: usize| u16::from(scales[2 * i + 1] >> 4) << (4 * i);
    f16::from_bits(nibble(0) | nibble(1) | nibble(2) | nibble(3))
}

impl Unpack for BlockIQ1_M {
    const GROUP: usize = 16;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = iq1m_scale(&self.scales).to_f32() * 0.125;
        for g in 0..16 {
            let word = &self.scales[2 * (g / 4)..];
            let word = u16::from_le_bytes([word[0], word[1]]);
            out.scales[g] = odd((word >> (3 * (g % 4)) & 7) as u8);
        }
        for (i, q) in out.q.chunks_exact_mut(8).enumerate() {
            let high = self.qh[i / 2] >> (4 * (i % 2)) & 15;
            eighths(usize::from(self.qs[i]) | usize::from(high & 7) << 8, high >> 3 == 1, q);
        }
    }
}

impl Unpack for BlockIQ4_NL {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(self.d.to_f32());
        nibbles(&self.qs, &mut out.q[..32], |q| IQ4_VALUES[usize::from(q)]);
    }
}

impl Unpack for BlockIQ4_XS {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32();
        for (g, q) in out.q.chunks_exact_mut(32).enumerate() {
            let low = self.scales_l[g / 2] >> (4 * (g % 2)) & 15;
            let high = (self.scales_h >> (2 * g) & 3) as u8;
            out.scales[g] = i32::from(low | high << 4) - 32;
            nibbles(&self.qs[16 * g..][..16], q, |q| IQ4_VALUES[usize::from(q)]);
        }
    }
}
