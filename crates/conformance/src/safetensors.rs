//! F32 arrays of a .safetensors file: 8 bytes of header length, a JSON header, data.

use anyhow::{Context, Result, bail};
use std::path::Path;

pub struct Safetensors {
    header: serde_json::Value,
    data: Vec<u8>,
}

impl Safetensors {
    pub fn open(path: &Path) -> Result<Safetensors> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let length = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b) as usize).context("no header length")?;
        let header = bytes.get(8..8usize.saturating_add(length)).context("the header is cut")?;
        Ok(Safetensors { header: serde_json::from_slice(header)?, data: bytes[8 + length..].to_vec() })
    }

    /// The array's values and the length of its rows.
    pub fn rows(&self, name: &str) -> Result<(Vec<f32>, usize)> {
        let entry = &self.header[name];
        if entry["dtype"] != "F32" {
            bail!("{name} is not an F32 array");
        }
        let number = |value: &serde_json::Value| value.as_u64().map(|n| n as usize);
        let (start, end) = (number(&entry["data_offsets"][0]), number(&entry["data_offsets"][1]));
        let range = start.context("no start")?..end.context("no end")?;
        let bytes = self.data.get(range).with_context(|| format!("{name} is outside the file"))?;
        let width = entry["shape"].as_array().and_then(|shape| shape.last()).and_then(number).context("no shape")?;
        Ok((bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(), width))
    }
}
