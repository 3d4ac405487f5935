//! Models in several files, as `gguf-split` makes them: `NAME-00001-of-00003.gguf`, keys `split.*`.

use crate::{Gguf, GgufError};

/// More parts than this are refused (the largest public models have about 50).
pub const MAX_SPLITS: u64 = 1000;

/// What a file says about its place in a split model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Which part this is, from 0.
    pub no: u64,
    /// How many parts there are.
    pub count: u64,
    /// Tensors in all parts together, if stated.
    pub tensors: Option<u64>,
}

impl Gguf {
    /// The file's place in a split model; `None` if the model is in one file.
    ///
    /// # Errors
    /// [`GgufError::TooManySplits`], [`GgufError::SplitOutOfRange`].
    pub fn split(&self) -> Result<Option<Split>, GgufError> {
        let count = self.metadata.u64("split.count").unwrap_or(0);
        if count <= 1 {
            return Ok(None);
        }
        if count > MAX_SPLITS {
            return Err(GgufError::TooManySplits { count, limit: MAX_SPLITS });
        }
        let no = self.metadata.u64("split.no").unwrap_or(u64::MAX);
        if no >= count {
            return Err(GgufError::SplitOutOfRange { no, count });
        }
        Ok(Some(Split { no, count, tensors: self.metadata.u64("split.tensors.count") }))
    }
}

/// Joins the headers of all parts of a model, in any order. The result has the first part's metadata and every part's
/// tensors, part after part; [`crate::TensorInfo::shard`] is the `split.no` of the file that a tensor's offset is in.
/// The header of a model in one file comes back as it is.
///
/// # Errors
/// A part that is missing, given twice or of another model, a tensor that is in two parts, too few or too many tensors.
pub fn merge_splits(parts: Vec<Gguf>) -> Result<Gguf, GgufError> {
    let given = parts.len();
    let Some(first) = parts.first() else { return Err(GgufError::NotSplit { given }) };
    let Some(expected) = first.split()? else {
        let mut parts = parts;
        return if given == 1 { Ok(parts.remove(0)) } else { Err(GgufError::NotSplit { given }) };
    };

    let mut slots: Vec<Option<Gguf>> = (0..expected.count).map(|_| None).collect();
    for part in parts {
        let split = part.split()?.ok_or(GgufError::NotSplit { given })?;
        same("split.count", expected.count, split.count)?;
        same("split.tensors.count", expected.tensors.unwrap_or(0), split.tensors.unwrap_or(0))?;
        let slot = &mut slots[split.no as usize];
        if slot.replace(part).is_some() {
            return Err(GgufError::DuplicateSplit { no: split.no });
        }
    }

    let mut tensors = Vec::new();
    let mut head: Option<Gguf> = None;
    let mut file_len = 0u64;
    for (no, slot) in slots.into_iter().enumerate() {
        let mut part = slot.ok_or(GgufError::MissingSplit { no: no as u64, count: expected.count })?;
        file_len = file_len.saturating_add(part.file_len);
        tensors.extend(std::mem::take(&mut part.tensors).into_iter().map(|mut tensor| {
            tensor.shard = no as u16;
            tensor
        }));
        head.get_or_insert(part);
    }
    if let Some(stated) = expected.tensors {
        same("split.tensors.count", stated, tensors.len() as u64)?;
    }
    let head = head.ok_or(GgufError::NotSplit { given })?;
    Gguf::new(head.version, head.alignment, head.metadata, tensors, head.data_offset, file_len)
}

fn same(key: &'static str, expected: u64, found: u64) -> Result<(), GgufError> {
    if expected == found { Ok(()) } else { Err(GgufError::SplitMismatch { key, expected, found }) }
}

/// The file names of all parts of a split model, given the name (or path) of any of them; `None` if the name is not of
/// the form `NAME-00001-of-00003.gguf`, or names more than [`MAX_SPLITS`] parts.
pub fn split_file_names(name: &str) -> Option<Vec<String>> {
    let (stem, extension) = name.split_at_checked(name.len().checked_sub(5)?)?;
    if !extension.eq_ignore_ascii_case(".gguf") {
        return None;
    }
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, no) = rest.rsplit_once('-')?;
    let number = |digits: &str| -> Option<u64> {
        (digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
    };
    let (no, count) = (number(no)?, number(count)?);
    if prefix.is_empty() || no == 0 || no > count || count > MAX_SPLITS {
        return None;
    }
    Some((1..=count).map(|no| format!("{prefix}-{no:05}-of-{count:05}{extension}")).collect())
}
