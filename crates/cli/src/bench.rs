//! `headroom bench`

use crate::args::Bench;
use crate::failure::Failure;
use crate::load::{self, Wanted};
use crate::output;
use crate::program::Program;
use engine::{Cancel, Drafting, Drafts, Engine, Event, Positions, Request};
use model::Layer;
use serde_json::json;
use std::time::{Duration, Instant};

pub fn bench(program: &Program, options: &Bench) -> Result<(), Failure> {
    let watch = hardware::MemoryWatch::start();
    let whole = options.depth + options.prompt.max(options.count) + 1;
    let speculating = Some((&options.speculating, Drafting::Never));
    let wanted = Wanted { context: Some(whole), rows: 1, speculating };
    let loaded = load::load(program, &options.model, &options.loading, wanted, &Cancel::new())?;
    let engine = &loaded.session.engine;
    let vocab = engine.model().vocab_size as u32;
    // Any tokens do: speed does not depend on them (except for the choice of experts).
    let tokens = |count: u32, seed: u32| -> Vec<u32> {
        (0..count).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 7) % vocab).collect()
    };
    let (mut prompt_rates, mut rates, mut drafts) = (Rates::default(), Rates::default(), Drafts::default());
    for repetition in 0..options.repeat {
        if options.prompt > 0 {
            let prompt = tokens(options.prompt, repetition + 2);
            prompt_rate(engine, &tokens(options.depth, 1), &prompt, &mut prompt_rates)?;
        }
        if options.count > 0 {
            // What stands before is the same each time, so that it is read once.
            let depth = tokens(options.depth.max(1), if options.depth > 0 { 1 } else { repetition + 3 });
            generation_rate(engine, &depth, options.count, &mut drafts, &mut rates)?;
        }
    }
    let totals = engine.layout().placed(&engine.placement().placed);
    let kv = totals.host.kv + totals.on_accelerators().kv;
    let memory = watch.memory();
    let layers = &engine.model().layers;
    // What the limits of speed follow from: weights that a token reads, and its multiply-adds in a prompt.
    let read = layers.iter().map(Layer::bytes_per_token).sum::<u64>() + engine.model().output.weight.weight.bytes;
    let adds: u64 = layers.iter().map(Layer::multiply_adds_per_token).sum();
    let mut value = json!({
        "load_s": loaded.seconds,
        "pp": {
            "tokens": options.prompt, "tps": prompt_rates.by_clock, "median": median(&prompt_rates.by_clock),
            "processor_tps": prompt_rates.by_processor,
        },
        "tg": {
            "tokens": options.count, "tps": rates.by_clock, "median": median(&rates.by_clock),
            "processor_tps": rates.by_processor,
            "drafted": drafts.proposed, "accepted": drafts.accepted,
        },
        "bytes_per_token": read,
        "multiply_adds_per_token": adds,
        "kv_bytes": kv,
        "peak_private_bytes": memory.peak_private_bytes,
        "peak_rss_bytes": memory.peak_rss_bytes,
        "peak_vram_bytes": engine.placement().accelerator_used(),
    });
    if let Some(paged) = engine.placement().paged {
        value["paged"] = json!({
            "budget_bytes": paged.budget, "most_held_bytes": paged.most_held,
            "read_bytes": paged.read, "direct_bytes": paged.direct,
            "experts_guessed": paged.guessed, "guessed_right": paged.guessed_right,
        });
    }
    if program.json {
        return output::json(&value);
    }
    let show = |rates: &[f64]| median(rates).map_or("-".into(), |rate| format!("{rate:.2} tokens/s"));
    output::line(&format!("load {:.2} s", loaded.seconds))?;
    output::line(&format!("prompt of {}: {}", options.prompt, show(&prompt_rates.by_clock)))?;
    output::line(&format!("generation of {}: {}", options.count, show(&rates.by_clock)))?;
    if drafts.proposed > 0 {
        output::line(&format!("of {} tokens guessed ahead, {} held", drafts.proposed, drafts.accepted))?;
    }
    if let Some(paged) = engine.placement().paged {
        let (held, read) = (output::size(paged.most_held), output::size(paged.read));
        output::line(&format!("at most {held} of the weights in memory, {read} read from disk"))?;
        if paged.guessed > 0 {
            let (right, guessed) = (paged.guessed_right, paged.guessed);
            output::line(&format!("of {guessed} experts guessed ahead, {right} were needed"))?;
        }
    }
    let bytes = |bytes: Option<u64>| bytes.map_or("-".into(), output::size);
    output::line(&format!("KV cache {}", output::size(kv)))?;
    output::line(&format!("peak of private memory {}", bytes(memory.peak_private_bytes)))?;
    output::line(&format!("peak of resident memory, with the mapped file {}", bytes(memory.peak_rss_bytes)))
}

/// Tokens per second, one for each repetition.
#[derive(Default)]
struct Rates {
    by_clock: Vec<f64>,
    /// Per second that processors worked: what one thread does, whatever else runs beside it.
    by_processor: Vec<f64>,
}

impl Rates {
    fn push(&mut self, tokens: usize, seconds: f64, used: Option<Duration>) {
        self.by_clock.push(tokens as f64 / seconds);
        self.by_processor.extend(used.map(|used| tokens as f64 / used.as_secs_f64()));
    }
}

/// Reads a prompt behind what stands before it.
fn prompt_rate(engine: &Engine, depth: &[u32], prompt: &[u32], rates: &mut Rates) -> Result<(), Failure> {
    let cancel = Cancel::new();
    if !depth.is_empty() {
        engine.generate(one_token(depth.to_vec(), 1), &cancel, &mut |_| {})?;
    }
    let (before, start) = (hardware::processor_time(), Instant::now());
    if depth.is_empty() {
        engine.logits(prompt, Positions::Last, &cancel, &mut |_| {})?;
        let seconds = start.elapsed().as_secs_f64();
        rates.push(prompt.len(), seconds, used_since(before));
        return Ok(());
    }
    let sequence = depth.iter().chain(prompt).copied().collect();
    let mut used = None;
    let completion = engine.generate(one_token(sequence, 1), &cancel, &mut |event| {
        if let Event::Token { .. } = event {
            used = used_since(before);
        }
    })?;
    rates.push(prompt.len(), completion.prompt_seconds, used);
    Ok(())
}

fn generation_rate(
    engine: &Engine,
    depth: &[u32],
    count: u32,
    drafts: &mut Drafts,
    rates: &mut Rates,
) -> Result<(), Failure> {
    let mut first = None;
    let completion = engine.generate(one_token(depth.to_vec(), count), &Cancel::new(), &mut |event| {
        if let (Event::Token { .. }, None) = (event, first) {
            first = Some(hardware::processor_time());
        }
    })?;
    drafts.proposed += completion.drafts.proposed;
    drafts.accepted += completion.drafts.accepted;
    rates.push(completion.ids.len(), completion.generation_seconds, used_since(first.flatten()));
    Ok(())
}

fn used_since(before: Option<Duration>) -> Option<Duration> {
    Some(hardware::processor_time()?.saturating_sub(before?)).filter(|used| !used.is_zero())
}

fn one_token(prompt: Vec<u32>, count: u32) -> Request {
    let sampling = sampler::Params { temperature: 0.0, ..sampler::Params::default() };
    Request { prompt, sampling, max_tokens: Some(count), ignore_eog: true }
}

fn median(rates: &[f64]) -> Option<f64> {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}
