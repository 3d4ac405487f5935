//! Products of packed weights with activations rounded to 8 bits.
//!
//! Weights come in blocks. A *wide* block has 256 values in 16 groups with integer scales, and its activations one scale
//! for all 256 (llama.cpp's Q8_K); a *narrow* block has 32 values and one scale, as do its activations (Q8_0). Inside a
//! block everything is integer, so that sums are exact in any order; blocks are added in f32, from first to last:
//!
//! ```text
//! wide:   sum = sum + (d_w * d_a) * f32(Σ_g scale_g * Σ_{j in g} w_j * a_j) - (dmin_w * d_a) * f32(Σ_g min_g * Σ_{j in g} a_j)
//! narrow: sum = sum + (d_w * d_a) * f32(Σ_j w_j * a_j) - dmin_w * sum_a
//! ```
//!
//! Every kernel computes exactly this, with no operation fused: they all give the same bits.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod activations;
mod lanes;
mod limit;
mod panel;
mod panel_dot;
mod portable;
mod super_scales;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::{Simd, SimdLevel};
pub use activations::{Inputs, NarrowBlock, Prepared, Row, WideBlock};
pub use panel::{Lanes32, PANEL_ROWS, PANEL_VALUES, Panel, Stripe};
use quant::GgmlType;

/// Rows of weights that [`Simd::dot_rows`] takes at a time.
pub const ROWS: usize = 32;
/// Values in a wide and in a narrow block.
pub const WIDE: usize = 256;
pub const NARROW: usize = 32;

/// How a type's weights meet activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Wide,
    Narrow,
}

/// Evaluates `$body` with `$B` as the block struct of a wide type.
macro_rules! for_wide {
    ($ty:expr, $B:ident => $body:expr, _ => $other:expr) => {
        for_wide!(@ $ty, $B, $body, $other, BlockQ2_K Q2_K, BlockQ3_K Q3_K, BlockQ4_K Q4_K, BlockQ5_K Q5_K,
            BlockQ6_K Q6_K, BlockIQ2_XXS IQ2_XXS, BlockIQ2_XS IQ2_XS, BlockIQ2_S IQ2_S, BlockIQ3_XXS IQ3_XXS,
            BlockIQ3_S IQ3_S, BlockIQ1_S IQ1_S, BlockIQ1_M IQ1_M, BlockIQ4_XS IQ4_XS, BlockTQ1_0 TQ1_0,
            BlockTQ2_0 TQ2_0)
    };
    (@ $ty:expr, $B:ident, $body:expr, $other:expr, $($block:ident $name:ident),*) => {
        match $ty {
            $(quant::GgmlType::$name => { type $B = quant::blocks::$block; $body })*
            _ => $other,
        }
    };
}

/// Evaluates `$body` with `$B` as the block struct of a narrow type (a block may be several of 32 values).
macro_rules! for_narrow {
    ($ty:expr, $B:ident => $body:expr, _ => $other:expr) => {
        for_narrow!(@ $ty, $B, $body, $other, BlockQ4_0 Q4_0, BlockQ4_1 Q4_1, BlockQ5_0 Q5_0, BlockQ5_1 Q5_1,
            BlockQ8_0 Q8_0, BlockIQ4_NL IQ4_NL, BlockMXFP4 MXFP4, BlockNVFP4 NVFP4, BlockQ1_0 Q1_0, BlockQ2_0 Q2_0)
    };
    (@ $ty:expr, $B:ident, $body:expr, $other:expr, $($block:ident $name:ident),*) => {
        match $ty {
            $(quant::GgmlType::$name => { type $B = quant::blocks::$block; $body })*
            _ => $other,
        }
    };
}
pub(crate) use {for_narrow, for_wide};

/// How weights of this type are multiplied; `None` for types that are multiplied as f32.
pub fn form(ty: GgmlType) -> Option<Form> {
    if for_wide!(ty, B => size_of::<B>() > 0, _ => false) {
        Some(Form::Wide)
    } else if for_narrow!(ty, B => size_of::<B>() > 0, _ => false) {
        Some(Form::Narrow)
    } else {
        None
    }
}

/// The bytes of several rows as blocks. Rows of a mapped file are aligned for their blocks; the engine copies others.
fn blocks<B: bytemuck::Pod>(bytes: &[u8]) -> &[B] {
    // A wrong length or alignment is a bug of the caller, and must not become wrong numbers.
    bytemuck::try_cast_slice(bytes).expect("whole, aligned blocks")
}

impl Simd {
    /// Rounds a row of a multiple of 256 values.
    pub fn quantize_wide(self, x: &[f32], out: &mut [WideBlock]) {
        assert_eq!(x.len(), out.len() * WIDE);
        match self.level() {
            SimdLevel::Scalar => activations::wide(x, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::Avx512Vnni => unsafe { x86::quantize_wide_vnni(x, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx2 => unsafe { x86::quantize_wide_avx2(x, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            _ => unsafe { x86::quantize_wide_avx_vnni(x, out) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => activations::wide(x, out),
        }
    }

    /// Rounds a row of a multiple of 32 values.
    pub fn quantize_narrow(self, x: &[f32], out: &mut [NarrowBlock]) {
        assert_eq!(x.len(), out.len() * NARROW);
        match self.level() {
            SimdLevel::Scalar => activations::narrow(x, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::Avx512Vnni => unsafe { x86::quantize_narrow_vnni(x, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx2 => unsafe { x86::quantize_narrow_avx2(x, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            _ => unsafe { x86::quantize_narrow_avx_vnni(x, out) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => activations::narrow(x, out),
        }
    }

    /// Makes a row of activations what [`Simd::dot_rows`] takes with weights of a type.
    ///
    /// # Panics
    /// The type does not meet these activations.
    pub fn prepare(self, ty: GgmlType, activation: Row<'_>, out: &mut Prepared) {
        out.ty = ty;
        match self.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::Avx2 => unsafe { x86::prepare_avx2(ty, activation, &mut out.groups) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::AvxVnni => unsafe { x86::prepare_avx_vnni(ty, activation, &mut out.groups) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx512Vnni => unsafe { x86::prepare_vnni(ty, activation, &mut out.groups) },
            _ => {
                let _ = activation;
                out.groups.clear();
            }
        }
    }

    /// Products of up to [`ROWS`] rows of packed weights (`rows`, one after the other, `count` of them) with one row of
    /// activations, which the same `Simd` prepared for their type: for single tokens, at the speed at which weights come
    /// from memory.
    ///
    /// # Panics
    /// The type has no form, or lengths do not fit.
    pub fn dot_rows(self, rows: &[u8], count: usize, activation: Row<'_>, prepared: &Prepared, out: &mut [f32; ROWS]) {
        assert!((1..=ROWS).contains(&count));
        let ty = prepared.ty;
        match self.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::Avx2 => unsafe { x86::dot_rows_avx2(rows, count, activation, prepared, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::AvxVnni => unsafe { x86::dot_rows_avx_vnni(rows, count, activation, prepared, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx512Vnni => unsafe { x86::dot_rows_vnni(rows, count, activation, prepared, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: NEON is part of AArch64.
            SimdLevel::Neon => unsafe { aarch64::dot_rows::<aarch64::Neon>(ty, rows, count, activation, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::NeonDot | SimdLevel::NeonI8mm => unsafe {
                aarch64::dot_rows::<aarch64::NeonDot>(ty, rows, count, activation, out)
            },
            _ => portable::dot_rows(ty, rows, count, activation, out),
        }
    }

    /// So many rounds of nothing but products of bytes; the number of multiply-adds that were done.
    pub(crate) fn multiply_adds(self, rounds: u32) -> u64 {
        match self.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::Avx2 => unsafe { x86::multiply_adds_avx2(rounds) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::AvxVnni => unsafe { x86::multiply_adds_avx_vnni(rounds) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx512Vnni => unsafe { x86::multiply_adds_vnni(rounds) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: NEON is part of AArch64.
            SimdLevel::Neon => unsafe { aarch64::multiply_adds::<aarch64::Neon>(rounds) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::NeonDot => unsafe { aarch64::multiply_adds::<aarch64::NeonDot>(rounds) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            SimdLevel::NeonI8mm => unsafe { aarch64::multiply_adds::<aarch64::NeonI8mm>(rounds) },
            // SAFETY: no special instructions are needed.
            _ => unsafe { limit::multiply_adds::<lanes::Portable, 1, 2>(rounds) },
        }
    }

    /// A row of one of the types of KV caches as f32; `false` where there is no kernel for it. The same bits as
    /// [`quant::dequantize_row`].
    pub(super) fn dequantize_narrow(self, ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> bool {
        match self.level() {
            SimdLevel::Scalar => false,
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions (AVX-512 machines have AVX2).
            _ => unsafe { x86::dequantize_narrow(ty, bytes, out) },
            #[cfg(target_arch = "aarch64")]
            SimdLevel::Neon | SimdLevel::NeonDot | SimdLevel::NeonI8mm => aarch64::dequantize_narrow(ty, bytes, out),
            #[cfg(not(target_arch = "x86_64"))]
            _ => {
                let _ = (ty, bytes, out);
                false
            }
        }
    }

    /// Unpacks rows of packed weights for [`Simd::dot_panel`].
    ///
    /// # Panics
    /// The type has no form, or the bytes are not those of the blocks.
    pub fn fill_panel(self, ty: GgmlType, stripe: &Stripe<'_>, panel: &mut Panel) {
        match self.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::Avx2 => unsafe { x86::fill_panel_avx2(ty, stripe, panel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::AvxVnni => unsafe { x86::fill_panel_avx_vnni(ty, stripe, panel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx512Vnni => unsafe { x86::fill_panel_vnni(ty, stripe, panel) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: NEON is part of AArch64.
            SimdLevel::Neon => unsafe { aarch64::fill_panel::<aarch64::Neon>(ty, stripe, panel) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::NeonDot => unsafe { aarch64::fill_panel::<aarch64::NeonDot>(ty, stripe, panel) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            SimdLevel::NeonI8mm => unsafe { aarch64::fill_panel::<aarch64::NeonI8mm>(ty, stripe, panel) },
            _ => panel_dot::fill_portable(ty, stripe, panel),
        }
    }

    /// Adds products of the panel's rows with rows of activations to `out`, or to 0 if they are `new`: for prompts. The
    /// panel was filled by the same `Simd`.
    ///
    /// # Panics
    /// Lengths do not fit.
    pub fn dot_panel(self, panel: &Panel, inputs: &Inputs<'_>, new: bool, out: &mut [Lanes32<f32>]) {
        assert_eq!(inputs.places.len(), out.len());
        match self.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd` proves that the CPU has the instructions.
            SimdLevel::Avx2 => unsafe { x86::dot_panel_avx2(panel, inputs, new, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::AvxVnni => unsafe { x86::dot_panel_avx_vnni(panel, inputs, new, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx512Vnni => unsafe { x86::dot_panel_vnni(panel, inputs, new, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: NEON is part of AArch64.
            SimdLevel::Neon => unsafe { aarch64::dot_panel::<aarch64::Neon>(panel, inputs, new, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            SimdLevel::NeonDot => unsafe { aarch64::dot_panel::<aarch64::NeonDot>(panel, inputs, new, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            SimdLevel::NeonI8mm => unsafe { aarch64::dot_panel::<aarch64::NeonI8mm>(panel, inputs, new, out) },
            _ => panel_dot::dot_portable(panel, inputs, new, out),
        }
    }
}
