//! Tensor records: name, type, shape, place.

use quant::GgmlType;

use crate::GgufError;

/// A tensor has at most this many dimensions.
pub const MAX_DIMS: usize = 4;

/// One tensor of a model. Its data lies wholly within its file, overlapping no other tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub ty: GgmlType,
    /// Elements per dimension, row length first; 1 to 4 dimensions, none zero.
    pub shape: Vec<u64>,
    /// Where the data begins, in bytes from the beginning of its file.
    pub offset: u64,
    /// Length of the data in bytes.
    pub bytes: u64,
    /// Which file of a split model holds it; 0 for a model in one file.
    pub shard: u16,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        // Cannot overflow: `tensor_bytes` checked the product.
        self.shape.iter().product()
    }

    /// Number of rows of `shape[0]` elements.
    pub fn rows(&self) -> u64 {
        self.shape[1..].iter().product()
    }

    /// First byte after the data, in its file.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// Bytes of a tensor's data: whole blocks per row, rows one after another. Elements and bytes both fit i64, as ggml has it.
pub(crate) fn tensor_bytes(name: &str, ty: GgmlType, shape: &[u64]) -> Result<u64, GgufError> {
    let bad = |reason| GgufError::BadShape { name: name.into(), shape: shape.into(), reason };
    if shape.is_empty() || shape.len() > MAX_DIMS {
        return Err(bad("1 to 4 dimensions are allowed"));
    }
    if shape.contains(&0) {
        return Err(bad("a dimension is zero"));
    }
    let checked = |items: &[u64], first: u64| {
        items.iter().try_fold(first, |product, &n| product.checked_mul(n)).filter(|&n| i64::try_from(n).is_ok())
    };
    checked(shape, 1).ok_or_else(|| bad("too many elements"))?;
    if !shape[0].is_multiple_of(ty.block_size() as u64) {
        return Err(bad("a row is not a whole number of the type's blocks"));
    }
    let row = (shape[0] / ty.block_size() as u64).checked_mul(ty.type_size() as u64);
    row.and_then(|row| checked(&shape[1..], row)).ok_or_else(|| bad("too many bytes"))
}
