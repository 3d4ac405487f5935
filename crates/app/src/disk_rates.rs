//! How fast disks are read: measured from the models on them, when nobody waits for these. What is measured once, while
//! the disk is busy or with a small file, says too little; so the best of the last weeks counts.

use crate::app::{App, lock};
use crate::error::Result;
use hardware::HardwareError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Milliseconds.
const DAY: u64 = 24 * 3600 * 1000;
/// What is older says nothing any more, where there is something newer.
const RECENT: u64 = 30 * DAY;
const MOST: usize = 8;
/// How often is looked whether the model is read in.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    /// Unix milliseconds.
    at: u64,
    bytes_per_s: f64,
}

/// By the disk's mount point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DiskRates(BTreeMap<String, Vec<Sample>>);

impl DiskRates {
    /// The best rate that was measured lately.
    pub fn best(&self, disk: &str) -> Option<f64> {
        self.0.get(disk)?.iter().map(|sample| sample.bytes_per_s).max_by(f64::total_cmp)
    }

    /// Whether it is time to measure a disk (again).
    pub fn is_due(&self, disk: &str, now: u64) -> bool {
        let last = self.0.get(disk).and_then(|samples| samples.last());
        // A clock that was wrong must not keep it from being measured.
        last.is_none_or(|last| now.abs_diff(last.at) >= DAY)
    }

    pub fn add(&mut self, disk: String, bytes_per_s: f64, now: u64) {
        let samples = self.0.entry(disk).or_default();
        samples.retain(|sample| now.abs_diff(sample.at) < RECENT);
        samples.push(Sample { at: now, bytes_per_s });
        let over = samples.len().saturating_sub(MOST);
        samples.drain(..over);
    }

    /// Nothing that was measured before counts: the user asked how fast it is now.
    pub fn replace(&mut self, disk: String, bytes_per_s: f64, now: u64) {
        self.0.insert(disk, vec![Sample { at: now, bytes_per_s }]);
    }
}

/// The file to read of a model for a measurement: its largest part, if that is large enough.
pub(crate) fn sample_of(model: &Path) -> Option<PathBuf> {
    let parts = gguf::split_file_names(model.file_name()?.to_str()?);
    let parts =
        parts.map_or_else(|| vec![model.to_owned()], |names| names.iter().map(|n| model.with_file_name(n)).collect());
    let bytes = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let largest = parts.into_iter().max_by_key(bytes)?;
    (bytes(&largest) >= hardware::SMALLEST_SAMPLE).then_some(largest)
}

impl App {
    /// Measures the disk of the loaded model where that was not done lately, in less than a second, in the background: only
    /// while no answer is written, and until one is begun.
    pub(crate) fn measure_disk(self: &Arc<Self>) {
        let Ok(session) = self.session() else { return };
        let Some(sample) = sample_of(&session.path).filter(|sample| self.machine.disk_is_due(sample)) else { return };
        let app = self.clone();
        self.config.runtime.spawn_blocking(move || {
            if let Err(error) = app.measure_disk_now(&sample) {
                tracing::debug!("the disk is not measured: {error}");
            }
        });
    }

    fn measure_disk_now(&self, sample: &Path) -> Result<()> {
        let cancel = Arc::new(AtomicBool::new(false));
        {
            let mut measuring = lock(&self.measuring_disk);
            if measuring.is_some() {
                return Ok(());
            }
            *measuring = Some(cancel.clone());
        }
        // Whoever begins an answer from here on finds the measurement, and whoever did before is found here.
        let idle = !self.is_answering();
        // What is read at the same time would be missing from the rate.
        let reads = || self.session().is_ok_and(|session| session.engine.is_reading());
        while idle && reads() && !cancel.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
        }
        let measured = if idle { self.machine.measure_disk(sample, &cancel) } else { Ok(false) };
        *lock(&self.measuring_disk) = None;
        if measured? {
            self.tell_measured()?;
        }
        Ok(())
    }

    /// Somebody needs the disk.
    pub(crate) fn leave_disk_alone(&self) {
        if let Some(cancel) = &*lock(&self.measuring_disk) {
            cancel.store(true, Ordering::Relaxed);
        }
    }
}

impl crate::machine::Machine {
    /// Reads `sample` past the system's cache and keeps how fast that was; `false` if something is being measured already,
    /// or if it was called off.
    fn measure_disk(&self, sample: &Path, cancel: &AtomicBool) -> Result<bool> {
        let Some(_measuring) = self.begin_measuring() else { return Ok(false) };
        match hardware::measure_disk_read(sample, cancel) {
            Ok(rate) => self.keep_disk_rate(sample, rate).map(|()| true),
            Err(HardwareError::Cancelled) => Ok(false),
            Err(error) => Err(crate::wire::WireError::internal(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_the_last_weeks_counts() {
        let mut rates = DiskRates::default();
        assert!(rates.is_due("/", 0) && rates.best("/").is_none());
        let day = |n: u64| 100 * DAY + n * DAY;
        rates.add("/".into(), 3e9, day(0));
        rates.add("/".into(), 1e9, day(1));
        assert_eq!((rates.best("/"), rates.best("/other")), (Some(3e9), None));
        assert!(!rates.is_due("/", day(1) + DAY - 1) && rates.is_due("/", day(2)) && rates.is_due("/other", day(1)));
        // An old one is better than none, and gone once there is a newer one.
        assert_eq!(rates.best("/"), Some(3e9));
        rates.add("/".into(), 2e9, day(30));
        assert_eq!(rates.best("/"), Some(2e9), "the best of a month ago");
        (31..60).for_each(|n| rates.add("/".into(), n as f64, day(n)));
        assert!(rates.0["/"].len() <= MOST);
        // The clock was wrong.
        assert!(rates.is_due("/", day(10)));
        rates.replace("/".into(), 5.0, day(60));
        assert_eq!(rates.best("/"), Some(5.0));
    }

    #[test]
    fn the_largest_part_is_read_if_it_is_large_enough() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: u64| {
            let path = folder.path().join(name);
            std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
            path
        };
        let first = file("m-00001-of-00002.gguf", 1000);
        let second = file("m-00002-of-00002.gguf", hardware::SMALLEST_SAMPLE);
        assert_eq!(sample_of(&first), Some(second));
        assert_eq!(sample_of(&file("small.gguf", hardware::SMALLEST_SAMPLE - 1)), None);
        assert_eq!(sample_of(&folder.path().join("missing.gguf")), None);
    }
}
