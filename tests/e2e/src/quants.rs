//! Three quantizations of the bundled model, as a repository on disk.

use crate::fixture;
use anyhow::{Context, Result};
use gguf::{Gguf, GgufWriter};
use quant::GgmlType;
use std::path::Path;

/// What the repository offers.
pub const QUANTS: [&str; 3] = ["F16", "Q8_0", "Q4_K_M"];

/// Writes `FOLDER/headroom/rustdoc-tiny-GGUF/rustdoc-tiny-*.gguf`.
pub fn repository(folder: &Path) -> Result<()> {
    let repository = folder.join("headroom/rustdoc-tiny-GGUF");
    std::fs::create_dir_all(&repository)?;
    for name in ["rustdoc-tiny-F16.gguf", "rustdoc-tiny-Q4_K_M.gguf"] {
        std::fs::copy(fixture(name), repository.join(name)).with_context(|| name.to_string())?;
    }
    let q8 = requantize(&std::fs::read(fixture("rustdoc-tiny-F16.gguf"))?, GgmlType::Q8_0)?;
    std::fs::write(repository.join("rustdoc-tiny-Q8_0.gguf"), q8)?;
    Ok(())
}

/// The same model with its F16 matrices in another type.
fn requantize(bytes: &[u8], ty: GgmlType) -> Result<Vec<u8>> {
    let gguf = Gguf::parse(bytes, bytes.len() as u64)?;
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata.iter() {
        writer.set(key, value.clone())?;
    }
    let target = |tensor: &gguf::TensorInfo| if tensor.ty == GgmlType::F16 { ty } else { tensor.ty };
    for tensor in &gguf.tensors {
        writer.tensor(&tensor.name, target(tensor), &tensor.shape)?;
    }
    let mut out = writer.start(Vec::new())?;
    for tensor in &gguf.tensors {
        let data = &bytes[tensor.offset as usize..tensor.end() as usize];
        if target(tensor) == tensor.ty {
            out.write(data)?;
            continue;
        }
        let columns = tensor.shape[0] as usize;
        for row in data.chunks_exact(columns * 2) {
            let mut values = vec![0f32; columns];
            quant::dequantize_row(tensor.ty, row, &mut values)?;
            let mut packed = vec![0u8; ty.row_bytes(columns).context("rows are not whole blocks")?];
            quant::quantize_row(ty, &values, None, &mut packed)?;
            out.write(&packed)?;
        }
    }
    Ok(out.finish()?)
}
