//! Finding a model and loading it as the flags say.

use crate::args::Loading;
use crate::failure::Failure;
use crate::output;
use crate::program::Program;
use app::Session;
use app::wire::ErrorCode;
use engine::Cancel;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file that MODEL means: a path, or the name or id of an installed model.
pub fn find(program: &Program, model: &str) -> Result<PathBuf, Failure> {
    if Path::new(model).exists() {
        return Ok(model.into());
    }
    match installed(program, model)? {
        Some(path) => Ok(path),
        None => Err(Failure::new(
            "not-found",
            format!("'{model}' is neither a file nor an installed model: see `headroom list`, or `headroom pull` it"),
        )),
    }
}

/// Where the installed model of this name lies, if there is one.
pub fn installed(program: &Program, model: &str) -> Result<Option<PathBuf>, Failure> {
    let app = program.visit(None)?;
    match program.block_on(app.library_named(model.to_owned())) {
        Ok(model) => Ok(Some(model.path.into())),
        Err(error) if error.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub fn header(program: &Program, model: &str) -> Result<gguf::Gguf, Failure> {
    Ok(weights::read_header(&find(program, model)?)?)
}

/// A loaded model and how long that took.
pub struct Loaded {
    pub session: Session,
    pub seconds: f64,
}

/// Loads a model where the planner puts it. `context`: where the flags say nothing; `rows`: logits computed at once.
pub fn load(
    program: &Program,
    model: &str,
    loading: &Loading,
    context: Option<u32>,
    rows: u32,
    cancel: &Cancel,
) -> Result<Loaded, Failure> {
    let path = find(program, model)?;
    let app = program.visit(loading.test_device)?;
    let mut settings = loading.placement.settings();
    settings.context = settings.context.or(context.map(|context| context.max(1)));
    let how = app::Loading {
        threads: loading.threads,
        ubatch: loading.ubatch,
        logits_rows: rows,
        exact: loading.exact,
        mmap: !loading.no_mmap,
        mlock: loading.mlock,
    };
    let started = Instant::now();
    let mut shown = false;
    let mut progress = |share: f32| {
        // Most models are there before anybody could read it.
        if started.elapsed() > Duration::from_secs(1) {
            output::progress(format!("loading {:.0} %", share * 100.0));
            shown = true;
        }
    };
    let loaded = app.open_model(&path, settings, how, &mut progress, cancel);
    let seconds = started.elapsed().as_secs_f64();
    if shown {
        output::progress("");
    }
    let (session, notices) = loaded?;
    for notice in notices {
        output::note(format!(
            "{} of {} layers are on the GPU: there was no room for {} more",
            notice.gpu_layers, notice.layers, notice.layers_moved
        ));
    }
    Ok(Loaded { session, seconds })
}

/// Threads for work that may take all of the machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}
