//! Rows of packed weights, unpacked to small integers in cache for the rows of activations that meet them.

use super::invalid;
use crate::simd::{ROWS, RowForm, WeightRow};
use backend::BackendError;
use quant::GgmlType;
use quant::blocks::*;
use quant::unpack::{Unpack, Unpacked};

/// Up to [`ROWS`] rows as integers and scales.
#[derive(Default)]
pub(crate) struct UnpackedRows {
    cols: usize,
    has_mins: bool,
    q: Vec<i8>,
    scales: Vec<f32>,
    mins: Vec<f32>,
}

/// Calls `$f::<Block>` for a type of packed integers.
macro_rules! for_type {
    ($ty:expr, $f:ident, ($($argument:expr),*), $other:expr) => {
        match $ty {
            GgmlType::Q4_0 => $f::<BlockQ4_0>($($argument),*),
            GgmlType::Q4_1 => $f::<BlockQ4_1>($($argument),*),
            GgmlType::Q5_0 => $f::<BlockQ5_0>($($argument),*),
            GgmlType::Q5_1 => $f::<BlockQ5_1>($($argument),*),
            GgmlType::Q8_0 => $f::<BlockQ8_0>($($argument),*),
            GgmlType::Q2_K => $f::<BlockQ2_K>($($argument),*),
            GgmlType::Q3_K => $f::<BlockQ3_K>($($argument),*),
            GgmlType::Q4_K => $f::<BlockQ4_K>($($argument),*),
            GgmlType::Q5_K => $f::<BlockQ5_K>($($argument),*),
            GgmlType::Q6_K => $f::<BlockQ6_K>($($argument),*),
            GgmlType::IQ2_XXS => $f::<BlockIQ2_XXS>($($argument),*),
            GgmlType::IQ2_XS => $f::<BlockIQ2_XS>($($argument),*),
            GgmlType::IQ2_S => $f::<BlockIQ2_S>($($argument),*),
            GgmlType::IQ3_XXS => $f::<BlockIQ3_XXS>($($argument),*),
            GgmlType::IQ3_S => $f::<BlockIQ3_S>($($argument),*),
            GgmlType::IQ1_S => $f::<BlockIQ1_S>($($argument),*),
            GgmlType::IQ1_M => $f::<BlockIQ1_M>($($argument),*),
            GgmlType::IQ4_NL => $f::<BlockIQ4_NL>($($argument),*),
            GgmlType::IQ4_XS => $f::<BlockIQ4_XS>($($argument),*),
            GgmlType::TQ1_0 => $f::<BlockTQ1_0>($($argument),*),
            GgmlType::TQ2_0 => $f::<BlockTQ2_0>($($argument),*),
            GgmlType::MXFP4 => $f::<BlockMXFP4>($($argument),*),
            GgmlType::NVFP4 => $f::<BlockNVFP4>($($argument),*),
            GgmlType::Q1_0 => $f::<BlockQ1_0>($($argument),*),
            GgmlType::Q2_0 => $f::<BlockQ2_0>($($argument),*),
            _ => $other,
        }
    };
}

/// How rows of this type are multiplied as integers; `None` for types that are multiplied as f32.
pub(crate) fn form(ty: GgmlType) -> Option<RowForm> {
    fn of<B: Unpack>(ty: GgmlType) -> Option<RowForm> {
        // Types with offsets count from 0.
        let signed = !(B::HAS_MINS && matches!(ty, GgmlType::Q2_K | GgmlType::Q4_K | GgmlType::Q5_K));
        Some(RowForm { signed, groups_of_32: B::GROUP % 32 == 0 })
    }
    for_type!(ty, of, (ty), None)
}

impl UnpackedRows {
    /// Unpacks the rows in `bytes`, which are whole rows of `cols` values. Rows that are missing to [`ROWS`] are zero.
    pub fn fill(&mut self, op: &'static str, ty: GgmlType, bytes: &[u8], cols: usize) -> Result<(), BackendError> {
        self.cols = cols;
        self.q.resize(ROWS * cols, 0);
        self.scales.resize(ROWS * cols / 16, 0.0);
        self.mins.resize(ROWS * cols / 16, 0.0);
        for_type!(ty, unpack, (self, bytes), Err(invalid(op, format!("{ty} has no integer form"))))
    }

    pub fn rows(&self) -> [WeightRow<'_>; ROWS] {
        let (cols, groups) = (self.cols, self.cols / 16);
        std::array::from_fn(|r| WeightRow {
            q: &self.q[r * cols..][..cols],
            scales: &self.scales[r * groups..][..groups],
            mins: if self.has_mins { &self.mins[r * groups..][..groups] } else { &[] },
        })
    }
}

fn unpack<B: Unpack>(rows: &mut UnpackedRows, bytes: &[u8]) -> Result<(), BackendError> {
    let blocks: &[B] =
        bytemuck::try_cast_slice(bytes).map_err(|error| invalid("MatMul", format!("packed blocks: {error}")))?;
    rows.has_mins = B::HAS_MINS;
    let size = B::TYPE.block_size();
    // Every 16 values of the panel have a scale; a group of the type has one or several of those.
    let per_group = B::GROUP / 16;
    let mut unpacked = Unpacked::new();
    for (index, block) in blocks.iter().enumerate() {
        block.unpack(&mut unpacked);
        rows.q[index * size..][..size].copy_from_slice(&unpacked.q[..size]);
        let at = index * size / 16;
        for (i, scale) in rows.scales[at..at + size / 16].iter_mut().enumerate() {
            *scale = unpacked.d * unpacked.scales[i / per_group] as f32;
        }
        if B::HAS_MINS {
            for (i, min) in rows.mins[at..at + size / 16].iter_mut().enumerate() {
                *min = unpacked.dmin * unpacked.mins[i / per_group] as f32;
            }
        }
    }
    // What an earlier, longer fill left behind must not be taken for rows.
    let used = blocks.len() * size;
    rows.q[used..].fill(0);
    rows.scales[used / 16..].fill(0.0);
    rows.mins[used / 16..].fill(0.0);
    Ok(())
}
