//! `headroom list`, `remove`

use crate::args::Remove;
use crate::failure::Failure;
use crate::output;
use crate::program::Program;
use app::wire::{ErrorCode, InstalledModel, ModelSource, WireError};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;

pub fn list(program: &Program) -> Result<(), Failure> {
    let models = program.wait(program.visit(None)?.library())?;
    if program.json {
        return output::json(&json!({ "models": models.iter().map(model).collect::<Vec<_>>() }));
    }
    if models.is_empty() {
        output::note("no models yet: `headroom search` finds some, `headroom pull` fetches one");
    }
    for model in &models {
        let about = match &model.problem {
            // Which are supported is said where one is asked for.
            Some(WireError { code: ErrorCode::ModelUnsupported, subject: Some(architecture), .. }) => {
                format!("not supported yet: {architecture}")
            }
            Some(problem) => format!("cannot be used: {problem}"),
            None => model.architecture.clone().unwrap_or_default(),
        };
        output::line(&format!("{:48} {:>10}  {}  {about}", model.name, output::size(model.bytes), source(model)))?;
    }
    Ok(())
}

fn source(model: &InstalledModel) -> &'static str {
    match model.source {
        ModelSource::Library => "library",
        ModelSource::Folder => "folder",
        ModelSource::HfCache => "hf-cache",
        ModelSource::Bundled => "bundled",
    }
}

fn model(model: &InstalledModel) -> Value {
    json!({
        "id": model.id,
        "name": model.name,
        "path": model.path,
        "source": source(model),
        "repo": model.repo,
        "quant": model.quant,
        "architecture": model.architecture,
        "parameters": model.parameters,
        "bytes": model.bytes,
        "context_length": model.context_max,
        "layers": model.layers,
        "problem": model.problem.as_ref().map(|problem| problem.message.clone()),
    })
}

pub fn remove(program: &Program, options: &Remove) -> Result<(), Failure> {
    let app = program.own(Arc::new(|_| {}))?;
    let model = program.wait(app.library_named(options.model.clone()))?;
    if model.source != ModelSource::Library {
        let text = format!("{} lies outside of Headroom's own folder, where nothing is deleted", model.path);
        return Err(Failure::usage(text));
    }
    if !options.yes && !confirmed(&model)? {
        return Err(Failure::new("cancelled", "nothing was deleted"));
    }
    program.wait(app.library_remove(model.id.clone()))?;
    if program.json {
        return output::json(&json!({
            "id": model.id,
            "name": model.name,
            "path": model.path,
            "bytes_freed": model.bytes,
        }));
    }
    output::line(&format!("{} is deleted, {} are free again", model.name, output::size(model.bytes)))
}

fn confirmed(model: &InstalledModel) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is there to be asked: delete with --yes"));
    }
    let _ = write!(std::io::stderr(), "Delete {} ({})? [y/N] ", model.path, output::size(model.bytes));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::new("io", error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
