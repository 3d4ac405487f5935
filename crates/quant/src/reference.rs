//! Checks against rows recorded from llama.cpp, used by the tests and by `cargo xtask conformance`.

use crate::{GgmlType, QuantError, blocks::QK_K, dequantize_row, quantize_row};

/// How a result differs from the record.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Difference {
    #[error(transparent)]
    Failed(#[from] QuantError),
    /// Values are compared as bits.
    #[error("{count} of {total} values differ, first number {index}: {actual:e} instead of {expected:e}")]
    Values { count: usize, total: usize, index: usize, expected: f32, actual: f32 },
    #[error("{count} of {total} blocks differ, first number {block}")]
    Bytes { count: usize, total: usize, block: usize },
    #[error("the relative error is {actual}; {allowed} is allowed")]
    Error { actual: f64, allowed: f64 },
}

/// `packed` must dequantize to `expected`, bit for bit.
pub fn check_dequantizer(ty: GgmlType, packed: &[u8], expected: &[f32]) -> Result<(), Difference> {
    let mut actual = vec![0.0; expected.len()];
    dequantize_row(ty, packed, &mut actual)?;
    let differs = |&i: &usize| expected[i].to_bits() != actual[i].to_bits();
    let mut different = (0..expected.len()).filter(differs);
    let Some(index) = different.next() else { return Ok(()) };
    let count = 1 + different.count();
    Err(Difference::Values { count, total: expected.len(), index, expected: expected[index], actual: actual[index] })
}

/// Rows of `columns` values in `input` must quantize to `expected`: byte for byte, or for K and IQ types, where another order
/// of summation may choose other scales, with a relative error at most 1 % above that of `expected`.
pub fn check_quantizer(
    ty: GgmlType,
    input: &[f32],
    columns: usize,
    importance: Option<&[f32]>,
    expected: &[u8],
) -> Result<(), Difference> {
    let partial = QuantError::PartialBlock { ty, elements: columns };
    let row_bytes = ty.row_bytes(columns).filter(|&bytes| bytes > 0).ok_or(partial)?;
    let mut actual = vec![0; expected.len()];
    for (row, out) in input.chunks(columns).zip(actual.chunks_mut(row_bytes)) {
        quantize_row(ty, row, importance, out)?;
    }
    let searched = ty.block_size() == QK_K && !matches!(ty, GgmlType::Q8_K | GgmlType::TQ1_0 | GgmlType::TQ2_0);
    if searched || ty == GgmlType::IQ4_NL {
        let allowed = 1.01 * relative_error(ty, input, expected)?;
        let actual = relative_error(ty, input, &actual)?;
        return if actual <= allowed { Ok(()) } else { Err(Difference::Error { actual, allowed }) };
    }
    let pairs = expected.chunks(ty.type_size()).zip(actual.chunks(ty.type_size()));
    let mut different = pairs.enumerate().filter(|(_, (expected, actual))| expected != actual).map(|(block, _)| block);
    let Some(block) = different.next() else { return Ok(()) };
    let total = expected.len() / ty.type_size();
    Err(Difference::Bytes { count: 1 + different.count(), total, block })
}

/// The root mean square error of `packed` against `input`, relative to the root mean square of `input`.
pub fn relative_error(ty: GgmlType, input: &[f32], packed: &[u8]) -> Result<f64, QuantError> {
    let mut values = vec![0.0; input.len()];
    dequantize_row(ty, packed, &mut values)?;
    let squares: f64 = input.iter().map(|&x| f64::from(x).powi(2)).sum();
    let errors: f64 = input.iter().zip(&values).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum();
    Ok((errors / squares).sqrt())
}
