//! Compares quantizers, tokenizers, templates and whole models with reference data in a directory, and says by how much
//! each differs.

mod compare;
mod dequant;
mod models;
mod quants;
mod report;
mod run;
mod safetensors;
mod templates;
mod tokenizers;

use anyhow::{Context, Result, anyhow, bail};
use report::Report;
use std::path::{Path, PathBuf};

type Group = fn(&Path, &mut Report) -> Result<()>;

const GROUPS: &[(&str, Group)] = &[
    ("dequant", dequant::check),
    ("tokenizer", tokenizers::check),
    ("templates", templates::check),
    ("models", |directory, report| models::check(directory, None, report)),
    ("quants", quants::check),
];

/// Compares as the arguments say: `DIR [--only GROUP] [--strict] [--gpu]`. False if something differs by more than it may.
///
/// # Errors
/// The arguments make no sense, there is no data, or no GPU where one is wanted.
pub fn run(mut arguments: impl Iterator<Item = String>) -> Result<bool> {
    let directory = PathBuf::from(arguments.next().context("conformance DIR [--only GROUP] [--strict] [--gpu]")?);
    let mut only: Option<String> = None;
    let (mut strict, mut gpu) = (false, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => only = Some(arguments.next().context("--only needs a group")?),
            // What is not supported yet counts as a failure.
            "--strict" => strict = true,
            // Whole models, with their layers on the GPU.
            "--gpu" => gpu = true,
            other => bail!("unknown argument {other}"),
        }
    }
    if !directory.is_dir() {
        bail!("{} is not a directory", directory.display());
    }
    let mut report = Report::default();
    if gpu {
        let card = backend_cuda::Card::open(0).map_err(|absent| anyhow!("no GPU can be used: {absent:?}"))?;
        models::check(&directory, Some(&card), &mut report)?;
        return Ok(report.close(strict));
    }
    let mut found = false;
    for (name, group) in GROUPS {
        let folder = if *name == "models" { "ref" } else { name };
        if only.as_deref().is_none_or(|only| only == *name) && directory.join(folder).is_dir() {
            found = true;
            group(&directory, &mut report)?;
        }
    }
    if !found {
        bail!("{} holds none of dequant, tokenizer, templates, ref, quants", directory.display());
    }
    Ok(report.close(strict))
}

pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

pub(crate) fn read_f32(path: &Path) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
