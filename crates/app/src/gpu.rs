//! The GPUs that take layers: opened when they are first asked for, and again after a loss; what they have to give; or why
//! there are none.

use crate::wire::{Gpu, GpuMemory, GpuName, GpuReason};
use backend_cpu::ThreadPool;
use backend_cuda::{Absent, Card, GRAPHS, GpuConfig, GpuDevice, Listed, SLAB};
use engine::Device;
use hardware::GpuStatus;
use planner::AcceleratorFacts;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes of the kernels' code until it was loaded and measured, and of a context that nobody measured. Guesses: no such
/// figure was seen on a GPU yet.
const CODE: u64 = 64 << 20;
const CONTEXT: u64 = 300 << 20;

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
type Made = Result<Box<dyn Device>, GpuReason>;

/// One of the GPUs. It keeps its place when it is lost.
struct Seat {
    id: String,
    /// Unlike the others'.
    name: String,
    /// `None`: to be opened again.
    card: Option<Result<Open, Absent>>,
}

#[derive(Clone)]
struct Open {
    card: Card,
    /// Bytes that were gone when the context was there, where something told of the time before.
    context: u64,
}

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

    /// The next one who asks tries again to open GPUs that were not there or were lost.
    pub fn renew(&self) {
        let mut state = self.state();
        match &mut state.seats {
            Some(Ok(seats)) => {
                // The old context must be gone before the next one.
                seats.iter_mut().filter(|seat| !seat.works()).for_each(|seat| seat.card = None);
            }
            seats => *seats = None,
        }
    }

    /// Whether GPUs that were lost can be opened again.
    pub fn are_back(&self, status: &GpuStatus) -> bool {
        self.renew();
        self.shown(status).is_ok_and(|shown| shown.iter().all(Result::is_ok))
    }

    /// How the window sees them; the first time they are opened, which takes a moment.
    pub fn shown(&self, status: &GpuStatus) -> Result<Vec<Result<Gpu, GpuReason>>, GpuReason> {
        let mut state = self.wanted()?;
        let seats = state.open(status).map_err(|absent| reason(&absent, status))?;
        Ok(seats.iter().map(|seat| seat.shown(status)).collect())
    }

    /// The other GPUs that could be chosen, as they are known without being opened. `shown`: those that take layers; `None`:
    /// none of those that are meant can be used.
    pub fn others(&self, status: &GpuStatus, shown: Option<&[Gpu]>) -> Vec<Gpu> {
        let listed = if self.allowed { Listed::all().unwrap_or_default() } else { Vec::new() };
        let taken: Vec<String> = match (shown, &self.state().seats) {
            (Some(shown), _) => shown.iter().map(|gpu| gpu.id.clone()).collect(),
            (None, Some(Ok(seats))) => seats.iter().map(|seat| seat.id.clone()).collect(),
            (None, _) => Vec::new(),
        };
        let free = |id: &str| status.gpus.iter().find(|gpu| gpu.id.as_deref() == Some(id)).map(|gpu| gpu.vram_free);
        listed
            .iter()
            .filter(|one| one.is_usable() && !taken.contains(&one.id))
            .map(|one| Gpu {
                id: one.id.clone(),
                name: name(one, &listed),
                vram_total: one.total_bytes,
                vram_free: free(&one.id),
                driver: Some(driver(status, one.cuda_version)),
                compute_capability: Some(text(one.capability)),
                used: false,
                is_test_device: false,
            })
            .collect()
    }

    /// Devices on the GPUs, in order. The first one of each compiles the kernels, which may take a while: `compiled` hears how
    /// many of how many are ready. Where that fails, the GPU counts as not there from then on, for this reason. The threads
    /// that compute copy what is uploaded, too: whoever uploads has nothing for them to compute meanwhile.
    ///
    /// # Errors
    /// Why there are no GPUs at all.
    pub fn devices(
        &self,
        status: &GpuStatus,
        pool: &Arc<ThreadPool>,
        compiled: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Made>, GpuReason> {
        let count = self.shown(status)?.len();
        Ok((0..count)
            .map(|number| {
                // All of them are one piece of work.
                let mut of_all = |done: usize, of: usize| compiled(number * of + done, count * of);
                self.device(number, status, pool, &mut of_all)
            })
            .collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// Why there is none.
    pub fn device(
        &self,
        number: usize,
        status: &GpuStatus,
        pool: &Arc<ThreadPool>,
        compiled: &mut dyn FnMut(usize, usize),
    ) -> Result<Box<dyn Device>, GpuReason> {
        let told = |absent: &Absent| reason(absent, status);
        let card = {
            let mut state = self.wanted()?;
            let seats = state.open(status).map_err(|absent| told(&absent))?;
            let seat = seats.get(number).ok_or(GpuReason::NoDevice)?;
            seat.opened().map_err(|absent| told(&absent))?.card.clone()
        };
        // The kernels may be compiled now: others are not kept waiting for that.
        match card.driver(compiled) {
            Ok(driver) => {
                let pool = pool.clone();
                let driver = driver.with_copier(Arc::new(move |to: &mut [u8], from: &[u8]| pool.copy(to, from)));
                Ok(Box::new(GpuDevice::new(driver, GpuConfig::default())))
            }
            Err(absent) => {
                let reason = told(&absent);
                // A GPU that no device can be made of takes no layers, whoever asks: until it is tried again.
                if let Some(Ok(seats)) = &mut self.state().seats
                    && let Some(seat) = seats.get_mut(number)
                {
                    seat.card = Some(Err(absent));
                }
                Err(reason)
            }
        }
    }

    /// What the planner asks of them, with their [`Gpu::id`]s. Our own memory counts as free: it would be given back for what
    /// is planned.
    pub fn facts(&self, status: impl FnOnce() -> GpuStatus) -> Vec<(String, AcceleratorFacts)> {
        let Ok(mut state) = self.wanted() else { return Vec::new() };
        if state.seats.is_none() {
            // Whether that went well is seen below.
            let _ = state.open(&status());
        }
        match &state.seats {
            Some(Ok(seats)) => seats.iter().map(|seat| (seat.id.clone(), seat.facts())).collect(),
            _ => Vec::new(),
        }
    }

    /// Numbers and ids of the GPUs whose kernels are there.
    pub fn ready(&self) -> Vec<(usize, String)> {
        let state = self.state();
        let Some(Ok(seats)) = &state.seats else { return Vec::new() };
        let ready = |seat: &Seat| seat.works() && seat.opened().is_ok_and(|open| open.card.code_bytes().is_some());
        let ready = seats.iter().enumerate().filter(|(_, seat)| ready(seat));
        ready.map(|(number, seat)| (number, seat.id.clone())).collect()
    }

    /// Of the GPUs that have been opened.
    pub fn memory(&self) -> Vec<GpuMemory> {
        let state = self.state();
        let Some(Ok(seats)) = &state.seats else { return Vec::new() };
        let memory = |seat: &Seat| {
            let Open { card, .. } = seat.opened().ok()?;
            let (total, own) = (card.total_bytes(), card.taken_bytes());
            Some(GpuMemory { name: seat.name.clone(), total, free: card.free_bytes()?, own })
        };
        seats.iter().filter_map(memory).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Values are replaced whole under the lock, so a panic elsewhere leaves them usable.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn open(&mut self, status: &GpuStatus) -> Result<&[Seat], Absent> {
        let State { seats, chosen } = self;
        let seats = seats
            .get_or_insert_with(|| seats_of(&Listed::all()?, chosen.as_deref()))
            .as_mut()
            .map_err(|absent| absent.clone())?;
        let mut known = None;
        for seat in seats.iter_mut().filter(|seat| seat.card.is_none()) {
            // Numbers may have changed since.
            let listed = known.get_or_insert_with(|| Listed::all().unwrap_or_default());
            let number = listed.iter().find(|listed| listed.id == seat.id).map(|listed| listed.number);
            seat.card = Some(number.ok_or(Absent::NoDevice).and_then(|number| Open::new(number, status)));
        }
        // Where none works there is one reason: the first one's.
        match seats.first() {
            Some(Seat { card: Some(Err(absent)), .. }) if seats.iter().all(|seat| seat.opened().is_err()) => {
                Err(absent.clone())
            }
            Some(_) => Ok(seats),
            None => Err(Absent::NoDevice),
        }
    }
}

impl Seat {
    fn opened(&self) -> Result<&Open, Absent> {
        self.card.as_ref().unwrap_or(&Err(Absent::NoDevice)).as_ref().map_err(Absent::clone)
    }

    fn works(&self) -> bool {
        self.opened().is_ok_and(|open| open.card.lost().is_none())
    }

    fn shown(&self, status: &GpuStatus) -> Result<Gpu, GpuReason> {
        let card = &self.opened().map_err(|absent| reason(&absent, status))?.card;
        if let Some(detail) = card.lost() {
            return Err(GpuReason::BadState { detail });
        }
        Ok(Gpu {
            id: card.id().into(),
            name: self.name.clone(),
            vram_total: card.total_bytes(),
            vram_free: card.free_bytes(),
            driver: Some(driver(status, card.cuda_version())),
            compute_capability: Some(text(card.capability())),
            used: true,
            is_test_device: false,
        })
    }

    /// Without memory where it is not there.
    fn facts(&self) -> AcceleratorFacts {
        let gone = AcceleratorFacts { name: self.name.clone(), ..AcceleratorFacts::default() };
        let Ok(Open { card, context }) = self.opened().cloned() else { return gone };
        let Some(free) = card.free_bytes() else { return gone };
        let code = card.code_bytes();
        let graphs = card.graph_bytes();
        let own = card.taken_bytes() + context + code.unwrap_or(0) + graphs;
        AcceleratorFacts {
            name: self.name.clone(),
            memory_free: free + own,
            overhead: context + code.unwrap_or(CODE) + graphs.max(GRAPHS) + SLAB,
            margin: card.margin(),
            bandwidth: card.bandwidth(),
            scratch: backend_cuda::scratch,
            footprint: backend_cuda::footprint,
            ..AcceleratorFacts::default()
        }
    }
}

impl Open {
    fn new(number: usize, status: &GpuStatus) -> Result<Open, Absent> {
        let card = Card::open(number)?;
        // Where both tools mean the same GPU, or there is only one.
        let same = |gpu: &&hardware::Gpu| gpu.id.as_deref() == Some(card.id()) || status.gpus.len() == 1;
        let before = status.gpus.iter().find(same).map(|gpu| gpu.vram_free);
        let context = before.zip(card.free_bytes()).map_or(0, |(before, after)| before.saturating_sub(after));
        Ok(Open { card, context: context.min(4 * CONTEXT) })
    }
}

/// The GPUs to open: of those that were chosen the ones that are there, as they were named; or else all that can be used, the
/// one with the most memory first, the driver's first of equals. At least one, to say what it lacks.
fn seats_of(listed: &[Listed], chosen: Option<&[String]>) -> Result<Vec<Seat>, Absent> {
    let mut wanted: Vec<&Listed> = Vec::new();
    for id in chosen.unwrap_or_default() {
        if let Some(there) = listed.iter().find(|listed| listed.id == *id)
            && wanted.iter().all(|known| known.id != there.id)
        {
            wanted.push(there);
        }
    }
    if wanted.is_empty() {
        wanted = listed.iter().filter(|listed| listed.is_usable()).collect();
        wanted.sort_by_key(|listed| std::cmp::Reverse(listed.total_bytes));
    }
    if wanted.is_empty() {
        wanted.extend(listed.first());
    }
    wanted.truncate(model::MAX_ACCELERATORS);
    let seat = |one: &&Listed| Seat { id: one.id.clone(), name: name(one, listed), card: None };
    if wanted.is_empty() { Err(Absent::NoDevice) } else { Ok(wanted.iter().map(seat).collect()) }
}

/// What one of them is called, unlike the others.
fn name(one: &Listed, listed: &[Listed]) -> String {
    let twice = listed.iter().filter(|listed| listed.name == one.name).count() > 1;
    if twice { format!("{} ({})", one.name, one.number) } else { one.name.clone() }
}

fn text((major, minor): (i32, i32)) -> String {
    format!("{major}.{minor}")
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
    fn chosen_gpus_are_taken_or_all_the_one_with_the_most_memory_first() {
        let card = |number, total_bytes, major| Listed {
            number,
            id: format!("GPU-{number}"),
            name: if number < 2 { format!("card {number}") } else { "card".into() },
            total_bytes,
            capability: (major, 0),
            cuda_version: 12_000,
        };
        let cards = [card(0, 8, 8), card(1, 48, 5), card(2, 16, 7), card(3, 16, 8)];
        let seats = |listed: &[Listed], chosen: &[&str]| {
            let chosen: Vec<String> = chosen.iter().map(|id| id.to_string()).collect();
            seats_of(listed, Some(&chosen)).map(|seats| seats.into_iter().map(|seat| seat.id).collect::<Vec<_>>())
        };
        let are = |ids: &[&str]| Ok(ids.iter().map(|id| id.to_string()).collect::<Vec<_>>());
        assert_eq!(seats(&cards, &["GPU-0"]), are(&["GPU-0"]));
        assert_eq!(seats(&cards, &["GPU-3", "GPU-9", "GPU-0"]), are(&["GPU-3", "GPU-0"]));
        assert_eq!(seats(&cards, &["GPU-3", "GPU-0", "GPU-3"]), are(&["GPU-3", "GPU-0"]), "each has one place");
        assert_eq!(seats(&cards, &["GPU-1"]), are(&["GPU-1"]), "and it is told why it cannot be used");
        let all = |listed: &[Listed]| {
            seats_of(listed, None).map(|seats| seats.into_iter().map(|seat| seat.id).collect::<Vec<_>>())
        };
        assert_eq!(all(&cards), are(&["GPU-2", "GPU-3", "GPU-0"]));
        assert_eq!(seats(&cards, &["GPU-9"]), all(&cards));
        // What is said of the only one is what it lacks.
        assert_eq!(all(&cards[1..2]), are(&["GPU-1"]));
        assert_eq!(all(&[]), Err(Absent::NoDevice));
        let names: Vec<String> = seats_of(&cards, None).unwrap().into_iter().map(|seat| seat.name).collect();
        assert_eq!(names, ["card (2)", "card (3)", "card 0"]);
    }

    #[test]
    fn without_leave_nothing_is_asked() {
        let (gpus, status) = (Gpus::new(false), GpuStatus::default());
        gpus.renew();
        assert_eq!(gpus.shown(&status), Err(GpuReason::TurnedOff));
        let pool = Arc::new(ThreadPool::new(1));
        assert!(matches!(gpus.device(0, &status, &pool, &mut |_, _| {}), Err(GpuReason::TurnedOff)));
        assert!(gpus.facts(|| panic!("not asked")).is_empty() && gpus.memory().is_empty());
        // Nor while none is chosen.
        let gpus = Gpus::new(true);
        gpus.choose(Some(Vec::new()));
        gpus.renew();
        assert_eq!(gpus.shown(&status), Err(GpuReason::NoneChosen));
        assert!(matches!(gpus.device(0, &status, &pool, &mut |_, _| {}), Err(GpuReason::NoneChosen)));
        assert!(gpus.facts(|| panic!("not asked")).is_empty() && gpus.memory().is_empty());
    }
}
