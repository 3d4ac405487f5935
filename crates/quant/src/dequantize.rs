//! Rows of any type to f32, in the bits that llama.cpp gives.

use crate::error::check_row;
use crate::unpack::{Unpack, Unpacked, with_block};
use crate::{GgmlType, QuantError};
use half::{bf16, f16};

/// Write the values of a row. `src` holds exactly `dst.len()` elements of `ty`, at any address. 64-bit types are rounded.
pub fn dequantize_row(ty: GgmlType, src: &[u8], dst: &mut [f32]) -> Result<(), QuantError> {
    check_row(ty, dst.len(), src.len())?;
    match ty {
        GgmlType::F32 => plain(src, dst, f32::from_le_bytes),
        GgmlType::F16 => plain(src, dst, |b| f16::from_le_bytes(b).to_f32()),
        GgmlType::BF16 => plain(src, dst, |b| bf16::from_le_bytes(b).to_f32()),
        GgmlType::F64 => plain(src, dst, |b| f64::from_le_bytes(b) as f32),
        GgmlType::I8 => plain(src, dst, |b| f32::from(i8::from_le_bytes(b))),
        GgmlType::I16 => plain(src, dst, |b| f32::from(i16::from_le_bytes(b))),
        GgmlType::I32 => plain(src, dst, |b| i32::from_le_bytes(b) as f32),
        GgmlType::I64 => plain(src, dst, |b| i64::from_le_bytes(b) as f32),
        _ => with_block!(ty, B => blocks::<B>(src, dst), _ => unreachable!("the types without blocks are above")),
    }
    Ok(())
}

fn plain<const N: usize>(src: &[u8], dst: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (x, bytes) in dst.iter_mut().zip(src.as_chunks::<N>().0) {
        *x = value(*bytes);
    }
}

fn blocks<B: Unpack>(src: &[u8], dst: &mut [f32]) {
    let mut unpacked = Unpacked::new();
    let rows = dst.chunks_exact_mut(B::TYPE.block_size());
    for (values, bytes) in rows.zip(src.chunks_exact(size_of::<B>())) {
        bytemuck::pod_read_unaligned::<B>(bytes).unpack(&mut unpacked);
        unpacked.values::<B>(values);
    }
}
