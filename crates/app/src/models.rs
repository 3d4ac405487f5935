//! Commands about the loaded model: plan, load, slider.

use crate::app::{App, Slot, blocking, lock};
use crate::drafts;
use crate::error::Result;
use crate::library::{id_of, name_of};
use crate::machine::threads;
use crate::plans;
use crate::session::{LoadRequest, Loading, Session};
use crate::wire::{
    AppEvent, ErrorCode, GpuLayers, LoadSettings, LoadStage, ModelState, Plan, RecoveryNotice, WireError,
};
use engine::Cancel;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// While layers move, the window hears of them this often at most.
const FOLLOW: Duration = Duration::from_millis(50);

impl App {
    /// The plan for an installed model; the window asks for it at every step of the slider.
    pub async fn plan(self: &Arc<Self>, model_id: String, settings: LoadSettings) -> Result<Plan> {
        let app = self.clone();
        check(&settings)?;
        blocking(move || {
            let folders = app.folders();
            let model = PathBuf::from(app.library.get(&folders, &model_id)?.path);
            let facts = app.facts_of(&model);
            // One that cannot be used is not loaded either.
            let (draft, _) = drafts::find(&app.library, &folders, &settings, &Loading::default())?;
            let draft = draft.as_ref().map(|draft| &*draft.model);
            plans::plan(&*app.library.describe(&model)?, draft, &facts, &settings)
        })
        .await
    }

    pub fn model_state(&self) -> ModelState {
        match &*lock(&self.slot) {
            Slot::None => ModelState::None,
            Slot::Loading { model_id, name, stage, progress, .. } => {
                let (model_id, name) = (model_id.clone(), name.clone());
                ModelState::Loading { model_id, name, stage: *stage, progress: *progress }
            }
            Slot::Ready(session) => ModelState::Ready { loaded: session.shown() },
            Slot::Failed { model_id, name, error } => {
                ModelState::Failed { model_id: model_id.clone(), name: name.clone(), error: error.clone() }
            }
        }
    }

    /// # Errors
    /// [`ErrorCode::NoModelLoaded`]
    pub fn session(&self) -> Result<Arc<Session>> {
        match &*lock(&self.slot) {
            Slot::Ready(session) => Ok(session.clone()),
            _ => Err(WireError::new(ErrorCode::NoModelLoaded, "no model is loaded: load one in Headroom")),
        }
    }

    pub(crate) fn model_changed(&self) {
        self.emit(AppEvent::Model { state: self.model_state() });
    }

    /// The test device of the loaded model, to make it fail; for tests.
    pub fn test_device_control(&self) -> Option<backend_cpu::TestDeviceControl> {
        lock(&self.session().ok()?.test_control).clone()
    }

    fn set_slot(&self, slot: Slot) {
        let before = std::mem::replace(&mut *lock(&self.slot), slot);
        // Freeing a model takes a moment; nobody shall wait for the lock meanwhile.
        drop(before);
        self.model_changed();
    }

    /// Loads a model in the place of the one that is loaded; returns when it can be used. An answer that is being
    /// written is ended first, and a load under way is cancelled.
    pub async fn model_load(self: &Arc<Self>, model_id: String, settings: LoadSettings) -> Result<()> {
        check(&settings)?;
        self.model_load_cancel();
        let _one_at_a_time = self.loading.lock().await;
        self.leave_disk_alone();
        let app = self.clone();
        let id = model_id.clone();
        let installed = blocking(move || app.library.get(&app.folders(), &id)).await?;
        let (name, path) = (installed.name.clone(), PathBuf::from(&installed.path));
        let cancel = Cancel::new();
        let before = self.session().ok();
        self.set_slot(Slot::Loading {
            model_id: model_id.clone(),
            name: name.clone(),
            stage: LoadStage::Layers,
            progress: 0.0,
            cancel: cancel.clone(),
        });
        // No other one begins now.
        self.end_answer().await;
        let app = self.clone();
        let loaded = blocking(move || {
            before.inspect(|session| app.park(session, None, Some(&cancel)));
            app.choose_gpus();
            let mut last = Instant::now();
            let mut progress = |now: LoadStage, share: f32| {
                let mut another = false;
                if let Slot::Loading { stage, progress, .. } = &mut *lock(&app.slot) {
                    another = *stage != now;
                    (*stage, *progress) = (now, share);
                }
                // A module of kernels may be all there is to tell for a while.
                if another || last.elapsed() >= Duration::from_millis(100) {
                    last = Instant::now();
                    app.model_changed();
                }
            };
            let loaded = app.open_model(&path, settings.clone(), Loading::default(), &mut progress, &cancel)?;
            if let Err(error) = app.library.mark_used(&model_id) {
                tracing::warn!("{error}");
            }
            app.remember_load(model_id, settings);
            Ok(loaded)
        });
        match loaded.await {
            Ok((session, notices)) => {
                self.set_slot(Slot::Ready(Arc::new(session)));
                notices.into_iter().for_each(|notice| self.emit(AppEvent::Recovery { notice }));
                self.emit(AppEvent::Library);
                let app = self.clone();
                blocking(move || {
                    app.measure_disk();
                    Ok(())
                })
                .await
            }
            Err(error) if error.code == ErrorCode::Cancelled => {
                self.set_slot(Slot::None);
                Err(error)
            }
            Err(error) => {
                let failed = Slot::Failed { model_id: installed.id, name, error: error.clone() };
                self.set_slot(failed);
                Err(error)
            }
        }
    }

    /// Loads a model for the caller alone, where nothing else is loaded; blocks. Recoveries while loading are given back.
    ///
    /// # Errors
    /// The file or the model cannot be used, or there is no room.
    pub fn open_model(
        &self,
        path: &Path,
        settings: LoadSettings,
        loading: Loading,
        progress: &mut dyn FnMut(LoadStage, f32),
        cancel: &Cancel,
    ) -> Result<(Session, Vec<RecoveryNotice>)> {
        check(&settings)?;
        let threads = {
            let settings = lock(&self.settings);
            let wanted = loading.threads.or(settings.threads);
            threads(wanted, settings.leave_responsive && loading.threads.is_none())
        };
        let (draft, draft_problem) = drafts::find(&self.library, &self.folders(), &settings, &loading)?;
        let request = LoadRequest {
            model_id: id_of(path),
            name: name_of(path),
            model: self.library.describe(path)?,
            draft,
            draft_problem,
            path: path.to_owned(),
            settings,
            machine: self.machine.clone(),
            threads,
            loading,
        };
        Session::load(request, progress, cancel)
    }

    /// A model that was opened by [`App::open_model`] is the loaded one from now on.
    pub fn take_in(&self, session: Session) {
        self.set_slot(Slot::Ready(Arc::new(session)));
    }

    /// Keeps with which settings a model was loaded. A disk too full for that is no reason not to use the model.
    fn remember_load(&self, model_id: String, settings: LoadSettings) {
        let mut current = lock(&self.settings);
        current.load.insert(model_id, settings);
        if let Err(error) = self.owner().and_then(|owner| owner.settings_file.save(&current)) {
            tracing::warn!("the load settings cannot be kept: {error}");
        }
    }

    pub fn model_load_cancel(&self) {
        if let Slot::Loading { cancel, .. } = &*lock(&self.slot) {
            cancel.cancel();
        }
    }

    pub async fn model_unload(self: &Arc<Self>) -> Result<()> {
        self.model_load_cancel();
        let _one_at_a_time = self.loading.lock().await;
        self.leave_disk_alone();
        let before = self.session().ok();
        self.set_slot(Slot::None);
        // No other one begins now.
        self.end_answer().await;
        let app = self.clone();
        blocking(move || {
            before.inspect(|session| app.park(session, None, None));
            Ok(())
        })
        .await
    }

    /// Moves layers and experts of the loaded model, also while an answer is being written.
    /// `cpu_moe`: [`LoadSettings::cpu_moe`].
    pub async fn set_gpu_layers(self: &Arc<Self>, layers: GpuLayers, cpu_moe: Option<u32>) -> Result<ModelState> {
        let session = self.session()?;
        let state = || {
            let placement = session.engine.placement();
            (placement.gpu_layers, placement.cpu_moe, session.compiling())
        };
        let mut told = state();
        let (app, moved) = (self.clone(), session.clone());
        let mut moving = std::pin::pin!(blocking(move || {
            let notice = moved.place(layers, cpu_moe)?;
            let settings = moved.shown().settings;
            app.remember_load(moved.model_id.clone(), settings);
            // Moves that found no room are told here, once; the engine's own list of them is not needed then.
            if !app.is_answering() {
                moved.engine.take_recoveries()?;
                if let Some(notice) = notice {
                    app.emit(AppEvent::Recovery { notice });
                }
            }
            Ok(())
        }));
        let moved = loop {
            if let Ok(result) = tokio::time::timeout(FOLLOW, &mut moving).await {
                break result;
            }
            let now = state();
            if now != told {
                told = now;
                self.model_changed();
            }
        };
        self.model_changed();
        moved.map(|()| self.model_state())
    }
}

/// Refuses what nothing can be planned with.
pub(crate) fn check(settings: &LoadSettings) -> Result<()> {
    if settings.context.is_some_and(|context| context == 0 || context > 1 << 24) {
        return Err(WireError::bad_argument("context", "the context goes from 1 to 16777216 tokens"));
    }
    Ok(())
}
