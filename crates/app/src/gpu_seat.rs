//! One of the GPUs that take layers: what is known of it before and after it is opened.

use crate::wire::{GpuFigures, GpuProgram, Throttle};
use backend_cuda::{Absent, Card, GRAPHS, LEAST_MARGIN, Listed, SLAB};
use hardware::{GpuProcess, GpuSample, GpuStatus};
use planner::AcceleratorFacts;

/// Bytes of the kernels' code until it was loaded and measured, and of a context that nobody measured. Guesses: no such
/// figure was seen on a GPU yet.
pub(crate) const CODE: u64 = 64 << 20;
pub(crate) const CONTEXT: u64 = 300 << 20;

/// What a GPU is said to take for itself before that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    /// As much as it may be: for plans that nobody carries out at once.
    Careful,
    /// Nothing: to find the GPUs that are worth opening. What they take is known then.
    Hopeful,
}

/// Bytes that are free on GPUs, as the management library tells, and what they are called for good.
#[derive(Clone, Debug, Default)]
pub(crate) struct Free(pub Vec<(Option<String>, u64)>);

impl Free {
    pub fn of(status: &GpuStatus) -> Free {
        Free(status.gpus.iter().map(|gpu| (gpu.id.clone(), gpu.vram_free)).collect())
    }

    pub fn of_samples(samples: &[GpuSample]) -> Free {
        Free(samples.iter().map(|gpu| (gpu.id.clone(), gpu.vram_free)).collect())
    }

    fn on(&self, id: &str) -> Option<u64> {
        let same = |known: &&(Option<String>, u64)| means(known.0.as_deref(), id, self.0.len());
        self.0.iter().find(same).map(|(_, free)| *free)
    }
}

/// Where both tools mean the same GPU, or there is only one.
fn means(told: Option<&str>, id: &str, cards: usize) -> bool {
    told == Some(id) || cards == 1
}

impl GpuFigures {
    /// `total`, `free` and `own` in bytes; `told`: by the management library.
    pub(crate) fn new(name: String, (total, free, own): (u64, u64, u64), told: Option<&GpuSample>) -> GpuFigures {
        let programs = told.and_then(|told| told.processes.as_ref());
        GpuFigures {
            name,
            total,
            free,
            own,
            load: told.and_then(|told| told.load),
            temperature: told.and_then(|told| told.temperature),
            throttling: told
                .and_then(|told| told.throttling.as_ref())
                .map(|all| all.iter().map(Throttle::from).collect()),
            programs: programs.map(|all| all.iter().map(GpuProgram::from).collect()),
        }
    }
}

impl From<&hardware::Throttle> for Throttle {
    fn from(throttle: &hardware::Throttle) -> Throttle {
        match throttle {
            hardware::Throttle::Heat => Throttle::Heat,
            hardware::Throttle::PowerLimit => Throttle::PowerLimit,
            hardware::Throttle::PowerSupply => Throttle::PowerSupply,
            hardware::Throttle::Hardware => Throttle::Hardware,
        }
    }
}

impl From<&GpuProcess> for GpuProgram {
    fn from(process: &GpuProcess) -> GpuProgram {
        let GpuProcess { pid, name, vram } = process;
        GpuProgram { pid: *pid, name: name.clone(), vram: *vram, own: *pid == std::process::id() }
    }
}

/// One of the GPUs. It keeps its place when it is lost.
pub(crate) struct Seat {
    pub listed: Listed,
    /// Unlike the others'.
    pub name: String,
    /// `None`: not opened yet, or to be opened again.
    pub card: Option<Result<Open, Absent>>,
}

#[derive(Clone)]
pub(crate) struct Open {
    pub card: Card,
    /// Bytes that were gone when the context was there, where something told of the time before.
    context: u64,
}

/// How a GPU is found when somebody looks, open or not.
pub(crate) enum Found<'a> {
    There,
    Absent(&'a Absent),
    Lost(String),
}

impl Seat {
    pub fn opened(&self) -> Result<&Open, Absent> {
        self.card.as_ref().unwrap_or(&Err(Absent::NoDevice)).as_ref().map_err(Absent::clone)
    }

    pub fn found(&self) -> Found<'_> {
        match &self.card {
            None => Found::There,
            Some(Err(absent)) => Found::Absent(absent),
            Some(Ok(open)) => open.card.lost().map_or(Found::There, Found::Lost),
        }
    }

    /// Nothing is known against it.
    pub fn works(&self) -> bool {
        matches!(self.found(), Found::There)
    }

    /// It was not opened, or its kernels are not compiled.
    pub fn is_closed(&self) -> bool {
        match &self.card {
            None => true,
            Some(Ok(open)) => open.card.code_bytes().is_none(),
            Some(Err(_)) => false,
        }
    }

    /// Opens it, if that was not done.
    pub fn open(&mut self, free: &Free) {
        if self.card.is_none() {
            // Numbers may have changed since.
            let listed = Listed::all().unwrap_or_default().into_iter().find(|listed| listed.id == self.listed.id);
            self.card = Some(listed.ok_or(Absent::NoDevice).and_then(|listed| Open::new(listed.number, free)));
        }
    }

    /// Bytes that are free now, if somebody tells.
    pub fn free(&self, free: &Free) -> Option<u64> {
        match &self.card {
            Some(Ok(open)) => open.card.free_bytes(),
            Some(Err(_)) => None,
            None => {
                let free = free.on(&self.listed.id)?;
                Some(self.listed.granted().map_or(free, |granted| granted.min(free)))
            }
        }
    }

    /// `told`: by the management library, of all cards.
    pub fn figures(&self, told: &[GpuSample]) -> Option<GpuFigures> {
        let own = self.opened().map_or(0, |open| open.card.taken_bytes());
        let memory = (self.listed.total_bytes, self.free(&Free::of_samples(told))?, own);
        let same = |gpu: &&GpuSample| means(gpu.id.as_deref(), &self.listed.id, told.len());
        Some(GpuFigures::new(self.name.clone(), memory, told.iter().find(same)))
    }

    /// Without memory where it is not there.
    pub fn facts(&self, free: &Free, guess: Guess) -> AcceleratorFacts {
        let Some(free) = self.free(free) else {
            return AcceleratorFacts { name: self.name.clone(), ..AcceleratorFacts::default() };
        };
        let (context_guess, code_guess) = match guess {
            Guess::Careful => (CONTEXT, CODE),
            Guess::Hopeful => (0, 0),
        };
        let known = AcceleratorFacts {
            name: self.name.clone(),
            memory_free: free,
            overhead: context_guess + code_guess + GRAPHS + SLAB,
            margin: LEAST_MARGIN,
            bandwidth: None,
            scratch: backend_cuda::scratch,
            footprint: backend_cuda::footprint,
            ..AcceleratorFacts::default()
        };
        let Ok(Open { card, context }) = self.opened() else {
            return AcceleratorFacts { bandwidth: self.listed.bandwidth(), ..known };
        };
        let (code, graphs) = (card.code_bytes(), card.graph_bytes());
        let own = card.taken_bytes() + context + code.unwrap_or(0) + graphs;
        AcceleratorFacts {
            memory_free: free + own,
            overhead: context + code.unwrap_or(code_guess) + graphs.max(GRAPHS) + SLAB,
            margin: card.margin(),
            bandwidth: card.bandwidth(),
            ..known
        }
    }
}

impl Open {
    fn new(number: usize, free: &Free) -> Result<Open, Absent> {
        let card = Card::open(number)?;
        let before = free.on(card.id());
        let context = before.zip(card.free_bytes()).map_or(0, |(before, after)| before.saturating_sub(after));
        Ok(Open { card, context: context.min(4 * CONTEXT) })
    }
}

/// The GPUs that are meant: of those that were chosen the ones that are there, as they were named; or else all that can be used, the
/// one with the most memory first, the driver's first of equals. At least one, to say what it lacks.
pub(crate) fn seats_of(listed: &[Listed], chosen: Option<&[String]>) -> Result<Vec<Seat>, Absent> {
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
    let seat = |one: &&Listed| Seat { listed: (*one).clone(), name: name(one, listed), card: None };
    if wanted.is_empty() { Err(Absent::NoDevice) } else { Ok(wanted.iter().map(seat).collect()) }
}

/// What one of them is called, unlike the others.
pub(crate) fn name(one: &Listed, listed: &[Listed]) -> String {
    let twice = listed.iter().filter(|listed| listed.name == one.name).count() > 1;
    if twice { format!("{} ({})", one.name, one.number) } else { one.name.clone() }
}

pub(crate) fn text((major, minor): (i32, i32)) -> String {
    format!("{major}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            seats_of(listed, Some(&chosen))
                .map(|seats| seats.into_iter().map(|seat| seat.listed.id).collect::<Vec<_>>())
        };
        let are = |ids: &[&str]| Ok(ids.iter().map(|id| id.to_string()).collect::<Vec<_>>());
        assert_eq!(seats(&cards, &["GPU-0"]), are(&["GPU-0"]));
        assert_eq!(seats(&cards, &["GPU-3", "GPU-9", "GPU-0"]), are(&["GPU-3", "GPU-0"]));
        assert_eq!(seats(&cards, &["GPU-3", "GPU-0", "GPU-3"]), are(&["GPU-3", "GPU-0"]), "each has one place");
        assert_eq!(seats(&cards, &["GPU-1"]), are(&["GPU-1"]), "and it is told why it cannot be used");
        let all = |listed: &[Listed]| {
            seats_of(listed, None).map(|seats| seats.into_iter().map(|seat| seat.listed.id).collect::<Vec<_>>())
        };
        assert_eq!(all(&cards), are(&["GPU-2", "GPU-3", "GPU-0"]));
        assert_eq!(seats(&cards, &["GPU-9"]), all(&cards));
        // What is said of the only one is what it lacks.
        assert_eq!(all(&cards[1..2]), are(&["GPU-1"]));
        assert_eq!(all(&[]), Err(Absent::NoDevice));
        let names: Vec<String> = seats_of(&cards, None).unwrap().into_iter().map(|seat| seat.name).collect();
        assert_eq!(names, ["card (2)", "card (3)", "card 0"]);
    }
}
