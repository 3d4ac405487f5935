//! A persistent thread pool. Each thread begins with neighbouring chunks, so that it reads memory that lies one after the
//! other, and takes half of what another one has left when it has none. So a thread that another program keeps from running
//! holds up at most the chunk it is at. Idle threads spin for a moment, then sleep.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a worker looks for the next job before it sleeps. Between two operations of a step it is far less.
const SPIN: Duration = Duration::from_micros(50);

/// A kernel panicked: a bug of ours. The pool goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolError(pub String);

/// Chunks from a first one to an end, in one word; alone in its cache line.
#[repr(align(64))]
struct Left(AtomicU64);

impl Left {
    fn word(chunks: Range<u32>) -> u64 {
        u64::from(chunks.start) | u64::from(chunks.end) << 32
    }

    /// What `split` makes of what is left: what stays, and what is taken.
    fn take(&self, split: impl Fn(u32, u32) -> [Range<u32>; 2]) -> Option<Range<u32>> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (start, end) = (word as u32, (word >> 32) as u32);
            if start >= end {
                return None;
            }
            let [stays, taken] = split(start, end);
            // Chunks never come back, so a word that is the same was not changed.
            match self.0.compare_exchange_weak(word, Left::word(stays), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(taken),
                Err(other) => word = other,
            }
        }
    }
}

/// `task(worker, chunk)`, without its lifetime: `run` does not return before every use has ended.
type Task = *const (dyn Fn(usize, usize) + Sync);

/// One call of `run`.
struct Job {
    task: Task,
    /// What each thread has left.
    left: Box<[Left]>,
    done: AtomicUsize,
    panic: Mutex<Option<String>>,
}

// SAFETY: the task is `Sync`, and `ThreadPool::run` keeps it alive until all chunks are `done`; no thread calls it
// after that, because it only calls it for chunks that it took from `left`.
unsafe impl Send for Job {}
// SAFETY: as above; everything else in it is atomic or locked.
unsafe impl Sync for Job {}

#[derive(Default)]
struct Shared {
    job: Mutex<Option<Arc<Job>>>,
    /// Counts jobs, so that a worker sees that there is another one.
    generation: AtomicU64,
    stop: AtomicBool,
}

/// Threads that compute.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<(Thread, Option<JoinHandle<()>>)>,
    /// One `run` at a time.
    turn: Mutex<()>,
}

impl ThreadPool {
    /// A pool of `threads`, the caller of [`ThreadPool::run`] counted. Threads that the system refuses are done without.
    pub fn new(threads: usize) -> ThreadPool {
        let shared = Arc::new(Shared::default());
        let workers = (1..threads.clamp(1, 1024))
            .filter_map(|index| {
                let shared = shared.clone();
                let builder = thread::Builder::new().name(format!("compute-{index}"));
                let handle = builder.spawn(move || work(&shared, index)).ok()?;
                Some((handle.thread().clone(), Some(handle)))
            })
            .collect();
        ThreadPool { shared, workers, turn: Mutex::new(()) }
    }

    /// Threads that compute, the caller counted.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(worker, chunk)` for every chunk in `0..chunks`, on several threads, and returns when all have ended.
    /// `worker` is below [`ThreadPool::threads`] and belongs to one thread during the call.
    ///
    /// # Errors
    /// A chunk panicked. The others were computed.
    pub fn run(&self, chunks: usize, task: &(dyn Fn(usize, usize) + Sync)) -> Result<(), PoolError> {
        if chunks == 0 {
            return Ok(());
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if chunks == 1 {
            return catch_unwind(AssertUnwindSafe(|| task(0, 0))).map_err(|panic| PoolError(message(&*panic)));
        }
        // SAFETY: only the lifetime is changed. This function does not return before `done` equals `chunks`, and the
        // task is called only before that.
        let task: Task = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync + '_), *const (dyn Fn(usize, usize) + Sync)>(task)
        };
        let threads = self.threads().min(chunks);
        let count = u32::try_from(chunks).map_err(|_| PoolError(format!("{chunks} chunks are too many")))?;
        let border = |thread: usize| (u64::from(count) * thread as u64 / threads as u64) as u32;
        let left = |thread: usize| Left(AtomicU64::new(Left::word(border(thread)..border(thread + 1))));
        let job = Arc::new(Job {
            task,
            left: (0..threads).map(left).collect(),
            done: AtomicUsize::new(0),
            panic: Mutex::new(None),
        });
        if !self.workers.is_empty() {
            *self.shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(job.clone());
            self.shared.generation.fetch_add(1, Ordering::Release);
            self.workers.iter().take(chunks - 1).for_each(|(worker, _)| worker.unpark());
        }
        take_chunks(&job, 0);
        // The last chunks are on other threads: spin, and give way if they are kept from running.
        let started = Instant::now();
        while job.done.load(Ordering::Acquire) < chunks {
            if started.elapsed() < SPIN { std::hint::spin_loop() } else { thread::yield_now() }
        }
        match job.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(message) => Err(PoolError(message)),
            None => Ok(()),
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for (worker, handle) in &mut self.workers {
            worker.unpark();
            if let Some(handle) = handle.take() {
                // A worker catches the panics of tasks; its own end has nothing to say.
                let _ = handle.join();
            }
        }
    }
}

impl Job {
    /// The next of the chunks that `worker` has.
    fn next(&self, worker: usize) -> Option<usize> {
        let next = self.left.get(worker)?.take(|start, end| [start + 1..end, start..start + 1])?;
        Some(next.start as usize)
    }

    /// The first of half of the chunks that another one has left; `worker`, who has none, has the others then.
    fn steal(&self, worker: usize) -> Option<usize> {
        let (own, count) = (self.left.get(worker)?, self.left.len());
        let others = (1..count).map(|k| &self.left[(worker + k) % count]);
        let half = |start: u32, end: u32| {
            let middle = start + (end - start) / 2;
            [start..middle, middle..end]
        };
        let mut taken = others.filter_map(|other| other.take(half));
        let taken = taken.next()?;
        // Nobody else writes where nothing is left.
        own.0.store(Left::word(taken.start + 1..taken.end), Ordering::Relaxed);
        Some(taken.start as usize)
    }

    /// Computes a chunk that was taken.
    fn compute(&self, worker: usize, chunk: usize) {
        // SAFETY: this chunk is not counted as done, so `run` has not returned and the task is alive.
        let task = unsafe { &*self.task };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(worker, chunk))) {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(message(&*panic));
        }
    }
}

fn take_chunks(job: &Job, worker: usize) {
    let mut first = job.next(worker).or_else(|| job.steal(worker));
    while let Some(mut chunk) = first {
        // Counted together: all threads count in one place, which would go from one to another with every chunk.
        let mut count = 0;
        loop {
            job.compute(worker, chunk);
            count += 1;
            match job.next(worker) {
                Some(next) => chunk = next,
                None => break,
            }
        }
        job.done.fetch_add(count, Ordering::Release);
        first = job.steal(worker);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a kernel panicked".into())
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let started = Instant::now();
        let mut rounds = 0u32;
        while shared.generation.load(Ordering::Acquire) == seen {
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            rounds = rounds.wrapping_add(1);
            // Asking the clock costs more than a round.
            if rounds % 64 == 0 && started.elapsed() > SPIN {
                thread::park();
            } else {
                std::hint::spin_loop();
            }
        }
        seen = shared.generation.load(Ordering::Acquire);
        let job = shared.job.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(job) = job {
            take_chunks(&job, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_done_once() {
        for threads in 1..=4 {
            let pool = ThreadPool::new(threads);
            for chunks in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                let count = |worker: usize, chunk: usize| {
                    assert!(worker < pool.threads());
                    counts[chunk].fetch_add(1, Ordering::Relaxed);
                };
                pool.run(chunks, &count).unwrap();
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_thread_that_stands_still_keeps_one_chunk() {
        let pool = ThreadPool::new(2);
        let done = AtomicUsize::new(0);
        pool.run(50, &|_, chunk| {
            // Whoever has the first chunk waits until all others are done.
            while chunk == 0 && done.load(Ordering::Acquire) < 49 {
                thread::yield_now();
            }
            done.fetch_add(1, Ordering::Release);
        })
        .unwrap();
        assert_eq!(done.into_inner(), 50);
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_goes_on() {
        let pool = ThreadPool::new(3);
        let error = pool.run(20, &|_, chunk| assert!(chunk != 13, "unlucky")).unwrap_err();
        assert!(error.0.contains("unlucky"), "{error:?}");
        let sum = AtomicUsize::new(0);
        pool.run(20, &|_, chunk| {
            sum.fetch_add(chunk, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 190);
    }

    #[test]
    fn many_short_jobs_after_pauses() {
        let pool = ThreadPool::new(2);
        let sum = AtomicUsize::new(0);
        for round in 0..2000 {
            if round % 500 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
            pool.run(3, &|_, _| {
                sum.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        }
        assert_eq!(sum.into_inner(), 6000);
    }
}
