//! Three quantizations of the bundled model, as a repository of the local Hub.

use crate::fixture;
use anyhow::{Context, Result};
use fake_hub::FakeHub;
use gguf::{Gguf, GgufWriter};
use quant::GgmlType;

/// What the repository offers.
pub const QUANTS: [&str; 3] = ["F16", "Q8_0", "Q4_K_M"];

pub const REPOSITORY: &str = "headroom/rustdoc-tiny-GGUF";

/// A Hub that offers the model in [`QUANTS`].
pub fn repository() -> Result<FakeHub> {
    let hub = FakeHub::start()?;
    for quant in QUANTS {
        hub.add_bytes(REPOSITORY, &file_name(quant), file(quant)?);
    }
    Ok(hub)
}

pub fn file_name(quant: &str) -> String {
    format!("rustdoc-tiny-{quant}.gguf")
}

/// The bytes of the model in one of [`QUANTS`].
pub fn file(quant: &str) -> Result<Vec<u8>> {
    let bundled = |quant: &str| {
        let path = fixture(&file_name(quant));
        std::fs::read(&path).with_context(|| path.display().to_string())
    };
    match quant {
        "Q8_0" => requantize(&bundled("F16")?, GgmlType::Q8_0),
        _ => bundled(quant),
    }
}

/// The bundled model with another chat template.
pub fn with_template(template: &str) -> Result<Vec<u8>> {
    let bytes = file("F16")?;
    rewrite(&bytes, GgmlType::F16, |key, value| match key {
        "tokenizer.chat_template" => gguf::Value::String(template.into()),
        _ => value.clone(),
    })
}

/// The same model with its F16 matrices in another type.
fn requantize(bytes: &[u8], ty: GgmlType) -> Result<Vec<u8>> {
    rewrite(bytes, ty, |_, value| value.clone())
}

fn rewrite(bytes: &[u8], ty: GgmlType, change: impl Fn(&str, &gguf::Value) -> gguf::Value) -> Result<Vec<u8>> {
    let gguf = Gguf::parse(bytes, bytes.len() as u64)?;
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata.iter() {
        writer.set(key, change(key, value))?;
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
