//! MXFP4 and NVFP4.

use super::{extreme, pack_nibbles};
use crate::blocks::{BlockMXFP4, BlockNVFP4};
use crate::unpack::{FP4_VALUES, e8m0_half, ue4m3_half};

/// The code whose value times `d` is nearest to `x`; the first of equals.
fn nearest_code(x: f32, d: f32) -> u8 {
    let (mut best, mut least) = (0, f32::MAX);
    for (code, &value) in FP4_VALUES.iter().enumerate() {
        let error = (f32::from(value) * d - x).abs();
        if error < least {
            (best, least) = (code as u8, error);
        }
    }
    best
}

pub(super) fn mxfp4(x: &[f32; 32]) -> BlockMXFP4 {
    let max = extreme(x).abs();
    // The largest value, 6, has exponent 2. A float-to-int cast saturates.
    let e = if max > 0.0 { (max.log2().floor() - 2.0 + 127.0) as u8 } else { 0 };
    let d = e8m0_half(e);
    let mut qs = [0; 16];
    pack_nibbles(&x.map(|x| nearest_code(x, d)), &mut qs);
    BlockMXFP4 { e, qs }
}

/// The unsigned E4M3 code of a scale: rounded on the fourth mantissa bit, at most 448.
fn to_ue4m3(x: f32) -> u8 {
    const LARGEST: u8 = 0x7e;
    if !(x > 0.0) {
        return 0;
    }
    let bits = x.min(448.0).to_bits();
    let exponent = (bits >> 23) as i32 - 127 + 7;
    if exponent <= 0 {
        return ((x * 512.0 + 0.5) as u8).min(7);
    }
    // A carry out of the mantissa rightly raises the exponent.
    let code = ((exponent << 3) as u32 | bits >> 20 & 7) + (bits >> 19 & 1);
    code.min(LARGEST.into()) as u8
}

pub(super) fn nvfp4(x: &[f32; 64]) -> BlockNVFP4 {
    let mut block = BlockNVFP4 { d: [0; 4], qs: [0; 32] };
    for (g, x) in x.as_chunks::<16>().0.iter().enumerate() {
        block.d[g] = to_ue4m3(extreme(x).abs() / 6.0);
        let d = ue4m3_half(block.d[g]);
        pack_nibbles(&x.map(|x| nearest_code(x, d)), &mut block.qs[8 * g..][..8]);
    }
    block
}
