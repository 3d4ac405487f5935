//! The pieces of a proof, several side by side; what the record knows is not done again.

use super::record::Record;
use anyhow::Result;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub struct Job<'a> {
    /// What it is, in a few words.
    pub name: String,
    /// Its line in the record.
    pub line: String,
    /// Says what it has seen; an error is a failure of what is to be proven.
    pub work: Box<dyn Fn() -> Result<String> + Send + Sync + 'a>,
}

/// Does what the record does not know. What fails is not in it afterwards, and does not keep the rest from being done: it is
/// given back, in words.
pub fn prove(part: &str, jobs: &[Job<'_>], record: &Record, width: usize) -> Vec<String> {
    let left: Vec<&Job<'_>> = jobs.iter().filter(|job| !record.has(&job.line)).collect();
    println!("==> {part}: {} to do, {} done before, {width} side by side", left.len(), jobs.len() - left.len());
    let ended = AtomicUsize::new(0);
    let failed = side_by_side(&left, width, |job| {
        let started = Instant::now();
        let seen = (job.work)().and_then(|seen| record.add(&job.line).map(|()| seen));
        let (at, seconds) = (ended.fetch_add(1, Ordering::Relaxed) + 1, started.elapsed().as_secs());
        let text = match &seen {
            Ok(seen) => seen.clone(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        println!("[{at}/{}] {part} {}: {text}, {seconds} s", left.len(), job.name);
        seen.is_err().then(|| format!("{part} {}: {text}", job.name))
    });
    failed.into_iter().flatten().collect()
}

/// Does `work` for each item, begun in their order, at most `width` at once; the results, in the same order.
pub fn side_by_side<T: Sync, R: Send>(items: &[T], width: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..width.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else { break };
                    let result = work(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// How many: for each a core, and memory that is free now.
pub fn width(job_bytes: u64) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    fitting(cores, kib.map(|kib| kib << 10), job_bytes)
}

fn fitting(cores: usize, free_bytes: Option<u64>, job_bytes: u64) -> usize {
    let by_memory = free_bytes.map_or(1, |free| (free / job_bytes) as usize);
    cores.min(by_memory).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn two_work_at_the_same_time() {
        // Each waits for what the other one sends: one after the other would wait in vain.
        let ((to_first, of_second), (to_second, of_first)) = (sync_channel(1), sync_channel(1));
        let ends = [Mutex::new((to_second, of_second)), Mutex::new((to_first, of_first))];
        let met = side_by_side(&ends, 2, |end| {
            let end = end.lock().unwrap();
            end.0.send(()).is_ok() && end.1.recv_timeout(PATIENCE).is_ok()
        });
        assert_eq!(met, [true, true]);
    }

    #[test]
    fn no_more_than_wanted_and_all_in_their_order() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let items: Vec<usize> = (0..12).collect();
        let results = side_by_side(&items, 3, |item| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // The first are the last to end.
            std::thread::sleep(Duration::from_millis(if *item < 3 { 60 } else { 5 }));
            now.fetch_sub(1, Ordering::SeqCst);
            item * 2
        });
        assert_eq!(results, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        assert!((1..=3).contains(&most.into_inner()));
    }

    #[test]
    fn only_what_is_left_is_done_and_only_what_succeeds_is_recorded() {
        let path = std::env::temp_dir().join(format!("headroom-jobs-{}", std::process::id()));
        let begun = Mutex::new(Vec::new());
        let run = |fails: &'static str| {
            let record = Record::open(&path, |_| true).unwrap();
            let begun = &begun;
            let job = |name: &'static str| Job {
                name: name.into(),
                line: format!("part\t{name}"),
                work: Box::new(move || {
                    begun.lock().unwrap().push(name);
                    if name == fails { bail!("{name} is wrong") } else { Ok("right".into()) }
                }),
            };
            prove("part", &["a", "b", "c"].map(job), &record, 1)
        };
        let first = run("b");
        assert_eq!(first, ["part b: FAILED: b is wrong"]);
        assert_eq!(
            std::mem::take(&mut *begun.lock().unwrap()),
            ["a", "b", "c"],
            "one that fails does not end the others"
        );
        assert!(run("").is_empty());
        assert_eq!(*begun.lock().unwrap(), ["b"], "what was done is not done again");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn as_many_as_cores_and_memory_allow() {
        const GIB: u64 = 1 << 30;
        for (cores, free, width) in
            [(2, Some(20 * GIB), 2), (8, Some(9 * GIB), 2), (8, Some(GIB), 1), (4, None, 1), (1, Some(64 * GIB), 1)]
        {
            assert_eq!(fitting(cores, free, 4 * GIB), width, "{cores} cores, {free:?} bytes");
        }
    }
}
