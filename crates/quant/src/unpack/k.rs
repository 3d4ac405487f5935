//! The K types: super-blocks of 256 elements, a 4- to 8-bit scale per group of 16 or 32.

use super::{Unpack, Unpacked};
use crate::blocks::{BlockQ2_K, BlockQ3_K, BlockQ4_K, BlockQ5_K, BlockQ6_K, BlockQ8_K};

/// The eight 6-bit scales and mins of a Q4_K or Q5_K block: those of groups 0..4 lie in the low six bits of bytes 0..4
/// (scales) and 4..8 (mins); groups 4..8 have their low four bits in bytes 8..12 and the high two above the former.
pub fn unpack_scales_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = packed[j + 8] & 15 | packed[j] >> 6 << 4;
        mins[j + 4] = packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4;
    }
    (scales, mins)
}

/// The sixteen 6-bit scales of a Q3_K block, 32 subtracted: low nibbles of bytes 0..8, high nibbles of bytes 0..8, and in
/// byte `8 + j % 4`, bits `2 (j / 4)` and up, the high two bits of scale `j`.
pub fn unpack_scales_q3(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|j| {
        let low = packed[j % 8] >> (4 * (j / 8)) & 15;
        let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
        (low | high << 4) as i8 - 32
    })
}

/// 2-bit quants: byte `32 h + l` holds elements `128 h + 32 s + l` in bits `2 s` and up.
pub(super) fn two_bits(qs: &[u8; 64], q: &mut [i8; 256]) {
    for (qs, q) in qs.chunks_exact(32).zip(q.chunks_exact_mut(128)) {
        for (shift, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, &byte) in q.iter_mut().zip(qs) {
                *q = (byte >> (2 * shift) & 3) as i8;
            }
        }
    }
}

/// 4-bit quants of eight groups of 32: 32 bytes for two groups, the first in the low nibbles.
fn four_bits(qs: &[u8; 128], q: &mut [i8; 256]) {
    for (qs, q) in qs.chunks_exact(32).zip(q.chunks_exact_mut(64)) {
        super::legacy::nibbles(qs, q, |q| q as i8);
    }
}

fn set_scales_mins(packed: &[u8; 12], out: &mut Unpacked) {
    let (scales, mins) = unpack_scales_mins(packed);
    for g in 0..8 {
        out.scales[g] = i32::from(scales[g]);
        out.mins[g] = i32::from(mins[g]);
    }
}

impl Unpack for BlockQ2_K {
    const GROUP: usize = 16;
    const HAS_MINS: bool = true;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32();
        out.dmin = self.dmin.to_f32();
        out.scales = self.scales.map(|s| i32::from(s & 15));
        out.mins = self.scales.map(|s| i32::from(s >> 4));
        two_bits(&self.qs, &mut out.q);
    }
}

impl Unpack for BlockQ3_K {
    const GROUP: usize = 16;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32();
        out.scales = unpack_scales_q3(&self.scales).map(i32::from);
        two_bits(&self.qs, &mut out.q);
        for (bit, q) in out.q.chunks_exact_mut(32).enumerate() {
            for (q, &mask) in q.iter_mut().zip(&self.hmask) {
                *q += ((mask >> bit & 1) << 2) as i8 - 4;
            }
        }
    }
}

impl Unpack for BlockQ4_K {
    const GROUP: usize = 32;
    const HAS_MINS: bool = true;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32();
        out.dmin = self.dmin.to_f32();
        set_scales_mins(&self.scales, out);
        four_bits(&self.qs, &mut out.q);
    }
}

impl Unpack for BlockQ5_K {
    const GROUP: usize = 32;
    const HAS_MINS: bool = true;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32();
        out.dmin = self.dmin.to_f32();
        set_scales_mins(&self.scales, out);
        four_bits(&self.qs, &mut out.q);
        for (bit, q) in out.q.chunks_exact_mut(32).enumerate() {
            for (q, &high) in q.iter_mut().zip(&self.qh) {
                *q |= ((high >> bit & 1) << 4) as i8;
            }
        }
    }
}

impl Unpack for BlockQ6_K {
    const GROUP: usize = 16;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = self.d.to_f32();
        out.scales = self.scales.map(i32::from);
        for (half, q) in out.q.chunks_exact_mut(128).enumerate() {
            super::legacy::nibbles(&self.ql[64 * half..][..64], q, |q| q as i8);
            for (shift, q) in q.chunks_exact_mut(32).enumerate() {
                for (q, &high) in q.iter_mut().zip(&self.qh[32 * half..][..32]) {
                    *q = (*q | ((high >> (2 * shift) & 3) << 4) as i8) - 32;
                }
            }
        }
    }
}

impl Unpack for BlockQ8_K {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(self.d);
        out.q = self.qs;
    }
}
