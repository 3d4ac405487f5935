use crate::GgmlType;

/// Why a row could not be converted or multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// The element count is not a whole number of blocks.
    #[error("a row of {elements} elements is not a whole number of {ty} blocks of {} elements", ty.block_size())]
    PartialBlock { ty: GgmlType, elements: usize },
    /// The packed bytes do not have the length that the element count asks for.
    #[error("{elements} elements of {ty} take {expected} bytes, but there are {actual}")]
    ByteLength { ty: GgmlType, elements: usize, expected: usize, actual: usize },
    /// One importance weight per element is needed.
    #[error("there are {actual} importance weights for {elements} elements")]
    ImportanceLength { elements: usize, actual: usize },
    /// Without importance weights the type is too coarse to be of use.
    #[error("{ty} needs importance weights; pass an importance matrix or choose another type")]
    ImportanceNeeded { ty: GgmlType },
    /// The type can be read but not written here.
    #[error("there is no quantizer for {ty} here; choose another type")]
    NoQuantizer { ty: GgmlType },
}

/// Check that `bytes` hold exactly `elements` of `ty`.
pub(crate) fn check_row(ty: GgmlType, elements: usize, bytes: usize) -> Result<(), QuantError> {
    let expected = ty.row_bytes(elements).ok_or(QuantError::PartialBlock { ty, elements })?;
    if bytes != expected {
        return Err(QuantError::ByteLength { ty, elements, expected, actual: bytes });
    }
    Ok(())
}
