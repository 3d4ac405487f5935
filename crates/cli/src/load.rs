//! Finding a model and loading it as the flags say.

use crate::args::{Loading, Speculating};
use crate::failure::Failure;
use crate::output;
use crate::program::Program;
use app::wire::{Compiling, ErrorCode, LoadStage};
use app::{App, Session};
use engine::{Cancel, Drafting, Speculation};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    pub app: Arc<App>,
    pub session: Session,
    pub seconds: f64,
}

/// What a command wants of a model besides what the flags say.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Where the flags say nothing.
    pub context: Option<u32>,
    /// Logits computed at once.
    pub rows: u32,
    /// For commands that generate: when to guess tokens where the flags do not say.
    pub speculating: Option<(&'a Speculating, Drafting)>,
}

/// Loads a model where the planner puts it.
pub fn load(
    program: &Program,
    model: &str,
    loading: &Loading,
    wanted: Wanted<'_>,
    cancel: &Cancel,
) -> Result<Loaded, Failure> {
    let Wanted { context, rows, speculating } = wanted;
    let speculation = speculating.map_or(Speculation::OFF, |(flags, default)| flags.speculation(default));
    // One that is never asked need not be loaded.
    let draft = speculating.filter(|_| speculation.drafting != Drafting::Never);
    let draft = draft.and_then(|(flags, _)| flags.draft_model.as_deref());
    let draft = draft.map(|draft| find(program, draft)).transpose()?;
    let path = find(program, model)?;
    let app = program.visit(loading.test_device)?;
    let mut settings = loading.placement.settings();
    settings.context = settings.context.or(context.map(|context| context.max(1)));
    let how = app::Loading {
        threads: loading.threads,
        ubatch: loading.ubatch,
        logits_rows: rows,
        exact: loading.exact,
        simd: loading.simd,
        mmap: !loading.no_mmap,
        mlock: loading.mlock,
        speculation,
        draft: draft.map_or(app::Draft::None, app::Draft::File),
    };
    let started = Instant::now();
    let mut shown = false;
    let mut progress = |stage: LoadStage, share: f32| {
        // Most models are there before anybody could read it.
        if started.elapsed() > Duration::from_secs(1) {
            output::progress(match stage {
                LoadStage::Compiling(Compiling { done, of }) => {
                    format!("the driver compiles the GPU's kernels, this time only: {done} of {of}")
                }
                LoadStage::Layers => format!("loading {:.0} %", share * 100.0),
            });
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
        let (on, of) = (notice.gpu_layers, notice.layers);
        if notice.layers_shifted > 0 && notice.layers_moved + notice.experts_moved == 0 {
            output::note(format!(
                "{on} of {of} layers are on the GPU, {} on another than planned",
                notice.layers_shifted
            ));
            continue;
        }
        let what = output::moved(&notice);
        output::note(format!("{on} of {of} layers are on the GPU: there was no room for {what}"));
    }
    Ok(Loaded { app, session, seconds })
}

/// Threads for work that may take all of the machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}
