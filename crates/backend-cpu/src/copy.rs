//! Bytes from one place in RAM to another, faster than one thread does it.

use crate::ThreadPool;
use std::sync::{Mutex, PoisonError};

/// What one thread takes at a time: so little that a few threads share a megabyte or two, so much that waking them pays.
const CHUNK: usize = 1 << 20;

impl ThreadPool {
    /// Copies bytes between slices of the same length. While that lasts the threads compute nothing, as they belong to the
    /// caller.
    pub fn copy(&self, to: &mut [u8], from: &[u8]) {
        assert_eq!(to.len(), from.len());
        let pairs = to.chunks_mut(CHUNK).zip(from.chunks(CHUNK));
        let pairs: Vec<Mutex<(&mut [u8], &[u8])>> = pairs.map(Mutex::new).collect();
        let copied = self.run(pairs.len(), &|_, chunk| {
            let mut pair = pairs[chunk].lock().unwrap_or_else(PoisonError::into_inner);
            let (to, from) = &mut *pair;
            to.copy_from_slice(from);
        });
        drop(pairs);
        if copied.is_err() {
            to.copy_from_slice(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_copied_whatever_their_number() {
        for threads in [1, 2, 5] {
            let pool = ThreadPool::new(threads);
            for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 7 * CHUNK + 13] {
                let from: Vec<u8> = (0..len).map(|i| (i * 31 + i / 255) as u8).collect();
                let mut to = vec![0xaa; len];
                pool.copy(&mut to, &from);
                assert!(to == from, "{len} bytes, {threads} threads");
            }
        }
    }
}
