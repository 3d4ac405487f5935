//! The GPU that takes layers: opened when it is first asked for, and again after a loss; what it has to give; or why there
//! is none.

use crate::wire::{Gpu, GpuReason};
use backend_cuda::{Absent, Card, GpuConfig, GpuDevice};
use engine::Device;
use hardware::GpuStatus;
use planner::AcceleratorFacts;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What is left to other programs in any case, in bytes: windows and browsers take and give this much all the time.
const LEAST_MARGIN: u64 = 256 << 20;
/// What other programs had more a while ago counts half after this time, and this part of the whole memory at most: one
/// that has ended, such as a game, shall not be waited for.
const HALF_LIFE: Duration = Duration::from_secs(60);
const MOST_SWING: u64 = 16;
/// Bytes of the kernels' code until it was loaded and measured, and of a context that nobody measured. Guesses: no such
/// figure was seen on a GPU yet.
const CODE: u64 = 64 << 20;
const CONTEXT: u64 = 300 << 20;
/// The device takes memory in slabs: one may be nearly empty.
const SLAB: u64 = 16 << 20;

/// The first GPU in the driver's order.
pub(crate) struct GpuSlot {
    allowed: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    card: Option<Result<Open, Absent>>,
    others: Others,
}

#[derive(Clone)]
struct Open {
    card: Card,
    /// Bytes that were gone when the context was there, where something told of the time before.
    context: u64,
}

impl GpuSlot {
    /// Nothing is asked of the driver unless it is `allowed`.
    pub fn new(allowed: bool) -> GpuSlot {
        GpuSlot { allowed, state: Mutex::default() }
    }

    /// The next one who asks tries again to open a GPU that was not there or was lost.
    pub fn renew(&self) {
        let mut state = self.state();
        if !matches!(&state.card, Some(Ok(open)) if open.card.lost().is_none()) {
            // The old context must be gone before the next one.
            state.card = None;
        }
    }

    /// How the window sees it; the first time it is opened, which takes a moment.
    pub fn shown(&self, status: &GpuStatus) -> Result<Gpu, GpuReason> {
        if !self.allowed {
            return Err(GpuReason::TurnedOff);
        }
        let card = match self.state().open(status) {
            Ok(open) => open.card.clone(),
            Err(absent) => return Err(reason(&absent, status)),
        };
        if let Some(detail) = card.lost() {
            return Err(GpuReason::BadState { detail });
        }
        let (major, minor) = card.capability();
        Ok(Gpu {
            name: card.name().into(),
            vram_total: card.total_bytes(),
            vram_free: card.free_bytes().unwrap_or(0),
            driver: Some(status.driver_version.clone().unwrap_or_else(|| cuda(card.cuda_version()))),
            compute_capability: Some(format!("{major}.{minor}")),
            is_test_device: false,
        })
    }

    /// A device on the GPU. The first one compiles the kernels, which may take a while. Where that fails, the GPU counts as
    /// not there from then on, for this reason.
    pub fn device(&self, status: &GpuStatus) -> Result<Box<dyn Device>, GpuReason> {
        if !self.allowed {
            return Err(GpuReason::TurnedOff);
        }
        let card = self.state().open(status).map(|open| open.card.clone()).map_err(|absent| reason(&absent, status))?;
        // The kernels may be compiled now: others are not kept waiting for that.
        match card.driver() {
            Ok(driver) => Ok(Box::new(GpuDevice::new(driver, GpuConfig::default()))),
            Err(absent) => {
                let told = reason(&absent, status);
                // A GPU that no device can be made of takes no layers, whoever asks: until it is tried again.
                self.state().card = Some(Err(absent));
                Err(told)
            }
        }
    }

    /// What the planner asks of it. Our own memory counts as free: it would be given back for what is planned.
    pub fn facts(&self, status: impl FnOnce() -> GpuStatus) -> Option<AcceleratorFacts> {
        if !self.allowed {
            return None;
        }
        let mut state = self.state();
        let Open { card, context } = match &state.card {
            Some(open) => open.clone().ok()?,
            None => state.open(&status()).ok()?.clone(),
        };
        let free = card.free_bytes()?;
        let code = card.code_bytes();
        let own = card.taken_bytes() + context + code.unwrap_or(0);
        let others = card.total_bytes().saturating_sub(free + own);
        let margin = state.others.margin(others, card.total_bytes(), Instant::now());
        Some(AcceleratorFacts {
            memory_free: free + own,
            overhead: context + code.unwrap_or(CODE) + SLAB,
            margin,
            bandwidth: card.bandwidth(),
            scratch: backend_cuda::scratch,
            footprint: backend_cuda::footprint,
        })
    }

    /// Total, free and our bytes, if the GPU has been opened.
    pub fn memory(&self) -> Option<(u64, u64, u64)> {
        let open = match &self.state().card {
            Some(Ok(open)) => open.clone(),
            _ => return None,
        };
        Some((open.card.total_bytes(), open.card.free_bytes()?, open.card.taken_bytes()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Values are replaced whole under the lock, so a panic elsewhere leaves them usable.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn open(&mut self, status: &GpuStatus) -> Result<&Open, Absent> {
        let opened = self.card.get_or_insert_with(|| {
            let card = Card::open(0)?;
            // Two tools count the same memory only where there is one GPU.
            let before = if let [gpu] = &status.gpus[..] { Some(gpu.vram_free) } else { None };
            let context = before.zip(card.free_bytes()).map_or(0, |(before, after)| before.saturating_sub(after));
            Ok(Open { card, context: context.min(4 * CONTEXT) })
        });
        opened.as_ref().map_err(Absent::clone)
    }
}

/// A GPU with so many free bytes that nobody has, for plans.
pub fn imagined_gpu(memory_free: u64) -> AcceleratorFacts {
    AcceleratorFacts {
        memory_free,
        overhead: CONTEXT + CODE + SLAB,
        scratch: backend_cuda::scratch,
        footprint: backend_cuda::footprint,
        ..AcceleratorFacts::default()
    }
}

/// How much of the GPU's memory other programs use, and used not long ago: the margin follows it.
#[derive(Default)]
struct Others {
    /// Bytes that they had more than now, and when that was so.
    swing: Option<(u64, Instant, u64)>,
}

impl Others {
    /// Bytes of `total` to leave free, when others have `now` at this time: what they had before they may want again.
    fn margin(&mut self, now: u64, total: u64, at: Instant) -> u64 {
        let before = self.swing.map_or(0, |(most, then, had)| {
            let halves = at.saturating_duration_since(then).as_secs_f64() / HALF_LIFE.as_secs_f64();
            had + (most.saturating_sub(had) as f64 * 0.5f64.powf(halves)) as u64
        });
        let most = before.max(now);
        self.swing = Some((most, at, now));
        LEAST_MARGIN + (most - now).min(total / MOST_SWING)
    }
}

/// CUDA versions as the driver counts them.
fn cuda(version: i32) -> String {
    format!("CUDA {}.{}", version / 1000, version % 1000 / 10)
}

/// In the window's terms; the management library may know more than the driver.
fn reason(absent: &Absent, status: &GpuStatus) -> GpuReason {
    let capability = |(major, minor): (i32, i32)| format!("{major}.{minor}");
    match absent {
        Absent::NoDriver if status.reason == Some(hardware::GpuReason::NoDevice) => GpuReason::NoDevice,
        Absent::NoDriver => GpuReason::NoDriver,
        Absent::DriverTooOld { found, .. } => GpuReason::DriverTooOld {
            found: status.driver_version.clone().unwrap_or_else(|| cuda(*found)),
            needed: hardware::NEEDED_DRIVER.into(),
        },
        Absent::NoDevice => GpuReason::NoDevice,
        Absent::DeviceTooOld { capability: found, needed } => {
            GpuReason::DeviceTooOld { found: capability(*found), needed: capability(*needed) }
        }
        Absent::BadState(detail) => GpuReason::BadState { detail: detail.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_follows_what_others_used_and_forgets_it() {
        let (mut others, start) = (Others::default(), Instant::now());
        let mut margin = |seconds: u64, now: u64| others.margin(now, 100_000, start + Duration::from_secs(seconds));
        assert_eq!(margin(0, 1000), LEAST_MARGIN);
        assert_eq!(margin(1, 5000), LEAST_MARGIN, "more is gone already");
        // Less now: it may come again, and counts less with time.
        assert_eq!(margin(1, 1000), LEAST_MARGIN + 4000);
        assert_eq!(margin(61, 1000), LEAST_MARGIN + 2000);
        assert_eq!(margin(181, 1000), LEAST_MARGIN + 500);
        assert_eq!(margin(182, 90_000), LEAST_MARGIN);
        assert_eq!(margin(182, 1000), LEAST_MARGIN + 100_000 / 16, "a large program that has ended");
    }

    #[test]
    fn a_missing_gpu_is_told_as_precisely_as_is_known() {
        let status = |reason, driver: Option<&str>| GpuStatus {
            reason,
            driver_version: driver.map(Into::into),
            ..GpuStatus::default()
        };
        let none = status(None, None);
        assert_eq!(reason(&Absent::NoDriver, &none), GpuReason::NoDriver);
        let no_card = status(Some(hardware::GpuReason::NoDevice), None);
        assert_eq!(reason(&Absent::NoDriver, &no_card), GpuReason::NoDevice);
        let old = |found: &str| GpuReason::DriverTooOld { found: found.into(), needed: "525.60".into() };
        let absent = Absent::DriverTooOld { found: 11_080, needed: 12_000 };
        assert_eq!(reason(&absent, &none), old("CUDA 11.8"));
        assert_eq!(reason(&absent, &status(None, Some("520.1"))), old("520.1"));
        let kepler = Absent::DeviceTooOld { capability: (3, 5), needed: (6, 1) };
        let told = GpuReason::DeviceTooOld { found: "3.5".into(), needed: "6.1".into() };
        assert_eq!(reason(&kepler, &none), told);
    }

    #[test]
    fn without_leave_nothing_is_asked() {
        let (slot, status) = (GpuSlot::new(false), GpuStatus::default());
        slot.renew();
        assert_eq!(slot.shown(&status), Err(GpuReason::TurnedOff));
        assert!(matches!(slot.device(&status), Err(GpuReason::TurnedOff)));
        assert!(slot.facts(|| panic!("not asked")).is_none() && slot.memory().is_none());
    }
}
