//! Rows of f32 to packed types. The algorithms are those of llama.cpp's reference quantizers, so that files made here are as
//! good as files made there: least squares over candidate scales, weighted by importance where it is known.

mod cache;
mod fp4;
mod iq;
mod iq1;
mod iq4;
mod k;
mod lattice;
mod legacy;
mod search;
mod ternary;

use crate::blocks::Block;
use crate::error::check_row;
use crate::{GgmlType, QuantError, blocks::*};
use half::{bf16, f16};

/// Quantize a row. `dst` holds exactly `src.len()` elements of `ty`.
///
/// `importance` has one weight per element (mean square of the activation that meets it, from an importance matrix); types
/// whose quantizer has nothing to choose ignore it. Non-finite values give some valid block.
pub fn quantize_row(ty: GgmlType, src: &[f32], importance: Option<&[f32]>, dst: &mut [u8]) -> Result<(), QuantError> {
    use GgmlType::*;
    check_row(ty, src.len(), dst.len())?;
    if let Some(importance) = importance
        && importance.len() != src.len()
    {
        return Err(QuantError::ImportanceLength { elements: src.len(), actual: importance.len() });
    }
    match ty {
        F32 => plain(src, dst, f32::to_le_bytes),
        F16 => plain(src, dst, |x| f16::from_f32(x).to_le_bytes()),
        BF16 => plain(src, dst, |x| bf16::from_f32(x).to_le_bytes()),
        F64 => plain(src, dst, |x| f64::from(x).to_le_bytes()),
        Q8_0 => blocks(src, dst, BlockQ8_0::quantize),
        Q8_1 => blocks(src, dst, BlockQ8_1::quantize),
        Q8_K => blocks(src, dst, BlockQ8_K::quantize),
        TQ1_0 => blocks(src, dst, ternary::tq1_0),
        TQ2_0 => blocks(src, dst, ternary::tq2_0),
        Q1_0 => blocks(src, dst, ternary::q1_0),
        Q2_0 => blocks(src, dst, ternary::q2_0),
        MXFP4 => blocks(src, dst, fp4::mxfp4),
        NVFP4 => blocks(src, dst, fp4::nvfp4),
        _ => match importance {
            None => without_importance(ty, src, dst)?,
            Some(importance) => with_importance(ty, src, importance, dst)?,
        },
    }
    Ok(())
}

/// Quantize a row that is written while the model runs (activations, KV cache): as [`quantize_row`] without importance, but
/// IQ4_NL without its search, and Q4_0 and Q5_0 with a short one. The K and IQ types with super-blocks of weights are not
/// meant for this.
pub fn quantize_cache_row(ty: GgmlType, src: &[f32], dst: &mut [u8]) -> Result<(), QuantError> {
    check_row(ty, src.len(), dst.len())?;
    match ty {
        GgmlType::Q4_0 => blocks(src, dst, cache::q4_0),
        GgmlType::Q5_0 => blocks(src, dst, cache::q5_0),
        GgmlType::IQ4_NL => blocks(src, dst, iq4::iq4_nl_fast),
        _ => return quantize_row(ty, src, None, dst),
    }
    Ok(())
}

/// Whether [`quantize_row`] can write `ty`, given importance weights.
pub fn has_quantizer(ty: GgmlType) -> bool {
    quantize_row(ty, &[], Some(&[]), &mut []).is_ok()
}

/// Whether [`quantize_row`] writes `ty` only with importance weights.
pub fn needs_importance(ty: GgmlType) -> bool {
    quantize_row(ty, &[], None, &mut []) == Err(QuantError::ImportanceNeeded { ty })
}

fn without_importance(ty: GgmlType, src: &[f32], dst: &mut [u8]) -> Result<(), QuantError> {
    match ty {
        GgmlType::Q4_0 => blocks(src, dst, legacy::q4_0),
        GgmlType::Q4_1 => blocks(src, dst, legacy::q4_1),
        GgmlType::Q5_0 => blocks(src, dst, legacy::q5_0),
        GgmlType::Q5_1 => blocks(src, dst, legacy::q5_1),
        GgmlType::Q2_K => blocks(src, dst, |x| k::q2_k(x, None)),
        GgmlType::Q3_K => blocks(src, dst, |x| k::q3_k(x, None)),
        GgmlType::Q4_K => blocks(src, dst, |x| k::q4_k(x, None)),
        GgmlType::Q5_K => blocks(src, dst, |x| k::q5_k(x, None)),
        GgmlType::Q6_K => blocks(src, dst, |x| k::q6_k(x, None)),
        GgmlType::IQ4_NL => blocks(src, dst, |x| iq4::iq4_nl(x, None)),
        GgmlType::IQ4_XS => blocks(src, dst, |x| iq4::iq4_xs(x, None)),
        GgmlType::IQ2_S => blocks(src, dst, |x| iq::iq2_s(x, None)),
        GgmlType::IQ3_XXS => blocks(src, dst, |x| iq::iq3_xxs(x, None)),
        GgmlType::IQ3_S => blocks(src, dst, |x| iq::iq3_s(x, None)),
        GgmlType::IQ1_M => blocks(src, dst, |x| iq1::iq1_m(x, None)),
        GgmlType::IQ1_S | GgmlType::IQ2_XXS | GgmlType::IQ2_XS => return Err(QuantError::ImportanceNeeded { ty }),
        _ => return Err(QuantError::NoQuantizer { ty }),
    }
    Ok(())
}

fn with_importance(ty: GgmlType, src: &[f32], importance: &[f32], dst: &mut [u8]) -> Result<(), QuantError> {
    let variance = src.iter().map(|x| x * x).fold(0.0, |sum, x| sum + x) / src.len() as f32;
    match ty {
        GgmlType::Q4_0 => weighted_blocks(src, importance, dst, |x, w| legacy::q4_0_weighted(x, w, variance)),
        GgmlType::Q4_1 => weighted_blocks(src, importance, dst, |x, w| legacy::q4_1_weighted(x, w, variance)),
        GgmlType::Q5_0 => weighted_blocks(src, importance, dst, |x, w| legacy::q5_0_weighted(x, w, variance)),
        GgmlType::Q5_1 => weighted_blocks(src, importance, dst, |x, w| legacy::q5_1_weighted(x, w, variance)),
        GgmlType::Q2_K => weighted_blocks(src, importance, dst, |x, w| k::q2_k(x, Some(w))),
        GgmlType::Q3_K => weighted_blocks(src, importance, dst, |x, w| k::q3_k(x, Some(w))),
        GgmlType::Q4_K => weighted_blocks(src, importance, dst, |x, w| k::q4_k(x, Some(w))),
        GgmlType::Q5_K => weighted_blocks(src, importance, dst, |x, w| k::q5_k(x, Some(w))),
        GgmlType::Q6_K => weighted_blocks(src, importance, dst, |x, w| k::q6_k(x, Some(w))),
        GgmlType::IQ4_NL => weighted_blocks(src, importance, dst, |x, w| iq4::iq4_nl(x, Some(w))),
        GgmlType::IQ4_XS => weighted_blocks(src, importance, dst, |x, w| iq4::iq4_xs(x, Some(w))),
        GgmlType::IQ1_S => weighted_blocks(src, importance, dst, iq1::iq1_s),
        GgmlType::IQ1_M => weighted_blocks(src, importance, dst, |x, w| iq1::iq1_m(x, Some(w))),
        GgmlType::IQ2_XXS => weighted_blocks(src, importance, dst, iq::iq2_xxs),
        GgmlType::IQ2_XS => weighted_blocks(src, importance, dst, iq::iq2_xs),
        GgmlType::IQ2_S => weighted_blocks(src, importance, dst, |x, w| iq::iq2_s(x, Some(w))),
        GgmlType::IQ3_XXS => weighted_blocks(src, importance, dst, |x, w| iq::iq3_xxs(x, Some(w))),
        GgmlType::IQ3_S => weighted_blocks(src, importance, dst, |x, w| iq::iq3_s(x, Some(w))),
        _ => return Err(QuantError::NoQuantizer { ty }),
    }
    Ok(())
}

fn plain<const N: usize>(src: &[f32], dst: &mut [u8], bytes: impl Fn(f32) -> [u8; N]) {
    for (out, &x) in dst.as_chunks_mut::<N>().0.iter_mut().zip(src) {
        *out = bytes(x);
    }
}

fn blocks<B: Block, const N: usize>(src: &[f32], dst: &mut [u8], quantize: impl Fn(&[f32; N]) -> B) {
    debug_assert_eq!(N, B::TYPE.block_size());
    for (x, out) in src.as_chunks::<N>().0.iter().zip(dst.chunks_exact_mut(size_of::<B>())) {
        out.copy_from_slice(bytemuck::bytes_of(&quantize(x)));
    }
}

fn weighted_blocks<B: Block, const N: usize>(
    src: &[f32],
    importance: &[f32],
    dst: &mut [u8],
    quantize: impl Fn(&[f32; N], &[f32; N]) -> B,
) {
    debug_assert_eq!(N, B::TYPE.block_size());
    let rows = src.as_chunks::<N>().0.iter().zip(importance.as_chunks::<N>().0);
    for ((x, w), out) in rows.zip(dst.chunks_exact_mut(size_of::<B>())) {
        out.copy_from_slice(bytemuck::bytes_of(&quantize(x, w)));
    }
}

/// The element of largest magnitude, with its sign; the first of equals.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |best: f32, &v| if v.abs() > best.abs() { v } else { best })
}

/// `1 / d`, or 0 for 0.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Two nibbles per byte: element `j` low, element `j + half` high.
fn pack_nibbles(levels: &[u8], out: &mut [u8]) {
    let (low, high) = levels.split_at(levels.len() / 2);
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = low & 15 | high << 4;
    }
}
