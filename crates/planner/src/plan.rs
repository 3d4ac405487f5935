use crate::choice::{Choice, apart};
use crate::forecast::{self, Forecast};
use crate::room::Rooms;
use crate::stream;
use crate::{Draft, Facts, GpuLayers, Streamed, Wishes};
use model::{Layout, LayoutParams, Model, ModelError, Parts, Place, Placement, Residency};

/// What our process takes besides a model's buffers: program, window, tokenizer, allocator. Measured, rounded up.
const PROCESS_BYTES: u64 = 160 << 20;
/// And for each token of the vocabulary: the tree of tokens that answers of a prescribed form need. Measured, rounded up.
pub const TOKEN_BYTES: u64 = 400;
/// The context taken if nobody asks for one, where it fits: enough for long chats, cheap for every model.
const DEFAULT_CONTEXT: u32 = 8192;
/// The least that is taken of our own accord.
const MIN_CONTEXT: u32 = 2048;
/// Tokens of a prompt that are computed at once: enough for the kernels.
pub(crate) const DEFAULT_UBATCH: u32 = 512;
/// The most where more pay.
const MAX_UBATCH: u32 = 4096;
/// Buffers for that may take this part of the RAM.
const BUFFERS_SHARE: u64 = 16;

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fits {
    /// Everything on accelerators.
    Gpu,
    /// Some layers there, the rest in RAM.
    Split,
    Ram,
    /// Buffers fit into RAM, the weights do not: a part of them is read from disk over and over.
    Disk,
    /// Not even the buffers fit.
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ReasonCode {
    NoAccelerator,
    AllOnAccelerator,
    AcceleratorHolds,
    AcceleratorTooSmall,
    BeyondAccelerator,
    AcceleratorLacks,
    ExpertsInRam,
    PromptsStreamed,
    SeveralAccelerators,
    ContextReduced,
    ContextBeyondTraining,
    WeightsFromDisk,
    RamShort,
    KvLarge,
    DraftModel,
}

/// Why the plan is as it is, with the numbers.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Reason {
    pub code: ReasonCode,
    /// English.
    pub text: String,
    pub needed: Option<u64>,
    pub available: Option<u64>,
}

/// What one accelerator is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    pub name: String,
    /// The output layer counted.
    pub layers: u32,
    pub parts: Parts,
    /// Bytes besides: scratch memory, what buffers take beyond their size, what the driver takes for us.
    pub other: u64,
    /// What of that is scratch memory, which is taken when something is computed.
    pub scratch: u64,
    /// Bytes that there are for all of that.
    pub available: u64,
}

impl Share {
    pub fn total(&self) -> u64 {
        self.parts.total() + self.other
    }
}

/// Which layers go where, what that takes, and how fast it will be.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub gpu_layers: u32,
    /// The output layer counted.
    pub layers: u32,
    pub recommended_gpu_layers: u32,
    /// More than this does not fit.
    pub max_gpu_layers: u32,
    /// Layers before this one leave their routed experts in RAM, wherever the rest of them is.
    pub cpu_moe: u32,
    /// Layers that have routed experts, and those of them on the accelerator whose experts are in RAM.
    pub expert_layers: u32,
    pub experts_apart: u32,
    pub context: u32,
    pub context_max: u32,
    pub fits: Fits,
    pub host: Parts,
    pub host_other: u64,
    /// RAM for the model's part on the host and its buffers.
    pub host_ram: u64,
    /// What stays there and what is read from disk, where not all of it fits.
    pub residency: Option<Residency>,
    /// By accelerator, also of those that have nothing.
    pub shares: Vec<Share>,
    /// Where every layer is.
    pub placement: Placement,
    /// Layers on the host that long prompts are computed in on an accelerator.
    pub streamed: Option<Streamed>,
    pub forecast: Option<Forecast>,
    pub reasons: Vec<Reason>,
    /// What the engine will allocate.
    pub layout: Layout,
    /// The model that guesses for this one; what is said of the machine above is what it leaves.
    pub draft: Option<Draft>,
}

impl Plan {
    /// What the layout counts on all accelerators together.
    pub fn on_accelerators(&self) -> Parts {
        self.shares.iter().fold(Parts::default(), |all, share| all + share.parts)
    }

    /// What else they take.
    pub fn accelerator_other(&self) -> u64 {
        self.shares.iter().map(|share| share.other).sum()
    }

    /// With the draft model's.
    pub fn host_total(&self) -> u64 {
        self.host.total() + self.host_other + self.draft.as_ref().map_or(0, |draft| draft.host.total())
    }

    /// With the draft model's.
    pub fn accelerator_total(&self) -> u64 {
        let draft = |draft: &Draft| draft.accelerator.total() + draft.accelerator_other;
        self.shares.iter().map(Share::total).sum::<u64>() + self.draft.as_ref().map_or(0, draft)
    }
}

/// Plans a model. The answer always describes what was asked for, also when it does not fit: `fits` and `reasons` say so.
///
/// # Errors
/// Sizes in the file that overflow, or a KV type that the model's heads do not allow.
pub fn plan(model: &Model, facts: &Facts, wishes: &Wishes) -> Result<Plan, ModelError> {
    plan_at(model, facts, wishes, None)
}

/// [`plan`], where it is known where every layer is.
pub(crate) fn plan_at(
    model: &Model,
    facts: &Facts,
    wishes: &Wishes,
    at: Option<&Placement>,
) -> Result<Plan, ModelError> {
    let mut reasons = Vec::new();
    let (context, layout) = choose_context(model, facts, wishes, &mut reasons)?;
    let layers = layout.block_count() as u32 + 1;
    let rooms = Rooms::new(model, facts, &layout);
    let Choice { placement, best, max_gpu_layers } = Choice::new(model, &layout, rooms.as_ref(), facts, wishes);
    let best = match rooms.as_ref().filter(|_| wishes.cpu_moe.is_none()) {
        Some(rooms) => {
            let ram = facts.ram_available.saturating_sub(process_bytes(model));
            stream::with_room(model, &layout, best, rooms, facts, ram)
        }
        None => best,
    };
    let placement = if wishes.gpu_layers == GpuLayers::Auto { best.clone() } else { placement };
    let placement = at.cloned().unwrap_or(placement);
    let totals = layout.placed(&placement);
    let share = |(number, room): (usize, &crate::room::Room)| Share {
        name: room.name.clone(),
        layers: placement.count(Place::Accelerator(number)) as u32,
        parts: totals.accelerator(number),
        other: room.other(&placement, Place::Accelerator(number)),
        scratch: room.offload.scratch(&placement, Place::Accelerator(number)),
        available: room.free,
    };
    let shares = rooms.iter().flat_map(|rooms| rooms.0.iter().enumerate()).map(share).collect();
    let mut plan = Plan {
        gpu_layers: placement.gpu_layers() as u32,
        layers,
        recommended_gpu_layers: best.gpu_layers() as u32,
        max_gpu_layers: max_gpu_layers as u32,
        cpu_moe: placement.cpu_moe as u32,
        expert_layers: layout.expert_layers() as u32,
        experts_apart: apart(&layout, &placement) as u32,
        context,
        context_max: model.context_length,
        fits: Fits::No,
        host: totals.host,
        host_other: process_bytes(model),
        host_ram: facts.ram_available.saturating_sub(process_bytes(model)),
        residency: None,
        shares,
        placement,
        streamed: None,
        forecast: None,
        reasons,
        layout,
        draft: None,
    };
    let held = rooms.as_ref().is_none_or(|rooms| rooms.holds(&plan.layout, &plan.placement));
    plan.fits = if held { fits(&plan, facts) } else { Fits::No };
    if plan.fits == Fits::Disk {
        plan.residency = Residency::new(model, &plan.layout, &plan.placement, plan.host_ram);
        if wishes.ubatch.is_none() && plan.gpu_layers == 0 {
            grow_ubatch(model, &mut plan, facts)?;
        }
    }
    if let Some(rooms) = rooms.as_ref().filter(|_| matches!(plan.fits, Fits::Split | Fits::Ram)) {
        plan.streamed = Streamed::new(model, &plan.layout, &plan.placement, rooms, facts);
        if let Some(streamed) = &plan.streamed {
            plan.shares[streamed.streaming.on].other += streamed.bytes;
        }
    }
    explain(&mut plan, facts, rooms.as_ref());
    plan.forecast = forecast::forecast(model, &plan, facts);
    Ok(plan)
}

fn layout(model: &Model, wishes: &Wishes, context: u32) -> Result<Layout, ModelError> {
    Layout::new(
        model,
        LayoutParams {
            context,
            ubatch: wishes.ubatch.unwrap_or(DEFAULT_UBATCH).clamp(1, 8192).min(context),
            kv_type_k: wishes.kv_type_k,
            kv_type_v: wishes.kv_type_v,
            logits_rows: wishes.logits_rows.max(1),
        },
    )
}

/// Weights from disk are read once for each micro-batch of a prompt: it grows until the arithmetic takes as long, or its
/// buffers take too much of the RAM that weights could be in.
fn grow_ubatch(model: &Model, plan: &mut Plan, facts: &Facts) -> Result<(), ModelError> {
    let mut params = plan.layout.params;
    while params.ubatch < MAX_UBATCH.min(plan.context) && forecast::prompt_waits_for_disk(model, plan, facts) {
        params.ubatch = (2 * params.ubatch).min(plan.context);
        let layout = Layout::new(model, params)?;
        let host = layout.placed(&plan.placement).host;
        if host.compute > plan.host_ram / BUFFERS_SHARE {
            break;
        }
        plan.residency = Residency::new(model, &layout, &plan.placement, plan.host_ram);
        (plan.host, plan.layout) = (host, layout);
    }
    Ok(())
}

fn process_bytes(model: &Model) -> u64 {
    PROCESS_BYTES + TOKEN_BYTES * model.vocab_size as u64
}

/// Bytes on the host that must be RAM: all but the mapped weights.
fn anonymous(parts: &Parts, other: u64) -> u64 {
    parts.kv + parts.compute + other
}

fn choose_context(
    model: &Model,
    facts: &Facts,
    wishes: &Wishes,
    reasons: &mut Vec<Reason>,
) -> Result<(u32, Layout), ModelError> {
    if let Some(context) = wishes.context {
        let context = context.max(1);
        if context > model.context_length {
            reasons.push(Reason {
                code: ReasonCode::ContextBeyondTraining,
                text: format!(
                    "The model was trained for {} tokens; answers get worse beyond that.",
                    model.context_length
                ),
                needed: Some(u64::from(context)),
                available: Some(u64::from(model.context_length)),
            });
        }
        return Ok((context, layout(model, wishes, context)?));
    }
    let mut context = model.context_length.min(DEFAULT_CONTEXT);
    loop {
        let layout = layout(model, wishes, context)?;
        let rooms = Rooms::new(model, facts, &layout);
        let host = layout.placed(&Choice::new(model, &layout, rooms.as_ref(), facts, wishes).best).host;
        let needed = anonymous(&host, process_bytes(model));
        if needed <= facts.ram_available || context <= MIN_CONTEXT {
            if context < model.context_length.min(DEFAULT_CONTEXT) {
                reasons.push(Reason {
                    code: ReasonCode::ContextReduced,
                    text: format!("The context is {context} tokens, because more does not fit into RAM."),
                    needed: Some(needed),
                    available: Some(facts.ram_available),
                });
            }
            return Ok((context, layout));
        }
        context = (context / 2).max(MIN_CONTEXT);
    }
}

fn fits(plan: &Plan, facts: &Facts) -> Fits {
    if anonymous(&plan.host, plan.host_other) > facts.ram_available {
        return Fits::No;
    }
    if plan.gpu_layers == plan.layers && plan.experts_apart == 0 {
        return Fits::Gpu;
    }
    if plan.host_total() > facts.ram_available {
        return Fits::Disk;
    }
    if plan.gpu_layers > 0 { Fits::Split } else { Fits::Ram }
}

fn explain(plan: &mut Plan, facts: &Facts, rooms: Option<&Rooms>) {
    let on_accelerators = plan.on_accelerators();
    let mut add = |code, text: String, needed, available| plan.reasons.push(Reason { code, text, needed, available });
    let (n, layers, max) = (plan.gpu_layers, plan.layers, plan.max_gpu_layers);
    let vram = plan.shares.iter().map(Share::total).sum();
    match rooms {
        None => add(ReasonCode::NoAccelerator, "No GPU can take layers: all run on the CPU.".into(), None, None),
        Some(rooms) => {
            let free = Some(rooms.free());
            let cpu_moe = plan.cpu_moe as usize;
            let most = rooms.computable(cpu_moe) as u32;
            if let Some(lack) = rooms.lack(cpu_moe) {
                let on_cpu = layers - most;
                let text = format!("The GPU cannot compute {}: {on_cpu} or more layers stay on the CPU.", lack.need);
                add(ReasonCode::AcceleratorLacks, text, None, None);
            }
            if most == 0 {
                // Room is of no use.
            } else if n > max {
                let text = format!("{n} layers do not fit into video memory; {max} do.");
                add(ReasonCode::BeyondAccelerator, text, Some(vram), free);
            } else if max == 0 {
                let first = rooms.first_layer(&plan.layout, cpu_moe);
                let text = "Video memory is too small for even one layer.".into();
                add(ReasonCode::AcceleratorTooSmall, text, Some(first), free);
            } else if n == layers && plan.experts_apart == 0 {
                add(ReasonCode::AllOnAccelerator, "All layers fit into video memory.".into(), Some(vram), free);
            } else if 0 < n && n < layers {
                let text = format!("Video memory holds {max} of {layers} layers.");
                add(ReasonCode::AcceleratorHolds, text, Some(vram), free);
            }
            if plan.experts_apart > 0 && n <= max {
                let (apart, of) = (plan.experts_apart, plan.expert_layers);
                let text = format!(
                    "The routed experts of {apart} of {of} layers are computed on the CPU: with everything else on the \
                     GPU that is faster than fewer whole layers."
                );
                let bytes = plan.layout.layers.iter().enumerate();
                let bytes = bytes.filter(|(index, _)| plan.layout.experts_apart(&plan.placement, *index));
                add(ReasonCode::ExpertsInRam, text, Some(bytes.map(|(_, layer)| layer.experts).sum()), None);
            }
            if let Some(streamed) = &plan.streamed {
                let text = format!(
                    "Prompts of {} or more tokens are computed on the GPU also in what is in RAM: copying it there is \
                     faster than computing it on the CPU.",
                    streamed.from
                );
                add(ReasonCode::PromptsStreamed, text, Some(streamed.bytes), None);
            }
            let used: Vec<&Share> = plan.shares.iter().filter(|share| share.layers > 0).collect();
            if used.len() > 1 {
                let each: Vec<String> =
                    used.iter().map(|share| format!("{} on {}", share.layers, share.name)).collect();
                let text = format!("No GPU holds these layers alone: {}.", each.join(", "));
                add(ReasonCode::SeveralAccelerators, text, None, None);
            }
        }
    }
    let host = plan.host.total() + plan.host_other;
    let buffers = plan.host.kv + plan.host.compute + plan.host_other;
    let available = Some(facts.ram_available);
    if buffers > facts.ram_available {
        let text = "The KV cache and buffers do not fit into RAM: lower the context or take a smaller KV type.".into();
        add(ReasonCode::RamShort, text, Some(buffers), available);
    } else if host > facts.ram_available {
        let text = "The weights do not fit into RAM: a part is read from disk again for every token.".into();
        add(ReasonCode::WeightsFromDisk, text, Some(host), available);
    }
    let kv = plan.host.kv + on_accelerators.kv;
    let weights = plan.host.weights + on_accelerators.weights;
    if kv > weights / 2 {
        let text = "The KV cache is large beside the model: q8_0 halves it, a shorter context too.".into();
        add(ReasonCode::KvLarge, text, Some(kv), None);
    }
}
