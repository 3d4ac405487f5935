//! AVX2 and AVX-512 VNNI. Everything generic is inlined into the functions with `target_feature`.

mod decode;
mod decode_narrow;
mod k512;
mod lanes;
mod lattice;
mod lattice512;
mod narrow512;
mod points512;
mod quantize512;
mod rows;
mod rows512;
mod wide512;

use super::activations::{self, Inputs, NarrowBlock, Row, WideBlock};
use super::lanes::Lanes;
use super::panel::{Lanes32, Panel, Stripe};
use super::portable::{Narrows, UnpackNarrow, UnpackWide, Wide};
use super::{Form, ROWS, for_narrow, for_wide, form, limit};
use decode::DecodeWide;
use decode_narrow::DecodeNarrow;
use lanes::{Avx2, AvxVnni, Halves, Vnni};
use quant::GgmlType;
use quant::blocks::*;

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn quantize_wide(x: &[f32], out: &mut [WideBlock]) {
    activations::wide(x, out);
}

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn quantize_narrow(x: &[f32], out: &mut [NarrowBlock]) {
    activations::narrow(x, out);
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn quantize_wide_vnni(x: &[f32], out: &mut [WideBlock]) {
    // SAFETY: passed on.
    unsafe { quantize512::wide(x, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn quantize_narrow_vnni(x: &[f32], out: &mut [NarrowBlock]) {
    // SAFETY: passed on.
    unsafe { quantize512::narrow(x, out) }
}

/// # Safety
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn dot_rows_avx2(ty: GgmlType, rows: &[u8], count: usize, activation: Row<'_>, out: &mut [f32; ROWS]) {
    // SAFETY: passed on.
    unsafe { rows::dot_avx2::<Avx2>(ty, rows, count, activation, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub unsafe fn dot_rows_avx_vnni(ty: GgmlType, rows: &[u8], count: usize, activation: Row<'_>, out: &mut [f32; ROWS]) {
    // SAFETY: passed on.
    unsafe { rows::dot_avx2::<AvxVnni>(ty, rows, count, activation, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn dot_rows_vnni(ty: GgmlType, rows: &[u8], count: usize, activation: Row<'_>, out: &mut [f32; ROWS]) {
    // SAFETY: passed on.
    unsafe { rows::dot_vnni(ty, rows, count, activation, out) }
}

/// # Safety
/// AVX2, FMA, F16C and the instructions of `V`.
#[inline(always)]
unsafe fn fill<V: Lanes>(ty: GgmlType, stripe: &Stripe<'_>, panel: &mut Panel) {
    // SAFETY: passed on.
    unsafe {
        if form(ty) == Some(Form::Wide) {
            for_wide!(ty, B => panel.fill_wide::<V, B, Registers>(stripe), _ => ());
        } else {
            for_narrow!(ty, B => panel.fill_narrow::<V, B, Registers>(stripe), _ => panic!("{ty} has no form"));
        }
    }
}

/// Unpacks in registers: AVX2 and F16C.
struct Registers;

impl<B: DecodeWide> UnpackWide<B> for Registers {
    #[inline(always)]
    unsafe fn wide(block: &B, out: &mut Wide) {
        // SAFETY: the caller's.
        unsafe { block.registers().store(block, out) }
    }
}

impl<B: DecodeNarrow> UnpackNarrow<B> for Registers {
    #[inline(always)]
    unsafe fn narrow(block: &B, at: usize, out: &mut Narrows) {
        // SAFETY: the caller's.
        unsafe { block.store(at, out) }
    }
}

/// # Safety
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn fill_panel_avx2(ty: GgmlType, stripe: &Stripe<'_>, panel: &mut Panel) {
    // SAFETY: passed on.
    unsafe { fill::<Halves<Avx2>>(ty, stripe, panel) }
}

/// # Safety
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn fill_panel_avx_vnni(ty: GgmlType, stripe: &Stripe<'_>, panel: &mut Panel) {
    // SAFETY: passed on: filling takes no products.
    unsafe { fill::<Halves<AvxVnni>>(ty, stripe, panel) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn fill_panel_vnni(ty: GgmlType, stripe: &Stripe<'_>, panel: &mut Panel) {
    // SAFETY: passed on.
    unsafe { fill::<Vnni>(ty, stripe, panel) }
}

/// # Safety
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn dot_panel_avx2(panel: &Panel, inputs: &Inputs<'_>, new: bool, out: &mut [Lanes32<f32>]) {
    // SAFETY: passed on.
    unsafe { panel.dot::<Halves<Avx2>, 1, 2>(inputs, new, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub unsafe fn dot_panel_avx_vnni(panel: &Panel, inputs: &Inputs<'_>, new: bool, out: &mut [Lanes32<f32>]) {
    // SAFETY: passed on.
    unsafe { panel.dot::<Halves<AvxVnni>, 1, 3>(inputs, new, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn dot_panel_vnni(panel: &Panel, inputs: &Inputs<'_>, new: bool, out: &mut [Lanes32<f32>]) {
    // SAFETY: passed on.
    unsafe { panel.dot::<Vnni, 2, 6>(inputs, new, out) }
}

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply_adds_avx2(rounds: u32) -> u64 {
    // SAFETY: passed on.
    unsafe { limit::multiply_adds::<Halves<Avx2>, 1, 5>(rounds) }
}

/// # Safety
/// AVX2, FMA and AVX-VNNI.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub unsafe fn multiply_adds_avx_vnni(rounds: u32) -> u64 {
    // SAFETY: passed on.
    unsafe { limit::multiply_adds::<Halves<AvxVnni>, 1, 5>(rounds) }
}

/// # Safety
/// AVX-512 F, BW, VL, VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn multiply_adds_vnni(rounds: u32) -> u64 {
    // SAFETY: passed on.
    unsafe { limit::multiply_adds::<Vnni, 4, 4>(rounds) }
}

/// Types of KV caches; `false` for others, and for bytes that are not aligned as blocks.
///
/// # Safety
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn dequantize_narrow(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> bool {
    // SAFETY: passed on.
    unsafe {
        match ty {
            GgmlType::Q8_0 => decode_narrow::values::<BlockQ8_0>(bytes, out),
            GgmlType::Q5_1 => decode_narrow::values::<BlockQ5_1>(bytes, out),
            GgmlType::Q5_0 => decode_narrow::values::<BlockQ5_0>(bytes, out),
            GgmlType::Q4_1 => decode_narrow::values::<BlockQ4_1>(bytes, out),
            GgmlType::Q4_0 => decode_narrow::values::<BlockQ4_0>(bytes, out),
            GgmlType::IQ4_NL => decode_narrow::values::<BlockIQ4_NL>(bytes, out),
            _ => false,
        }
    }
}
