//! Measures llama.cpp as `headroom bench` measures the engine: the same flags, tokens and figures.

use anyhow::{Context, Result, bail};
use clap::Parser;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use serde_json::json;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Tokens computed at once, as in `headroom bench`.
const UBATCH: u32 = 512;

#[derive(Parser)]
struct Arguments {
    model: PathBuf,
    /// Tokens of the prompt
    #[arg(short, long, default_value_t = 512)]
    prompt: u32,
    /// Tokens to generate
    #[arg(short = 'n', long, default_value_t = 64)]
    tokens: u32,
    /// Tokens in the context beforehand
    #[arg(short, long, default_value_t = 0)]
    depth: u32,
    /// Repetitions
    #[arg(short, long, default_value_t = 5)]
    repeat: u32,
    #[arg(short, long)]
    threads: i32,
    /// Type of the KV cache: f16 or q8_0
    #[arg(long, default_value = "f16")]
    kv: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let watch = hardware::MemoryWatch::start();
    let started = Instant::now();
    let mut backend = LlamaBackend::init()?;
    backend.void_logs();
    let model = LlamaModel::load_from_file(&backend, &arguments.model, &LlamaModelParams::default())?;
    let mut run = Run::new(&backend, &model, &arguments)?;
    let load = started.elapsed().as_secs_f64();
    let (mut prompt, mut generation) = (Rates::default(), Rates::default());
    for repetition in 0..arguments.repeat {
        run.measure(&arguments, repetition, &mut prompt, &mut generation)?;
    }
    let memory = watch.memory();
    let value = json!({
        "load_s": load,
        "pp": { "tokens": arguments.prompt, "tps": prompt.by_clock, "processor_tps": prompt.by_processor },
        "tg": { "tokens": arguments.tokens, "tps": generation.by_clock, "processor_tps": generation.by_processor },
        "peak_private_bytes": memory.peak_private_bytes,
        "peak_rss_bytes": memory.peak_rss_bytes,
    });
    println!("{value}");
    Ok(())
}

/// Tokens per second, one for each repetition.
#[derive(Default)]
struct Rates {
    by_clock: Vec<f64>,
    /// Per second that processors worked.
    by_processor: Vec<f64>,
}

struct Clock {
    started: Instant,
    used: Option<Duration>,
}

impl Clock {
    fn start() -> Clock {
        Clock { used: hardware::processor_time(), started: Instant::now() }
    }
}

impl Rates {
    fn push(&mut self, tokens: u32, clock: &Clock) {
        self.by_clock.push(f64::from(tokens) / clock.started.elapsed().as_secs_f64());
        if let (Some(before), Some(now)) = (clock.used, hardware::processor_time())
            && now > before
        {
            self.by_processor.push(f64::from(tokens) / (now - before).as_secs_f64());
        }
    }
}

struct Run<'a> {
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    vocabulary: u32,
    /// Tokens in the cache.
    past: u32,
}

impl<'a> Run<'a> {
    fn new(backend: &LlamaBackend, model: &'a LlamaModel, arguments: &Arguments) -> Result<Run<'a>> {
        let kv = match arguments.kv.as_str() {
            "f16" => KvCacheType::F16,
            "q8_0" => KvCacheType::Q8_0,
            other => bail!("a KV cache of {other}"),
        };
        let whole = arguments.depth + arguments.prompt.max(arguments.tokens) + 1;
        // Flash attention is left to llama.cpp, which turns it on where it can.
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(whole))
            .with_n_batch(UBATCH)
            .with_n_ubatch(UBATCH)
            .with_n_threads(arguments.threads)
            .with_n_threads_batch(arguments.threads)
            .with_type_k(kv)
            .with_type_v(kv);
        let context = model.new_context(backend, params)?;
        let vocabulary = u32::try_from(model.n_vocab())?;
        Ok(Run { context, batch: LlamaBatch::new(UBATCH as usize, 1), vocabulary, past: 0 })
    }

    /// Any tokens do: speed does not depend on them (except for the choice of experts).
    fn tokens(&self, count: u32, seed: u32) -> Vec<LlamaToken> {
        let token = |i: u32| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 7) % self.vocabulary;
        (0..count).map(|i| LlamaToken(token(i) as i32)).collect()
    }

    fn measure(
        &mut self,
        arguments: &Arguments,
        repetition: u32,
        prompt: &mut Rates,
        generation: &mut Rates,
    ) -> Result<()> {
        self.keep(0)?;
        self.decode(&self.tokens(arguments.depth, 1))?;
        if arguments.prompt > 0 {
            let tokens = self.tokens(arguments.prompt, repetition + 2);
            let clock = Clock::start();
            self.decode(&tokens)?;
            prompt.push(arguments.prompt, &clock);
        }
        if arguments.tokens > 0 {
            self.keep(arguments.depth)?;
            if arguments.depth == 0 {
                self.decode(&self.tokens(1, repetition + 3))?;
            } else {
                // The last token again, for its logits.
                self.keep(arguments.depth - 1)?;
                let last = self.tokens(arguments.depth, 1).pop().context("no tokens")?;
                self.decode(&[last])?;
            }
            let clock = Clock::start();
            for _ in 0..arguments.tokens {
                let token = self.likeliest();
                self.decode(&[token])?;
            }
            generation.push(arguments.tokens, &clock);
        }
        Ok(())
    }

    /// Drops what stands behind the first `count` tokens.
    fn keep(&mut self, count: u32) -> Result<()> {
        if !self.context.clear_kv_cache_seq(Some(0), Some(count), None)? {
            bail!("the cache cannot be cut off after {count} tokens");
        }
        self.past = count;
        Ok(())
    }

    /// Computes tokens, with the logits of the last one.
    fn decode(&mut self, tokens: &[LlamaToken]) -> Result<()> {
        let mut rest = tokens.len();
        for tokens in tokens.chunks(UBATCH as usize) {
            self.batch.clear();
            rest -= tokens.len();
            for (i, token) in tokens.iter().enumerate() {
                let last = rest == 0 && i + 1 == tokens.len();
                self.batch.add(*token, self.past as i32, &[0], last)?;
                self.past += 1;
            }
            self.context.decode(&mut self.batch)?;
        }
        self.context.synchronize();
        Ok(())
    }

    fn likeliest(&self) -> LlamaToken {
        let logits = self.context.get_logits_ith(self.batch.n_tokens() - 1);
        let largest = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        LlamaToken(largest.map_or(0, |(index, _)| index as i32))
    }
}
