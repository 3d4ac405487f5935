//! AVX2 and AVX-512 VNNI. Everything generic is inlined into the functions with `target_feature`.

mod decode;
mod decode_narrow;
mod k512;
mod lanes;
mod lattice;
mod lattice512;
mod narrow512;
mod rows;
mod rows512;
mod wide512;

use super::activations::{self, NarrowBlock, Row, WideBlock};
use super::panel::{PANEL_ROWS, Panel};
use super::{Form, ROWS, for_narrow, for_wide, form, limit};
use decode::DecodeWide as _;
use lanes::{Avx2, Vnni};
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
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn dot_rows_avx2(ty: GgmlType, rows: &[u8], count: usize, activation: Row<'_>, out: &mut [f32; ROWS]) {
    // SAFETY: passed on.
    unsafe { rows::dot_avx2(ty, rows, count, activation, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn dot_rows_vnni(ty: GgmlType, rows: &[u8], count: usize, activation: Row<'_>, out: &mut [f32; ROWS]) {
    // SAFETY: passed on.
    unsafe { rows::dot_vnni(ty, rows, count, activation, out) }
}

/// # Safety
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn fill_panel(ty: GgmlType, rows: &[u8], count: usize, panel: &mut Panel, offset: bool) {
    if form(ty) == Some(Form::Wide) {
        // SAFETY: the closures run here, where the instructions are.
        for_wide!(ty, B => panel.fill_wide::<B>(rows, count, offset, |block| unsafe { block.registers().store(block) }), _ => ());
    } else {
        for_narrow!(ty, B => panel.fill_narrow::<B>(rows, count, offset), _ => panic!("{ty} has no form"));
    }
}

/// # Safety
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn dot_panel_avx2(panel: &Panel, activations: &[Row<'_>], out: &mut [[f32; PANEL_ROWS]]) {
    // SAFETY: passed on.
    unsafe { panel.dot::<Avx2, 2>(activations, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn dot_panel_vnni(panel: &Panel, activations: &[Row<'_>], out: &mut [[f32; PANEL_ROWS]]) {
    // SAFETY: passed on.
    unsafe { panel.dot::<Vnni, 8>(activations, out) }
}

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply_adds_avx2(rounds: u32) -> u64 {
    // SAFETY: passed on.
    unsafe { limit::multiply_adds::<Avx2, 1, 5>(rounds) }
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
