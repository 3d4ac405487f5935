//! Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1: 32 elements, one scale, perhaps an offset.

use super::{Unpack, Unpacked};
use crate::blocks::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, BlockQ8_1};
use half::f16;

/// The nibbles of 16 bytes, low ones first.
pub(super) fn nibbles(qs: &[u8], out: &mut [i8], value: impl Fn(u8) -> i8) {
    let (low, high) = out.split_at_mut(qs.len());
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(qs) {
        *low = value(byte & 15);
        *high = value(byte >> 4);
    }
}

/// As [`nibbles`], with bit `j` of `qh` as the fifth bit of element `j`.
fn five_bits(qs: &[u8; 16], qh: [u8; 4], out: &mut [i8], value: impl Fn(u8) -> i8) {
    nibbles(qs, out, |q| q as i8);
    let qh = u32::from_le_bytes(qh);
    for (j, q) in out.iter_mut().enumerate() {
        *q = value(*q as u8 | ((qh >> j & 1) as u8) << 4);
    }
}

impl Unpacked {
    /// A block with one scale and no offset.
    pub(super) fn one_scale(&mut self, d: f32) {
        self.d = d;
        self.scales = [1; 16];
    }

    /// A block with one scale `d` and one offset `m`, added.
    fn one_offset(&mut self, d: f16, m: f16) {
        self.one_scale(d.to_f32());
        self.dmin = -m.to_f32();
        self.mins[0] = 1;
    }
}

impl Unpack for BlockQ4_0 {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(self.d.to_f32());
        nibbles(&self.qs, &mut out.q[..32], |q| q as i8 - 8);
    }
}

impl Unpack for BlockQ4_1 {
    const GROUP: usize = 32;
    const HAS_MINS: bool = true;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_offset(self.d, self.m);
        nibbles(&self.qs, &mut out.q[..32], |q| q as i8);
    }
}

impl Unpack for BlockQ5_0 {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(self.d.to_f32());
        five_bits(&self.qs, self.qh, &mut out.q[..32], |q| q as i8 - 16);
    }
}

impl Unpack for BlockQ5_1 {
    const GROUP: usize = 32;
    const HAS_MINS: bool = true;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_offset(self.d, self.m);
        five_bits(&self.qs, self.qh, &mut out.q[..32], |q| q as i8);
    }
}

impl Unpack for BlockQ8_0 {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(self.d.to_f32());
        out.q[..32].copy_from_slice(&self.qs);
    }
}

impl Unpack for BlockQ8_1 {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(self.d.to_f32());
        out.q[..32].copy_from_slice(&self.qs);
    }
}
