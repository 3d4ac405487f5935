//! TQ1_0, TQ2_0, Q1_0, Q2_0: one scale for many elements of one to two bits.

use super::{Unpack, Unpacked, k::two_bits};
use crate::blocks::{BlockQ1_0, BlockQ2_0, BlockTQ1_0, BlockTQ2_0};

/// Digit `n` of a byte that holds five base-3 digits as a fraction `byte / 256`, the most significant first.
pub(crate) fn base3_digit(byte: u8, n: usize) -> u8 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    ((u16::from(byte.wrapping_mul(POWERS[n])) * 3) >> 8) as u8
}

impl Unpack for BlockTQ1_0 {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(self.d.to_f32());
        let (first, rest) = out.q.split_at_mut(160);
        let (second, third) = rest.split_at_mut(80);
        for (bytes, q) in [(&self.qs[..32], first), (&self.qs[32..], second), (&self.qh[..], third)] {
            for (n, q) in q.chunks_exact_mut(bytes.len()).enumerate() {
                for (q, &byte) in q.iter_mut().zip(bytes) {
                    *q = base3_digit(byte, n) as i8 - 1;
                }
            }
        }
    }
}

impl Unpack for BlockTQ2_0 {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(self.d.to_f32());
        two_bits(&self.qs, &mut out.q);
        for q in &mut out.q {
            *q -= 1;
        }
    }
}

impl Unpack for BlockQ1_0 {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(self.d.to_f32());
        for (j, q) in out.q[..128].iter_mut().enumerate() {
            *q = if self.qs[j / 8] >> (j % 8) & 1 == 1 { 1 } else { -1 };
        }
    }
}

impl Unpack for BlockQ2_0 {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(self.d.to_f32());
        for (j, q) in out.q[..64].iter_mut().enumerate() {
            *q = (self.qs[j / 4] >> (2 * (j % 4)) & 3) as i8 - 1;
        }
    }
}
