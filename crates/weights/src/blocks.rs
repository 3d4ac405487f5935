//! Memory for bytes that were read directly: used again, because new memory has to be zeroed first.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex};

use memmap2::MmapMut;

use crate::direct::{self, ALIGNMENT};
use crate::loader::lock;
use crate::sys;

#[derive(Debug)]
pub(crate) struct Pool {
    budget: u64,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    free: Vec<MmapMut>,
    /// Bytes of all, free or in use.
    total: u64,
}

/// A free block may be larger than what is asked for by this part of that.
const WASTE: usize = 4;

impl Pool {
    pub fn new(budget: u64) -> Pool {
        Pool { budget, memory: Mutex::default() }
    }

    fn take(&self, len: usize) -> io::Result<MmapMut> {
        let mut memory = lock(&self.memory);
        let fits = |block: &MmapMut| (len..=len + len / WASTE).contains(&block.len());
        let fitting = memory.free.iter().enumerate().filter(|(_, block)| fits(block));
        if let Some((place, _)) = fitting.min_by_key(|(_, block)| block.len()) {
            return Ok(memory.free.swap_remove(place));
        }
        while memory.total + len as u64 > self.budget
            && let Some(block) = memory.free.pop()
        {
            memory.total -= block.len() as u64;
        }
        let block = MmapMut::map_anon(len)?;
        sys::prefer_large_pages(&block);
        memory.total += len as u64;
        Ok(block)
    }

    fn give_back(&self, block: MmapMut) {
        let mut memory = lock(&self.memory);
        if memory.total > self.budget {
            memory.total -= block.len() as u64;
        } else {
            memory.free.push(block);
        }
    }
}

/// Bytes of a file in memory of our own.
pub struct Block {
    /// `None` only while it is dropped.
    memory: Option<MmapMut>,
    /// Where the bytes lie in it: files are read in whole sectors.
    range: Range<usize>,
    pool: Arc<Pool>,
}

impl Block {
    /// Reads `range` of a file opened for it, as long as it is `wanted`.
    pub(crate) fn read(
        pool: &Arc<Pool>,
        file: &File,
        range: Range<usize>,
        wanted: &dyn Fn() -> bool,
    ) -> io::Result<Block> {
        let start = range.start - range.start % ALIGNMENT;
        let wide = range.end.next_multiple_of(ALIGNMENT) - start;
        let own = range.start - start..range.end - start;
        let mut block = Block { memory: Some(pool.take(wide.max(ALIGNMENT))?), range: own, pool: pool.clone() };
        let Some(memory) = &mut block.memory else { return Err(io::ErrorKind::OutOfMemory.into()) };
        direct::read(file, &mut memory[..wide], start as u64, block.range.end, wanted)?;
        Ok(block)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.give_back(memory);
        }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_deref().and_then(|memory| memory.get(self.range.clone())).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_within_the_budget() {
        let pool = Pool::new(10_000);
        let total = || lock(&pool.memory).total;
        let first = pool.take(4096).unwrap();
        let at = first.as_ptr();
        pool.give_back(first);
        let again = pool.take(4000).unwrap();
        assert_eq!((again.as_ptr(), again.len(), total()), (at, 4096, 4096));
        pool.give_back(again);
        // Too small or too large: what is free goes where there is no room beside it.
        let large = pool.take(8000).unwrap();
        assert_eq!(total(), 8000);
        // More than the budget is not kept.
        let more = pool.take(4096).unwrap();
        assert_eq!(total(), 12_096);
        pool.give_back(more);
        assert_eq!((total(), lock(&pool.memory).free.len()), (8000, 0));
        pool.give_back(large);
        let small = pool.take(100).unwrap();
        assert_eq!((small.len(), total()), (100, 8100), "a large one is not wasted on little");
    }
}
