//! Speed from limits: generation reads every used weight once per token, a prompt is multiply-adds.

use crate::{Facts, Fits, Plan};
use model::{Layer, Layout, MAX_ACCELERATORS, Mixer, Model, Place, Placement, Streaming};

/// Tokens per second, from what is likely with a full context to what is possible with an empty one.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Speed {
    pub low: f64,
    pub high: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Forecast {
    pub generation: Speed,
    /// `None` where the rate of the arithmetic is not known.
    pub prompt: Option<Speed>,
}

/// Shares of the limits that are reached, as measured with our own kernels: (pessimistic, optimistic).
const BANDWIDTH_SHARE: (f64, f64) = (0.6, 0.95);
const ARITHMETIC_SHARE: (f64, f64) = (0.6, 0.95);
/// A multiply-add of attention takes as long as so many 8-bit ones: three to four, as measured (docs/performance.md).
const ATTENTION_COST: u64 = 4;

/// Rates that placements are compared by where they were not measured: RAM's, and how many times as fast an accelerator's
/// memory is; the disk's.
const RAM: f64 = 40e9;
const ACCELERATOR: f64 = 8.0;
const DISK: f64 = 1e9;
/// Seconds for the way to the host and back: in a layer whose experts are there, and from one accelerator to another. A
/// guess: no GPU was there to measure it.
const CROSSING: f64 = 40e-6;

/// Bytes that computing one token reads.
pub(crate) struct Reads {
    /// By layer: all, and what of it the routed experts are.
    layers: Vec<(u64, u64)>,
    output: u64,
}

/// Where they are, and the seconds a token spends on the way to experts in RAM and between accelerators.
struct Traffic {
    host: u64,
    /// By number.
    accelerators: Vec<u64>,
    crossings: f64,
}

impl Traffic {
    fn at(&mut self, place: Place) -> &mut u64 {
        match place {
            Place::Accelerator(number) => {
                if self.accelerators.len() <= number {
                    self.accelerators.resize(number + 1, 0);
                }
                &mut self.accelerators[number]
            }
            Place::Host => &mut self.host,
        }
    }

    /// Seconds on accelerators, whose layers are computed one after the other, where `kv` more bytes are read on each;
    /// `None`: a rate is not known.
    fn on_accelerators(&self, kv: impl Fn(usize) -> f64, rate: impl Fn(usize) -> Option<f64>) -> Option<f64> {
        let seconds = |(number, bytes): (usize, &u64)| {
            let bytes = *bytes as f64 + kv(number);
            if bytes > 0.0 { rate(number).map(|rate| bytes / rate) } else { Some(0.0) }
        };
        self.accelerators.iter().enumerate().map(seconds).sum()
    }
}

impl Reads {
    pub fn new(model: &Model) -> Reads {
        let layer = |layer: &Layer| (layer.bytes_per_token(), layer.expert_bytes_per_token());
        Reads { layers: model.layers.iter().map(layer).collect(), output: model.output.weight.weight.bytes }
    }

    fn traffic(&self, placement: &Placement) -> Traffic {
        let crossings = CROSSING * placement.crossings() as f64;
        let mut all = Traffic { host: 0, accelerators: Vec::new(), crossings };
        for (index, (bytes, experts)) in self.layers.iter().enumerate() {
            let experts = if placement.without_experts(index) { *experts } else { 0 };
            all.host += experts;
            *all.at(placement.place(index)) += bytes - experts;
            all.crossings += if experts > 0 { CROSSING } else { 0.0 };
        }
        *all.at(placement.place(self.layers.len())) += self.output;
        all
    }
}

/// What a token is likely to take with a context half full; to compare placements of one model by, measured or not.
pub(crate) fn seconds_per_token(reads: &Reads, layout: &Layout, placement: &Placement, facts: &Facts) -> f64 {
    let (traffic, totals) = (reads.traffic(placement), layout.placed(placement));
    let (host, crossings) = (traffic.host, traffic.crossings);
    let ram = positive(facts.ram_bandwidth).unwrap_or(RAM);
    let rate = |number| Some(bandwidth(facts, number).unwrap_or(ram * ACCELERATOR));
    let gpus = traffic.on_accelerators(|number| totals.accelerator(number).kv as f64 / 2.0, rate).unwrap_or(0.0);
    let disk = positive(facts.disk_bandwidth).unwrap_or(DISK);
    // What RAM does not hold comes from disk, whatever part of the weights it is.
    let missing = totals.host.total().saturating_sub(facts.ram_available).min(totals.host.weights);
    let from_disk = host as f64 * missing as f64 / totals.host.weights.max(1) as f64;
    let on_host = host as f64 + totals.host.kv as f64 / 2.0;
    on_host / ram + gpus + crossings + from_disk / disk
}

/// `None` until bandwidths were measured, or where the model does not run at all.
pub(crate) fn forecast(model: &Model, plan: &Plan, facts: &Facts) -> Option<Forecast> {
    if plan.fits == Fits::No {
        return None;
    }
    let ram = positive(facts.ram_bandwidth)?;
    let traffic = Reads::new(model).traffic(&plan.placement);
    let from_disk = plan.residency.as_ref().map_or(0, |residency| residency.bytes_per_token());
    let disk = match positive(facts.disk_bandwidth) {
        Some(disk) => from_disk as f64 / disk,
        None if from_disk > 0 => return None,
        None => 0.0,
    };
    let kv = |number: usize| plan.shares.get(number).map_or(0, |share| share.parts.kv) as f64;
    let seconds = |kv_share: f64| -> Option<f64> {
        let on_host = (traffic.host as f64 + plan.host.kv as f64 * kv_share) / ram + traffic.crossings;
        Some(on_host + traffic.on_accelerators(|number| kv(number) * kv_share, |number| bandwidth(facts, number))?)
    };
    // The disk works during the computation; at worst, one waits for the other.
    let (slow, fast) = (seconds(1.0)? + disk, seconds(0.0)?.max(disk));
    let generation = Speed { low: BANDWIDTH_SHARE.0 / slow, high: BANDWIDTH_SHARE.1 / fast };
    Some(Forecast { generation, prompt: prompt(model, plan, facts) })
}

/// `None` where the rate of a device that computes is not known.
fn prompt(model: &Model, plan: &Plan, facts: &Facts) -> Option<Speed> {
    let streaming = plan.streamed.as_ref().map(|streamed| &streamed.streaming);
    let seconds = |start| PromptSeconds::new(model, &plan.layout, &plan.placement, streaming, facts, start);
    // The disk works during the computation; at worst, one waits for the other.
    let disk = disk_per_prompt_token(plan, facts).unwrap_or(0.0);
    // A prompt that fills the context sees half of it on average. Of one with many micro-batches, each device computes another.
    let (slow, fast) = (seconds(plan.context / 2)?.one_by_one() + disk, seconds(0)?.at_once().max(disk));
    Some(Speed { low: ARITHMETIC_SHARE.0 / slow, high: ARITHMETIC_SHARE.1 / fast })
}

/// Seconds that a prompt's token takes after `start` others, in a full micro-batch, by where they are spent.
pub(crate) struct PromptSeconds {
    /// Of layers that are streamed, too.
    host: f64,
    /// By number.
    accelerators: Vec<f64>,
    /// Within a layer, host and accelerator wait for each other.
    by_turns: bool,
}

impl PromptSeconds {
    /// `None` where the rate of a device that computes is not known.
    pub fn new(
        model: &Model,
        layout: &Layout,
        placement: &Placement,
        streaming: Option<&Streaming>,
        facts: &Facts,
        start: u32,
    ) -> Option<PromptSeconds> {
        let rate = positive(facts.int8_rate)?;
        let there = |number: usize| facts.accelerators.get(number).and_then(|gpu| positive(gpu.int8_rate));
        let PromptShares { host, accelerators } = PromptShares::new(model, placement, streaming, start.into());
        let seconds = |(number, adds): (usize, &u64)| match adds {
            0 => Some(0.0),
            adds => there(number).map(|rate| *adds as f64 / rate),
        };
        let accelerators = accelerators.iter().enumerate().map(seconds).collect::<Option<_>>()?;
        let tokens = layout.params.ubatch.max(1);
        let streamed = streaming.map_or(0.0, |streaming| streaming.seconds(tokens, start)) / f64::from(tokens);
        let apart = |(index, layer): (usize, &Layer)| {
            placement.without_experts(index) && layer.expert_multiply_adds_per_token() > 0
        };
        let by_turns = streaming.is_some() || model.layers.iter().enumerate().any(apart);
        Some(PromptSeconds { host: host as f64 / rate + streamed, accelerators, by_turns })
    }

    /// One device after the other, as with a single micro-batch.
    pub fn one_by_one(&self) -> f64 {
        self.host + self.accelerators.iter().sum::<f64>()
    }

    /// All devices at the same time, each with a micro-batch of its own.
    pub fn at_once(&self) -> f64 {
        let longest = self.accelerators.iter().copied().fold(0.0, f64::max);
        if self.by_turns { self.host + longest } else { self.host.max(longest) }
    }
}

/// 8-bit multiply-adds of a prompt's token that sees so many others, by where they are done. The output layer computes a prompt's
/// last token only; matrices that are streamed are in neither share.
struct PromptShares {
    host: u64,
    /// By number.
    accelerators: Vec<u64>,
}

impl PromptShares {
    fn new(model: &Model, placement: &Placement, streaming: Option<&Streaming>, others: u64) -> PromptShares {
        let mut shares = PromptShares { host: 0, accelerators: vec![0; MAX_ACCELERATORS] };
        for (index, layer) in model.layers.iter().enumerate() {
            let streamed = streaming.is_some_and(|streaming| streaming.has(index));
            let (adds, attention) = (layer.multiply_adds_per_token(), ATTENTION_COST * attention_adds(layer, others));
            let place = placement.place(index);
            let apart = if placement.without_experts(index) { layer.expert_multiply_adds_per_token() } else { 0 };
            match (place, streaming.filter(|_| streamed)) {
                (Place::Accelerator(number), _) => {
                    shares.accelerators[number] += attention + adds - apart;
                    shares.host += if streamed { 0 } else { apart };
                }
                (Place::Host, Some(streaming)) => shares.accelerators[streaming.on] += attention,
                (Place::Host, None) => shares.host += attention + adds,
            }
        }
        shares
    }
}

fn bandwidth(facts: &Facts, accelerator: usize) -> Option<f64> {
    facts.accelerators.get(accelerator).and_then(|gpu| positive(gpu.bandwidth))
}

fn adds_per_token(model: &Model) -> u64 {
    model.layers.iter().map(Layer::multiply_adds_per_token).sum()
}

/// Seconds that the disk works for a token of a prompt: what is read is read once for each micro-batch.
fn disk_per_prompt_token(plan: &Plan, facts: &Facts) -> Option<f64> {
    let (residency, rate) = (plan.residency.as_ref()?, positive(facts.disk_bandwidth)?);
    let tokens = plan.layout.params.ubatch.max(1);
    Some(residency.bytes_per_batch(tokens) as f64 / rate / f64::from(tokens))
}

/// Whether reading weights takes longer than computing, if both rates are known.
pub(crate) fn prompt_waits_for_disk(model: &Model, plan: &Plan, facts: &Facts) -> bool {
    let arithmetic = positive(facts.int8_rate).map(|rate| adds_per_token(model) as f64 / rate);
    let (Some(arithmetic), Some(disk)) = (arithmetic, disk_per_prompt_token(plan, facts)) else { return false };
    disk > arithmetic
}

/// Multiply-adds between one token and `tokens` others.
fn attention_adds(layer: &Layer, tokens: u64) -> u64 {
    match layer.mixer.as_ref().map(|mixer| &mixer.part) {
        Some(Mixer::Attention(a)) => {
            let seen = if a.window > 0 { tokens.min(a.window as u64) } else { tokens };
            (a.head_count * (a.head_dim_k + a.head_dim_v)) as u64 * seen
        }
        Some(Mixer::Latent(a)) => (a.head_count * (2 * a.rank + a.rope_dim)) as u64 * tokens,
        Some(Mixer::ShortConv(_) | Mixer::DeltaNet(_) | Mixer::Mamba(_)) | None => 0,
    }
}

fn positive(rate: Option<f64>) -> Option<f64> {
    rate.filter(|rate| rate.is_finite() && *rate > 0.0)
}
