//! The engine as others hold it: load, generate, move layers, ask where things are; from any thread.

use crate::core::{Core, Loaded};
use crate::file::Weights;
use crate::generate::{generate, read_prompt};
use crate::saved::{Remembered, fingerprint};
use crate::speculate::{DraftModel, Speculator, same_vocabulary};
use crate::{Cancel, Completion, Devices, EngineError, Event, LoadOptions, Placement, Recovery, Request};
use backend::Device;
use model::{Layout, LayoutParams, Model, Split, StreamRates};
use sampler::Constraint;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokenizer::Tokenizer;
use weights::{Access, ModelFile};

/// A loaded model. Requests run one after the other; everything else may be called meanwhile.
pub struct Engine {
    loaded: Arc<Loaded>,
    tokenizer: Tokenizer,
    core: Mutex<Core>,
    /// Whoever holds the core takes it, nobody else.
    speculator: Mutex<Speculator>,
    wish: Wish,
    /// [`LoadOptions::streaming`], for the next step.
    streaming: Mutex<Option<StreamRates>>,
    /// The placement as last known, so that asking never waits for a step.
    placement: Mutex<Placement>,
    /// The same of the draft model, if there is one.
    draft: Mutex<Option<Placement>>,
    /// What saved sequences are known by; found when first needed, because that reads from all over the file.
    fingerprint: OnceLock<u64>,
}

/// A placement that somebody wants, until it is done.
#[derive(Default)]
struct Wish {
    /// Layers on accelerators, and those that leave their experts on the host.
    placement: Mutex<Option<(Split, u32)>>,
    /// For accelerators, by number, that are not there (any more).
    devices: Mutex<Vec<(usize, Box<dyn Device>)>>,
    done: Condvar,
}

impl Engine {
    /// Opens a model file (the first one of a split model) and puts its layers on the devices. Layers that no
    /// accelerator has room for stay on the host: [`Engine::placement`] and [`Engine::take_recoveries`] say so.
    ///
    /// # Errors
    /// The file cannot be used, the model is not supported, or even the host has no room.
    pub fn load(
        path: &Path,
        options: LoadOptions,
        devices: Devices,
        progress: &mut dyn FnMut(f32),
        cancel: &Cancel,
    ) -> Result<Engine, EngineError> {
        let access = if options.mmap { Access::Map } else { Access::Read };
        let file = ModelFile::open(path, access)?;
        if options.mlock {
            file.lock()?;
        }
        let file = Weights::new(file);
        let model = model::describe(file.gguf())?;
        let tokenizer = Tokenizer::from_gguf(file.gguf())?;
        let params = LayoutParams {
            context: options.context.max(1),
            ubatch: options.ubatch.clamp(1, 8192).min(options.context.max(1)),
            kv_type_k: options.kv_type_k,
            kv_type_v: options.kv_type_v,
            logits_rows: options.logits_rows.max(1),
        };
        let layout = Layout::new(&model, params)?;
        // Memory of our own cannot be dropped and read again, and what is locked stays.
        let host_ram = options.host_ram.filter(|_| options.mmap && !options.mlock);
        let loaded = Arc::new(Loaded { model, layout, file });
        let wanted = (options.gpu_layers, options.cpu_moe as usize);
        let core = Core::load(loaded.clone(), devices, wanted, host_ram, progress, cancel)?;
        let placement = Mutex::new(core.placement());
        let speculator = Mutex::new(Speculator::new(options.speculation, &loaded.layout));
        Ok(Engine {
            loaded,
            tokenizer,
            core: Mutex::new(core),
            speculator,
            wish: Wish::default(),
            streaming: Mutex::new(options.streaming),
            placement,
            draft: Mutex::new(None),
            fingerprint: OnceLock::new(),
        })
    }

    /// Takes a smaller model of the same vocabulary to guess tokens with, as far as [`LoadOptions::speculation`] allows.
    /// Its memory is its own: a plan must count it.
    ///
    /// # Errors
    /// [`EngineError::DraftVocabulary`] if the vocabularies differ.
    pub fn set_draft(&self, draft: Engine) -> Result<(), EngineError> {
        same_vocabulary(&self.tokenizer, &draft.tokenizer)?;
        let _core = self.lock()?;
        let core = draft.core.into_inner().map_err(|_| stopped())?;
        let mut speculator = self.speculator.lock().map_err(|_| stopped())?;
        speculator.draft = Some(DraftModel::new(draft.loaded, core));
        self.publish_draft(&speculator);
        Ok(())
    }

    /// Where the draft model is, without waiting; `None` if there is none, or none any more because it failed.
    pub fn draft_placement(&self) -> Option<Placement> {
        self.draft.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn publish_draft(&self, speculator: &Speculator) {
        let placement = speculator.draft.as_ref().map(DraftModel::placement);
        *self.draft.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = placement;
    }

    pub fn model(&self) -> &Model {
        &self.loaded.model
    }

    pub fn layout(&self) -> &Layout {
        &self.loaded.layout
    }

    pub fn gguf(&self) -> &gguf::Gguf {
        self.loaded.file.gguf()
    }

    /// The name of the tensor that begins at an address, so that a host device can say what it was given.
    pub fn tensor_at(&self, address: usize) -> Option<&str> {
        self.loaded.file.tensor_at(address)
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Where the layers are, without waiting.
    pub fn placement(&self) -> Placement {
        // A poisoned lock only means that another thread panicked; the numbers in it are whole.
        self.placement.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Whether weights are being read from the disk before anybody asks for them; also while a request runs.
    pub fn is_reading(&self) -> bool {
        self.core.try_lock().map_or(true, |core| core.reads())
    }

    /// Recoveries outside of a request (at load, or when layers were asked to move) since the last call. Waits for a
    /// running request.
    pub fn take_recoveries(&self) -> Result<Vec<Recovery>, EngineError> {
        Ok(self.lock()?.take_recoveries())
    }

    /// Continues a prompt. Blocks until it ends; `on_event` is called on this thread, between steps.
    ///
    /// # Errors
    /// A prompt that does not fit the context, a token outside the vocabulary, bad sampling parameters, or a failure
    /// of the host. Failures of the accelerator are mended and told as [`Event::Recovered`].
    pub fn generate(
        &self,
        request: Request,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Completion, EngineError> {
        self.generate_within(None, request, cancel, on_event)
    }

    /// [`Engine::generate`] of what a constraint allows. Where the constraint is complete, the answer ends as if the model
    /// had ended it; an end-of-generation token is chosen only where the constraint allows it.
    ///
    /// # Errors
    /// As [`Engine::generate`], and [`EngineError::Constraint`] where the answer cannot go on. The tokens before that
    /// were told, and accepted by the constraint.
    pub fn generate_within(
        &self,
        constraint: Option<&mut dyn Constraint>,
        request: Request,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Completion, EngineError> {
        let mut core = self.lock()?;
        self.loaded.file.check()?;
        let mut speculator = self.speculator.lock().map_err(|_| stopped())?;
        let result = generate(&mut core, self, &mut speculator, &request, constraint, cancel, on_event);
        self.publish_draft(&speculator);
        drop(speculator);
        self.publish(&core);
        // Weights that could not be read count as zeros: an answer made from them must not pass for one.
        let result = self.loaded.file.check().map_err(EngineError::from).and(result);
        drop(core);
        // A wish that came after the last step is still to be done.
        self.fulfil()?;
        result
    }

    /// Computes a sequence from nothing and gives the logits of some of its positions, in order, one row at a time.
    pub fn logits(
        &self,
        tokens: &[u32],
        positions: Positions,
        cancel: &Cancel,
        row: &mut dyn FnMut(&[f32]),
    ) -> Result<(), EngineError> {
        let mut core = self.lock()?;
        self.loaded.file.check()?;
        core.reuse(&[]);
        let vocab = self.loaded.model.vocab_size;
        let mut pieces = |piece: &[f32]| piece.chunks_exact(vocab).for_each(&mut *row);
        read_prompt(&mut core, self, tokens, positions, cancel, &mut |_| {}, &mut pieces)?;
        self.publish(&core);
        Ok(self.loaded.file.check()?)
    }

    /// What the caches hold of the sequence computed last. Waits for a running request, as the next three do.
    pub fn remembered(&self) -> Result<Remembered, EngineError> {
        Ok(self.lock()?.remembered())
    }

    /// Writes what is remembered, so that [`Engine::restore`] can put it back: here, or in an engine that has the same
    /// model with the same types of KV cache, wherever its layers are.
    ///
    /// # Errors
    /// [`EngineError::Saved`] if the writer fails; a device failed. Only the writer's content is then of no use.
    pub fn save(&self, out: &mut dyn Write) -> Result<(), EngineError> {
        let mut core = self.lock()?;
        let saved = core.save(self.fingerprint(), out);
        self.publish(&core);
        saved
    }

    /// Puts back what was saved: prompts that begin with those tokens go on as if they had just been computed.
    ///
    /// # Errors
    /// [`EngineError::Saved`] if the content is damaged, belongs to another model, or does not fit; a device failed.
    /// Nothing is remembered then.
    pub fn restore(&self, input: &mut dyn Read) -> Result<Remembered, EngineError> {
        let mut core = self.lock()?;
        let restored = core.restore(self.fingerprint(), input);
        self.publish(&core);
        restored.map(|()| core.remembered())
    }

    /// Where `prompt` is the sequence without a part in its middle (old turns that were dropped), moves what follows that
    /// part to where it is now, so that it need not be computed again; returns how many tokens moved. That is not exactly
    /// what computing them would give: they keep what they took from the part that is gone. 0, and nothing happens, for
    /// recurrent models, quantized keys, and prompts that are something else.
    ///
    /// # Errors
    /// A device failed. Nothing is remembered then.
    pub fn shift(&self, prompt: &[u32]) -> Result<usize, EngineError> {
        let mut core = self.lock()?;
        let moved = core.shift(prompt);
        self.publish(&core);
        moved
    }

    /// The next prompt is computed from its first token on.
    pub fn forget(&self) -> Result<(), EngineError> {
        self.lock()?.forget();
        Ok(())
    }

    fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| fingerprint(&self.loaded))
    }

    /// [`Engine::place`] with the experts as they are.
    pub fn set_gpu_layers(&self, layers: impl Into<Split>) -> Result<Placement, EngineError> {
        self.place(layers, self.placement().cpu_moe)
    }

    /// Moves layers and routed experts until `gpu_layers` are on each accelerator (a number: on the first) and the first
    /// `cpu_moe` of the model's layers have their experts on the host, between two steps if a request is running, and returns
    /// when that is done. What has no room there goes to another accelerator or is left on the host: compare the answer with
    /// the wish. [`Engine::placement`] follows layer by layer; another wish that comes meanwhile takes the place of this one.
    pub fn place(&self, gpu_layers: impl Into<Split>, cpu_moe: u32) -> Result<Placement, EngineError> {
        *self.wish.placement.lock().map_err(|_| stopped())? = Some((gpu_layers.into(), cpu_moe));
        loop {
            self.fulfil()?;
            let wish = self.wish.placement.lock().map_err(|_| stopped())?;
            if wish.is_none() {
                return Ok(self.placement());
            }
            // The running request does it after its step; the time-out covers one that has just ended.
            let _ = self.wish.done.wait_timeout(wish, Duration::from_millis(20)).map_err(|_| stopped())?;
        }
    }

    /// As [`LoadOptions::streaming`], from the next request or move of layers on.
    pub fn set_streaming(&self, rates: Option<StreamRates>) {
        // A value is replaced whole.
        *self.streaming.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = rates;
    }

    /// Offers a device in the place of an accelerator that was lost, or of none: the next layers that are asked for go there.
    pub fn offer_accelerator(&self, number: usize, device: Box<dyn Device>) {
        // Devices are added whole.
        let mut devices = self.wish.devices.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        devices.retain(|(other, _)| *other != number);
        devices.push((number, device));
    }

    /// Does what is wished for, unless a request is running (which will).
    fn fulfil(&self) -> Result<(), EngineError> {
        match self.core.try_lock() {
            Ok(mut core) => self.apply_wish(&mut core),
            Err(std::sync::TryLockError::WouldBlock) => Ok(()),
            Err(std::sync::TryLockError::Poisoned(_)) => Err(stopped()),
        }
    }

    /// Moves layers if somebody wishes it. Called between steps.
    pub(crate) fn apply_wish(&self, core: &mut Core) -> Result<(), EngineError> {
        let Some(wished) = *self.wish.placement.lock().map_err(|_| stopped())? else { return Ok(()) };
        for (number, device) in self.wish.devices.lock().map_err(|_| stopped())?.drain(..) {
            core.attach(number, device);
        }
        core.set_streaming(self.rates());
        let wanted = model::Placement::split(wished.0, self.loaded.layout.block_count());
        let result = core.place(wanted.with_cpu_moe(wished.1 as usize), &mut |core| {
            self.publish(core);
            self.wish.placement.lock().is_ok_and(|wish| *wish == Some(wished))
        });
        self.publish(core);
        let mut wish = self.wish.placement.lock().map_err(|_| stopped())?;
        // Another wish may have come meanwhile.
        if *wish == Some(wished) {
            *wish = None;
        }
        self.wish.done.notify_all();
        result
    }

    pub(crate) fn publish(&self, core: &Core) {
        *self.placement.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = core.placement();
    }

    fn rates(&self) -> Option<StreamRates> {
        *self.streaming.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock(&self) -> Result<MutexGuard<'_, Core>, EngineError> {
        let mut core = self.core.lock().map_err(|_| stopped())?;
        core.set_streaming(self.rates());
        Ok(core)
    }
}

/// Positions whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    All,
    Last,
    /// From this one on.
    From(u32),
}

impl Positions {
    /// Whether the logits of `position` in a sequence of `len` tokens are wanted.
    pub(crate) fn wants(self, position: usize, len: usize) -> bool {
        match self {
            Positions::All => true,
            Positions::Last => position + 1 == len,
            Positions::From(first) => position >= first as usize,
        }
    }
}

fn stopped() -> EngineError {
    EngineError::Stopped("an earlier step panicked; load the model again".into())
}
