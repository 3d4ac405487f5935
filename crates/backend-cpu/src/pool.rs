//! A persistent thread pool. Chunks are taken, not assigned, so a thread that another program keeps from running holds
//! up at most the chunks it has; idle threads spin for a moment, then sleep.

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

/// `task(worker, chunk)`, without its lifetime: `run` does not return before every use has ended.
type Task = *const (dyn Fn(usize, usize) + Sync);

/// One call of `run`.
struct Job {
    task: Task,
    chunks: usize,
    /// Part of what is left that a thread takes at a time: one of so many, and at least a chunk.
    parts: usize,
    next: AtomicUsize,
    done: AtomicUsize,
    panic: Mutex<Option<String>>,
}

// SAFETY: the task is `Sync`, and `ThreadPool::run` keeps it alive until `done` has reached `chunks`; no thread calls it
// after that, because it only calls it for chunks that it took from `next`.
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
        self.run_parts(chunks, usize::MAX, task)
    }

    /// As [`ThreadPool::run`], of chunks that cost about the same: a thread takes many neighbouring ones at first, and few
    /// towards the end. What it reads then lies one after the other.
    ///
    /// # Errors
    /// As there.
    pub fn run_stretches(&self, chunks: usize, task: &(dyn Fn(usize, usize) + Sync)) -> Result<(), PoolError> {
        self.run_parts(chunks, 2 * self.threads(), task)
    }

    fn run_parts(&self, chunks: usize, parts: usize, task: &(dyn Fn(usize, usize) + Sync)) -> Result<(), PoolError> {
        if chunks == 0 {
            return Ok(());
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: only the lifetime is changed. This function does not return before `done` equals `chunks`, and the
        // task is called only before that.
        let task: Task = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync + '_), *const (dyn Fn(usize, usize) + Sync)>(task)
        };
        let job = Arc::new(Job {
            task,
            chunks,
            parts,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            panic: Mutex::new(None),
        });
        if chunks > 1 && !self.workers.is_empty() {
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
    /// The next chunks that nobody has.
    fn take(&self) -> Option<Range<usize>> {
        let end = |start: usize| start + ((self.chunks - start) / self.parts).max(1);
        let more = |start: usize| (start < self.chunks).then(|| end(start));
        let start = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(start..end(start))
    }
}

fn take_chunks(job: &Job, worker: usize) {
    while let Some(chunks) = job.take() {
        let count = chunks.len();
        // SAFETY: these chunks are not done, so `run` has not returned and the task is alive.
        let task = unsafe { &*job.task };
        for chunk in chunks {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(worker, chunk))) {
                *job.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(message(&*panic));
            }
        }
        job.done.fetch_add(count, Ordering::Release);
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
                pool.run_stretches(chunks, &count).unwrap();
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 2));
            }
        }
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
