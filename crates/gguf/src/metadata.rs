//! The key-value part of a header.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::{Array, GgufError, Value};

/// Keys and values in file order; every key once.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, u32>,
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Metadata) -> bool {
        self.entries == other.entries
    }
}

impl Metadata {
    pub(crate) fn insert(&mut self, key: String, value: Value) -> Result<(), GgufError> {
        // The reader and the writer bound the number of keys far below 2^32.
        let position = self.entries.len() as u32;
        if self.index.insert(key.clone(), position).is_some() {
            return Err(GgufError::DuplicateKey(key));
        }
        self.entries.push((key, value));
        Ok(())
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&position| &self.entries[position as usize].1)
    }

    /// A whole number of any type that fits.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// A whole number of any type that fits.
    pub fn i64(&self, key: &str) -> Option<i64> {
        self.get(key)?.as_i64()
    }

    /// A number of any type.
    pub fn f32(&self, key: &str) -> Option<f32> {
        self.get(key)?.as_f32()
    }

    /// A truth value, or a number that is 0 or 1.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// A string that is valid UTF-8.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// A string with invalid UTF-8 replaced by U+FFFD.
    pub fn str_lossy(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key)?.as_bytes().map(String::from_utf8_lossy)
    }

    /// A string's bytes.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.get(key)?.as_bytes()
    }

    pub fn array(&self, key: &str) -> Option<&Array> {
        self.get(key)?.as_array()
    }
}
