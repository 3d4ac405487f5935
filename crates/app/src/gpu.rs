//! The GPU that takes layers: opened when it is first asked for, and again after a loss; what it has to give; or why there
//! is none.

use crate::wire::{Gpu, GpuReason};
use backend_cuda::{Absent, Card, GpuConfig, GpuDevice, Listed};
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
/// What graphs of launches may take: they are made while tokens are generated, after the plan. A guess, until more is seen.
const GRAPHS: u64 = 16 << 20;
const CONTEXT: u64 = 300 << 20;
/// The device takes memory in slabs: one may be nearly empty.
const SLAB: u64 = 16 << 20;

/// The GPU that was chosen, or else the one with the most memory.
pub(crate) struct GpuSlot {
    allowed: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// [`Listed::id`]
    chosen: Option<String>,
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

    /// From now on this GPU is meant ([`Listed::id`]), or the one with the most memory where it is none that is there. Layers
    /// that are on another one stay there.
    pub fn choose(&self, id: Option<String>) {
        let mut state = self.state();
        if state.chosen != id {
            *state = State { chosen: id, ..State::default() };
        }
    }

    /// The next one who asks tries again to open a GPU that was not there or was lost.
    pub fn renew(&self) {
        let mut state = self.state();
        if !matches!(&state.card, Some(Ok(open)) if open.card.lost().is_none()) {
            // The old context must be gone before the next one.
            state.card = None;
        }
    }

    /// Whether a GPU that was lost can be opened again.
    pub fn is_back(&self, status: &GpuStatus) -> bool {
        self.renew();
        self.shown(status).is_ok()
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
        Ok(Gpu {
            id: card.id().into(),
            name: card.name().into(),
            vram_total: card.total_bytes(),
            vram_free: card.free_bytes(),
            driver: Some(status.driver_version.clone().unwrap_or_else(|| cuda(card.cuda_version()))),
            compute_capability: Some(text(card.capability())),
            is_test_device: false,
        })
    }

    /// The other GPUs that could be chosen, as they are known without being opened.
    pub fn others(&self, status: &GpuStatus, shown: &Gpu) -> Vec<Gpu> {
        let listed = if self.allowed { Listed::all().unwrap_or_default() } else { Vec::new() };
        let others = listed.into_iter().filter(|listed| listed.is_usable() && listed.id != shown.id);
        let free = |id: &str| status.gpus.iter().find(|gpu| gpu.id.as_deref() == Some(id)).map(|gpu| gpu.vram_free);
        others
            .map(|listed| Gpu {
                vram_total: listed.total_bytes,
                vram_free: free(&listed.id),
                driver: shown.driver.clone(),
                compute_capability: Some(text(listed.capability)),
                is_test_device: false,
                name: listed.name,
                id: listed.id,
            })
            .collect()
    }

    /// A device on the GPU. The first one compiles the kernels, which may take a while: `compiled` hears how many of how
    /// many are ready. Where that fails, the GPU counts as not there from then on, for this reason.
    pub fn device(
        &self,
        status: &GpuStatus,
        compiled: &mut dyn FnMut(usize, usize),
    ) -> Result<Box<dyn Device>, GpuReason> {
        if !self.allowed {
            return Err(GpuReason::TurnedOff);
        }
        let card = self.state().open(status).map(|open| open.card.clone()).map_err(|absent| reason(&absent, status))?;
        // The kernels may be compiled now: others are not kept waiting for that.
        match card.driver(compiled) {
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
    /// With its [`Gpu::id`].
    pub fn facts(&self, status: impl FnOnce() -> GpuStatus) -> Option<(String, AcceleratorFacts)> {
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
        let graphs = card.graph_bytes();
        let own = card.taken_bytes() + context + code.unwrap_or(0) + graphs;
        let others = card.total_bytes().saturating_sub(free + own);
        let margin = state.others.margin(others, card.total_bytes(), Instant::now());
        let facts = AcceleratorFacts {
            memory_free: free + own,
            overhead: context + code.unwrap_or(CODE) + graphs.max(GRAPHS) + SLAB,
            margin,
            bandwidth: card.bandwidth(),
            scratch: backend_cuda::scratch,
            footprint: backend_cuda::footprint,
            ..AcceleratorFacts::default()
        };
        Some((card.id().into(), facts))
    }

    /// The GPU's id, if its kernels are there.
    pub fn ready(&self) -> Option<String> {
        match &self.state().card {
            Some(Ok(open)) if open.card.lost().is_none() && open.card.code_bytes().is_some() => {
                Some(open.card.id().into())
            }
            _ => None,
        }
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
        let State { card, chosen, .. } = self;
        let opened = card.get_or_insert_with(|| {
            let card = Card::open(number(&Listed::all()?, chosen.as_deref()))?;
            // Where both tools mean the same GPU, or there is only one.
            let same = |gpu: &&hardware::Gpu| gpu.id.as_deref() == Some(card.id()) || status.gpus.len() == 1;
            let before = status.gpus.iter().find(same).map(|gpu| gpu.vram_free);
            let context = before.zip(card.free_bytes()).map_or(0, |(before, after)| before.saturating_sub(after));
            Ok(Open { card, context: context.min(4 * CONTEXT) })
        });
        opened.as_ref().map_err(Absent::clone)
    }
}

/// The number of the GPU to open: the chosen one if it is there, or else of those that can be used the one with the most
/// memory, the driver's first of equals.
fn number(listed: &[Listed], chosen: Option<&str>) -> usize {
    let found = listed.iter().find(|listed| Some(listed.id.as_str()) == chosen);
    let most = || listed.iter().rev().filter(|listed| listed.is_usable()).max_by_key(|listed| listed.total_bytes);
    found.or_else(most).map_or(0, |listed| listed.number)
}

fn text((major, minor): (i32, i32)) -> String {
    format!("{major}.{minor}")
}

/// The GPUs of this PC that can take layers, in the driver's order: what they are called for good, and their names.
///
/// # Errors
/// Why there are none.
pub fn gpus() -> Result<Vec<(String, String)>, GpuReason> {
    let listed = Listed::all().map_err(|absent| reason(&absent, &hardware::gpus()))?;
    Ok(listed.into_iter().filter(Listed::is_usable).map(|listed| (listed.id, listed.name)).collect())
}

/// A GPU with so many free bytes that nobody has, for plans.
pub fn imagined_gpu(memory_free: u64) -> AcceleratorFacts {
    AcceleratorFacts {
        memory_free,
        overhead: CONTEXT + CODE + GRAPHS + SLAB,
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
    match absent {
        Absent::NoDriver if status.reason == Some(hardware::GpuReason::NoDevice) => GpuReason::NoDevice,
        Absent::NoDriver => GpuReason::NoDriver,
        Absent::DriverTooOld { found, .. } => GpuReason::DriverTooOld {
            found: status.driver_version.clone().unwrap_or_else(|| cuda(*found)),
            needed: hardware::NEEDED_DRIVER.into(),
        },
        Absent::NoDevice => GpuReason::NoDevice,
        Absent::DeviceTooOld { capability: found, needed } => {
            GpuReason::DeviceTooOld { found: text(*found), needed: text(*needed) }
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
    fn the_chosen_gpu_is_taken_or_the_one_with_the_most_memory() {
        let card = |number, total_bytes, major| Listed {
            number,
            id: format!("GPU-{number}"),
            name: "card".into(),
            total_bytes,
            capability: (major, 0),
        };
        let cards = [card(0, 8, 8), card(1, 48, 5), card(2, 16, 7), card(3, 16, 8)];
        assert_eq!(number(&cards, Some("GPU-0")), 0);
        assert_eq!(number(&cards, Some("GPU-3")), 3);
        assert_eq!(number(&cards, Some("GPU-1")), 1, "and it is told why it cannot be used");
        assert_eq!((number(&cards, None), number(&cards, Some("GPU-9"))), (2, 2));
        // What is said of the only one is what it lacks.
        assert_eq!((number(&cards[1..2], None), number(&[], None)), (0, 0));
    }

    #[test]
    fn without_leave_nothing_is_asked() {
        let (slot, status) = (GpuSlot::new(false), GpuStatus::default());
        slot.renew();
        assert_eq!(slot.shown(&status), Err(GpuReason::TurnedOff));
        assert!(matches!(slot.device(&status, &mut |_, _| {}), Err(GpuReason::TurnedOff)));
        assert!(slot.facts(|| panic!("not asked")).is_none() && slot.memory().is_none());
    }
}
