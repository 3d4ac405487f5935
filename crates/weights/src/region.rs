//! One file's bytes in the address space, and handles to ranges of them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use memmap2::{Mmap, MmapMut};

use crate::direct::{self, READERS};
use crate::open::Part;
use crate::{WeightsError, sys};

/// How a model's bytes come into the address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Mapped: pages are read on first use, shared with every program that uses the file, and can be dropped and read
    /// again when memory is short.
    #[default]
    Map,
    /// Read into memory of our own (`--no-mmap`): slower to open, needs the whole size in RAM or swap, independent of
    /// the file afterwards.
    Read,
}

/// In which order a range will be used; how the system reads ahead depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// No particular order.
    Normal,
    /// From front to back: read far ahead.
    Sequential,
    /// Here and there: read only what is asked for.
    Random,
    /// All of it, over and over, and there is room for it: in large pages, where the file system has them.
    Resident,
}

/// The bytes of a whole file.
pub(crate) struct Region {
    // Declared before `map`, so dropped before it: the guard must not outlive the mapping.
    #[cfg(target_os = "linux")]
    guard: Option<crate::guard::Guard>,
    map: Mmap,
    access: Access,
    /// Kept open while it is mapped: for its length, and on Windows so that nobody changes or deletes it.
    file: Option<File>,
    /// The file for each thread that reads it directly, where it can be.
    direct: [OnceLock<Option<File>>; READERS],
    path: PathBuf,
}

impl Region {
    /// Maps or reads a file: as many bytes as it had when its header was checked.
    pub(crate) fn new(part: Part, access: Access) -> Result<Region, WeightsError> {
        let Part { path, file, len } = part;
        let failed = |source: io::Error| match (source.kind(), access) {
            (io::ErrorKind::OutOfMemory, _) => WeightsError::OutOfMemory { bytes: len, source },
            (_, Access::Map) => WeightsError::MapFailed { path: path.clone(), source },
            (_, Access::Read) => WeightsError::io(&path, source),
        };
        let size = usize::try_from(len).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let map = match access {
            // SAFETY: the mapping is read-only and private to this region. That another process may change the file is
            // the hazard described in the crate's documentation: all its types are plain bytes, for which every
            // content is valid; on Windows the open file forbids it.
            Access::Map => unsafe { memmap2::MmapOptions::new().len(size).map(&file) }.map_err(failed)?,
            Access::Read => read(&file, size).map_err(failed)?,
        };
        Ok(Region {
            #[cfg(target_os = "linux")]
            guard: (access == Access::Map).then(|| crate::guard::Guard::new(map.as_ptr() as usize, size)).flatten(),
            map,
            access,
            file: (access == Access::Map).then_some(file),
            direct: Default::default(),
            path,
        })
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        self.map.get(range)
    }

    /// Whether the file is still as long as it was, and all pages could be read.
    pub(crate) fn check(&self) -> Result<(), WeightsError> {
        let Some(file) = &self.file else { return Ok(()) };
        #[cfg(target_os = "linux")]
        if self.guard.as_ref().is_some_and(crate::guard::Guard::damaged) {
            return Err(WeightsError::Unreadable { path: self.path.clone() });
        }
        let found = file.metadata().map_err(|source| WeightsError::io(&self.path, source))?.len();
        let expected = self.map.len() as u64;
        if found != expected {
            return Err(WeightsError::Changed { path: self.path.clone(), expected, found });
        }
        Ok(())
    }

    /// Locks all pages in memory.
    pub(crate) fn lock(&self) -> io::Result<()> {
        sys::lock(&self.map)
    }

    /// Bytes in memory at the moment; `None` where the system does not tell.
    pub(crate) fn resident(&self) -> Option<u64> {
        sys::resident(&self.map)
    }

    pub(crate) fn will_need(&self, range: Range<usize>) {
        if self.access == Access::Map {
            sys::will_need(&self.map, range);
        }
    }

    fn read_in(&self, range: Range<usize>) {
        if self.access == Access::Map {
            sys::read_in(&self.map, range);
        }
    }

    pub(crate) fn dont_need(&self, range: Range<usize>) {
        // Memory of our own has no file to come back from: it would be lost.
        if self.access == Access::Map {
            sys::dont_need(&self.map, range);
        }
    }

    pub(crate) fn evict(&self, range: Range<usize>) {
        // There is a file for a mapping only.
        if let Some(file) = &self.file {
            sys::evict(&self.map, file, range);
        }
    }

    fn direct(&self, reader: usize) -> Option<&File> {
        let handle = self.direct.get(reader)?;
        handle.get_or_init(|| direct::open(self.file.as_ref()?)).as_ref()
    }

    pub(crate) fn advise(&self, range: Range<usize>, pattern: Pattern) {
        if self.access == Access::Map {
            sys::advise(&self.map, range, pattern);
        }
    }
}

/// The first `size` bytes of the file in anonymous memory, in large pages if the system has them.
fn read(mut file: &File, size: usize) -> io::Result<Mmap> {
    let mut memory = MmapMut::map_anon(size)?;
    sys::prefer_large_pages(&memory);
    file.rewind()?;
    file.read_exact(&mut memory)?;
    memory.make_read_only()
}

/// Bytes of a model file that stay valid as long as this handle lives, whatever happens to the [`crate::ModelFile`].
/// Cloning copies the handle, not the bytes.
#[derive(Clone)]
pub struct WeightBytes {
    region: Arc<Region>,
    // Within the region; checked when made.
    range: Range<usize>,
}

impl WeightBytes {
    /// `range` must lie within the region; `None` otherwise.
    pub(crate) fn new(region: &Arc<Region>, range: Range<usize>) -> Option<WeightBytes> {
        region.map.get(range.clone())?;
        Some(WeightBytes { region: region.clone(), range })
    }

    /// A part of these bytes, such as one expert of a stack; `None` if `range` reaches beyond them.
    pub fn slice(&self, range: Range<usize>) -> Option<WeightBytes> {
        self.get(range.clone())?;
        let range = self.range.start + range.start..self.range.start + range.end;
        Some(WeightBytes { region: self.region.clone(), range })
    }

    /// Asks the system to read these bytes in, at the disk's speed instead of page fault by page fault. Returns when the
    /// requests are queued: at once if the bytes are in memory, and for more than a few hundred MiB only when the disk has
    /// done most of it, so call it from a thread that may wait.
    pub fn will_need(&self) {
        self.region.will_need(self.range.clone());
    }

    /// Takes these bytes out of the process; a later use reads them again, from the system's cache or the file.
    pub fn dont_need(&self) {
        self.region.dont_need(self.range.clone());
    }

    /// As [`WeightBytes::dont_need`], and takes them out of the system's cache, too, unless another program has them
    /// mapped.
    pub fn evict(&self) {
        self.region.evict(self.range.clone());
    }

    /// Reads them in, so that nobody waits for them later; returns when they are there. Where that fails, nothing is lost but
    /// time.
    pub fn read_in(&self) {
        self.region.read_in(self.range.clone());
    }

    /// Where they lie in their file.
    pub(crate) fn place(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Their file as reader number `reader` can read it past the system's cache.
    pub(crate) fn direct(&self, reader: usize) -> Option<&File> {
        self.region.direct(reader)
    }

    /// Says in which order these bytes will be used.
    pub fn advise(&self, pattern: Pattern) {
        self.region.advise(self.range.clone(), pattern);
    }
}

impl Deref for WeightBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.region.map[self.range.clone()]
    }
}

impl AsRef<[u8]> for WeightBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for WeightBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightBytes({:?} of {})", self.range, self.region.path.display())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({}, {} bytes, {:?})", self.path.display(), self.map.len(), self.access)
    }
}
