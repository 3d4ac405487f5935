//! MXFP4 and NVFP4: four-bit floats (E2M1) with FP8 scales.

use super::{Unpack, Unpacked, legacy::nibbles};
use crate::blocks::{BlockMXFP4, BlockNVFP4};

/// Twice the value of each E2M1 code. The scales below are halved in return.
pub static FP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of an E8M0 scale: `2^(e - 128)` (OCP Microscaling Formats 1.0, but 255 is `2^127`, not NaN).
pub fn e8m0_half(e: u8) -> f32 {
    match e {
        0 | 1 => f32::from_bits(0x0020_0000 << e),
        _ => f32::from_bits(u32::from(e - 1) << 23),
    }
}

/// Half of an unsigned E4M3 scale (bias 7), as a multiple of `2^-10`. 127 is NaN in E4M3 and 0 here, as in ggml; the top
/// bit is not used.
fn ue4m3_units(e4m3: u8) -> i32 {
    let (exponent, mantissa) = (e4m3 >> 3 & 15, i32::from(e4m3 & 7));
    match exponent {
        _ if e4m3 == 127 => 0,
        0 => mantissa,
        _ => (8 + mantissa) << (exponent - 1),
    }
}

/// Half of an unsigned E4M3 scale.
pub fn ue4m3_half(e4m3: u8) -> f32 {
    ue4m3_units(e4m3) as f32 / 1024.0
}

impl Unpack for BlockMXFP4 {
    const GROUP: usize = 32;
    fn unpack(&self, out: &mut Unpacked) {
        out.one_scale(e8m0_half(self.e));
        nibbles(&self.qs, &mut out.q[..32], |q| FP4_VALUES[usize::from(q)]);
    }
}

impl Unpack for BlockNVFP4 {
    const GROUP: usize = 16;
    fn unpack(&self, out: &mut Unpacked) {
        out.d = 1.0 / 1024.0;
        for (g, q) in out.q[..64].chunks_exact_mut(16).enumerate() {
            out.scales[g] = ue4m3_units(self.d[g]);
            nibbles(&self.qs[8 * g..][..8], q, |q| FP4_VALUES[usize::from(q)]);
        }
    }
}
