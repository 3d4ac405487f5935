//! What a tensor's name and shape allow.

use gguf::TensorInfo;
use quant::GgmlType::{self, *};

/// Small tensors, and those that a model cannot afford to have rounded: they stay as they are.
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv",
    "time_mix_",
    "attn_rel_b",
    "position_embd",
    "token_types",
];

/// Matrices of floats or blocks, but for those that are kept.
pub(crate) fn may_change(tensor: &TensorInfo) -> bool {
    let matrix = tensor.shape.iter().skip(1).any(|&n| n > 1);
    let whole_number = matches!(tensor.ty, I8 | I16 | I32 | I64);
    matrix && !whole_number && tensor.name.ends_with("weight") && !KEPT.iter().any(|part| tensor.name.contains(part))
}

/// `ty`, or the next best whose blocks fill the row.
pub(crate) fn fitting(ty: GgmlType, row: u64) -> GgmlType {
    if row % ty.block_size() as u64 == 0 {
        return ty;
    }
    let smaller_blocks = match ty {
        TQ1_0 | TQ2_0 => Q4_0,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        ty if ty.block_size() == 256 => IQ4_NL,
        _ => return F16,
    };
    fitting(smaller_blocks, row)
}
