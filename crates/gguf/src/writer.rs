//! Writing GGUF files: declare everything, then stream the tensor data.

use std::io::Write;

use quant::GgmlType;

use crate::parse::checked_alignment;
use crate::tensor::tensor_bytes;
use crate::{Array, DEFAULT_ALIGNMENT, GgufError, MAX_HEADER_BYTES, Metadata, Value};

/// Collects metadata and tensor records, then writes the header and hands out a [`TensorWriter`] for the data:
/// nothing but the header is ever held in memory.
#[derive(Clone, Debug)]
pub struct GgufWriter {
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<Declared>,
}

#[derive(Clone, Debug)]
struct Declared {
    name: String,
    ty: GgmlType,
    shape: Vec<u64>,
    bytes: u64,
}

impl Default for GgufWriter {
    fn default() -> GgufWriter {
        GgufWriter::new()
    }
}

impl GgufWriter {
    /// An empty file of version 3 with the default alignment.
    pub fn new() -> GgufWriter {
        GgufWriter { version: 3, alignment: DEFAULT_ALIGNMENT, metadata: Metadata::default(), tensors: Vec::new() }
    }

    /// Writes this version instead, 2 or 3 (they differ in nothing but the number).
    pub fn version(&mut self, version: u32) -> Result<&mut GgufWriter, GgufError> {
        if !(2..=3).contains(&version) {
            return Err(GgufError::UnsupportedVersion(version));
        }
        self.version = version;
        Ok(self)
    }

    /// Aligns tensor data to `alignment` bytes, a power of two, and sets `general.alignment`.
    pub fn alignment(&mut self, alignment: u32) -> Result<&mut GgufWriter, GgufError> {
        self.set("general.alignment", alignment)
    }

    /// Appends a metadata entry. `general.alignment` sets the alignment too.
    ///
    /// # Errors
    /// [`GgufError::DuplicateKey`], [`GgufError::BadAlignment`].
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> Result<&mut GgufWriter, GgufError> {
        let value = value.into();
        if key == "general.alignment" {
            self.alignment = checked_alignment(&value)?;
        }
        self.metadata.insert(key.to_owned(), value)?;
        Ok(self)
    }

    /// Declares the next tensor (shape: row length first). Its data is written in this order later.
    ///
    /// # Errors
    /// [`GgufError::BadShape`]. A name given twice is found by [`GgufWriter::start`].
    pub fn tensor(&mut self, name: &str, ty: GgmlType, shape: &[u64]) -> Result<&mut GgufWriter, GgufError> {
        let bytes = tensor_bytes(name, ty, shape)?;
        self.tensors.push(Declared { name: name.to_owned(), ty, shape: shape.to_vec(), bytes });
        Ok(self)
    }

    /// Writes the header to `out` and returns the writer of the data. Writes are many and small: give a buffered `out`.
    ///
    /// # Errors
    /// [`GgufError::Io`]; [`GgufError::DuplicateTensor`]; [`GgufError::HeaderTooLarge`] for what could not be read back.
    pub fn start<W: Write>(&self, mut out: W) -> Result<TensorWriter<W>, GgufError> {
        let header = self.header()?;
        out.write_all(&header)?;
        let mut tensors: Vec<(String, u64)> = self.tensors.iter().map(|t| (t.name.clone(), t.bytes)).collect();
        tensors.reverse();
        Ok(TensorWriter { out, alignment: self.alignment, tensors, written: 0 })
    }

    /// Length of the whole file in bytes.
    ///
    /// # Errors
    /// As for [`GgufWriter::start`], but for I/O.
    pub fn file_len(&self) -> Result<u64, GgufError> {
        // Cannot overflow: the header has been checked to describe a possible file.
        let data = self.tensors.iter().map(|tensor| tensor.bytes.next_multiple_of(self.alignment)).sum::<u64>();
        Ok(self.header()?.len() as u64 + data)
    }

    /// Everything before the tensor data, padding included.
    ///
    /// # Errors
    /// As for [`GgufWriter::start`], but for I/O.
    pub fn header(&self) -> Result<Vec<u8>, GgufError> {
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = self.tensors.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
            return Err(GgufError::DuplicateTensor(twice.name.clone()));
        }
        let mut out = Vec::new();
        out.extend(b"GGUF");
        out.extend(self.version.to_le_bytes());
        put_len(&mut out, self.tensors.len());
        put_len(&mut out, self.metadata.len());
        for (key, value) in self.metadata.iter() {
            put_string(&mut out, key.as_bytes());
            out.extend(value.ty().id().to_le_bytes());
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_string(&mut out, tensor.name.as_bytes());
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(tensor.ty.id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            let end = offset.checked_add(tensor.bytes).and_then(|end| end.checked_next_multiple_of(self.alignment));
            // Half the range for the data leaves room for any header.
            offset = end.filter(|&end| i64::try_from(end).is_ok()).ok_or_else(|| GgufError::BadShape {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                reason: "the file would be longer than files can be",
            })?;
        }
        if out.len() as u64 > MAX_HEADER_BYTES {
            return Err(GgufError::HeaderTooLarge { needs: out.len() as u64, limit: MAX_HEADER_BYTES });
        }
        out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
        Ok(out)
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend((len as u64).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend(bytes);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(x) => out.extend(x.to_le_bytes()),
        Value::I8(x) => out.extend(x.to_le_bytes()),
        Value::U16(x) => out.extend(x.to_le_bytes()),
        Value::I16(x) => out.extend(x.to_le_bytes()),
        Value::U32(x) => out.extend(x.to_le_bytes()),
        Value::I32(x) => out.extend(x.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::U64(x) => out.extend(x.to_le_bytes()),
        Value::I64(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Bool(x) => out.push((*x).into()),
        Value::String(x) => put_string(out, x),
        Value::Array(x) => put_array(out, x),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.ty().id().to_le_bytes());
    put_len(out, array.len());
    match array {
        Array::Scalars { bytes, .. } => out.extend(bytes),
        Array::Strings(strings) => strings.iter().for_each(|string| put_string(out, string)),
        Array::Arrays(arrays) => arrays.iter().for_each(|array| put_array(out, array)),
    }
}

/// Writes the data of the declared tensors, in their order.
#[derive(Debug)]
pub struct TensorWriter<W> {
    out: W,
    alignment: u64,
    /// Name and bytes of the tensors not yet complete, the current one last.
    tensors: Vec<(String, u64)>,
    /// Bytes of the current tensor written so far.
    written: u64,
}

impl<W: Write> TensorWriter<W> {
    /// Writes the next bytes of the current tensor: all of it, or a part. When it is complete, it is padded and the
    /// next one becomes current.
    ///
    /// # Errors
    /// [`GgufError::WrongTensorSize`] if the bytes reach beyond the tensor; [`GgufError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        let Some((name, expected)) = self.tensors.last() else {
            let given = bytes.len() as u64;
            return Err(GgufError::WrongTensorSize { name: String::new(), expected: 0, given });
        };
        let given = self.written.saturating_add(bytes.len() as u64);
        if given > *expected {
            return Err(GgufError::WrongTensorSize { name: name.clone(), expected: *expected, given });
        }
        self.out.write_all(bytes)?;
        self.written = given;
        if given == *expected {
            // `alignment` is at most 2 MiB, so the padding fits any usize.
            let padding = (given.next_multiple_of(self.alignment) - given) as usize;
            self.out.write_all(&vec![0; padding])?;
            self.tensors.pop();
            self.written = 0;
        }
        Ok(())
    }

    /// Ends the file and returns the flushed output.
    ///
    /// # Errors
    /// [`GgufError::WrongTensorSize`] if a tensor is incomplete; [`GgufError::Io`].
    pub fn finish(mut self) -> Result<W, GgufError> {
        if let Some((name, expected)) = self.tensors.pop() {
            return Err(GgufError::WrongTensorSize { name, expected, given: self.written });
        }
        self.out.flush()?;
        Ok(self.out)
    }
}
