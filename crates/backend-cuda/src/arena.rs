//! Video memory in slabs: the driver hands out whole pages of 2 MiB, and a layer has many tensors that are smaller.

use crate::{Address, Failure};

/// Starts of buffers: what the widest loads and the copy engines like.
const ALIGNMENT: u64 = 256;
/// The driver's pages.
const PAGE: u64 = 2 << 20;
/// What is asked for at once for small buffers. Large ones have a slab of their own, which goes back to the driver with
/// them: memory that layers leave is free for other programs. One slab may be nearly empty.
pub const SLAB: u64 = 16 << 20;

struct Slab {
    start: Address,
    bytes: u64,
    /// (offset, length) of what is free, in order, never two side by side.
    free: Vec<(u64, u64)>,
}

#[derive(Default)]
pub(crate) struct Arena {
    slabs: Vec<Slab>,
    /// Every buffer has a slab of its own, exactly as large.
    exact: bool,
}

/// Bytes of video memory that a buffer takes; of small ones the slab that they share is not counted.
pub fn footprint(bytes: u64) -> u64 {
    let bytes = round_up(bytes, ALIGNMENT).unwrap_or(u64::MAX);
    own_slab(bytes).unwrap_or(bytes)
}

/// The slab of a buffer that has one of its own.
fn own_slab(bytes: u64) -> Option<u64> {
    round_up(bytes, PAGE).filter(|exact| *exact > SLAB / 2)
}

fn round_up(bytes: u64, to: u64) -> Option<u64> {
    bytes.max(1).checked_next_multiple_of(to)
}

impl Arena {
    pub fn new(exact: bool) -> Arena {
        Arena { exact, ..Arena::default() }
    }

    /// Bytes taken from the driver.
    pub fn reserved(&self) -> u64 {
        self.slabs.iter().map(|slab| slab.bytes).sum()
    }

    /// A range of `bytes`; `grow` takes a slab from the driver.
    pub fn allocate(
        &mut self,
        bytes: u64,
        grow: &mut dyn FnMut(u64) -> Result<Address, Failure>,
    ) -> Result<Address, Failure> {
        if self.exact {
            let bytes = bytes.max(1);
            let start = grow(bytes)?;
            self.slabs.push(Slab { start, bytes, free: Vec::new() });
            return Ok(start);
        }
        let bytes = round_up(bytes, ALIGNMENT).ok_or(Failure::OutOfMemory)?;
        if let Some(address) = self.take(bytes) {
            return Ok(address);
        }
        let exact = round_up(bytes, PAGE).ok_or(Failure::OutOfMemory)?;
        let wanted = own_slab(bytes).unwrap_or(SLAB);
        let (start, size) = match grow(wanted) {
            Err(Failure::OutOfMemory) if wanted > exact => (grow(exact)?, exact),
            other => (other?, wanted),
        };
        self.slabs.push(Slab { start, bytes: size, free: vec![(0, size)] });
        self.take(bytes).ok_or(Failure::OutOfMemory)
    }

    /// From the smallest hole that has room.
    fn take(&mut self, bytes: u64) -> Option<Address> {
        let holes = self.slabs.iter_mut().flat_map(|slab| {
            let start = slab.start;
            slab.free.iter_mut().map(move |hole| (start, hole))
        });
        let (start, hole) = holes.filter(|(_, hole)| hole.1 >= bytes).min_by_key(|(_, hole)| hole.1)?;
        let address = start + hole.0;
        *hole = (hole.0 + bytes, hole.1 - bytes);
        self.slabs.iter_mut().for_each(|slab| slab.free.retain(|hole| hole.1 > 0));
        Some(address)
    }

    /// Gives a range back; the slab's start, if nothing is left in it and it is to be released.
    pub fn release(&mut self, address: Address, bytes: u64) -> Option<Address> {
        let bytes = if self.exact { bytes.max(1) } else { round_up(bytes, ALIGNMENT)? };
        let index = self.slabs.iter().position(|slab| (slab.start..slab.start + slab.bytes).contains(&address))?;
        let slab = &mut self.slabs[index];
        let offset = address - slab.start;
        let at = slab.free.partition_point(|hole| hole.0 < offset);
        slab.free.insert(at, (offset, bytes));
        for i in [at, at.wrapping_sub(1)] {
            if let (Some(&(first, len)), Some(&(second, more))) = (slab.free.get(i), slab.free.get(i.wrapping_add(1)))
                && first + len == second
            {
                slab.free[i].1 = len + more;
                slab.free.remove(i + 1);
            }
        }
        if slab.free != [(0, slab.bytes)] {
            return None;
        }
        Some(self.slabs.swap_remove(index).start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver with `limit` bytes.
    fn grow(next: &mut u64, limit: u64) -> impl FnMut(u64) -> Result<Address, Failure> {
        move |bytes| {
            if *next + bytes > limit {
                return Err(Failure::OutOfMemory);
            }
            *next += bytes;
            Ok(*next - bytes)
        }
    }

    #[test]
    fn small_buffers_share_a_slab_and_large_ones_have_their_own() {
        let (mut arena, mut next) = (Arena::default(), PAGE);
        let mut grow = grow(&mut next, 1 << 30);
        let small: Vec<u64> = (0..3).map(|_| arena.allocate(1000, &mut grow).unwrap()).collect();
        assert_eq!(small, [PAGE, PAGE + 1024, PAGE + 2048]);
        let large = arena.allocate(SLAB, &mut grow).unwrap();
        assert_eq!(arena.reserved(), 2 * SLAB);
        assert_eq!(arena.release(large, SLAB), Some(large));
        assert_eq!(arena.release(small[1], 1000), None);
        assert_eq!(arena.allocate(900, &mut grow).unwrap(), small[1]);
        assert_eq!(arena.release(small[0], 1000), None);
        assert_eq!(arena.release(small[2], 1000), None);
        assert_eq!(arena.release(small[1], 900), Some(PAGE));
        assert_eq!(arena.reserved(), 0);
    }

    #[test]
    fn buffers_may_have_memory_of_their_own() {
        let (mut arena, mut next) = (Arena::new(true), PAGE);
        let mut grow = grow(&mut next, 1 << 30);
        assert_eq!([1000, 3, 0].map(|bytes| arena.allocate(bytes, &mut grow).unwrap() - PAGE), [0, 1000, 1003]);
        assert_eq!(arena.reserved(), 1004);
        assert_eq!(arena.release(PAGE + 1000, 3), Some(PAGE + 1000));
        assert_eq!(arena.reserved(), 1001);
    }

    #[test]
    fn the_last_pages_are_used_too() {
        let (mut arena, mut next) = (Arena::default(), 0);
        let mut grow = grow(&mut next, 3 * PAGE);
        assert!(arena.allocate(100, &mut grow).is_ok());
        assert_eq!(arena.reserved(), PAGE);
        assert_eq!(arena.allocate(u64::MAX, &mut grow), Err(Failure::OutOfMemory));
        assert_eq!(arena.allocate(3 * PAGE, &mut grow), Err(Failure::OutOfMemory));
    }

    #[test]
    fn ranges_never_overlap() {
        let (mut arena, mut next, mut seed) = (Arena::default(), PAGE, 1u64);
        let mut grow = grow(&mut next, u64::MAX);
        let mut live: Vec<(u64, u64)> = Vec::new();
        for _ in 0..4000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let random = seed >> 33;
            if random % 3 == 0 && !live.is_empty() {
                let (address, bytes) = live.swap_remove((random / 3) as usize % live.len());
                arena.release(address, bytes);
            } else {
                let bytes = random % (1 << (8 + random % 16));
                live.push((arena.allocate(bytes, &mut grow).unwrap(), bytes));
            }
        }
        live.sort_unstable();
        assert!(live.windows(2).all(|pair| pair[0].0 + pair[0].1.max(1) <= pair[1].0));
        for (address, bytes) in live {
            arena.release(address, bytes);
        }
        assert_eq!(arena.reserved(), 0);
    }
}
