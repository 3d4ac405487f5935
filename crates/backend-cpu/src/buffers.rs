//! The device's buffers: exact accounting, alignment, checked access.

use backend::check::invalid;
use backend::{BackendError, BufferId, HostBytes, View, Weight};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::ptr::NonNull;

/// Vector loads like it, and it is a cache line.
const ALIGNMENT: usize = 64;
/// What allocators give without being asked for more. Only then is zeroed memory taken from the system as it is: for a
/// larger alignment all of it is written, which takes seconds and the RAM of a context that may never be filled.
const NATURAL: usize = 16;

enum Memory {
    /// Ours, zeroed, from the first aligned address on. Pages that nobody touches take no RAM on Linux and Windows.
    Own {
        start: NonNull<u8>,
        layout: Layout,
    },
    Adopted(HostBytes),
}

struct Buffer {
    memory: Memory,
    bytes: usize,
}

// SAFETY: the memory belongs to the buffer alone; whoever shares parts of it between threads does so through `Span`.
unsafe impl Send for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Memory::Own { start, layout } = &self.memory {
            // SAFETY: allocated with this layout in `Buffers::allocate`, and freed once.
            unsafe { dealloc(start.as_ptr(), *layout) };
        }
    }
}

impl Buffer {
    fn start(&self) -> *const u8 {
        match &self.memory {
            // SAFETY: there are `ALIGNMENT` bytes more than the buffer's.
            Memory::Own { start, .. } => unsafe { start.as_ptr().add(start.align_offset(ALIGNMENT)) },
            Memory::Adopted(bytes) => (**bytes).as_ref().as_ptr(),
        }
    }
}

/// f32 values in a buffer that several threads may use: whoever makes slices of it sees to it that no part is written
/// while it is read or written elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    start: *mut f32,
    pub len: usize,
}

// SAFETY: a span is an address; the methods that go there are unsafe and name what must hold.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// # Safety
    /// Nobody writes the range while the slice is alive.
    pub unsafe fn read<'a>(self, start: usize, len: usize) -> &'a [f32] {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: in bounds (just checked), aligned and initialised (`Buffers::span`); not written (the caller).
        unsafe { std::slice::from_raw_parts(self.start.add(start), len) }
    }

    /// # Safety
    /// The range belongs to a buffer that may be written, and nobody else reads or writes it while the slice is alive.
    pub unsafe fn write<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: in bounds (just checked), aligned and initialised (`Buffers::span`); not shared (the caller).
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// Asks for values that will be read or written.
    pub fn prefetch(self, start: usize, len: usize) {
        crate::simd::prefetch(self.start.wrapping_add(start).cast(), 4 * len);
    }

    /// Whether both spans share a value.
    pub fn overlaps(self, other: Span) -> bool {
        let end = |span: Span| span.start as usize + span.len * 4;
        (self.start as usize) < end(other) && (other.start as usize) < end(self)
    }
}

/// Raw bytes of a writable buffer, for caches.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    start: *mut u8,
    pub len: usize,
}

// SAFETY: as for `Span`.
unsafe impl Send for Bytes {}
// SAFETY: as for `Span`.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// # Safety
    /// Nobody writes the range while the slice is alive.
    pub unsafe fn read<'a>(self, start: usize, len: usize) -> &'a [u8] {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: in bounds (just checked), initialised (allocated zeroed); not written (the caller).
        unsafe { std::slice::from_raw_parts(self.start.add(start), len) }
    }

    /// # Safety
    /// Nobody else reads or writes the range while the slice is alive.
    pub unsafe fn write<'a>(self, start: usize, len: usize) -> &'a mut [u8] {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: in bounds (just checked), initialised (allocated zeroed); not shared (the caller).
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[derive(Default)]
pub(crate) struct Buffers {
    all: HashMap<BufferId, Buffer>,
    next: u32,
    /// Bytes of our own buffers.
    pub used: u64,
}

impl Buffers {
    fn add(&mut self, memory: Memory, bytes: usize) -> BufferId {
        let id = BufferId(self.next);
        self.next += 1;
        self.all.insert(id, Buffer { memory, bytes });
        id
    }

    pub fn adopt(&mut self, bytes: HostBytes) -> BufferId {
        let len = (*bytes).as_ref().len();
        self.add(Memory::Adopted(bytes), len)
    }

    pub fn allocate(&mut self, device: &str, bytes: u64) -> Result<BufferId, BackendError> {
        let full = || BackendError::OutOfMemory { device: device.into(), needed: bytes, free: 0 };
        let size = usize::try_from(bytes).map_err(|_| full())?;
        let with_room = size.checked_add(ALIGNMENT).ok_or_else(full)?;
        let layout = Layout::from_size_align(with_room, NATURAL).map_err(|_| full())?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(full)?;
        self.used += bytes;
        Ok(self.add(Memory::Own { start, layout }, size))
    }

    pub fn free(&mut self, id: BufferId) {
        if let Some(buffer) = self.all.remove(&id)
            && matches!(buffer.memory, Memory::Own { .. })
        {
            self.used -= buffer.bytes as u64;
        }
    }

    fn get(&self, op: &'static str, id: BufferId) -> Result<&Buffer, BackendError> {
        self.all.get(&id).ok_or_else(|| invalid(op, format!("there is no buffer {}", id.0)))
    }

    fn range(&self, op: &'static str, id: BufferId, offset: u64, len: u64) -> Result<&Buffer, BackendError> {
        let buffer = self.get(op, id)?;
        match offset.checked_add(len) {
            Some(end) if end <= buffer.bytes as u64 => Ok(buffer),
            _ => Err(invalid(op, format!("{len} bytes at {offset} are outside a buffer of {}", buffer.bytes))),
        }
    }

    fn writable(&self, op: &'static str, id: BufferId, buffer: &Buffer) -> Result<(), BackendError> {
        match buffer.memory {
            Memory::Own { .. } => Ok(()),
            Memory::Adopted(_) => Err(invalid(op, format!("buffer {} is read-only", id.0))),
        }
    }

    pub fn read(&self, id: BufferId, offset: u64, out: &mut [u8]) -> Result<(), BackendError> {
        let buffer = self.range("read", id, offset, out.len() as u64)?;
        // SAFETY: the range is inside the buffer; `&self` and the device's `&mut self` mean that nothing runs.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.start().add(offset as usize), out.len()) };
        out.copy_from_slice(bytes);
        Ok(())
    }

    pub fn write(&mut self, id: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        let buffer = self.range("write", id, offset, bytes.len() as u64)?;
        self.writable("write", id, buffer)?;
        // SAFETY: the range is inside a buffer of our own, which `&mut self` gives us alone.
        let out =
            unsafe { std::slice::from_raw_parts_mut(buffer.start().cast_mut().add(offset as usize), bytes.len()) };
        out.copy_from_slice(bytes);
        Ok(())
    }

    /// `len` f32 values of a view.
    pub fn span(&self, op: &'static str, view: View, len: usize) -> Result<Span, BackendError> {
        let bytes = (len as u64).checked_mul(4).ok_or_else(|| invalid(op, "a view is too long"))?;
        let buffer = self.range(op, view.buffer, view.offset, bytes)?;
        // SAFETY: the offset is inside the buffer.
        let start = unsafe { buffer.start().add(view.offset as usize) };
        if start as usize % 4 != 0 {
            return Err(invalid(op, "a view is not aligned to 4 bytes"));
        }
        Ok(Span { start: start.cast_mut().cast(), len })
    }

    /// As [`Buffers::span`], of a buffer that may be written.
    pub fn span_mut(&self, op: &'static str, view: View, len: usize) -> Result<Span, BackendError> {
        self.writable(op, view.buffer, self.get(op, view.buffer)?)?;
        self.span(op, view, len)
    }

    /// The whole of a cache buffer of at least `len` bytes.
    pub fn bytes(&self, op: &'static str, id: BufferId, len: usize) -> Result<Bytes, BackendError> {
        let buffer = self.range(op, id, 0, len as u64)?;
        self.writable(op, id, buffer)?;
        Ok(Bytes { start: buffer.start().cast_mut(), len })
    }

    /// The packed bytes of `experts` matrices.
    pub fn weight(&self, op: &'static str, weight: &Weight, experts: usize) -> Result<&[u8], BackendError> {
        let row = weight.ty.row_bytes(weight.cols).ok_or_else(|| {
            invalid(op, format!("rows of {} values are not whole blocks of {}", weight.cols, weight.ty))
        })?;
        let len = row.checked_mul(weight.rows).and_then(|bytes| bytes.checked_mul(experts));
        let len = len.ok_or_else(|| invalid(op, "a weight is too large"))?;
        let buffer = self.range(op, weight.buffer, weight.offset, len as u64)?;
        // SAFETY: the range is inside the buffer, and weights are not written while an operation runs: outputs are
        // checked to be other buffers by `span_mut` (adopted ones) or are views of activation buffers (copies).
        Ok(unsafe { std::slice::from_raw_parts(buffer.start().add(weight.offset as usize), len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        let mut buffers = Buffers::default();
        for bytes in [0, 1, 7, 64, 100_000] {
            let id = buffers.allocate("CPU", bytes).unwrap();
            assert_eq!(buffers.all[&id].start() as usize % ALIGNMENT, 0);
            let mut out = vec![1; bytes as usize];
            buffers.read(id, 0, &mut out).unwrap();
            assert!(out.iter().all(|byte| *byte == 0));
            buffers.write(id, 0, &vec![2; bytes as usize]).unwrap();
        }
        assert_eq!(buffers.used, 100_072);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_nobody_touches_takes_no_ram() {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
        };
        let mut buffers = Buffers::default();
        let before = resident();
        let id = buffers.allocate("CPU", 1 << 30).unwrap();
        buffers.write(id, 1 << 29, &[1; 4096]).unwrap();
        let taken = resident().saturating_sub(before);
        // Other tests take some meanwhile.
        assert!(taken < 256 << 20, "{taken} bytes of 2^30");
    }
}
