//! Rows of any type to f32, in the bits that llama.cpp gives.

use crate::error::check_row;
use crate::unpack::{Unpack, Unpacked, with_block};
use crate::{GgmlType, QuantError};
use half::{f16, slice::HalfFloatSliceExt};

/// Write the values of a row. `src` holds exactly `dst.len()` elements of `ty`, at any address. 64-bit types are rounded.
pub fn dequantize_row(ty: GgmlType, src: &[u8], dst: &mut [f32]) -> Result<(), QuantError> {
    check_row(ty, dst.len(), src.len())?;
    match ty {
        GgmlType::F32 => plain(src, dst, f32::from_le_bytes),
        GgmlType::F16 => halves(src, dst),
        GgmlType::BF16 => plain(src, dst, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
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

/// Sixteen at a time, so that the conversion instructions of the processor are used where it has them.
fn halves(src: &[u8], dst: &mut [f32]) {
    for (values, bytes) in dst.chunks_mut(16).zip(src.chunks(32)) {
        let mut halves = [f16::ZERO; 16];
        for (half, &bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(bytes);
        }
        halves[..values.len()].convert_to_f32_slice(values);
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
