//! Progress: counted by the workers, sampled for the caller.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What a download is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum State {
    /// Asks the Hub, looks at what is there.
    Starting,
    Downloading,
    /// The connection was lost or the server asked to wait; goes on by itself.
    Waiting {
        seconds: u64,
    },
    /// Compares sha256; `bytes` counts from 0 again.
    Verifying,
    Done,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes on the disk, of all files; while verifying: bytes compared.
    pub bytes: u64,
    /// Bytes of all files.
    pub total: u64,
    /// Over the last seconds.
    pub bytes_per_s: f64,
    /// At that speed.
    pub seconds_left: Option<f64>,
    pub state: State,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Phase {
    Starting,
    Downloading,
    Verifying,
    Done,
}

pub(crate) struct Meter {
    total: u64,
    phase: Mutex<Phase>,
    written: AtomicU64,
    verified: AtomicU64,
    /// Bytes received since the start, to tell progress from failure.
    arrived: AtomicU64,
    /// Lanes that are asking or receiving, not pausing.
    active: AtomicUsize,
    /// When the last pausing lane tries again.
    wake: Mutex<Option<Instant>>,
}

impl Meter {
    pub fn new(total: u64) -> Meter {
        Meter {
            total,
            phase: Mutex::new(Phase::Starting),
            written: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            wake: Mutex::new(None),
        }
    }

    pub fn set_phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Relaxed);
    }

    /// Takes back the bytes of a file that turned out damaged, written and verified.
    pub fn take_back(&self, bytes: u64) {
        for counter in [&self.written, &self.verified] {
            counter.fetch_sub(bytes.min(counter.load(Relaxed)), Relaxed);
        }
    }

    pub fn add_verified(&self, bytes: u64) {
        self.verified.fetch_add(bytes, Relaxed);
    }

    pub fn add_arrived(&self, bytes: u64) {
        self.arrived.fetch_add(bytes, Relaxed);
    }

    pub fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    pub fn active(&self) -> ActiveLane<'_> {
        self.active.fetch_add(1, Relaxed);
        ActiveLane(self)
    }

    pub fn pausing_until(&self, until: Instant) {
        let mut wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        *wake = Some(wake.map_or(until, |w| w.max(until)));
    }

    fn state(&self, now: Instant) -> (State, u64) {
        let written = self.written.load(Relaxed).min(self.total);
        match *self.phase.lock().unwrap_or_else(PoisonError::into_inner) {
            Phase::Starting => (State::Starting, written),
            Phase::Verifying => (State::Verifying, self.verified.load(Relaxed).min(self.total)),
            Phase::Done => (State::Done, self.total),
            Phase::Downloading => {
                let wake = *self.wake.lock().unwrap_or_else(PoisonError::into_inner);
                match wake.filter(|w| *w > now && self.active.load(Relaxed) == 0) {
                    Some(wake) => (State::Waiting { seconds: (wake - now).as_secs() + 1 }, written),
                    None => (State::Downloading, written),
                }
            }
        }
    }
}

/// Counts a lane as active while it lives.
pub(crate) struct ActiveLane<'a>(&'a Meter);

impl Drop for ActiveLane<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// The speed is measured over this time.
const WINDOW: Duration = Duration::from_secs(5);

/// Turns the counters into reports.
#[derive(Default)]
pub(crate) struct Sampler {
    samples: VecDeque<(Instant, u64)>,
    verifying: bool,
}

impl Sampler {
    pub fn sample(&mut self, meter: &Meter, now: Instant) -> Progress {
        let (state, bytes) = meter.state(now);
        let verifying = state == State::Verifying;
        // The counter starts again with the phase, and goes back when damaged bytes are thrown away.
        if verifying != self.verifying || self.samples.back().is_some_and(|s| s.1 > bytes) {
            self.samples.clear();
            self.verifying = verifying;
        }
        self.samples.push_back((now, bytes));
        while self.samples.len() > 2 && now - self.samples[1].0 >= WINDOW {
            self.samples.pop_front();
        }
        let (since, from) = self.samples[0];
        let seconds = (now - since).as_secs_f64();
        let bytes_per_s = if seconds > 0.0 { (bytes - from) as f64 / seconds } else { 0.0 };
        let seconds_left = (bytes_per_s > 0.0).then(|| (meter.total - bytes) as f64 / bytes_per_s);
        Progress { bytes, total: meter.total, bytes_per_s, seconds_left, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_and_time_left() {
        let meter = Meter::new(1000);
        let mut sampler = Sampler::default();
        let start = Instant::now();
        assert_eq!(sampler.sample(&meter, start).state, State::Starting);
        meter.set_phase(Phase::Downloading);
        for second in 1..=10 {
            meter.add_written(if second <= 5 { 100 } else { 50 });
            sampler.sample(&meter, start + Duration::from_secs(second));
        }
        let progress = sampler.sample(&meter, start + Duration::from_secs(10));
        assert_eq!((progress.bytes, progress.bytes_per_s, progress.seconds_left), (750, 50.0, Some(5.0)));
        meter.pausing_until(start + Duration::from_secs(17));
        let waiting = sampler.sample(&meter, start + Duration::from_secs(10)).state;
        assert_eq!(waiting, State::Waiting { seconds: 8 });
        let lane = meter.active();
        assert_eq!(sampler.sample(&meter, start + Duration::from_secs(10)).state, State::Downloading);
        drop(lane);
        meter.take_back(5000);
        assert_eq!(sampler.sample(&meter, start + Duration::from_secs(11)).bytes, 0);
        meter.set_phase(Phase::Verifying);
        meter.add_verified(10);
        let verifying = sampler.sample(&meter, start + Duration::from_secs(12));
        assert_eq!((verifying.state, verifying.bytes), (State::Verifying, 10));
    }
}
