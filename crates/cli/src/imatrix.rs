//! `headroom imatrix`

use crate::args::Measure;
use crate::failure::Failure;
use crate::given;
use crate::program::Program;
use crate::{load, output};
use backend_cpu::{CpuConfig, CpuDevice, Precision, ThreadPool};
use engine::{Cancel, Devices, Engine, LoadOptions, Positions};
use quantize::{Measured, Measurement, Recorder};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokenizer::Encode;

pub fn imatrix(program: &Program, options: &Measure) -> Result<(), Failure> {
    let started = Instant::now();
    let text = given::text_of_file(&options.file)?;
    let cancel = Cancel::new();
    program.interrupts_only_cancel(&cancel);
    let path = load::find(program, &options.model)?;
    let threads = options.threads.map_or_else(load::cores, |threads| threads as usize);
    let (engine, measured) = open(&path, options.context, threads, &cancel)?;
    let ids = engine.tokenizer().encode(text.as_bytes(), Encode { add_special: true, parse_special: false });
    let chunks = run(&engine, &ids, options, &cancel)?;
    let dataset = options.file.file_name().unwrap_or_default().to_string_lossy();
    let about = Measurement { dataset: &dataset, chunks, chunk_tokens: options.context };
    let name = |address| engine.tensor_at(address).filter(|name| !OUTPUTS.contains(name)).map(str::to_owned);
    let matrices = measured.save(&options.output, about, &name)?;
    if program.json {
        return output::json(&json!({
            "path": options.output,
            "matrices": matrices,
            "chunks": chunks,
            "tokens": chunks * options.context,
            "seconds": started.elapsed().as_secs_f64(),
        }));
    }
    output::line(&format!(
        "{}: {matrices} matrices, measured over {chunks} x {} tokens",
        options.output.display(),
        options.context
    ))
}

/// Only computed for the last token of a chunk, which says little.
const OUTPUTS: &[&str] = &["output.weight", "token_embd.weight"];

/// The model with all layers on a host that records, in full precision.
fn open(path: &Path, context: u32, threads: usize, cancel: &Cancel) -> Result<(Engine, Measured), Failure> {
    let config = CpuConfig { threads, precision: Precision::Exact, simd: None };
    let cpu = CpuDevice::new(Arc::new(ThreadPool::new(threads)), config);
    let (host, measured) = Recorder::new(Box::new(cpu));
    let devices = Devices { host: Box::new(host), accelerators: Vec::new() };
    let options = LoadOptions { context, ..LoadOptions::default() };
    Ok((Engine::load(path, options, devices, &mut |_| {}, cancel)?, measured))
}

/// Computes the text in chunks, each from an empty cache; returns their number. What fills no chunk is left out.
fn run(engine: &Engine, ids: &[u32], options: &Measure, cancel: &Cancel) -> Result<u32, Failure> {
    let chunks = ids.chunks_exact(options.context as usize);
    let count = (chunks.len() as u32).min(options.chunks.unwrap_or(u32::MAX));
    if count == 0 {
        let text = format!("the text has {} tokens; at least {} are needed", ids.len(), options.context);
        return Err(Failure::usage(text));
    }
    let bos = engine.tokenizer().bos().filter(|_| engine.tokenizer().adds_bos());
    let started = Instant::now();
    for (done, chunk) in (1..=count).zip(chunks) {
        let mut chunk = chunk.to_vec();
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        let result = engine.logits(&chunk, Positions::Last, cancel, &mut |_| {});
        if let Err(error) = result {
            output::progress("");
            return Err(error.into());
        }
        let left = started.elapsed().as_secs_f64() / f64::from(done) * f64::from(count - done);
        output::progress(format!("{done}/{count}, {} left", output::duration(left.ceil() as u64)));
    }
    output::progress("");
    Ok(count)
}
