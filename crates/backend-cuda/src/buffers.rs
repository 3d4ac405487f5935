//! The device's buffers: exact accounting, checked ranges.

use crate::Address;
use backend::check::{invalid, product};
use backend::{BackendError, BufferId, View, Weight};
use std::cell::Cell;
use std::collections::HashMap;

/// A checked range of a live buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub address: Address,
    pub bytes: u64,
}

impl Span {
    pub fn overlaps(self, other: Span) -> bool {
        self.address < other.address + other.bytes && other.address < self.address + self.bytes
    }
}

struct Buffer {
    address: Address,
    bytes: u64,
    read_only: bool,
}

#[derive(Default)]
pub(crate) struct Buffers {
    all: HashMap<BufferId, Buffer>,
    next: u32,
    /// Bytes of all buffers, as they were asked for.
    pub used: u64,
    /// What somebody has made something of that holds as long as nothing writes there.
    watched: Cell<Option<Span>>,
}

impl Buffers {
    pub fn add(&mut self, address: Address, bytes: u64, read_only: bool) -> BufferId {
        let id = BufferId(self.next);
        self.next += 1;
        self.used += bytes;
        self.all.insert(id, Buffer { address, bytes, read_only });
        id
    }

    pub fn remove(&mut self, id: BufferId) -> Option<Span> {
        let buffer = self.all.remove(&id)?;
        self.used -= buffer.bytes;
        let span = Span { address: buffer.address, bytes: buffer.bytes };
        self.written(span);
        Some(span)
    }

    /// Watches a range instead of the one before.
    pub fn watch(&self, span: Option<Span>) {
        self.watched.set(span);
    }

    /// The range that was last given to [`Buffers::watch`], unless something may have been written to it since. All writing goes
    /// through ranges that are lent for that, or ends with the buffer: nobody has to think of it.
    pub fn unwritten(&self) -> Option<Span> {
        self.watched.get()
    }

    fn written(&self, span: Span) {
        if self.watched.get().is_some_and(|watched| watched.overlaps(span)) {
            self.watched.set(None);
        }
    }

    pub fn range(&self, op: &'static str, id: BufferId, offset: u64, bytes: u64) -> Result<Span, BackendError> {
        let buffer = self.all.get(&id).ok_or_else(|| invalid(op, format!("there is no buffer {}", id.0)))?;
        match offset.checked_add(bytes) {
            Some(end) if end <= buffer.bytes => Ok(Span { address: buffer.address + offset, bytes }),
            _ => Err(invalid(op, format!("{bytes} bytes at {offset} are outside a buffer of {}", buffer.bytes))),
        }
    }

    /// As [`Buffers::range`], of a buffer that may be written.
    pub fn range_mut(&self, op: &'static str, id: BufferId, offset: u64, bytes: u64) -> Result<Span, BackendError> {
        match self.all.get(&id) {
            Some(buffer) if buffer.read_only => Err(invalid(op, format!("buffer {} is read-only", id.0))),
            _ => self.range(op, id, offset, bytes).inspect(|span| self.written(*span)),
        }
    }

    /// `len` 4-byte values of a view.
    pub fn span(&self, op: &'static str, view: View, len: usize) -> Result<Span, BackendError> {
        self.range(op, view.buffer, view.offset, values(op, view, len)?)
    }

    /// As [`Buffers::span`], of a buffer that may be written.
    pub fn span_mut(&self, op: &'static str, view: View, len: usize) -> Result<Span, BackendError> {
        self.range_mut(op, view.buffer, view.offset, values(op, view, len)?)
    }

    pub fn optional(&self, op: &'static str, view: Option<View>, len: usize) -> Result<Option<Address>, BackendError> {
        view.map(|view| Ok(self.span(op, view, len)?.address)).transpose()
    }

    /// The packed bytes of `experts` matrices, and the bytes of a row.
    pub fn weight(&self, op: &'static str, weight: &Weight, experts: usize) -> Result<(Span, u64), BackendError> {
        let row = weight.ty.row_bytes(weight.cols).ok_or_else(|| {
            invalid(op, format!("rows of {} values are not whole blocks of {}", weight.cols, weight.ty))
        })?;
        // Buffers start at multiples of 256; kernels load what is aligned as blocks in a file are.
        if weight.offset % 32 != 0 {
            return Err(invalid(op, format!("a weight at byte {} is not aligned to 32", weight.offset)));
        }
        let bytes = product(op, &[row, weight.rows, experts])?;
        Ok((self.range(op, weight.buffer, weight.offset, bytes as u64)?, row as u64))
    }
}

/// Bytes of `len` 4-byte values of a view.
fn values(op: &'static str, view: View, len: usize) -> Result<u64, BackendError> {
    if view.offset % 4 != 0 {
        return Err(invalid(op, "a view is not aligned to 4 bytes"));
    }
    Ok(product(op, &[len, 4])? as u64)
}
