//! The bytes of one block of every block-quantized ggml type (formats: ggml-common.h and gguf-py's quants.py).
//!
//! A row is an array of blocks without padding, little-endian. Where a nibble array covers 32 elements, the low nibbles
//! are elements 0..16 and the high nibbles 16..32; the K types work in groups of 64 (low nibbles 0..32, high 32..64) or
//! 128. Rows taken from a mapped file may lie at any address: read a block with `bytemuck::pod_read_unaligned`, or cast
//! a slice after checking its alignment.

use crate::GgmlType;
use bytemuck::{Pod, Zeroable};
use half::f16;

/// Elements in a super-block of the K and IQ types.
pub const QK_K: usize = 256;

/// A block struct and the ggml type whose rows are made of it.
pub trait Block: Pod {
    /// The type stored in blocks of this layout.
    const TYPE: GgmlType;
}

macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident: $ty:ident = $size:literal { $($(#[$field_doc:meta])* $field:ident: $field_ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $field_ty,)*
            }

            impl Block for $name {
                const TYPE: GgmlType = GgmlType::$ty;
            }

            const _: () = assert!(size_of::<$name>() == $size && $size == GgmlType::$ty.type_size());
        )*
    };
}

blocks! {
    /// 32 x 4 bit: `d * (q - 8)`.
    BlockQ4_0: Q4_0 = 18 { d: f16, qs: [u8; 16], }
    /// 32 x 4 bit: `d * q + m`.
    BlockQ4_1: Q4_1 = 20 { d: f16, m: f16, qs: [u8; 16], }
    /// 32 x 5 bit: `d * (q - 16)`; bit j of `qh` (little-endian u32) is the fifth bit of element j.
    BlockQ5_0: Q5_0 = 22 { d: f16, qh: [u8; 4], qs: [u8; 16], }
    /// 32 x 5 bit: `d * q + m`; `qh` as in Q5_0.
    BlockQ5_1: Q5_1 = 24 { d: f16, m: f16, qh: [u8; 4], qs: [u8; 16], }
    /// 32 x 8 bit: `d * q`.
    BlockQ8_0: Q8_0 = 34 { d: f16, qs: [i8; 32], }
    /// Activations, 32 x 8 bit: `d * q`, with `s = d * sum(q)`.
    BlockQ8_1: Q8_1 = 36 { d: f16, s: f16, qs: [i8; 32], }

    /// 16 groups of 16 x 2 bit: `d * (scale & 15) * q - dmin * (scale >> 4)`.
    BlockQ2_K: Q2_K = 84 { scales: [u8; 16], qs: [u8; 64], d: f16, dmin: f16, }
    /// 16 groups of 16 x 3 bit: `d * (scale - 32) * (q - 4)`; a set bit in `hmask` means "do not subtract 4".
    BlockQ3_K: Q3_K = 110 { hmask: [u8; 32], qs: [u8; 64], /** 6-bit scales, see `unpack_scales_q3`. */ scales: [u8; 12], d: f16, }
    /// 8 groups of 32 x 4 bit: `d * scale * q - dmin * min`.
    BlockQ4_K: Q4_K = 144 { d: f16, dmin: f16, /** 6-bit scales and mins, see `unpack_scales_mins`. */ scales: [u8; 12], qs: [u8; 128], }
    /// 8 groups of 32 x 5 bit, as Q4_K; bit g of `qh[l]` is the fifth bit of element `32 g + l`.
    BlockQ5_K: Q5_K = 176 { d: f16, dmin: f16, scales: [u8; 12], qh: [u8; 32], qs: [u8; 128], }
    /// 16 groups of 16 x 6 bit: `d * scale * (q - 32)`.
    BlockQ6_K: Q6_K = 210 { ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16, }
    /// Activations, 256 x 8 bit: `d * q`; `bsums[i]` is the sum of quants `16 i .. 16 i + 16`.
    BlockQ8_K: Q8_K = 292 { d: f32, qs: [i8; 256], bsums: [i16; 16], }

    /// Per 32 elements 8 bytes: four grid indices, then a u32 with four 7-bit sign indices and a 4-bit scale.
    BlockIQ2_XXS: IQ2_XXS = 66 { d: f16, qs: [u16; 32], }
    /// Per 8 elements a u16 (9-bit grid index, 7-bit sign index); a 4-bit scale per 16.
    BlockIQ2_XS: IQ2_XS = 74 { d: f16, qs: [u16; 32], scales: [u8; 8], }
    /// `qs[..32]` low grid index bits, `qs[32..]` sign bits, `qh` two high index bits each; a 4-bit scale per 16.
    BlockIQ2_S: IQ2_S = 82 { d: f16, qs: [u8; 64], qh: [u8; 8], scales: [u8; 8], }
    /// `qs[..64]` grid indices (4 elements each), then per 32 elements a u32 (four 7-bit sign indices, 4-bit scale).
    BlockIQ3_XXS: IQ3_XXS = 98 { d: f16, qs: [u8; 96], }
    /// `qs` low grid index bits (4 elements each), `qh` the ninth bits, `signs` one bit per element, a 4-bit scale per 32.
    BlockIQ3_S: IQ3_S = 110 { d: f16, qs: [u8; 64], qh: [u8; 8], signs: [u8; 32], scales: [u8; 4], }
    /// Per 32 elements a `qh`: four 3-bit high index parts, 3-bit scale, sign of the delta (bit 15).
    BlockIQ1_S: IQ1_S = 50 { d: f16, qs: [u8; 32], qh: [u16; 8], }
    /// As IQ1_S with scale and delta per 16 and 8 elements; the f16 super-scale hides in the top nibbles of `scales`.
    BlockIQ1_M: IQ1_M = 56 { qs: [u8; 32], qh: [u8; 16], scales: [u8; 8], }
    /// 32 x 4 bit into a table of 16 values: `d * IQ4_VALUES[q]`.
    BlockIQ4_NL: IQ4_NL = 18 { d: f16, qs: [u8; 16], }
    /// 8 groups of IQ4_NL nibbles with 6-bit scales (four low bits in `scales_l`, two high bits in `scales_h`).
    BlockIQ4_XS: IQ4_XS = 136 { d: f16, scales_h: u16, scales_l: [u8; 4], qs: [u8; 128], }

    /// Ternary, five values per byte in `qs`, four in `qh`, as base-3 fractions.
    BlockTQ1_0: TQ1_0 = 54 { qs: [u8; 48], qh: [u8; 4], d: f16, }
    /// Ternary, two bits each: `d * (q - 1)`.
    BlockTQ2_0: TQ2_0 = 66 { qs: [u8; 64], d: f16, }

    /// OCP MX: 32 x FP4 (E2M1) with a power-of-two scale (E8M0).
    BlockMXFP4: MXFP4 = 17 { e: u8, qs: [u8; 16], }
    /// 64 x FP4 (E2M1), one FP8 scale (unsigned E4M3) per 16.
    BlockNVFP4: NVFP4 = 36 { d: [u8; 4], qs: [u8; 32], }

    /// 128 x 1 bit: `d` where the bit is set, else `-d`.
    BlockQ1_0: Q1_0 = 18 { d: f16, qs: [u8; 16], }
    /// 64 x 2 bit: `d * (q - 1)`.
    BlockQ2_0: Q2_0 = 18 { d: f16, qs: [u8; 16], }
}
