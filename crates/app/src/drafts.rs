//! A smaller installed model that guesses for another one: which can, and loading it.

use crate::app::{App, blocking};
use crate::error::Result;
use crate::library::{Folders, Library};
use crate::session::Loading;
use crate::wire::{ErrorCode, LoadSettings, WireError};
use engine::{Cancel, Devices, Engine, LoadOptions};
use model::Model;
use planner::{Facts, Fits, Wishes};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which model guesses for one that is loaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Draft {
    /// The settings' own ([`LoadSettings::draft`]). Where it cannot be used, the model is loaded without it and says why.
    #[default]
    AsSet,
    None,
    /// This file, or the model is not loaded.
    File(PathBuf),
}

/// A draft model's file and what its header says.
#[derive(Clone)]
pub(crate) struct Found {
    pub path: PathBuf,
    pub model: Arc<Model>,
    /// Without it the model is not loaded.
    pub needed: bool,
}

impl App {
    /// Ids of the installed models that can guess for this one: smaller, and their tokens mean the same. Takes a moment
    /// the first time, for the vocabularies are compared.
    ///
    /// # Errors
    /// [`ErrorCode::FileMissing`] if there is no such model any more.
    pub async fn draft_models(self: &Arc<Self>, model_id: String) -> Result<Vec<String>> {
        let app = self.clone();
        blocking(move || {
            let models = app.library.list(&app.folders())?;
            let model = app.library.get(&app.folders(), &model_id)?;
            let fits = |draft: &Path| app.library.can_draft(Path::new(&model.path), draft);
            let smaller = models.into_iter().filter(|other| other.problem.is_none() && other.bytes < model.bytes);
            Ok(smaller.filter(|other| fits(Path::new(&other.path))).map(|other| other.id).collect())
        })
        .await
    }
}

/// The draft model that is asked for, or why the settings' own cannot be used.
///
/// # Errors
/// The file that must be used cannot be.
pub(crate) fn find(
    library: &Library,
    folders: &Folders,
    settings: &LoadSettings,
    loading: &Loading,
) -> Result<(Option<Found>, Option<WireError>)> {
    let described = |path: &Path, needed| Ok(Found { path: path.to_owned(), model: library.describe(path)?, needed });
    let id = match &loading.draft {
        Draft::None => None,
        Draft::File(path) => return Ok((Some(described(path, true)?), None)),
        Draft::AsSet => settings.draft.as_deref(),
    };
    let Some(id) = id else { return Ok((None, None)) };
    let missing = |error: WireError| match error.code {
        ErrorCode::FileMissing => WireError::new(ErrorCode::DraftMissing, error.message),
        _ => error,
    };
    let found = library.get(folders, id).and_then(|installed| described(Path::new(&installed.path), false));
    Ok(match found {
        Ok(found) => (Some(found), None),
        Err(error) => (None, Some(missing(error))),
    })
}

/// The plan for a model and its draft model. One that need not be used is left out where only it has no room.
///
/// # Errors
/// As [`planner::plan_with_draft`].
pub(crate) fn plan(
    model: &Model,
    draft: &mut Option<Found>,
    problem: &mut Option<WireError>,
    facts: &Facts,
    wishes: &Wishes,
) -> Result<planner::Plan> {
    let Some(found) = draft else { return Ok(planner::plan(model, facts, wishes)?) };
    let with = planner::plan_with_draft(model, Some(&found.model), facts, wishes).map_err(WireError::from);
    if found.needed || with.as_ref().is_ok_and(|plan| plan.fits != Fits::No) {
        return with;
    }
    let alone = planner::plan(model, facts, wishes)?;
    let why = match with {
        // The draft model is not to blame.
        Ok(with) if alone.fits == Fits::No => return Ok(with),
        Ok(with) => {
            let (needed, free) = (with.host_total(), facts.ram_available);
            let text = format!("with a draft model {needed} bytes of RAM are needed; {free} are free");
            WireError::new(ErrorCode::RamFull, text).numbers(needed, free)
        }
        Err(error) => error,
    };
    (*draft, *problem) = (None, Some(why));
    Ok(alone)
}

/// Loads the draft model as planned.
///
/// # Errors
/// [`ErrorCode::DraftVocabulary`], and as [`Engine::load`].
pub(crate) fn attach(
    engine: &Engine,
    found: &Found,
    planned: &planner::Draft,
    loading: &Loading,
    devices: Devices,
    cancel: &Cancel,
) -> Result<()> {
    let options = LoadOptions {
        context: planned.layout.params.context,
        gpu_layers: planned.gpu_layers.into(),
        ubatch: planned.layout.params.ubatch,
        mmap: loading.mmap,
        mlock: loading.mlock,
        ..LoadOptions::default()
    };
    Ok(engine.set_draft(Engine::load(&found.path, options, devices, &mut |_| {}, cancel)?)?)
}
