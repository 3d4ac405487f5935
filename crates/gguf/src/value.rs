//! Metadata values: scalars, strings, arrays.

use std::fmt;

use crate::Strings;

/// The type of a metadata value, with its id in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    pub(crate) fn from_id(id: u32) -> Option<ValueType> {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64].into_iter().find(|ty| ty.id() == id)
    }

    /// The id in the file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of one value; `None` for strings and arrays.
    pub fn size(self) -> Option<usize> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            String | Array => None,
        }
    }
}

/// One metadata value. Strings are bytes, because files with invalid UTF-8 exist.
#[derive(Clone, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(Vec<u8>),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A number of any type, as wide as it needs.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Value {
    pub fn ty(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The scalar of type `ty` stored in `bytes` (exactly `ty.size()` of them); `None` for other types and for a truth
    /// value that is neither 0 nor 1.
    pub(crate) fn scalar(ty: ValueType, bytes: &[u8]) -> Option<Value> {
        Some(match ty {
            ValueType::U8 => Value::U8(u8::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U64 => Value::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::Bool => match bytes {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return None,
            },
            ValueType::String | ValueType::Array => return None,
        })
    }

    fn number(&self) -> Option<Number> {
        Some(match *self {
            Value::U8(x) => Number::Int(x.into()),
            Value::I8(x) => Number::Int(x.into()),
            Value::U16(x) => Number::Int(x.into()),
            Value::I16(x) => Number::Int(x.into()),
            Value::U32(x) => Number::Int(x.into()),
            Value::I32(x) => Number::Int(x.into()),
            Value::U64(x) => Number::Int(x.into()),
            Value::I64(x) => Number::Int(x.into()),
            Value::F32(x) => Number::Float(x.into()),
            Value::F64(x) => Number::Float(x),
            Value::Bool(_) | Value::String(_) | Value::Array(_) => return None,
        })
    }

    /// A whole number of any type (a float must have no fraction).
    fn whole(&self) -> Option<i128> {
        match self.number()? {
            Number::Int(x) => Some(x),
            // Beyond 2^64 nothing fits the callers' types; the bound also keeps the cast exact.
            Number::Float(x) if x.fract() == 0.0 && x.abs() <= 2f64.powi(64) => Some(x as i128),
            Number::Float(_) => None,
        }
    }

    /// Any whole number that fits.
    pub fn as_u64(&self) -> Option<u64> {
        self.whole()?.try_into().ok()
    }

    /// Any whole number that fits.
    pub fn as_i64(&self) -> Option<i64> {
        self.whole()?.try_into().ok()
    }

    /// Any number, rounded to f32 if need be.
    pub fn as_f32(&self) -> Option<f32> {
        Some(match self.number()? {
            Number::Int(x) => x as f32,
            Number::Float(x) => x as f32,
        })
    }

    /// A truth value, or a whole number 0 or 1.
    pub fn as_bool(&self) -> Option<bool> {
        match (self, self.whole()) {
            (Value::Bool(x), _) => Some(*x),
            (_, Some(0)) => Some(false),
            (_, Some(1)) => Some(true),
            _ => None,
        }
    }

    /// A string's bytes, valid UTF-8 or not.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::String(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A string that is valid UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::U8(x) => write!(f, "{x}u8"),
            Value::I8(x) => write!(f, "{x}i8"),
            Value::U16(x) => write!(f, "{x}u16"),
            Value::I16(x) => write!(f, "{x}i16"),
            Value::U32(x) => write!(f, "{x}u32"),
            Value::I32(x) => write!(f, "{x}i32"),
            Value::U64(x) => write!(f, "{x}u64"),
            Value::I64(x) => write!(f, "{x}i64"),
            Value::F32(x) => write!(f, "{x}f32"),
            Value::F64(x) => write!(f, "{x}f64"),
            Value::Bool(x) => write!(f, "{x}"),
            Value::String(x) => write!(f, "{:?}", String::from_utf8_lossy(x)),
            Value::Array(x) => write!(f, "{x:?}"),
        }
    }
}

/// An array of the metadata. Numbers are kept as they lie in the file, strings in one buffer ([`Strings`]): the
/// vocabulary of a current model is one array of 260,000 strings.
#[derive(Clone, PartialEq)]
pub enum Array {
    /// Numbers or truth values of type `ty`, little-endian, `ty.size()` bytes each.
    Scalars {
        ty: ValueType,
        bytes: Vec<u8>,
    },
    Strings(Strings),
    Arrays(Vec<Array>),
}

impl Array {
    /// Type of the elements.
    pub fn ty(&self) -> ValueType {
        match self {
            Array::Scalars { ty, .. } => *ty,
            Array::Strings(_) => ValueType::String,
            Array::Arrays(_) => ValueType::Array,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::Scalars { ty, bytes } => bytes.len() / ty.size().unwrap_or(1),
            Array::Strings(strings) => strings.len(),
            Array::Arrays(arrays) => arrays.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `index` as a value of its own (a copy).
    pub fn get(&self, index: usize) -> Option<Value> {
        match self {
            Array::Scalars { ty, bytes } => {
                let size = ty.size()?;
                let start = index.checked_mul(size)?;
                Value::scalar(*ty, bytes.get(start..start.checked_add(size)?)?)
            }
            Array::Strings(strings) => strings.get(index).map(|bytes| Value::String(bytes.to_vec())),
            Array::Arrays(arrays) => arrays.get(index).cloned().map(Value::Array),
        }
    }

    /// The elements, each as a value of its own.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        (0..self.len()).map_while(|index| self.get(index))
    }

    /// All elements through `convert`; `None` if one of them does not fit, or if these are strings or arrays.
    fn all<T>(&self, convert: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        match self {
            Array::Scalars { .. } => self.iter().map(|value| convert(&value)).collect(),
            _ => None,
        }
    }

    /// The strings, if it is an array of strings.
    pub fn strings(&self) -> Option<&Strings> {
        match self {
            Array::Strings(strings) => Some(strings),
            _ => None,
        }
    }

    /// The elements as f32; any number type.
    pub fn f32s(&self) -> Option<Vec<f32>> {
        self.all(Value::as_f32)
    }

    /// The elements as u64; any number type whose values all fit.
    pub fn u64s(&self) -> Option<Vec<u64>> {
        self.all(Value::as_u64)
    }

    /// The elements as i32; any number type whose values all fit.
    pub fn i32s(&self) -> Option<Vec<i32>> {
        self.all(|value| value.as_i64().and_then(|x| x.try_into().ok()))
    }

    /// The elements as truth values; numbers must be 0 or 1.
    pub fn bools(&self) -> Option<Vec<bool>> {
        self.all(Value::as_bool)
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}; {}]", self.ty(), self.len())
    }
}

macro_rules! from_number {
    ($($number:ty => $variant:ident),*) => {$(
        impl From<$number> for Value {
            fn from(x: $number) -> Value {
                Value::$variant(x)
            }
        }
        impl From<&[$number]> for Array {
            fn from(items: &[$number]) -> Array {
                let bytes = items.iter().flat_map(|x| x.to_le_bytes()).collect();
                Array::Scalars { ty: ValueType::$variant, bytes }
            }
        }
        impl From<&[$number]> for Value {
            fn from(items: &[$number]) -> Value {
                Value::Array(items.into())
            }
        }
    )*};
}

from_number!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64, f32 => F32, f64 => F64);

impl From<bool> for Value {
    fn from(x: bool) -> Value {
        Value::Bool(x)
    }
}

impl From<&[bool]> for Value {
    fn from(items: &[bool]) -> Value {
        Value::Array(Array::Scalars { ty: ValueType::Bool, bytes: items.iter().map(|&x| x.into()).collect() })
    }
}

impl From<&str> for Value {
    fn from(x: &str) -> Value {
        Value::String(x.into())
    }
}

impl From<String> for Value {
    fn from(x: String) -> Value {
        Value::String(x.into())
    }
}

impl From<Array> for Value {
    fn from(x: Array) -> Value {
        Value::Array(x)
    }
}

impl From<Strings> for Value {
    fn from(x: Strings) -> Value {
        Value::Array(Array::Strings(x))
    }
}
