//! A model as its files hold it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use gguf::{Gguf, TensorInfo};
use quant::GgmlType;

use crate::open::open_model;
use crate::region::Region;
use crate::{Access, Pattern, WeightBytes, WeightsError, sys};

/// A tensor's bytes with what they mean.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub ty: GgmlType,
    /// Elements per dimension, row length first.
    pub shape: &'a [u64],
    /// Rows one after another, each whole blocks of `ty`.
    pub bytes: &'a [u8],
}

/// An open model: its header and the bytes of its file or files. Cloning copies handles only.
#[derive(Clone, Debug)]
pub struct ModelFile {
    gguf: Arc<Gguf>,
    /// One per part, indexed by [`TensorInfo::shard`].
    regions: Vec<Arc<Region>>,
}

impl ModelFile {
    /// Opens a model, given its file or any part of a split model, whose other parts lie beside it.
    ///
    /// # Errors
    /// The file does not exist, cannot be read, is not GGUF, is cut short or damaged; a part is missing or of another
    /// model; [`Access::Read`] found too little memory (where the system says so: Linux usually grants the memory and
    /// ends the program later, so compare [`Gguf::file_len`] with the free memory first).
    pub fn open(path: &Path, access: Access) -> Result<ModelFile, WeightsError> {
        let (gguf, parts) = open_model(path)?;
        let regions = parts.into_iter().map(|part| Region::new(part, access).map(Arc::new));
        Ok(ModelFile { gguf: Arc::new(gguf), regions: regions.collect::<Result<_, _>>()? })
    }

    /// The header (of all parts together).
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// The files, in order of the parts.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.regions.iter().map(|region| region.path())
    }

    /// The tensor with this name.
    pub fn view(&self, name: &str) -> Option<TensorView<'_>> {
        let tensor = self.gguf.tensor(name)?;
        let (region, range) = self.place(tensor)?;
        Some(TensorView { ty: tensor.ty, shape: &tensor.shape, bytes: region.bytes(range)? })
    }

    /// The bytes of tensor `index` of [`Gguf::tensors`], to be kept.
    ///
    /// # Errors
    /// [`WeightsError::NoSuchTensor`].
    pub fn tensor_bytes(&self, index: usize) -> Result<WeightBytes, WeightsError> {
        let missing = || WeightsError::NoSuchTensor { index, count: self.gguf.tensors.len() };
        let tensor = self.gguf.tensors.get(index).ok_or_else(missing)?;
        self.bytes(tensor).ok_or_else(missing)
    }

    /// The bytes of the tensor with this name, to be kept.
    pub fn named_bytes(&self, name: &str) -> Option<WeightBytes> {
        self.bytes(self.gguf.tensor(name)?)
    }

    fn bytes(&self, tensor: &TensorInfo) -> Option<WeightBytes> {
        let (region, range) = self.place(tensor)?;
        WeightBytes::new(region, range)
    }

    /// Where a tensor lies. `None` cannot happen for tensors of this header: parsing has checked the range.
    fn place(&self, tensor: &TensorInfo) -> Option<(&Arc<Region>, Range<usize>)> {
        let range = usize::try_from(tensor.offset).ok()?..usize::try_from(tensor.end()).ok()?;
        Some((self.regions.get(usize::from(tensor.shard))?, range))
    }

    /// Says in which order the whole model will be used.
    pub fn advise(&self, pattern: Pattern) {
        for region in &self.regions {
            region.advise(0..region.len(), pattern);
        }
    }

    /// Locks the whole model in memory (`--mlock`), reading it in where it is not yet.
    ///
    /// # Errors
    /// [`WeightsError::Lock`], with the limit of the system where there is one. What was locked until then stays so.
    pub fn lock(&self) -> Result<(), WeightsError> {
        for region in &self.regions {
            region.lock().map_err(|source| {
                let bytes = self.regions.iter().map(|region| region.len() as u64).sum();
                WeightsError::Lock { bytes, limit: sys::lock_limit(), source }
            })?;
        }
        Ok(())
    }

    /// Whether the mapped files are still whole: as long as when opened, every page read so far readable. Cheap (one
    /// system call per file); ask before each prompt and after each answer. After an error the weights may read as
    /// zeros, answers are worthless, and the model must be opened again.
    ///
    /// # Errors
    /// [`WeightsError::Changed`], [`WeightsError::Unreadable`].
    pub fn check(&self) -> Result<(), WeightsError> {
        self.regions.iter().try_for_each(|region| region.check())
    }

    /// [`ModelFile::check`] as a truth value.
    pub fn still_whole(&self) -> bool {
        self.check().is_ok()
    }

    /// Bytes of the model that are in memory now (in the system's cache, for a mapped file); `None` where the system
    /// does not tell. Takes about 30 ms for 5 GB.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.regions.iter().map(|region| region.resident()).sum()
    }
}
