//! `headroom inspect`

use crate::args::Inspect;
use crate::failure::Failure;
use crate::program::Program;
use crate::{load, output};
use gguf::{Array, Value};
use serde_json::{Map, json};

/// Elements of an array in the metadata that are printed; the rest is counted.
const SHOWN_ELEMENTS: usize = 16;

pub fn inspect(program: &Program, options: &Inspect) -> Result<(), Failure> {
    let gguf = load::header(program, &options.model)?;
    let architecture = gguf.architecture().unwrap_or("unknown").to_string();
    let key = |name: &str| gguf.metadata.u64(&format!("{architecture}.{name}"));
    let name = gguf.metadata.str("general.name");
    let parameters: u64 = gguf.tensors.iter().map(|tensor| tensor.elements()).sum();
    let tensors: Vec<_> = gguf
        .tensors
        .iter()
        .map(|t| json!({"name": t.name, "type": t.ty.name(), "shape": t.shape, "bytes": t.bytes}))
        .collect();
    let metadata: Map<String, serde_json::Value> =
        gguf.metadata.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect();
    if program.json {
        return output::json(&json!({
            "architecture": architecture,
            "name": name,
            "parameters": parameters,
            "file_bytes": gguf.file_len,
            "context_length": key("context_length"),
            "layers": key("block_count"),
            "tensors": tensors,
            "metadata": metadata,
        }));
    }
    output::line(&format!(
        "{}: {architecture}, {parameters} parameters, {}",
        name.unwrap_or("(no name)"),
        output::size(gguf.file_len)
    ))?;
    for (key, value) in &metadata {
        output::line(&format!("  {key} = {value}"))?;
    }
    for tensor in &gguf.tensors {
        output::line(&format!(
            "  {:40} {:8} {:?} {}",
            tensor.name,
            tensor.ty.name(),
            tensor.shape,
            output::size(tensor.bytes)
        ))?;
    }
    Ok(())
}

fn to_json(value: &Value) -> serde_json::Value {
    if let Some(array) = value.as_array() {
        return array_to_json(array);
    }
    if let Some(bytes) = value.as_bytes() {
        return String::from_utf8_lossy(bytes).into_owned().into();
    }
    if let Some(number) = value.as_u64() {
        return number.into();
    }
    if let Some(number) = value.as_i64() {
        return number.into();
    }
    // After the numbers: 0 and 1 pass for truth values too.
    if let Some(flag) = value.as_bool() {
        return flag.into();
    }
    value.as_f32().map_or(serde_json::Value::Null, |number| json!(number))
}

fn array_to_json(array: &Array) -> serde_json::Value {
    let shown: Vec<_> = array.iter().take(SHOWN_ELEMENTS).map(|value| to_json(&value)).collect();
    if array.len() <= SHOWN_ELEMENTS {
        return shown.into();
    }
    json!({"length": array.len(), "first": shown})
}
