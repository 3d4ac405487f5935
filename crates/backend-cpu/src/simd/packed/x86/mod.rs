//! AVX2 and AVX-512 VNNI. Everything generic is inlined into the functions with `target_feature`.

mod decode;
mod decode_narrow;
mod halves;
mod k512;
mod lanes;
mod lattice;
mod lattice512;
mod narrow256;
mod narrow512;
mod panel256;
mod points512;
mod quantize256;
mod quantize512;
mod rows;
mod rows512;
mod sums256;
mod wide512;

use super::activations::{Inputs, NarrowBlock, Prepared, Row, Unit, WideBlock};
use super::lanes::Layout;
use super::panel::{Lanes32, Panel, Stripe};
use super::portable::{Narrows, UnpackNarrow, UnpackWide, Wide};
use super::{Form, ROWS, for_narrow, for_wide, form, limit};
use decode::DecodeWide;
use decode_narrow::DecodeNarrow;
use halves::Halves;
use lanes::{Avx2, AvxVnni, Vnni};
use panel256::{Bytes, NarrowBytes, NarrowWords, Words};
use quant::GgmlType;
use quant::blocks::*;

/// # Safety
/// AVX2 and F16C.
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn quantize_wide_avx2(x: &[f32], out: &mut [WideBlock]) {
    // SAFETY: passed on.
    unsafe { quantize256::wide::<true>(x, out) }
}

/// # Safety
/// AVX2 and F16C.
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn quantize_narrow_avx2(x: &[f32], out: &mut [NarrowBlock]) {
    // SAFETY: passed on.
    unsafe { quantize256::narrow::<true>(x, out) }
}

/// # Safety
/// AVX2 and F16C.
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn quantize_wide_avx_vnni(x: &[f32], out: &mut [WideBlock]) {
    // SAFETY: passed on: rounding takes no products.
    unsafe { quantize256::wide::<false>(x, out) }
}

/// # Safety
/// AVX2 and F16C.
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn quantize_narrow_avx_vnni(x: &[f32], out: &mut [NarrowBlock]) {
    // SAFETY: passed on: rounding takes no products.
    unsafe { quantize256::narrow::<false>(x, out) }
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
pub unsafe fn prepare_avx2(ty: GgmlType, activation: Row<'_>, out: &mut Vec<Unit>) {
    // SAFETY: passed on.
    unsafe { rows::prepare_avx2::<Avx2>(ty, activation, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub unsafe fn prepare_avx_vnni(ty: GgmlType, activation: Row<'_>, out: &mut Vec<Unit>) {
    // SAFETY: passed on.
    unsafe { rows::prepare_avx2::<AvxVnni>(ty, activation, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn prepare_vnni(ty: GgmlType, activation: Row<'_>, out: &mut Vec<Unit>) {
    // SAFETY: passed on.
    unsafe { rows::prepare_vnni(ty, activation, out) }
}

/// # Safety
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn dot_rows_avx2(
    rows: &[u8],
    count: usize,
    activation: Row<'_>,
    prepared: &Prepared,
    out: &mut [f32; ROWS],
) {
    // SAFETY: passed on.
    unsafe { rows::dot_avx2::<Avx2>(rows, count, activation, prepared, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub unsafe fn dot_rows_avx_vnni(
    rows: &[u8],
    count: usize,
    activation: Row<'_>,
    prepared: &Prepared,
    out: &mut [f32; ROWS],
) {
    // SAFETY: passed on.
    unsafe { rows::dot_avx2::<AvxVnni>(rows, count, activation, prepared, out) }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-512 F, BW, VL, VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn dot_rows_vnni(
    rows: &[u8],
    count: usize,
    activation: Row<'_>,
    prepared: &Prepared,
    out: &mut [f32; ROWS],
) {
    // SAFETY: passed on.
    unsafe { rows::dot_vnni(rows, count, activation, prepared, out) }
}

/// # Safety
/// AVX2, FMA, F16C and the instructions of `V`.
#[inline(always)]
unsafe fn fill<V: Layout>(ty: GgmlType, stripe: &Stripe<'_>, panel: &mut Panel) {
    // SAFETY: passed on.
    unsafe {
        if form(ty) == Some(Form::Wide) {
            for_wide!(ty, B => panel.fill_wide::<V, B, Registers<0>>(stripe), _ => ());
        } else {
            for_narrow!(ty, B => panel.fill_narrow::<V, B, Registers<0>>(stripe), _ => panic!("{ty} has no form"));
        }
    }
}

/// Unpacks in registers, with AVX2 and F16C. `PLUS` is added to bytes where they may be negative.
struct Registers<const PLUS: u8>;

impl<B: DecodeWide, const PLUS: u8> UnpackWide<B> for Registers<PLUS> {
    #[inline(always)]
    unsafe fn wide(block: &B, out: &mut Wide) {
        // SAFETY: the caller's.
        unsafe { decode::store(block, if B::HAS_MINS { 0 } else { PLUS }, out) }
    }
}

impl<B: DecodeNarrow, const PLUS: u8> UnpackNarrow<B> for Registers<PLUS> {
    #[inline(always)]
    unsafe fn narrow(block: &B, at: usize, out: &mut Narrows) {
        // SAFETY: the caller's.
        unsafe { block.store(at, if B::HAS_MINS { 0 } else { PLUS }, out) }
    }
}

/// # Safety
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn fill_panel_avx2(ty: GgmlType, stripe: &Stripe<'_>, panel: &mut Panel) {
    /// Fills the panel in the way of a block's type.
    macro_rules! filled {
        (wide $B:ident) => {
            if halves::words($B::TYPE) {
                halves::fill_wide_words::<$B>(panel, stripe)
            } else {
                panel.fill_wide::<Halves<Avx2>, $B, Registers<{ halves::WIDE_PLUS }>>(stripe);
                halves::double_scales(panel);
            }
        };
        (narrow $B:ident) => {
            if halves::words($B::TYPE) {
                halves::fill_narrow_words::<$B>(panel, stripe)
            } else {
                panel.fill_narrow::<Halves<Avx2>, $B, Registers<{ halves::NARROW_PLUS }>>(stripe)
            }
        };
    }
    // SAFETY: passed on.
    unsafe {
        if form(ty) == Some(Form::Wide) {
            for_wide!(ty, B => filled!(wide B), _ => ());
        } else {
            for_narrow!(ty, B => filled!(narrow B), _ => panic!("{ty} has no form"));
        }
    }
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

/// Tokens of a tile of 256-bit registers: with two vectors of rows their sums take 8 of the 16.
const TOKENS: usize = 4;
/// The same with AVX-VNNI: sums of groups and of blocks are in registers.
const VNNI_TOKENS: usize = 3;

/// # Safety
/// AVX2, FMA, F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn dot_panel_avx2(panel: &Panel, inputs: &Inputs<'_>, new: bool, out: &mut [Lanes32<f32>]) {
    // SAFETY: passed on; the panel was filled for AVX2.
    unsafe {
        match (panel.form, halves::words(panel.ty), panel.groups, panel.has_mins) {
            (Form::Wide, true, ..) => panel.tiles::<2, TOKENS, Words>(inputs, new, out),
            (Form::Wide, _, 8, true) if panel.ty == GgmlType::Q4_K => {
                panel.tiles::<1, TOKENS, Bytes<Avx2, 8, 8, true>>(inputs, new, out)
            }
            (Form::Wide, _, 8, true) => panel.tiles::<1, TOKENS, Bytes<Avx2, 8, 16, true>>(inputs, new, out),
            (Form::Wide, _, 8, false) => panel.tiles::<1, TOKENS, Bytes<Avx2, 8, 16, false>>(inputs, new, out),
            (Form::Wide, _, _, true) => panel.tiles::<1, TOKENS, Bytes<Avx2, 16, 16, true>>(inputs, new, out),
            (Form::Wide, _, _, false) => panel.tiles::<1, TOKENS, Bytes<Avx2, 16, 16, false>>(inputs, new, out),
            (Form::Narrow, true, ..) => panel.tiles::<2, TOKENS, NarrowWords>(inputs, new, out),
            (Form::Narrow, _, _, true) => panel.tiles::<1, TOKENS, NarrowBytes<Avx2, true>>(inputs, new, out),
            (Form::Narrow, _, _, false) => panel.tiles::<1, TOKENS, NarrowBytes<Avx2, false>>(inputs, new, out),
        }
    }
}

/// # Safety
/// AVX2, FMA, F16C, AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub unsafe fn dot_panel_avx_vnni(panel: &Panel, inputs: &Inputs<'_>, new: bool, out: &mut [Lanes32<f32>]) {
    // SAFETY: passed on; the panel was filled for AVX-VNNI.
    unsafe {
        match (panel.form, panel.groups, panel.has_mins) {
            (Form::Wide, 8, true) => panel.tiles::<1, VNNI_TOKENS, Bytes<AvxVnni, 8, 8, true>>(inputs, new, out),
            (Form::Wide, 8, false) => panel.tiles::<1, VNNI_TOKENS, Bytes<AvxVnni, 8, 8, false>>(inputs, new, out),
            (Form::Wide, _, true) => panel.tiles::<1, VNNI_TOKENS, Bytes<AvxVnni, 16, 16, true>>(inputs, new, out),
            (Form::Wide, _, false) => panel.tiles::<1, VNNI_TOKENS, Bytes<AvxVnni, 16, 16, false>>(inputs, new, out),
            (Form::Narrow, _, true) => panel.tiles::<1, VNNI_TOKENS, NarrowBytes<AvxVnni, true>>(inputs, new, out),
            (Form::Narrow, _, false) => panel.tiles::<1, VNNI_TOKENS, NarrowBytes<AvxVnni, false>>(inputs, new, out),
        }
    }
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
    unsafe { panel256::multiply_adds::<Avx2, 2, 5>(rounds) }
}

/// # Safety
/// AVX2, FMA and AVX-VNNI.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub unsafe fn multiply_adds_avx_vnni(rounds: u32) -> u64 {
    // SAFETY: passed on.
    unsafe { panel256::multiply_adds::<AvxVnni, 2, 5>(rounds) }
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
