//! What is measured: two models as large as real ones, at several depths, on the GPU wholly and in part, and how long layers
//! take to move.

use crate::Options;
use crate::measure::{Loaded, copy_bandwidth, seconds, stream_rates};
use crate::row::Row;
use anyhow::{Context, Result};
use backend_cuda::Card;
use model::StreamRates;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use test_models::{Experts, GgmlType, ModelSpec};

/// A model to measure.
pub struct Case {
    pub name: &'static str,
    pub spec: ModelSpec,
    /// Tokens in the context beforehand.
    pub depths: Vec<u32>,
    pub prompt: u32,
    pub tokens: u32,
}

fn cases(tiny: bool) -> Vec<Case> {
    let mut cases = vec![
        Case {
            name: "llama3-8b-Q4_K_M",
            spec: ModelSpec::llama3_8b(GgmlType::Q4_K),
            depths: vec![0, 8192, 32_768],
            prompt: 512,
            tokens: 64,
        },
        Case {
            name: "qwen3-30b-a3b-Q4_K_M",
            spec: ModelSpec::qwen3_30b_a3b(GgmlType::Q4_K),
            depths: vec![0, 8192, 32_768],
            prompt: 512,
            tokens: 64,
        },
    ];
    if tiny {
        for case in &mut cases {
            let experts = case.spec.experts.map(|_| Experts { count: 4, used: 2, n_ff: 256 });
            let (n_head, n_head_kv, head_dim) = (4, 2, 64);
            let spec = case.spec.clone();
            case.spec = ModelSpec {
                n_embd: 256,
                n_ff: 256,
                n_layer: 2,
                n_vocab: 400,
                experts,
                n_head,
                n_head_kv,
                head_dim,
                ..spec
            };
            (case.depths, case.prompt, case.tokens) = (vec![0, 20, 40], 16, 4);
        }
    }
    cases
}

pub fn bench(options: &Options, tell: &mut dyn FnMut(Row)) -> Result<()> {
    let card = Card::open(0).map_err(|absent| anyhow::anyhow!("no GPU can be used: {absent:?}"))?;
    let (compiled, _) = seconds(|| card.driver().map_err(|absent| anyhow::anyhow!("{absent:?}")))?;
    tell(Row::figure("kernels loaded (compiled, the first time)", format!("{compiled:.1} s")));
    tell(Row::figure("kernels' code in video memory", mib(card.code_bytes().unwrap_or(0))));
    let bandwidth = copy_bandwidth(&card)?;
    tell(Row::figure("copies within the GPU, read + written", format!("{:.1} GB/s", bandwidth / 1e9)));
    let rates = stream_rates(&card)?;
    tell(Row::figure("copies from RAM", format!("{:.2} GB/s", rates.upload / 1e9)));
    tell(Row::figure("8-bit multiply-adds on the GPU", format!("{:.2} T/s", rates.accelerator / 1e12)));
    tell(Row::figure("8-bit multiply-adds on the CPU", format!("{:.2} T/s", rates.host / 1e12)));
    for case in cases(options.tiny) {
        // One model that has no room is no reason not to measure the next one.
        if let Err(error) = model(&case, &card, (bandwidth, rates), options, tell) {
            tell(Row::check(case.name, format!("{error:#}"), false, "measured"));
        }
    }
    Ok(())
}

fn model(
    case: &Case,
    card: &Card,
    (bandwidth, rates): (f64, StreamRates),
    options: &Options,
    tell: &mut dyn FnMut(Row),
) -> Result<()> {
    let path = file(case, &options.models, tell)?;
    let deepest = case.depths.iter().max().copied().unwrap_or(0);
    let context = deepest + case.prompt.max(case.tokens) + 1;
    let loaded = Loaded::new(&path, card, context, case.prompt.min(512))?;
    let name = case.name;
    tell(Row::figure(format!("{name}: loaded"), format!("{:.2} s", loaded.seconds)));
    let placement = loaded.engine.placement();
    let on_gpu = placement.gpu_layers;
    tell(Row::check(
        format!("{name}: layers on the GPU"),
        format!("{on_gpu} of {}", placement.layers),
        on_gpu > 0,
        "all that have room",
    ));
    loaded.generate(1, 0, 2)?;
    let prompt_rate = loaded.prompt_rate(case.prompt)?;
    tell(Row::figure(format!("{name}: prompt of {}", case.prompt), format!("{prompt_rate:.1} tokens/s")));
    let mut at_start = None;
    for depth in &case.depths {
        let what = format!("{name}: generation, {depth} tokens deep");
        // What of the prompt is new; later parts take longer for each token.
        let expected = 2.0 * f64::from(*depth) / prompt_rate;
        let left = options.end.saturating_duration_since(Instant::now()).as_secs_f64();
        if expected > left / 2.0 {
            tell(Row::figure(what, format!("left out: about {expected:.0} s")));
            continue;
        }
        let rate = loaded.generate(*depth, case.tokens, 3)?;
        at_start.get_or_insert(rate);
        tell(limited(what, rate, loaded.bytes_per_token(*depth), bandwidth));
    }
    memory(name, &loaded, tell);
    moves(case, &loaded, prompt_rate, options, tell)?;
    if let Some(whole) = at_start.filter(|_| on_gpu > 1) {
        partly(case, &loaded, whole, rates, tell)?;
    }
    Ok(())
}

/// The file of a model, written if it is not there.
fn file(case: &Case, folder: &Path, tell: &mut dyn FnMut(Row)) -> Result<PathBuf> {
    let len = case.spec.synthetic_len()?;
    let path = folder.join(format!("{}-{len}.gguf", case.name));
    if std::fs::metadata(&path).is_ok_and(|found| found.len() == len) {
        return Ok(path);
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let part = path.with_extension("part");
    let (taken, ()) = seconds(|| -> Result<()> {
        let out = BufWriter::with_capacity(1 << 22, File::create(&part).with_context(|| part.display().to_string())?);
        case.spec.write_synthetic(out)?.flush()?;
        Ok(())
    })?;
    std::fs::rename(&part, &path)?;
    tell(Row::figure(format!("{}: written", case.name), format!("{} in {taken:.1} s", mib(len))));
    Ok(path)
}

/// Generation reads every weight and the cache once for each token: the speed beside that limit.
fn limited(what: String, rate: f64, bytes: u64, bandwidth: f64) -> Row {
    let share = rate * bytes as f64 / bandwidth;
    Row::check(
        what,
        format!("{rate:.2} tokens/s"),
        share >= 0.8,
        format!("{:.0} % of the copy's bandwidth, wanted 80 %", share * 100.0),
    )
}

/// What was planned beside what the driver has given since the model was loaded.
fn memory(name: &str, loaded: &Loaded, tell: &mut dyn FnMut(Row)) {
    let (planned, taken) = loaded.memory();
    let allowed = (planned / 100).max(16 << 20);
    let value = format!("{} of {}", mib(taken), mib(planned));
    let good = taken.abs_diff(planned) <= allowed;
    tell(Row::check(format!("{name}: video memory taken of planned"), value, good, format!("to {}", mib(allowed))));
}

/// A layer to RAM and back, with what the context holds; the tokens that follow must be the same.
fn moves(case: &Case, loaded: &Loaded, prompt_rate: f64, options: &Options, tell: &mut dyn FnMut(Row)) -> Result<()> {
    let placement = loaded.engine.placement();
    // The output layer comes to the GPU last: what is moved is a layer with a cache.
    let layers = placement.gpu_layers.min(placement.layers - 1);
    let depth = case.depths.get(1).copied().unwrap_or(0);
    let left = options.end.saturating_duration_since(Instant::now()).as_secs_f64();
    if layers == 0 || 2.0 * f64::from(depth) / prompt_rate > left / 2.0 {
        tell(Row::figure(format!("{}: moving a layer", case.name), "left out: no time"));
        return Ok(());
    }
    let before = loaded.ids(depth, case.tokens.min(8))?;
    loaded.engine.set_gpu_layers(layers)?;
    let (mut away, mut back) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        away = away.min(seconds(|| Ok(loaded.engine.set_gpu_layers(layers - 1)?))?.0);
        back = back.min(seconds(|| Ok(loaded.engine.set_gpu_layers(layers)?))?.0);
    }
    for (way, taken) in [("to RAM", away), ("to the GPU", back)] {
        let what = format!("{}: one layer {way}, {depth} tokens deep", case.name);
        tell(Row::check(what, format!("{:.2} ms", taken * 1e3), taken <= 0.1, "100 ms at most"));
    }
    loaded.engine.set_gpu_layers(placement.gpu_layers)?;
    let same = loaded.ids(depth, case.tokens.min(8))? == before;
    tell(Row::check(
        format!("{}: tokens after the moves", case.name),
        if same { "the same" } else { "others" },
        same,
        "the same",
    ));
    Ok(())
}

/// Half of the layers on the GPU, beside what the two halves take by themselves.
fn partly(case: &Case, loaded: &Loaded, whole: f64, rates: StreamRates, tell: &mut dyn FnMut(Row)) -> Result<()> {
    let placement = loaded.engine.placement();
    let (all, on_gpu) = (placement.layers, placement.gpu_layers);
    let few = case.tokens.min(16);
    loaded.engine.set_gpu_layers(0)?;
    let on_cpu = loaded.generate(0, few, 1)?;
    tell(Row::figure(format!("{}: generation on the CPU", case.name), format!("{on_cpu:.2} tokens/s")));
    let half = on_gpu / 2;
    loaded.engine.set_gpu_layers(half)?;
    let rate = loaded.generate(0, few, 2)?;
    let share = f64::from(half) / f64::from(all);
    let wanted = 0.95 / (share / whole + (1.0 - share) / on_cpu);
    let what = format!("{}: generation, {half} of {all} layers on the GPU", case.name);
    let wanted_text = format!("{wanted:.2} by both shares");
    tell(Row::check(what, format!("{rate:.2} tokens/s"), rate >= wanted, wanted_text));
    // Whether the decision would have been right.
    let apart = loaded.prompt_rate(case.prompt)?;
    let (streamed, pays) = loaded.streamed_prompt_rate(case.prompt, rates)?;
    let what = format!("{}: prompt of {}, {half} of {all} layers on the GPU, streamed", case.name, case.prompt);
    let wanted_text = format!("{apart:.1} without; {} by what was measured", if pays { "faster" } else { "slower" });
    tell(Row::check(what, format!("{streamed:.1} tokens/s"), (streamed > apart) == pays, wanted_text));
    Ok(())
}

pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
