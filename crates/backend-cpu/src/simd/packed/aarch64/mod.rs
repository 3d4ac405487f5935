//! NEON as every AArch64 has it, with dotprod, and with i8mm. Everything generic is inlined into these functions.

mod decode;
mod decode_narrow;
mod lanes;
mod rows;

use super::super::aarch64::widen_low;
use super::activations::{Inputs, Row};
use super::panel::{Lanes32, Panel, Stripe};
use super::portable::{Plain, UnpackWide, Wide};
use super::{Form, ROWS, for_narrow, for_wide, form, limit};
use decode::DecodeWide;
use lanes::Panels;
pub use lanes::{Neon, NeonDot, NeonI8mm, Products};
use quant::GgmlType;
use quant::blocks::*;
use std::arch::aarch64::*;

/// f16 bits as f32.
#[inline(always)]
fn widen(x: [u16; 4]) -> [f32; 4] {
    let mut out = [0f32; 4];
    // SAFETY: NEON is part of AArch64; the load and the store are of whole arrays.
    unsafe {
        let narrow = vld1_u16(x.as_ptr());
        vst1q_f32(out.as_mut_ptr(), widen_low(vcombine_u16(narrow, narrow)));
    }
    out
}

/// # Safety
/// The instructions of `P`.
pub unsafe fn dot_rows<P: Products>(
    ty: GgmlType,
    rows: &[u8],
    count: usize,
    activation: Row<'_>,
    out: &mut [f32; ROWS],
) {
    // SAFETY: passed on.
    unsafe { rows::dot::<P>(ty, rows, count, activation, out) }
}

/// # Safety
/// The instructions of `P`.
pub unsafe fn fill_panel<P: Products>(ty: GgmlType, stripe: &Stripe<'_>, panel: &mut Panel) {
    // SAFETY: passed on.
    unsafe {
        if form(ty) == Some(Form::Wide) {
            for_wide!(ty, B => panel.fill_wide::<Panels<P>, B, Registers>(stripe), _ => ());
        } else {
            for_narrow!(ty, B => panel.fill_narrow::<Panels<P>, B, Plain>(stripe), _ => panic!("{ty} has no form"));
        }
    }
    if P::PAIRED {
        panel.pair();
    }
}

/// Unpacks in registers.
struct Registers;

impl<B: DecodeWide> UnpackWide<B> for Registers {
    #[inline(always)]
    unsafe fn wide(block: &B, out: &mut Wide) {
        block.registers().store(block, out);
    }
}

/// # Safety
/// The instructions of `P`.
pub unsafe fn dot_panel<P: Products>(panel: &Panel, inputs: &Inputs<'_>, new: bool, out: &mut [Lanes32<f32>]) {
    // SAFETY: passed on.
    unsafe { panel.dot::<Panels<P>, 1, 4>(inputs, new, out) }
}

/// # Safety
/// The instructions of `P`.
pub unsafe fn multiply_adds<P: Products>(rounds: u32) -> u64 {
    // SAFETY: passed on; i8mm is there where `P` says so.
    unsafe { if P::PAIRED { lanes::matrices(rounds) } else { limit::multiply_adds::<Panels<P>, 1, 4>(rounds) } }
}

/// Types of KV caches; `false` for others, and for bytes that are not aligned as blocks.
pub fn dequantize_narrow(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> bool {
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
