//! Scalar dot products: the definition that SIMD and GPU kernels are held to.

use crate::blocks::{Block, BlockQ8_0, BlockQ8_1, BlockQ8_K, QK_K};
use crate::error::check_row;
use crate::unpack::{Unpack, Unpacked, with_block};
use crate::{GgmlType, QuantError, dequantize_row};

/// The type to which activations are quantized before they meet weights of type `ty` (llama.cpp's `vec_dot_type`): Q8_0 for
/// weights in small blocks, Q8_1 for those with an offset per block, Q8_K for super-blocks. Plain types meet themselves, or
/// F32 where that would be no number to compute with.
pub fn activation_type(ty: GgmlType) -> GgmlType {
    use GgmlType::*;
    match ty {
        F16 | BF16 => ty,
        F32 | F64 | I8 | I16 | I32 | I64 => F32,
        Q4_1 | Q5_1 | Q8_1 => Q8_1,
        _ if ty.block_size() == QK_K => Q8_K,
        _ => Q8_0,
    }
}

/// One block of quantized activations as the dot product sees it.
trait Activations: Block {
    /// The scale.
    fn d(&self) -> f32;
    fn quants(&self) -> &[i8];
    /// The sum over group `g` of `size` quants.
    fn group_sum(&self, g: usize, size: usize) -> i32;
    /// What is taken away for the offsets of a weight block, given `Σ_g min_g * Σ_{j in g} a_j`.
    fn offset(&self, dmin: f32, weighted_sum: i64) -> f32 {
        (dmin * self.d()) * weighted_sum as f32
    }
}

impl Activations for BlockQ8_0 {
    fn d(&self) -> f32 {
        self.d.to_f32()
    }
    fn quants(&self) -> &[i8] {
        &self.qs
    }
    fn group_sum(&self, g: usize, size: usize) -> i32 {
        self.qs[g * size..][..size].iter().map(|&q| i32::from(q)).sum()
    }
}

impl Activations for BlockQ8_1 {
    fn d(&self) -> f32 {
        self.d.to_f32()
    }
    fn quants(&self) -> &[i8] {
        &self.qs
    }
    /// All weights that meet Q8_1 have one offset of weight 1, and the block carries that sum already scaled.
    fn group_sum(&self, _g: usize, _size: usize) -> i32 {
        0
    }
    fn offset(&self, dmin: f32, _weighted_sum: i64) -> f32 {
        dmin * self.s.to_f32()
    }
}

impl Activations for BlockQ8_K {
    fn d(&self) -> f32 {
        self.d
    }
    fn quants(&self) -> &[i8] {
        &self.qs
    }
    fn group_sum(&self, g: usize, size: usize) -> i32 {
        self.bsums[g * size / 16..][..size / 16].iter().map(|&sum| i32::from(sum)).sum()
    }
}

/// The dot product of a row of weights with a row of activations in [`activation_type`]`(ty)`, in integers per block.
///
/// For each activation block, with `g` over the weight groups (16 or 32 elements) that it covers:
/// ```text
/// sum += (d_w * d_a) * f32(Σ_g scale_g * Σ_{j in g} w_j * a_j)  -  (dmin_w * d_a) * f32(Σ_g min_g * Σ_{j in g} a_j)
/// ```
/// Products and sums inside `f32(...)` are exact integers, so any order gives the same; they fit i32 for every type but
/// NVFP4, whose two group terms are exact in f32 and added there. For Q4_1, Q5_1 the second term is `+ m * s` with the `s` of
/// Q8_1. The outer sum runs over blocks in order; a kernel with several accumulators may differ by its rounding.
///
/// Both slices hold the same number of elements, at any address. Plain types are multiplied in f32.
pub fn dot_row(ty: GgmlType, weights: &[u8], activations: &[u8]) -> Result<f32, QuantError> {
    let partner = activation_type(ty);
    let elements = weights.len() / ty.type_size() * ty.block_size();
    check_row(ty, elements, weights.len())?;
    check_row(partner, elements, activations.len())?;
    with_block!(ty, B => Ok(match partner {
        GgmlType::Q8_0 => blocks::<B, BlockQ8_0>(weights, activations),
        GgmlType::Q8_1 => blocks::<B, BlockQ8_1>(weights, activations),
        _ => blocks::<B, BlockQ8_K>(weights, activations),
    }), _ => {
        let mut values = vec![0.0; elements];
        dequantize_row(partner, activations, &mut values)?;
        dot_row_f32(ty, weights, &values)
    })
}

fn blocks<B: Unpack, A: Activations>(weights: &[u8], activations: &[u8]) -> f32 {
    let size = A::TYPE.block_size();
    let per_weight_block = B::TYPE.block_size() / size;
    let mut unpacked = Unpacked::new();
    let mut sum = 0.0;
    let weights = weights.chunks_exact(size_of::<B>());
    for (weights, activations) in weights.zip(activations.chunks_exact(size_of::<A>() * per_weight_block)) {
        bytemuck::pod_read_unaligned::<B>(weights).unpack(&mut unpacked);
        for (i, bytes) in activations.chunks_exact(size_of::<A>()).enumerate() {
            let a = bytemuck::pod_read_unaligned::<A>(bytes);
            sum += block_dot::<B, A>(&unpacked, i * size, &a);
        }
    }
    sum
}

/// The term of one activation block, which meets weights `start..` of the unpacked block.
fn block_dot<B: Unpack, A: Activations>(w: &Unpacked, start: usize, a: &A) -> f32 {
    let quants = a.quants();
    let first = start / B::GROUP;
    let (mut total, mut offsets) = (0i64, 0i64);
    for (g, a_group) in quants.chunks_exact(B::GROUP).enumerate() {
        let w_group = &w.q[start + g * B::GROUP..][..B::GROUP];
        let dot: i32 = w_group.iter().zip(a_group).map(|(&w, &a)| i32::from(w) * i32::from(a)).sum();
        total += i64::from(w.scales[first + g]) * i64::from(dot);
        if B::HAS_MINS {
            offsets += i64::from(w.mins[first + g]) * i64::from(a.group_sum(g, B::GROUP));
        }
    }
    let product = (w.d * a.d()) * total as f32;
    if !B::HAS_MINS {
        return product;
    }
    product - a.offset(w.dmin, offsets)
}

/// The dot product of a row of weights with f32 activations: weights are dequantized, and products summed in eight
/// interleaved partial sums (element `j` in sum `j % 8`), which are then added pairwise.
pub fn dot_row_f32(ty: GgmlType, weights: &[u8], activations: &[f32]) -> Result<f32, QuantError> {
    check_row(ty, activations.len(), weights.len())?;
    let mut values = [0.0; QK_K];
    let mut sums = [0.0f32; 8];
    let bytes = ty.type_size() * (QK_K / ty.block_size());
    for (weights, activations) in weights.chunks(bytes).zip(activations.chunks(QK_K)) {
        let values = &mut values[..activations.len()];
        dequantize_row(ty, weights, values)?;
        for (w, a) in values.chunks(8).zip(activations.chunks(8)) {
            for ((sum, w), a) in sums.iter_mut().zip(w).zip(a) {
                *sum += w * a;
            }
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    Ok(((a + b) + (c + d)) + ((e + f) + (g + h)))
}
