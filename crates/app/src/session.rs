//! A loaded model with everything a chat needs of it.

use crate::answer::{self, Step, Task};
use crate::app::lock;
use crate::compiling::Watch;
use crate::drafts::{self, Draft, Found};
use crate::error::Result;
use crate::forms::TokenTree;
use crate::library::name_of;
use crate::machine::{Accelerator, Machine, TestControl};
use crate::memory::Memories;
use crate::plans::{self, wishes};
use crate::prompt::Format;
use crate::wire::{
    AnswerStats, Compiling, ErrorCode, FinishReason, Gpu, GpuLayers, GpuReason, GpuUse, LoadSettings, LoadStage,
    LoadedModel, Plan, RecoveryNotice, WireError,
};
use backend_cpu::{CpuConfig, CpuDevice, Precision, SimdLevel, ThreadPool};
use engine::{
    BackendError, Cancel, Devices, Engine, EngineError, LoadOptions, Placement, Recovery, RecoveryCause, SavedError,
    Speculation,
};
use grammar::{Form, Grammar};
use model::Model;
use planner::{Facts, Fits, Wishes};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What to load, and where.
pub(crate) struct LoadRequest {
    pub model_id: String,
    pub name: String,
    pub path: PathBuf,
    pub model: Arc<Model>,
    pub settings: LoadSettings,
    pub machine: Arc<Machine>,
    pub threads: usize,
    pub draft: Option<Found>,
    /// Why there is none although one is wished for.
    pub draft_problem: Option<WireError>,
    pub loading: Loading,
}

/// How a file is opened and computed; the window has no switches for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loading {
    /// Threads that compute; `None`: as the settings say.
    pub threads: Option<u32>,
    /// Tokens computed at once when a prompt is read; `None`: as planned.
    pub ubatch: Option<u32>,
    /// Rows of logits computed at once; more than 1 only pays where many positions are asked for.
    pub logits_rows: u32,
    /// Activations in f32 instead of 8 bits.
    pub exact: bool,
    /// Instructions of the CPU's kernels; `None`: the best that it has.
    pub simd: Option<SimdLevel>,
    /// Map the file (else read it into memory).
    pub mmap: bool,
    /// Lock the weights in RAM.
    pub mlock: bool,
    pub speculation: Speculation,
    pub draft: Draft,
}

impl Default for Loading {
    fn default() -> Self {
        Loading {
            threads: None,
            ubatch: None,
            logits_rows: 1,
            exact: false,
            simd: None,
            mmap: true,
            mlock: false,
            speculation: Speculation::LOOKUP,
            draft: Draft::AsSet,
        }
    }
}

/// A lost GPU is asked this often whether it is back.
const RETRY: Duration = Duration::from_secs(5);
/// RAM that is left alone, whatever the plan says, in bytes.
const SPARE: u64 = 512 << 20;

/// A GPU as the window sees it, or why it is not there.
type Seat = std::result::Result<Gpu, GpuReason>;
type Seated = std::result::Result<Accelerator, GpuReason>;

/// A loaded model and its chat format.
pub struct Session {
    pub model_id: String,
    pub name: String,
    pub(crate) path: PathBuf,
    pub engine: Engine,
    pub(crate) format: Format,
    /// For prescribed answers.
    tokens: TokenTree,
    model: Arc<Model>,
    draft: Option<Arc<Model>>,
    draft_problem: Option<WireError>,
    machine: Arc<Machine>,
    /// As known when the model was loaded, or layers were last asked for.
    facts: Mutex<Facts>,
    /// For another device after the loss of one.
    pool: Arc<ThreadPool>,
    config: CpuConfig,
    /// By accelerator; or why there is none at all.
    gpus: Mutex<std::result::Result<Vec<Seat>, GpuReason>>,
    /// Layers were moved to RAM without being asked, and nobody was told yet that they can go back.
    moved_away: AtomicBool,
    /// When a lost GPU was last asked whether it is back.
    asked: Mutex<Option<Instant>>,
    /// The settings as changed by the slider, and their plan.
    placed: Mutex<(LoadSettings, Plan)>,
    /// Kernels that the layers on their way to a GPU wait for.
    compiling: Mutex<Option<Compiling>>,
    /// Of chats that are answered by turns.
    pub(crate) memories: Memories,
    /// Makes the test device fail, for tests.
    pub(crate) test_control: Mutex<TestControl>,
}

impl Session {
    /// Blocks until the model is usable. Recoveries while loading are given back.
    pub(crate) fn load(
        request: LoadRequest,
        progress: &mut dyn FnMut(LoadStage, f32),
        cancel: &Cancel,
    ) -> Result<(Session, Vec<RecoveryNotice>)> {
        let LoadRequest { model_id, name, path, model, settings, machine, threads, loading, .. } = request;
        let Loading { ubatch, exact, simd, mmap, mlock, speculation, .. } = loading;
        let logits_rows = loading.logits_rows.max(speculation.logits_rows());
        let config = CpuConfig { threads, precision: if exact { Precision::Exact } else { Precision::Fast }, simd };
        let pool = Arc::new(ThreadPool::new(threads));
        let compiled = |done: usize, of: usize| {
            progress(LoadStage::Compiling(Compiling::new(done, of)), done as f32 / of.max(1) as f32);
        };
        let wished = Wishes { ubatch, logits_rows, ..wishes(&settings) };
        machine.renew_gpus();
        let planned = machine.settle(
            (0, &path),
            &pool,
            &mut Watch { told: Box::new(compiled), cancel: cancel.clone() },
            |facts| {
                let (mut draft, mut problem) = (request.draft.clone(), request.draft_problem.clone());
                let planned = drafts::plan(&model, &mut draft, &mut problem, facts, &wished)?;
                let numbers = given(&planned);
                Ok(((planned, draft, problem), numbers))
            },
        )?;
        let ((planned, draft, mut draft_problem), facts) = planned;
        let (mut accelerators, mut test_control) = (Vec::new(), None);
        let gpus = machine.devices(&pool, config).map(|found| {
            let seat = |found: Seated| {
                let (device, seat) = match found {
                    Ok(found) => {
                        test_control = found.control.or(test_control.take());
                        (Some(found.device), Ok(found.shown))
                    }
                    Err(reason) => (None, Err(reason)),
                };
                accelerators.push(device);
                seat
            };
            found.into_iter().map(seat).collect()
        });
        let too_many_layers = planned.gpu_layers > planned.max_gpu_layers;
        if planned.fits == Fits::No && !too_many_layers {
            let needed = planned.host.kv + planned.host.compute + planned.host_other;
            let text = format!("{name} needs {needed} bytes of RAM besides its file; {} are free", facts.ram_available);
            return Err(WireError::new(ErrorCode::RamFull, text).numbers(needed, facts.ram_available).about(name));
        }
        plans::whole_in_ram(&planned, &model, &facts, (mmap, mlock)).map_err(|error| error.about(&name))?;
        let devices = Devices { host: Box::new(CpuDevice::new(pool.clone(), config)), accelerators };
        let options = LoadOptions {
            context: planned.context,
            gpu_layers: planned.placement.shares(),
            cpu_moe: planned.cpu_moe,
            kv_type_k: settings.kv_type_k.ggml_type(),
            kv_type_v: settings.kv_type_v.ggml_type(),
            ubatch: planned.layout.params.ubatch,
            mmap,
            mlock,
            logits_rows,
            host_ram: Some(planned.host_ram),
            speculation,
            streaming: planned.streamed.as_ref().map(|streamed| streamed.rates),
        };
        let mut layers = |share| progress(LoadStage::Layers, share);
        let engine = Engine::load(&path, options, devices, &mut layers, cancel)?;
        if let (Some(found), Some(planned)) = (&draft, &planned.draft) {
            let accelerator = planned.on.and_then(|number| machine.device(number, &pool, config).ok());
            let accelerators = vec![accelerator.map(|found| found.device)];
            let devices = Devices { host: Box::new(CpuDevice::new(pool.clone(), config)), accelerators };
            match drafts::attach(&engine, found, planned, &loading, devices, cancel) {
                Err(error) if found.needed || error.code == ErrorCode::Cancelled => return Err(error),
                attached => draft_problem = attached.err().map(|error| error.about(name_of(&found.path))),
            }
        }
        let draft = draft.filter(|_| draft_problem.is_none());
        let format = Format::new(engine.gguf(), engine.tokenizer())?;
        let plan = plans::to_wire(&planned, &facts);
        let placed = Mutex::new((settings, plan));
        let session = Session {
            model_id,
            name,
            path,
            engine,
            format,
            tokens: TokenTree::default(),
            model,
            draft: draft.map(|found| found.model),
            draft_problem,
            machine,
            facts: Mutex::new(facts),
            pool,
            config,
            gpus: Mutex::new(gpus),
            moved_away: AtomicBool::new(false),
            asked: Mutex::default(),
            placed,
            compiling: Mutex::default(),
            memories: Memories::default(),
            test_control: Mutex::new(test_control),
        };
        let recoveries = session.engine.take_recoveries()?;
        let notices = recoveries.iter().map(|recovery| session.notice(recovery, false)).collect();
        session.replan(None)?;
        Ok((session, notices))
    }

    /// Writes the answer to a conversation; blocks. What it shares with the one before is not computed again.
    ///
    /// # Errors
    /// [`ErrorCode::ContextFull`] with numbers if not even the prompt fits, and failures of template, file and host.
    pub fn answer(
        &self,
        task: Task,
        cancel: &Cancel,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<(FinishReason, AnswerStats)> {
        answer::write(self, task, cancel, on_step)
    }

    /// What an answer of this model must look like. The first time may take a second or two, of which `on_wait` tells.
    ///
    /// # Errors
    /// [`ErrorCode::FormatNotJson`], [`ErrorCode::FormatInvalid`] and [`ErrorCode::FormatTooComplex`];
    /// [`ErrorCode::Cancelled`].
    pub fn grammar(&self, form: &Form, cancel: &Cancel, on_wait: &mut dyn FnMut()) -> Result<Grammar> {
        self.tokens.grammar(self.engine.tokenizer(), form, cancel, on_wait)
    }

    /// Whether the model brought a chat template that can be used.
    pub fn has_template(&self) -> bool {
        !self.format.missing
    }

    /// Whether the model's chat template passes on which tools there are.
    pub fn knows_tools(&self) -> bool {
        self.format.knows_tools
    }

    /// Whether this is the model that is loaded, or the one that guesses for it.
    pub(crate) fn uses(&self, model_id: &str) -> bool {
        self.model_id == model_id || (self.draft.is_some() && self.placed().0.draft.as_deref() == Some(model_id))
    }

    /// How the window sees it.
    pub fn shown(&self) -> LoadedModel {
        let (settings, plan) = self.placed().clone();
        let placement = self.engine.placement();
        let draft = self.draft_used();
        let gpus = lock(&self.gpus);
        let none = Vec::new();
        let seats = gpus.as_ref().unwrap_or(&none);
        let used = |(number, seat): (usize, &Seat)| {
            let held = placement.accelerators.get(number).copied().unwrap_or_default();
            let name = seat.as_ref().ok()?.name.clone();
            Some(GpuUse { name, layers: held.layers, used: held.used, lost: !held.present })
        };
        // Where one works, the others' reasons are not why there are no layers on GPUs.
        let reason = match &*gpus {
            Ok(seats) if seats.iter().any(Result::is_ok) => None,
            Ok(seats) => seats.iter().find_map(|seat| seat.clone().err()),
            Err(reason) => Some(reason.clone()),
        };
        LoadedModel {
            model_id: self.model_id.clone(),
            name: self.name.clone(),
            settings,
            plan,
            gpu_layers: placement.gpu_layers,
            cpu_moe: placement.cpu_moe,
            ram_used: placement.host_used + draft.0,
            vram_used: placement.accelerator_used() + draft.1,
            compiling: self.compiling(),
            gpu_reason: reason,
            gpus: seats.iter().enumerate().filter_map(used).collect(),
            draft_problem: self.draft_problem.clone().map(Box::new),
            template_missing: self.format.missing,
            thinking_switch: self.format.thinking_switch,
        }
    }

    /// Moves layers, also while an answer is being written; blocks until done. A notice says if not all found room.
    /// `cpu_moe`: [`LoadSettings::cpu_moe`].
    pub(crate) fn place(&self, wanted: GpuLayers, cpu_moe: Option<u32>) -> Result<Option<RecoveryNotice>> {
        let settings = LoadSettings { gpu_layers: wanted, cpu_moe, ..self.placed().0.clone() };
        self.machine.renew_gpus();
        let has_devices = self.has_devices(wanted);
        // "Auto" means what the planner would choose on the devices without this model.
        let wishes = planner::Wishes { context: Some(self.context()), ..wishes(&settings) };
        let told = |done: usize, of: usize| *lock(&self.compiling) = Some(Compiling::new(done, of));
        let mut watch = Watch { told: Box::new(told), ..Watch::patient() };
        let settled = self.machine.settle((self.own_ram(), &self.path), &self.pool, &mut watch, |facts| {
            let planned = planner::plan_with_draft(&self.model, self.draft.as_deref(), facts, &wishes)?;
            let numbers = given(&planned);
            Ok((planned, numbers))
        });
        *lock(&self.compiling) = None;
        let (planned, facts) = settled?;
        let lost = !has_devices || self.none_opened();
        let planner::Plan { gpu_layers: layers, cpu_moe: experts, placement, .. } = planned;
        // What the plan has room for is known when the layers are where they will be.
        self.engine.set_streaming(None);
        *lock(&self.facts) = facts;
        self.placed().0 = settings;
        self.moved_away.store(false, Ordering::Release);
        let placement = self.engine.place(placement.shares(), experts)?;
        self.replan(Some((wanted, cpu_moe)))?;
        // Where a later wish was done instead of this one, nothing was missed.
        let asked = match wanted {
            _ if !lost => layers,
            GpuLayers::Fixed { layers } => layers.min(placement.layers),
            GpuLayers::Auto => placement.layers,
        };
        let current = self.placed().0.clone();
        let missed = placement.gpu_layers < asked || placement.cpu_moe > experts;
        let missed = missed && (current.gpu_layers, current.cpu_moe) == (wanted, cpu_moe);
        Ok(missed.then(|| RecoveryNotice {
            cause: if lost { "deviceLost" } else { "vramFull" }.into(),
            gpu: None,
            layers_shifted: 0,
            layers_moved: asked.saturating_sub(placement.gpu_layers),
            experts_moved: self.experts_between(experts, &placement),
            gpu_layers: placement.gpu_layers,
            layers: placement.layers,
            during_answer: false,
        }))
    }

    pub(crate) fn compiling(&self) -> Option<Compiling> {
        *lock(&self.compiling)
    }

    /// Whether layers have a device to go to; those that were lost are opened again. True where there never was one.
    fn has_devices(&self, wanted: GpuLayers) -> bool {
        let placement = self.engine.placement();
        let count = placement.accelerators.len().max(1);
        let present = |number: usize| placement.accelerators.get(number).is_some_and(|held| held.present);
        let missing: Vec<usize> = (0..count).filter(|number| !present(*number)).collect();
        if wanted == (GpuLayers::Fixed { layers: 0 }) {
            return true;
        }
        let mut there = placement.has_accelerator();
        for number in missing {
            let found = self.machine.device(number, &self.pool, self.config);
            let mut gpus = lock(&self.gpus);
            let seat = match found {
                Ok(found) => {
                    self.engine.offer_accelerator(number, found.device);
                    *lock(&self.test_control) = found.control;
                    there = true;
                    Ok(found.shown)
                }
                Err(reason) => {
                    let before = match &*gpus {
                        Ok(seats) => seats.get(number).cloned().unwrap_or(Err(GpuReason::NoDevice)).err(),
                        Err(reason) => Some(reason.clone()),
                    };
                    let had = matches!(before, None | Some(GpuReason::BadState { .. }));
                    there |= !had && count == 1;
                    Err(reason)
                }
            };
            match &mut *gpus {
                Ok(seats) if number < seats.len() => seats[number] = seat,
                gpus => *gpus = seat.map(|seat| vec![Ok(seat)]),
            }
        }
        there
    }

    /// Notes which GPUs could not be opened when something was to be given to them; whether that is so of all that there were.
    fn none_opened(&self) -> bool {
        let (now, mut gpus) = (self.machine.seats(), lock(&self.gpus));
        let Ok(seats) = &mut *gpus else { return false };
        let placement = self.engine.placement();
        let present = |number: usize| placement.accelerators.get(number).is_some_and(|held| held.present);
        for (number, seat) in seats.iter_mut().enumerate().filter(|(number, _)| present(*number)) {
            *seat = match &now {
                Ok(now) => now.get(number).cloned().unwrap_or(Err(GpuReason::NoDevice)),
                Err(reason) => Err(reason.clone()),
            };
        }
        !seats.is_empty() && seats.iter().all(Result::is_err)
    }

    /// What a GPU is called, where there is another one.
    fn gpu_name(&self, number: usize) -> Option<String> {
        let gpus = lock(&self.gpus);
        let seats = gpus.as_ref().ok().filter(|seats| seats.len() > 1)?;
        Some(seats.get(number)?.as_ref().ok()?.name.clone())
    }

    /// Whether lost GPUs answer again; asked now and then.
    fn gpus_are_back(&self) -> bool {
        let mut asked = lock(&self.asked);
        let before = *asked.get_or_insert_with(Instant::now);
        if before.elapsed() < RETRY {
            return false;
        }
        *asked = Some(Instant::now());
        self.machine.gpus_are_back()
    }

    /// Once after layers were moved to RAM without being asked: whether those that are wished for have room again, on a GPU
    /// that may have been lost meanwhile.
    pub(crate) fn can_move_back(&self) -> Result<Option<RecoveryNotice>> {
        if !self.moved_away.load(Ordering::Acquire) {
            return Ok(None);
        }
        let placement = self.engine.placement();
        let lost = placement.accelerators.iter().any(|held| !held.present);
        let back = lost && self.gpus_are_back();
        if !back && !placement.has_accelerator() {
            return Ok(None);
        }
        let facts = self.facts_now();
        let wishes = Wishes { context: Some(self.context()), ..wishes(&self.placed().0) };
        let plan = planner::plan_with_draft(&self.model, self.draft.as_deref(), &facts, &wishes)?;
        let possible = plan.gpu_layers.min(plan.max_gpu_layers);
        let experts = if possible < placement.gpu_layers { 0 } else { self.experts_between(plan.cpu_moe, &placement) };
        if possible <= placement.gpu_layers && experts == 0 {
            return Ok(None);
        }
        self.moved_away.store(false, Ordering::Release);
        Ok(Some(RecoveryNotice {
            cause: if back { "gpuBack" } else { "vramFree" }.into(),
            gpu: None,
            layers_shifted: 0,
            layers_moved: possible.saturating_sub(placement.gpu_layers),
            experts_moved: experts,
            gpu_layers: placement.gpu_layers,
            layers: placement.layers,
            during_answer: false,
        }))
    }

    /// Layers that are on GPUs without their experts, but would have them if they began at `cpu_moe`.
    fn experts_between(&self, cpu_moe: u32, placement: &Placement) -> u32 {
        let (layout, now) = (self.engine.layout(), &placement.placed);
        (cpu_moe as usize..now.cpu_moe).filter(|index| layout.experts_apart(now, *index)).count() as u32
    }

    /// Makes the plan describe the placement that holds now.
    pub(crate) fn replan(&self, wanted: Option<(GpuLayers, Option<u32>)>) -> Result<()> {
        let settings = self.placed().0.clone();
        let placement = self.engine.placement();
        let actual = LoadSettings {
            gpu_layers: GpuLayers::Fixed { layers: placement.gpu_layers },
            cpu_moe: Some(placement.cpu_moe),
            context: Some(self.context()),
            ..settings
        };
        let wishes = Wishes { ubatch: Some(self.engine.layout().params.ubatch), ..wishes(&actual) };
        let facts = lock(&self.facts).clone();
        let draft = self.draft.as_deref();
        let plan = planner::plan_placed(&self.model, draft, &facts, &wishes, &placement.placed)?;
        let streaming = plan.streamed.as_ref().map(|streamed| streamed.rates);
        let plan = plans::to_wire(&plan, &facts);
        let mut placed = self.placed();
        // A later wish makes a plan of its own.
        if wanted.is_none_or(|wanted| (placed.0.gpu_layers, placed.0.cpu_moe) == wanted) {
            placed.1 = plan;
            self.engine.set_streaming(streaming);
        }
        Ok(())
    }

    /// The hardware was measured after the model was loaded: the forecast follows.
    pub(crate) fn measured(&self) -> Result<()> {
        *lock(&self.facts) = self.facts_now();
        self.replan(None)
    }

    /// What a plan depends on now. What the model takes counts as free, as it would be given back.
    fn facts_now(&self) -> Facts {
        self.facts_of(&self.path)
    }

    /// The same for another model in the place of this one.
    pub(crate) fn facts_of(&self, model: &Path) -> Facts {
        self.machine.facts(self.own_ram(), model)
    }

    /// Bytes of RAM that we would give back.
    fn own_ram(&self) -> u64 {
        self.engine.placement().host_used + self.draft_used().0 + self.memories.held()
    }

    /// Bytes of RAM for what is remembered of chats that are not answered: half of what the plan leaves, or of what is
    /// free now if that is less. The other half is for the programs that the user starts next.
    pub(crate) fn spare_ram(&self) -> u64 {
        let left = lock(&self.facts).ram_available.saturating_sub(self.placed().1.ram.total);
        let free = self.machine.ram_available().saturating_add(self.memories.held()).saturating_sub(SPARE);
        left.min(free) / 2
    }

    /// Bytes of the draft model's buffers: on the host, on accelerators.
    fn draft_used(&self) -> (u64, u64) {
        self.engine.draft_placement().map_or((0, 0), |draft| (draft.host_used, draft.accelerator_used()))
    }

    pub fn context(&self) -> u32 {
        self.engine.layout().params.context
    }

    pub(crate) fn notice(&self, recovery: &Recovery, during_answer: bool) -> RecoveryNotice {
        self.moved_away.store(true, Ordering::Release);
        RecoveryNotice {
            cause: match recovery.cause {
                RecoveryCause::OutOfMemory => "vramFull".into(),
                RecoveryCause::DeviceLost => "deviceLost".into(),
            },
            gpu: self.gpu_name(recovery.accelerator),
            layers_moved: recovery.layers_moved,
            layers_shifted: recovery.layers_shifted,
            experts_moved: recovery.experts_moved,
            gpu_layers: recovery.gpu_layers,
            layers: self.engine.placement().layers,
            during_answer,
        }
    }

    fn placed(&self) -> MutexGuard<'_, (LoadSettings, Plan)> {
        lock(&self.placed)
    }
}

/// The accelerators that a plan gives something.
fn given(plan: &planner::Plan) -> Vec<usize> {
    let layers = plan.shares.iter().enumerate().filter(|(_, share)| share.layers > 0).map(|(number, _)| number);
    layers.chain(plan.draft.iter().filter_map(|draft| draft.on)).collect()
}

impl From<EngineError> for WireError {
    fn from(error: EngineError) -> WireError {
        let message = error.to_string();
        match error {
            EngineError::File(error) => error.into(),
            EngineError::Model(error) => error.into(),
            EngineError::Tokenizer(_) => WireError::new(ErrorCode::ModelUnsupported, message),
            EngineError::ContextFull { needed, context } => {
                WireError::new(ErrorCode::ContextFull, message).numbers(needed.into(), context.into())
            }
            EngineError::Device(BackendError::OutOfMemory { needed, free, .. }) => {
                WireError::new(ErrorCode::RamFull, message).numbers(needed, free)
            }
            EngineError::Cancelled => WireError::new(ErrorCode::Cancelled, message),
            EngineError::Saved(SavedError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
                WireError::new(ErrorCode::DiskFull, message)
            }
            EngineError::Saved(SavedError::Io(_)) => WireError::new(ErrorCode::FileAccess, message),
            EngineError::Saved(_) => WireError::new(ErrorCode::FileInvalid, message),
            EngineError::DraftVocabulary { .. } => WireError::new(ErrorCode::DraftVocabulary, message),
            EngineError::Numbers(_) => WireError::new(ErrorCode::FileInvalid, message),
            EngineError::Constraint(error) => error.into(),
            EngineError::Invalid(_) => WireError::new(ErrorCode::BadArgument, message),
            _ => WireError::internal(message),
        }
    }
}
