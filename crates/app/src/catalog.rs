//! Commands about what can be had: the library, the Hub and downloads.

use crate::app::{App, AppConfig, Slot, blocking, lock};
use crate::discover::Installed;
use crate::error::Result;
use crate::library::{Folders, first_part};
use crate::opened::unusable;
use crate::wire::*;
use crate::{models, settings};
use hub::{Hub, HubConfig, Secret};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Makes Hub clients as the settings are now.
pub(crate) struct HubSource {
    pub endpoint: Mutex<String>,
    pub token: Mutex<Option<String>>,
    pub cache_dir: Option<PathBuf>,
}

impl HubSource {
    pub fn hub(&self) -> Result<Hub> {
        let endpoint = lock(&self.endpoint).clone();
        let mut config = HubConfig::new(settings::endpoint_url(&endpoint)?);
        let own = lock(&self.token).clone().map(Secret::new);
        config.token = own.or_else(|| self.cache_dir.as_deref().and_then(hub::token_from_cache));
        config.cache_dir = self.cache_dir.clone();
        Ok(Hub::new(config)?)
    }
}
impl App {
    pub(crate) fn folders(&self) -> Folders {
        folders(&self.config, &lock(&self.settings))
    }

    pub async fn library(self: &Arc<Self>) -> Result<Vec<InstalledModel>> {
        let app = self.clone();
        blocking(move || app.library.list(&app.folders())).await
    }

    /// The installed model that a person means: by id, name, "owner/name" or "owner/name:QUANT".
    pub async fn library_named(self: &Arc<Self>, wanted: String) -> Result<InstalledModel> {
        let app = self.clone();
        blocking(move || app.library.named(&app.folders(), &wanted)).await
    }

    /// Deletes a model of our own folder.
    pub async fn library_remove(self: &Arc<Self>, id: String) -> Result<()> {
        let app = self.clone();
        blocking(move || {
            app.owner()?;
            let in_use = match &*lock(&app.slot) {
                Slot::Loading { model_id, .. } => *model_id == id,
                Slot::Ready(session) => session.uses(&id),
                _ => false,
            };
            if in_use {
                return Err(WireError::new(ErrorCode::Busy, "the model is loaded: unload it first"));
            }
            app.library.remove(&app.folders(), &id)?;
            app.emit(AppEvent::Library);
            Ok(())
        })
        .await
    }

    /// Where a model lies, for the file manager.
    pub async fn library_path(self: &Arc<Self>, id: String) -> Result<PathBuf> {
        let app = self.clone();
        blocking(move || Ok(app.library.get(&app.folders(), &id)?.path.into())).await
    }

    /// Shows a GGUF file or a folder of them in the library, where it lies.
    pub async fn library_add(self: &Arc<Self>, path: PathBuf) -> Result<()> {
        let path = first_part(path);
        let Some(text) = path.to_str().map(str::to_owned) else { return Err(unusable(&path)) };
        let mut settings = self.settings_get();
        if !settings.extra_folders.contains(&text) {
            settings.extra_folders.push(text);
            self.settings_set(settings).await?;
        }
        Ok(())
    }

    async fn installed(self: &Arc<Self>) -> Result<Installed> {
        let models = self.library().await?;
        let mut installed = Installed::new();
        for InstalledModel { repo, quant, name, id, .. } in models {
            let Some(repo) = repo else { continue };
            // By its name, too: where several models of a repository have one quantization, they are chosen by name.
            for called in quant.into_iter().chain([name]) {
                installed.insert((repo.clone(), called), id.clone());
            }
        }
        Ok(installed)
    }

    // Hub

    pub fn hub_recommended(&self) -> HubPage {
        self.discover.recommended()
    }

    pub async fn hub_search(&self, query: HubQuery) -> Result<HubPage> {
        self.discover.search(&self.hub.hub()?, query).await
    }

    pub async fn hub_model(self: &Arc<Self>, repo: String) -> Result<HubModelPage> {
        let (facts, installed) = (self.facts().await?, self.installed().await?);
        self.discover.model(&self.hub.hub()?, &repo, &facts, &installed).await
    }

    pub async fn hub_plan(
        self: &Arc<Self>,
        repo: String,
        commit: String,
        quant: String,
        settings: LoadSettings,
    ) -> Result<QuantRow> {
        models::check(&settings)?;
        let (facts, installed) = (self.facts().await?, self.installed().await?);
        let which = (repo.as_str(), commit.as_str(), quant.as_str());
        self.discover.plan(&self.hub.hub()?, which, &settings, &facts, &installed).await
    }

    /// What the plan for a model of our own folder depends on, as it is now.
    pub async fn facts(self: &Arc<Self>) -> Result<planner::Facts> {
        let app = self.clone();
        blocking(move || Ok(app.facts_of(&app.folders().models))).await
    }

    /// The same for a model that lies somewhere.
    pub(crate) fn facts_of(&self, model: &Path) -> planner::Facts {
        self.session().map_or_else(|_| self.machine.facts(0, model), |session| session.facts_of(model))
    }

    /// What the header of a model on the Hub says. `wanted`: a quantization or a file's path.
    pub async fn hub_describe(&self, repo: &str, wanted: &str) -> Result<Arc<model::Model>> {
        self.discover.describe(&self.hub.hub()?, repo, wanted).await
    }

    // Downloads

    pub fn downloads(&self) -> Vec<Download> {
        self.downloads.list()
    }

    pub async fn download_start(self: &Arc<Self>, repo: String, commit: String, quant: String) -> Result<Download> {
        self.owner()?;
        let choice = self.discover.choice(&self.hub.hub()?, &repo, &commit, &quant).await?;
        let target_dir = repo.split('/').fold(self.folders().models, |folder, part| folder.join(part));
        let request = hub::DownloadRequest { repo, commit, files: choice.files, target_dir };
        let downloads = self.downloads.clone();
        blocking(move || downloads.start(request, &choice.quant)).await
    }

    pub async fn download_pause(&self, id: String) -> Result<()> {
        let downloads = self.downloads.clone();
        blocking(move || downloads.pause(&id)).await
    }

    pub async fn download_resume(&self, id: String) -> Result<()> {
        let downloads = self.downloads.clone();
        blocking(move || downloads.resume(&id)).await
    }

    pub async fn download_cancel(&self, id: String) -> Result<()> {
        let downloads = self.downloads.clone();
        blocking(move || downloads.cancel(&id)).await
    }
}

pub(crate) fn folders(config: &AppConfig, settings: &Settings) -> Folders {
    Folders {
        models: settings.models_folder.as_ref().map_or_else(|| config.models_dir.clone(), PathBuf::from),
        extra: settings.extra_folders.iter().map(PathBuf::from).collect(),
        hf_cache: config.hf_cache_dir.clone().filter(|_| settings.use_hf_cache),
        bundled: config.bundled_models.clone(),
    }
}
