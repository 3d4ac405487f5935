//! From the first bytes of a file to a validated header.

use std::collections::HashMap;

use quant::GgmlType;

use crate::reader::Reader;
use crate::tensor::tensor_bytes;
use crate::{Array, DEFAULT_ALIGNMENT, GgufError, MAX_DIMS, Metadata, Strings, TensorInfo, Value, ValueType};

/// Far above any real model (about 1,100 tensors, 60 keys), and low enough that the records of a hostile file stay small.
const MAX_TENSORS: u64 = 1 << 17;
const MAX_KEYS: u64 = 1 << 16;
const MAX_NAME: u64 = 255;
const MAX_KEY: u64 = 65_535;
/// Levels of arrays in arrays, and arrays in arrays altogether.
const MAX_NESTING: usize = 4;
const MAX_INNER_ARRAYS: u64 = 1 << 16;
/// The format asks for a multiple of 8; that also lets every element type be read in place.
const MIN_ALIGNMENT: u64 = 8;
/// An alignment beyond this serves nobody (page sizes end at 64 KiB; huge pages at 2 MiB are rounded up to).
const MAX_ALIGNMENT: u64 = 1 << 21;

/// The header of one GGUF file, or of all files of a split model ([`crate::merge_splits`]).
///
/// Invariants after parsing: keys and tensor names are unique; `alignment` is a power of two; every tensor's offset is
/// a multiple of it within the data, its range lies within its file, and no two tensors overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// Tensor data begins at multiples of this many bytes.
    pub alignment: u64,
    pub metadata: Metadata,
    /// In file order.
    pub tensors: Vec<TensorInfo>,
    /// Where the tensor data of this file (of the first, for a split model) begins.
    pub data_offset: u64,
    /// Length of the file in bytes; of all files together, for a split model.
    pub file_len: u64,
    /// Tensor name to its position in `tensors`.
    index: HashMap<String, u32>,
}

impl Gguf {
    /// Parses a header from `prefix`, the first bytes of a file (or all of it), and checks every tensor's range against
    /// `file_len`, the length of the whole file.
    ///
    /// # Errors
    /// [`GgufError::Incomplete`] if the header is longer than `prefix` while the file goes on; otherwise what is wrong
    /// with the file. Time and memory are bounded by the length of `prefix`, whatever the header claims.
    pub fn parse(prefix: &[u8], file_len: u64) -> Result<Gguf, GgufError> {
        let visible = usize::try_from(file_len).map_or(prefix.len(), |len| len.min(prefix.len()));
        let mut reader = Reader::new(&prefix[..visible], file_len);
        let version = version(&mut reader)?;
        let tensor_count = count(&mut reader, "tensors", MAX_TENSORS)?;
        let key_count = count(&mut reader, "metadata keys", MAX_KEYS)?;

        let metadata = read_metadata(&mut reader, key_count)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = read_tensors(&mut reader, tensor_count, alignment)?;

        // Cannot overflow: the header's length and the alignment are both bounded.
        let data_offset = reader.at().next_multiple_of(alignment);
        place(&mut tensors, data_offset, file_len)?;
        Gguf::new(version, alignment, metadata, tensors, data_offset, file_len)
    }

    pub(crate) fn new(
        version: u32,
        alignment: u64,
        metadata: Metadata,
        tensors: Vec<TensorInfo>,
        data_offset: u64,
        file_len: u64,
    ) -> Result<Gguf, GgufError> {
        let mut index = HashMap::with_capacity(tensors.len());
        for (position, tensor) in tensors.iter().enumerate() {
            if index.insert(tensor.name.clone(), position as u32).is_some() {
                return Err(GgufError::DuplicateTensor(tensor.name.clone()));
            }
        }
        Ok(Gguf { version, alignment, metadata, tensors, data_offset, file_len, index })
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensor_index(name).map(|position| &self.tensors[position])
    }

    /// The position in `tensors` of the tensor with this name.
    pub fn tensor_index(&self, name: &str) -> Option<usize> {
        self.index.get(name).map(|&position| position as usize)
    }

    /// `general.architecture`, the family of the model ("llama", "qwen3", ...).
    pub fn architecture(&self) -> Option<&str> {
        self.metadata.str("general.architecture")
    }

    /// Bytes of all tensor data, without padding.
    pub fn tensor_bytes(&self) -> u64 {
        // Cannot overflow: tensors do not overlap, so one file's sum is below its length; parts are few.
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }
}

fn version(reader: &mut Reader<'_>) -> Result<u32, GgufError> {
    let magic = reader.take(4, "the magic number")?;
    if magic != b"GGUF" {
        let mut found = [0; 4];
        found.copy_from_slice(magic);
        return Err(GgufError::NotGguf { magic: found });
    }
    match reader.u32("the version")? {
        1 => Err(GgufError::Version1),
        version @ (2 | 3) => Ok(version),
        // Read in the wrong byte order, a small version number has its low half empty.
        version if version != 0 && version & 0xffff == 0 => Err(GgufError::BigEndian),
        version => Err(GgufError::UnsupportedVersion(version)),
    }
}

fn count(reader: &mut Reader<'_>, what: &'static str, limit: u64) -> Result<u64, GgufError> {
    let count = reader.u64(what)?;
    if count > limit {
        return Err(GgufError::TooMany { what, count, limit });
    }
    Ok(count)
}

fn read_metadata(reader: &mut Reader<'_>, count: u64) -> Result<Metadata, GgufError> {
    // The shortest entry: an empty key, a type, one byte.
    reader.expect(count, 8 + 4 + 1, "the metadata")?;
    let mut metadata = Metadata::default();
    let mut inner = 0;
    for _ in 0..count {
        let key = reader.name("metadata key", MAX_KEY)?;
        let ty = read_type(reader, key)?;
        let value = read_value(reader, key, ty, &mut inner)?;
        metadata.insert(key.to_owned(), value)?;
    }
    Ok(metadata)
}

fn read_type(reader: &mut Reader<'_>, key: &str) -> Result<ValueType, GgufError> {
    let id = reader.u32("a value type")?;
    ValueType::from_id(id).ok_or_else(|| GgufError::UnknownValueType { key: key.into(), id })
}

fn read_value(reader: &mut Reader<'_>, key: &str, ty: ValueType, inner: &mut u64) -> Result<Value, GgufError> {
    match ty {
        ValueType::String => Ok(Value::String(reader.string("a string")?.to_vec())),
        ValueType::Array => Ok(Value::Array(read_array(reader, key, 1, inner)?)),
        scalar => {
            let bytes = reader.take(scalar.size().unwrap_or(0) as u64, "a value")?;
            Value::scalar(scalar, bytes).ok_or_else(|| GgufError::BadBool { key: key.into() })
        }
    }
}

/// An array at nesting `level` (1: not nested); `inner` counts the arrays in arrays so far.
fn read_array(reader: &mut Reader<'_>, key: &str, level: usize, inner: &mut u64) -> Result<Array, GgufError> {
    if level > MAX_NESTING {
        return Err(GgufError::NestedTooDeep { key: key.into(), limit: MAX_NESTING });
    }
    let ty = read_type(reader, key)?;
    let count = reader.u64("an array's length")?;
    match ty {
        ValueType::String => {
            let mut strings = Strings::with_capacity(reader.expect(count, 8, "a string array")?);
            for _ in 0..count {
                strings.push(reader.string("a string")?);
            }
            Ok(Array::Strings(strings.shrink()))
        }
        ValueType::Array => {
            *inner = inner.saturating_add(count);
            if *inner > MAX_INNER_ARRAYS {
                return Err(GgufError::TooMany { what: "nested arrays", count: *inner, limit: MAX_INNER_ARRAYS });
            }
            let mut arrays = Vec::with_capacity(reader.expect(count, 4 + 8, "nested arrays")?);
            for _ in 0..count {
                arrays.push(read_array(reader, key, level + 1, inner)?);
            }
            Ok(Array::Arrays(arrays))
        }
        scalar => {
            let size = scalar.size().unwrap_or(1) as u64;
            // Cannot overflow: `expect` has found this many bytes.
            let total = reader.expect(count, size, "an array")? as u64 * size;
            let bytes = reader.take(total, "an array")?.to_vec();
            if scalar == ValueType::Bool && bytes.iter().any(|&x| x > 1) {
                return Err(GgufError::BadBool { key: key.into() });
            }
            Ok(Array::Scalars { ty: scalar, bytes })
        }
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    checked_alignment(value)
}

/// A value for `general.alignment` that can be used.
pub(crate) fn checked_alignment(value: &Value) -> Result<u64, GgufError> {
    value
        .as_u64()
        .filter(|alignment| alignment.is_power_of_two() && (MIN_ALIGNMENT..=MAX_ALIGNMENT).contains(alignment))
        .ok_or_else(|| GgufError::BadAlignment(format!("{value:?}")))
}

/// The tensor records, their offsets still relative to the data.
fn read_tensors(reader: &mut Reader<'_>, count: u64, alignment: u64) -> Result<Vec<TensorInfo>, GgufError> {
    // The shortest record: an empty name, no dimension, type, offset.
    let mut tensors = Vec::with_capacity(reader.expect(count, 8 + 4 + 4 + 8, "the tensor records")?);
    for _ in 0..count {
        let name = reader.name("tensor name", MAX_NAME)?.to_owned();
        let dims = reader.u32("a tensor record")?;
        if dims as usize > MAX_DIMS {
            return Err(GgufError::BadShape { name, shape: Vec::new(), reason: "more than 4 dimensions" });
        }
        let mut shape = Vec::with_capacity(dims.max(1) as usize);
        for _ in 0..dims {
            shape.push(reader.u64("a tensor record")?);
        }
        if shape.is_empty() {
            shape.push(1); // a scalar
        }
        let id = reader.u32("a tensor record")?;
        let offset = reader.u64("a tensor record")?;
        let Some(ty) = GgmlType::from_id(id) else { return Err(GgufError::UnknownTensorType { name, id }) };
        let bytes = tensor_bytes(&name, ty, &shape)?;
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::MisalignedTensor { name, offset, alignment });
        }
        tensors.push(TensorInfo { name, ty, shape, offset, bytes, shard: 0 });
    }
    Ok(tensors)
}

/// Makes offsets absolute and checks that every tensor lies within the file and none overlap.
fn place(tensors: &mut [TensorInfo], data_offset: u64, file_len: u64) -> Result<(), GgufError> {
    for tensor in tensors.iter_mut() {
        let offset = tensor.offset.checked_add(data_offset);
        let end = offset.and_then(|offset| offset.checked_add(tensor.bytes));
        match (offset, end) {
            (Some(offset), Some(end)) if end <= file_len => tensor.offset = offset,
            _ => {
                let (name, end) = (tensor.name.clone(), end.unwrap_or(u64::MAX));
                return Err(GgufError::TensorBeyondFile { name, end, file_len });
            }
        }
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offset);
    for pair in order.windows(2) {
        if pair[0].end() > pair[1].offset {
            return Err(GgufError::OverlappingTensors { first: pair[0].name.clone(), second: pair[1].name.clone() });
        }
    }
    Ok(())
}
