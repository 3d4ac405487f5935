//! Weights read past the system's cache into memory of our own.
//!
//! What is read again and again, because RAM does not hold it, gains nothing from the system's cache, and pays for it with
//! the processor's time: for every page that is found room for, mapped and thrown out. Read directly, the disk writes
//! into our memory and the processor has next to nothing to do. Where a file system cannot do that, nothing is loaded, and
//! the bytes are used from the mapping.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;

use crate::WeightBytes;
use crate::blocks::{Block, Pool};
use crate::direct::READERS;

/// Threads that read, in the order in which they were asked to.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    pool: Arc<Pool>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whoever drops a load has called it off.
    jobs: VecDeque<Weak<Job>>,
    stop: bool,
}

#[derive(Debug)]
struct Job {
    bytes: WeightBytes,
    /// `None` until it has ended.
    result: Mutex<Option<Option<Arc<Block>>>>,
    ended: Condvar,
}

/// Bytes on their way. Dropped, they are not read any more.
#[derive(Clone, Debug)]
pub struct Load(Arc<Job>);

impl Loader {
    /// Its memory, with what is kept for the next load, is `budget` bytes at most, unless more than that is in use at a time.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn new(budget: u64) -> io::Result<Loader> {
        let shared = Shared { queue: Mutex::default(), changed: Condvar::new(), pool: Arc::new(Pool::new(budget)) };
        let mut loader = Loader { shared: Arc::new(shared), threads: Vec::new() };
        for reader in 0..READERS {
            let shared = loader.shared.clone();
            let run = move || shared.read(reader);
            // If one fails, dropping the loader ends those before it.
            loader.threads.push(std::thread::Builder::new().name("load".into()).spawn(run)?);
        }
        Ok(loader)
    }

    /// Reads bytes, after those asked for before. `None`: the file cannot be read past the cache.
    pub fn load(&self, bytes: &WeightBytes) -> Option<Load> {
        bytes.direct(0)?;
        let job = Arc::new(Job { bytes: bytes.clone(), result: Mutex::new(None), ended: Condvar::new() });
        lock(&self.shared.queue).jobs.push_back(Arc::downgrade(&job));
        self.shared.changed.notify_one();
        Some(Load(job))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Whoever waited for it was told.
            let _ = thread.join();
        }
        for job in lock(&self.shared.queue).jobs.drain(..).filter_map(|job| job.upgrade()) {
            job.end(None);
        }
    }
}

impl Load {
    /// Waits for the bytes. `None`: they could not be read; whoever reads the mapping will learn why.
    pub fn wait(&self) -> Option<Arc<Block>> {
        let mut result = lock(&self.0.result);
        loop {
            if let Some(ended) = &*result {
                return ended.clone();
            }
            result = self.0.ended.wait(result).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

impl Job {
    /// The first end counts.
    fn end(&self, block: Option<Arc<Block>>) {
        lock(&self.result).get_or_insert(block);
        self.ended.notify_all();
    }
}

/// Ends a job, whatever happens to its reader.
struct Ending(Arc<Job>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

impl Shared {
    fn read(&self, reader: usize) {
        while let Some(job) = self.next() {
            let job = Ending(job);
            // Called off meanwhile: only this handle is left.
            let wanted = || Arc::strong_count(&job.0) > 1;
            let file = job.0.bytes.direct(reader);
            let block = file.and_then(|file| Block::read(&self.pool, file, job.0.bytes.place(), &wanted).ok());
            job.0.end(block.map(Arc::new));
        }
    }

    fn next(&self) -> Option<Arc<Job>> {
        let mut queue = lock(&self.queue);
        while !queue.stop {
            match queue.jobs.pop_front() {
                Some(job) => {
                    if let Some(job) = job.upgrade() {
                        return Some(job);
                    }
                }
                None => queue = self.changed.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner()),
            }
        }
        None
    }
}

/// What is locked here is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
