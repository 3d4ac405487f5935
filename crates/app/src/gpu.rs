//! The GPUs that take layers: known from the beginning, opened when one of them is first given something, and again after a
//! loss; what they have to give; or why there are none.

use crate::compiling::{Watch, compile};
use crate::gpu_seat::{CODE, CONTEXT, Found, Free, Seat, name, seats_of, text};
use crate::wire::{Gpu, GpuFigures, GpuName, GpuReason};
use backend_cpu::ThreadPool;
use backend_cuda::{Absent, Card, CudaDevice, GRAPHS, GpuConfig, GpuDevice, LateDevice, Listed, SLAB};
use engine::Device;
use hardware::{GpuSample, GpuStatus};
use planner::AcceleratorFacts;
use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) use crate::gpu_seat::Guess;

/// The GPUs that were chosen, or else all that can be used, in the order in which they are given layers.
pub(crate) struct Gpus {
    allowed: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// [`Listed::id`]s; `None`: all.
    chosen: Option<Vec<String>>,
    seats: Option<Result<Vec<Seat>, Absent>>,
}

/// A device, or why there is none.
pub(crate) type Made = Result<Box<dyn Device>, GpuReason>;

impl Gpus {
    /// Nothing is asked of the driver unless it is `allowed`.
    pub fn new(allowed: bool) -> Gpus {
        Gpus { allowed, state: Mutex::default() }
    }

    /// From now on these GPUs are meant ([`Listed::id`]), or all where none of them is there; `None`: all. Layers that are on
    /// others stay there.
    pub fn choose(&self, ids: Option<Vec<String>>) {
        let mut state = self.state();
        if state.chosen != ids {
            *state = State { chosen: ids, ..State::default() };
        }
    }

    /// Where a GPU is wanted at all, what is known of those that are.
    fn wanted(&self) -> Result<MutexGuard<'_, State>, GpuReason> {
        if !self.allowed {
            return Err(GpuReason::TurnedOff);
        }
        let state = self.state();
        if state.chosen.as_ref().is_some_and(Vec::is_empty) {
            return Err(GpuReason::NoneChosen);
        }
        Ok(state)
    }

    /// GPUs that were not there or were lost are tried again when something is next given to them.
    pub fn renew(&self) {
        self.state().renew();
    }

    /// Whether GPUs that were lost can be opened again.
    pub fn are_back(&self, status: &GpuStatus) -> bool {
        let Ok(mut state) = self.wanted() else { return false };
        let works = |seat: &Seat| seat.works().then(|| seat.listed.id.clone());
        let worked: Vec<String> = match &state.seats {
            Some(Ok(seats)) => seats.iter().filter_map(works).collect(),
            _ => Vec::new(),
        };
        state.renew();
        let free = Free::of(status);
        let Ok(seats) = state.seats(&free) else { return false };
        seats.iter_mut().filter(|seat| !worked.contains(&seat.listed.id)).for_each(|seat| seat.open(&free));
        seats.iter().all(Seat::works)
    }

    /// How the window sees them. None is opened for that, but those of which nothing else tells how much is free.
    pub fn shown(&self, status: &GpuStatus) -> Result<Vec<Result<Gpu, GpuReason>>, GpuReason> {
        let mut state = self.wanted()?;
        let free = Free::of(status);
        let seats = state.seats(&free).map_err(|absent| reason(&absent, status))?;
        Ok(seats.iter().map(|seat| shown(seat, &free, status)).collect())
    }

    /// The other GPUs that could be chosen, as they are known without being opened. `shown`: those that take layers; `None`:
    /// none of those that are meant can be used.
    pub fn others(&self, status: &GpuStatus, shown: Option<&[Gpu]>) -> Vec<Gpu> {
        let listed = if self.allowed { Listed::all().unwrap_or_default() } else { Vec::new() };
        let taken: Vec<String> = match (shown, &self.state().seats) {
            (Some(shown), _) => shown.iter().map(|gpu| gpu.id.clone()).collect(),
            (None, Some(Ok(seats))) => seats.iter().map(|seat| seat.listed.id.clone()).collect(),
            (None, _) => Vec::new(),
        };
        let free = |id: &str| status.gpus.iter().find(|gpu| gpu.id.as_deref() == Some(id)).map(|gpu| gpu.vram_free);
        let others = listed.iter().filter(|one| one.is_usable() && !taken.contains(&one.id));
        others.map(|one| Gpu { used: false, ..known(one, name(one, &listed), free(&one.id), status) }).collect()
    }

    /// Opens these, if they are not open, and has their kernels compiled, which may take a while. Where that fails, a GPU counts
    /// as not there from then on, for this reason.
    ///
    /// # Errors
    /// [`ErrorCode::Cancelled`](crate::wire::ErrorCode::Cancelled)
    pub fn open(&self, numbers: &[usize], free: &Free, watch: &mut Watch<'_>) -> crate::error::Result<()> {
        for (done, number) in numbers.iter().enumerate() {
            let card = {
                let Ok(mut state) = self.wanted() else { return Ok(()) };
                let Ok(seats) = state.seats(free) else { return Ok(()) };
                let Some(seat) = seats.get_mut(*number) else { continue };
                seat.open(free);
                let Ok(open) = seat.opened() else { continue };
                open.card.clone()
            };
            // All of them are one piece of work. Others are not kept waiting for that.
            if let Err(absent) = compile(&card, (done, numbers.len()), watch)? {
                self.fail(*number, absent);
            }
        }
        Ok(())
    }

    /// Opens all of them, without kernels.
    pub fn open_all(&self, free: &Free) {
        let Ok(mut state) = self.wanted() else { return };
        if let Ok(seats) = state.seats(free) {
            seats.iter_mut().for_each(|seat| seat.open(free));
        }
    }

    /// No device can be made of it, whoever asks: until it is tried again.
    fn fail(&self, number: usize, absent: Absent) {
        if let Some(Ok(seats)) = &mut self.state().seats
            && let Some(seat) = seats.get_mut(number)
        {
            seat.card = Some(Err(absent));
        }
    }

    /// Whether there is such a GPU that was neither made ready nor has failed.
    pub fn is_closed(&self, number: usize) -> bool {
        let state = self.state();
        let Some(Ok(seats)) = &state.seats else { return false };
        seats.get(number).is_some_and(|seat| seat.is_closed())
    }

    /// Devices on the GPUs, in order, each of which is opened when it is first given something.
    ///
    /// # Errors
    /// Why there are no GPUs at all.
    pub fn devices(self: &Arc<Self>, status: &GpuStatus, pool: &Arc<ThreadPool>) -> Result<Vec<Made>, GpuReason> {
        let count = self.shown(status)?.len();
        Ok((0..count).map(|number| self.device(number, status, pool)).collect())
    }

    /// One of them. The threads that compute copy what is uploaded, too: whoever uploads has nothing for them to compute
    /// meanwhile.
    ///
    /// # Errors
    /// Why there is none.
    pub fn device(self: &Arc<Self>, number: usize, status: &GpuStatus, pool: &Arc<ThreadPool>) -> Made {
        let told = |absent: &Absent| reason(absent, status);
        let (card, id, name) = {
            let mut state = self.wanted()?;
            let seats = state.seats(&Free::of(status)).map_err(|absent| told(&absent))?;
            let seat = seats.get(number).ok_or(GpuReason::NoDevice)?;
            let card =
                if seat.is_closed() { None } else { Some(seat.opened().map_err(|absent| told(&absent))?.card.clone()) };
            (card, seat.listed.id.clone(), seat.name.clone())
        };
        let late = {
            let (gpus, other, pool, same) = (self.clone(), self.clone(), pool.clone(), id.clone());
            let open = move || gpus.open_late(number, &id, &pool);
            LateDevice::new(name, Box::new(open), Box::new(move || other.spare(number, &same)))
        };
        let Some(card) = card else { return Ok(Box::new(late)) };
        match made(&card, pool) {
            Ok(device) => Ok(Box::new(late.with(device))),
            Err(absent) => {
                let reason = told(&absent);
                self.fail(number, absent);
                Err(reason)
            }
        }
    }

    /// Opens the GPU of this number for a device that is given something, if it is still the one that was meant.
    ///
    /// # Errors
    /// What it lacks, for people.
    pub fn open_late(&self, number: usize, id: &str, pool: &Arc<ThreadPool>) -> Result<CudaDevice, String> {
        let said = |absent: Absent| match absent {
            Absent::BadState(detail) => detail,
            other => format!("{other:?}"),
        };
        let status = hardware::gpus();
        self.open(&[number], &Free::of(&status), &mut Watch::patient()).map_err(|error| error.message)?;
        let card = {
            let state = self.wanted().map_err(|_| "it is not chosen any more".to_owned())?;
            let Some(Ok(seats)) = &state.seats else { return Err("it is not there any more".into()) };
            let seat = seats.get(number).filter(|seat| seat.listed.id == id);
            let seat = seat.ok_or_else(|| "it is not chosen any more".to_owned())?;
            seat.opened().map_err(said)?.card.clone()
        };
        made(&card, pool).map_err(said)
    }

    /// Bytes that the GPU of this number, which is not open yet, has besides what it takes for itself and leaves to others.
    pub fn spare(&self, number: usize, id: &str) -> u64 {
        let Ok(mut state) = self.wanted() else { return 0 };
        let free = Free::of(&hardware::gpus());
        let Ok(seats) = state.seats(&free) else { return 0 };
        let seat = seats.get(number).filter(|seat| seat.listed.id == id);
        let facts = seat.map(|seat| seat.facts(&free, Guess::Careful));
        facts.map_or(0, |facts| facts.available().saturating_sub(facts.overhead))
    }

    /// What the planner asks of them, with their [`Gpu::id`]s. Our own memory counts as free: it would be given back for what
    /// is planned. `guess`: what those that are not open take for themselves.
    pub fn facts(&self, free: impl FnOnce() -> Free, guess: Guess) -> Vec<(String, AcceleratorFacts)> {
        let Ok(mut state) = self.wanted() else { return Vec::new() };
        let asks = match &state.seats {
            Some(Ok(seats)) => seats.iter().any(|seat| seat.card.is_none()),
            Some(Err(_)) => false,
            None => true,
        };
        let free = if asks { free() } else { Free::default() };
        // Whether that went well is seen below.
        let _ = state.seats(&free);
        let Some(Ok(seats)) = &state.seats else { return Vec::new() };
        seats.iter().map(|seat| (seat.listed.id.clone(), seat.facts(&free, guess))).collect()
    }

    /// Numbers and ids of the GPUs whose kernels are there.
    pub fn ready(&self) -> Vec<(usize, String)> {
        let state = self.state();
        let Some(Ok(seats)) = &state.seats else { return Vec::new() };
        let ready = seats.iter().enumerate().filter(|(_, seat)| seat.works() && !seat.is_closed());
        ready.map(|(number, seat)| (number, seat.listed.id.clone())).collect()
    }

    /// Of the GPUs that are known: of those that are not open as others tell.
    pub fn figures(&self, told: &[GpuSample]) -> Vec<GpuFigures> {
        let state = self.state();
        let Some(Ok(seats)) = &state.seats else { return Vec::new() };
        seats.iter().filter_map(|seat| seat.figures(told)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Values are replaced whole under the lock, so a panic elsewhere leaves them usable.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A device on an open GPU.
fn made(card: &Card, pool: &Arc<ThreadPool>) -> Result<CudaDevice, Absent> {
    let pool = pool.clone();
    let driver = card.driver()?.with_copier(Arc::new(move |to: &mut [u8], from: &[u8]| pool.copy(to, from)));
    Ok(GpuDevice::new(driver, GpuConfig::default()))
}

impl State {
    fn renew(&mut self) {
        match &mut self.seats {
            // The old context must be gone before the next one.
            Some(Ok(seats)) => seats.iter_mut().filter(|seat| !seat.works()).for_each(|seat| seat.card = None),
            seats => *seats = None,
        }
    }

    /// Every GPU that is meant; those of which nothing tells how much is free are opened to ask themselves.
    fn seats(&mut self, free: &Free) -> Result<&mut Vec<Seat>, Absent> {
        let State { seats, chosen } = self;
        let seats = seats
            .get_or_insert_with(|| seats_of(&Listed::all()?, chosen.as_deref()))
            .as_mut()
            .map_err(|absent| absent.clone())?;
        for seat in seats.iter_mut().filter(|seat| seat.card.is_none()) {
            if !seat.listed.is_usable() || seat.free(free).is_none() {
                seat.open(free);
            }
        }
        // Where none works there is one reason: the first one's.
        match seats.first() {
            Some(Seat { card: Some(Err(absent)), .. })
                if seats.iter().all(|seat| matches!(seat.card, Some(Err(_)))) =>
            {
                Err(absent.clone())
            }
            Some(_) => Ok(seats),
            None => Err(Absent::NoDevice),
        }
    }
}

fn shown(seat: &Seat, free: &Free, status: &GpuStatus) -> Result<Gpu, GpuReason> {
    match seat.found() {
        Found::Absent(absent) => Err(reason(absent, status)),
        Found::Lost(detail) => Err(GpuReason::BadState { detail }),
        Found::There => Ok(known(&seat.listed, seat.name.clone(), seat.free(free), status)),
    }
}

fn known(listed: &Listed, name: String, vram_free: Option<u64>, status: &GpuStatus) -> Gpu {
    Gpu {
        id: listed.id.clone(),
        name,
        vram_total: listed.total_bytes,
        vram_free,
        driver: Some(driver(status, listed.cuda_version)),
        compute_capability: Some(text(listed.capability)),
        used: true,
        is_test_device: false,
    }
}

/// The GPUs of this PC that can take layers, in the driver's order.
///
/// # Errors
/// Why there are none.
pub fn gpus() -> Result<Vec<GpuName>, GpuReason> {
    let listed = Listed::all().map_err(|absent| reason(&absent, &hardware::gpus()))?;
    let usable = listed.iter().filter(|one| one.is_usable());
    Ok(usable.map(|one| GpuName { id: one.id.clone(), name: name(one, &listed) }).collect())
}

/// A GPU with so many free bytes that nobody has, for plans.
pub fn imagined_gpu(number: usize, memory_free: u64) -> AcceleratorFacts {
    AcceleratorFacts {
        name: format!("GPU {number}"),
        memory_free,
        overhead: CONTEXT + CODE + GRAPHS + SLAB,
        scratch: backend_cuda::scratch,
        footprint: backend_cuda::footprint,
        ..AcceleratorFacts::default()
    }
}

/// The driver's version, or the CUDA version that it names where the management library does not answer.
fn driver(status: &GpuStatus, cuda: i32) -> String {
    status.driver_version.clone().unwrap_or_else(|| format!("CUDA {}.{}", cuda / 1000, cuda % 1000 / 10))
}

/// In the window's terms; the management library may know more than the driver.
fn reason(absent: &Absent, status: &GpuStatus) -> GpuReason {
    match absent {
        Absent::NoDriver if status.reason == Some(hardware::GpuReason::NoDevice) => GpuReason::NoDevice,
        Absent::NoDriver => GpuReason::NoDriver,
        Absent::DriverTooOld { found, .. } => {
            GpuReason::DriverTooOld { found: driver(status, *found), needed: hardware::NEEDED_DRIVER.into() }
        }
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
        let (gpus, status) = (Arc::new(Gpus::new(false)), GpuStatus::default());
        gpus.renew();
        assert_eq!(gpus.shown(&status), Err(GpuReason::TurnedOff));
        let pool = Arc::new(ThreadPool::new(1));
        assert!(matches!(gpus.device(0, &status, &pool), Err(GpuReason::TurnedOff)));
        let facts = |gpus: &Gpus| gpus.facts(|| panic!("not asked"), Guess::Careful);
        assert!(facts(&gpus).is_empty() && gpus.figures(&[]).is_empty());
        // Nor while none is chosen.
        let gpus = Arc::new(Gpus::new(true));
        gpus.choose(Some(Vec::new()));
        gpus.renew();
        assert_eq!(gpus.shown(&status), Err(GpuReason::NoneChosen));
        assert!(matches!(gpus.device(0, &status, &pool), Err(GpuReason::NoneChosen)));
        assert!(facts(&gpus).is_empty() && gpus.figures(&[]).is_empty());
    }
}
