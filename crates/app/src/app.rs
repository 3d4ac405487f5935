//! The app: what holds everything together. One method per command of the window; see also `models.rs` and `talk.rs`.

use crate::chats::Chats;
use crate::discover::{Discover, Installed};
use crate::downloads::Downloads;
use crate::error::Result;
use crate::library::{Folders, Library};
use crate::machine::Machine;
use crate::memory::{Disk, Room};
use crate::memory_files::MemoryFolder;
use crate::session::Session;
use crate::settings::{self, SettingsFile};
use crate::store::Store;
use crate::wire::*;
use engine::Cancel;
use hub::{Hub, HubConfig, Secret};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Everything that the app is told; it asks nobody else.
pub struct AppConfig {
    /// Settings, chats, downloads; made if it is not there.
    pub data_dir: PathBuf,
    /// Where downloads go unless the settings say otherwise.
    pub models_dir: PathBuf,
    /// The Hub's address for this run, before the settings (--endpoint).
    pub endpoint: Option<String>,
    /// The Hub's address where the settings name none (HF_ENDPOINT); null: the public one.
    pub hf_endpoint: Option<String>,
    /// A token for this run (HF_TOKEN); one stored by the user comes first, the one beside the cache last.
    pub token: Option<String>,
    pub hf_cache_dir: Option<PathBuf>,
    pub bundled_models: Vec<PathBuf>,
    /// RAM for what the model remembers of chats that are not answered, in bytes; `None`: a part of what the plan leaves.
    pub chat_ram: Option<u64>,
    /// Offers a test device of so many bytes that takes layers.
    pub test_device: Option<u64>,
    /// Its operation after so many finds no room, once for each model that is loaded.
    pub test_device_fails: Option<u64>,
    /// Take layers to an NVIDIA GPU where there is one; without it no driver is asked for anything but figures.
    pub use_gpu: bool,
    pub system_language: Language,
    pub events: Arc<dyn Fn(AppEvent) + Send + Sync>,
    /// Where background work runs; it must have its I/O and time drivers.
    pub runtime: tokio::runtime::Handle,
}

pub struct App {
    pub(crate) config: AppConfig,
    owner: Option<Owner>,
    pub(crate) settings: Mutex<Settings>,
    pub(crate) chats: Chats,
    pub(crate) library: Library,
    pub(crate) machine: Arc<Machine>,
    discover: Discover,
    downloads: Downloads,
    hub: Arc<HubSource>,
    pub(crate) slot: Mutex<Slot>,
    /// One load or unload at a time.
    pub(crate) loading: tokio::sync::Mutex<()>,
    pub(crate) answer: Mutex<Option<RunningAnswer>>,
    monitoring: Arc<AtomicBool>,
    interrupted_chat: Option<String>,
    /// Damaged files of ours under their new names.
    kept_aside: Vec<PathBuf>,
    open_chat: Mutex<Option<String>>,
}

/// What only the program has that owns the data folder.
pub(crate) struct Owner {
    pub settings_file: SettingsFile,
    pub memory: MemoryFolder,
    /// Held while the app runs, so that no other program works on the same data.
    _lock: File,
}

/// The loaded model.
pub(crate) enum Slot {
    None,
    Loading { model_id: String, name: String, progress: f32, cancel: Cancel },
    Ready(Arc<Session>),
    Failed { model_id: String, name: String, error: WireError },
}

pub(crate) struct RunningAnswer {
    pub chat: String,
    pub cancel: Cancel,
}

/// Makes Hub clients as the settings are now.
struct HubSource {
    endpoint: Mutex<String>,
    token: Mutex<Option<String>>,
    cache_dir: Option<PathBuf>,
}

impl HubSource {
    fn hub(&self) -> Result<Hub> {
        let endpoint = lock(&self.endpoint).clone();
        let mut config = HubConfig::new(settings::endpoint_url(&endpoint)?);
        let own = lock(&self.token).clone().map(Secret::new);
        config.token = own.or_else(|| self.cache_dir.as_deref().and_then(hub::token_from_cache));
        config.cache_dir = self.cache_dir.clone();
        Ok(Hub::new(config)?)
    }
}

impl App {
    /// Opens the data folder and goes on with what was left: downloads run again, a cut answer is marked.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`] if another program has the folder open; a folder that cannot be used.
    pub fn open(config: AppConfig) -> Result<Arc<App>> {
        let app = App::own(config)?;
        app.downloads.go_on();
        Ok(app)
    }

    /// Like [`App::open`], for a program that does one thing and ends: downloads are left as they are.
    ///
    /// # Errors
    /// As [`App::open`].
    pub fn own(config: AppConfig) -> Result<Arc<App>> {
        let folder = config.data_dir.clone();
        let folder = folder.as_path();
        std::fs::create_dir_all(folder).map_err(|error| WireError::file(folder, &error))?;
        let lock_file = exclusive(&folder.join("headroom.lock"))?;
        let settings_file = SettingsFile::new(folder);
        let ((settings, old_settings), token) = (settings_file.load()?, settings_file.token()?);
        let (store, old_store) = Store::open(&folder.join("headroom.db"))?;
        let (chats, interrupted) = Chats::open(Arc::new(store))?;
        let memory = MemoryFolder::open(folder, &chats.ids()?);
        let owner = Owner { settings_file, memory, _lock: lock_file };
        let kept_aside = old_settings.into_iter().chain(old_store).collect();
        App::new(config, settings, token, (chats, interrupted), Some(owner), kept_aside)
    }

    /// A guest in the data folder: it sees settings, library and what was measured, and may keep new measurements, but
    /// its chats are only in memory. Works also while another program owns the folder; what would change it is
    /// [`ErrorCode::Busy`].
    ///
    /// # Errors
    /// The settings or the token are there and cannot be read.
    pub fn visit(config: AppConfig) -> Result<Arc<App>> {
        let settings_file = SettingsFile::new(&config.data_dir);
        let (settings, token) = (settings_file.peek()?, settings_file.token()?);
        let (chats, interrupted) = Chats::open(Arc::new(Store::in_memory()?))?;
        App::new(config, settings, token, (chats, interrupted), None, Vec::new())
    }

    fn new(
        config: AppConfig,
        settings: Settings,
        token: Option<String>,
        (chats, interrupted_chat): (Chats, Option<String>),
        owner: Option<Owner>,
        kept_aside: Vec<PathBuf>,
    ) -> Result<Arc<App>> {
        let store = chats.store.clone();
        let hub = Arc::new(HubSource {
            endpoint: Mutex::new(endpoint(&config, &settings)),
            token: Mutex::new(token.or_else(|| config.token.clone())),
            cache_dir: config.hf_cache_dir.clone(),
        });
        let source = hub.clone();
        let downloads = Downloads::open(
            store.clone(),
            Arc::new(move || Ok(hub::Downloader::new(source.hub()?))),
            config.events.clone(),
            config.runtime.clone(),
        )?;
        Ok(Arc::new(App {
            machine: Arc::new(Machine::new(&config)),
            owner,
            settings: Mutex::new(settings),
            chats,
            library: Library::new(store),
            discover: Discover::default(),
            downloads,
            hub,
            slot: Mutex::new(Slot::None),
            loading: tokio::sync::Mutex::new(()),
            answer: Mutex::new(None),
            monitoring: Arc::new(AtomicBool::new(false)),
            interrupted_chat,
            kept_aside,
            open_chat: Mutex::new(None),
            config,
        }))
    }

    pub fn startup(self: &Arc<Self>) -> Startup {
        if !self.machine.was_measured() {
            let app = self.clone();
            self.config.runtime.spawn(async move {
                if let Err(error) = app.hardware_measure().await {
                    tracing::warn!("{error}");
                }
            });
        }
        Startup {
            version: env!("CARGO_PKG_VERSION").into(),
            settings: self.settings_get(),
            system_language: self.config.system_language,
            hub_endpoint: self.config.endpoint.clone(),
            hub_endpoint_default: default_endpoint(&self.config),
            model: self.model_state(),
            downloads: self.downloads(),
            open_chat: lock(&self.open_chat).clone(),
            interrupted_chat: self.interrupted_chat.clone(),
            kept_aside: self.kept_aside.iter().map(|path| path.display().to_string()).collect(),
        }
    }

    /// Makes the window show this chat first.
    pub fn show_first(&self, chat: String) {
        *lock(&self.open_chat) = Some(chat);
    }

    pub(crate) fn owner(&self) -> Result<&Owner> {
        let refused = || WireError::new(ErrorCode::Busy, "this program is only a guest in Headroom's data folder");
        self.owner.as_ref().ok_or_else(refused)
    }

    pub(crate) fn emit(&self, event: AppEvent) {
        (self.config.events)(event);
    }

    // Settings

    pub fn settings_get(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Checks, keeps and applies the settings; returns them as they are now.
    pub async fn settings_set(self: &Arc<Self>, settings: Settings) -> Result<Settings> {
        settings::check(&settings)?;
        let app = self.clone();
        blocking(move || {
            let mut current = lock(&app.settings);
            // The token has a command of its own.
            let new = Settings { has_hub_token: current.has_hub_token, ..settings };
            let owner = app.owner()?;
            owner.settings_file.save(&new)?;
            if new.chat_memory < current.chat_memory {
                owner.memory.trim(new.chat_memory, None, &mut Vec::new());
            }
            *lock(&app.hub.endpoint) = endpoint(&app.config, &new);
            let folders_changed = folders(&app.config, &current) != folders(&app.config, &new);
            *current = new.clone();
            drop(current);
            if folders_changed {
                app.emit(AppEvent::Library);
            }
            Ok(new)
        })
        .await
    }

    /// Where what the loaded model remembers of chats can be.
    fn memory_on_disk(&self) -> Option<Disk<'_>> {
        let limit = lock(&self.settings).chat_memory;
        self.owner.as_ref().filter(|_| limit > 0).map(|owner| Disk { folder: &owner.memory, limit })
    }

    /// Has the loaded model remember this chat, and tells which others it had to forget.
    pub(crate) fn turn_to(&self, session: &Session, chat: &str) {
        let ram = self.config.chat_ram.unwrap_or_else(|| session.spare_ram());
        let room = Room { ram, disk: self.memory_on_disk() };
        self.tell_forgotten(session.memories.turn_to(&session.engine, chat, room));
    }

    /// Before a model goes, what it remembers of chats goes to disk. Waits for the disk.
    pub(crate) fn park(&self, session: &Session) {
        if let Some(disk) = self.memory_on_disk() {
            self.tell_forgotten(session.memories.park(&session.engine, Some(disk)));
        }
    }

    fn tell_forgotten(&self, chats: Vec<String>) {
        for chat in chats {
            match self.chats.title(&chat) {
                Ok(Some(title)) => self.emit(AppEvent::Forgotten { chat, title }),
                // It was deleted meanwhile.
                Ok(None) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }

    /// The chat is deleted, and with it what models remember of it.
    pub(crate) fn forget(&self, chat: &str) {
        if let Ok(session) = self.session() {
            session.memories.forget(chat);
        }
        if let Some(owner) = &self.owner {
            owner.memory.remove(chat);
        }
    }

    /// All chats are deleted.
    pub(crate) fn forget_all(&self) {
        if let Ok(session) = self.session() {
            session.memories.forget_all(&session.engine);
        }
        if let Some(owner) = &self.owner {
            owner.memory.trim(0, None, &mut Vec::new());
        }
    }

    pub async fn hub_token_set(self: &Arc<Self>, token: Option<String>) -> Result<Settings> {
        let app = self.clone();
        blocking(move || {
            let file = &app.owner()?.settings_file;
            file.set_token(token.as_deref())?;
            let stored = file.token()?;
            let mut settings = lock(&app.settings);
            settings.has_hub_token = stored.is_some();
            *lock(&app.hub.token) = stored.or_else(|| app.config.token.clone());
            Ok(settings.clone())
        })
        .await
    }

    // Hardware

    pub async fn hardware(self: &Arc<Self>) -> Result<HardwareReport> {
        let app = self.clone();
        blocking(move || Ok(app.machine.report(&app.folders().models))).await
    }

    /// Measures bandwidths again (a few seconds).
    pub async fn hardware_measure(self: &Arc<Self>) -> Result<HardwareReport> {
        let app = self.clone();
        blocking(move || {
            let models = app.folders().models;
            // The folder may not exist before the first download; its parent is on the same disk.
            let disk = models.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned);
            app.machine.measure(disk)?;
            let hardware = app.machine.report(&models);
            app.emit(AppEvent::Hardware { hardware: hardware.clone() });
            if let Ok(session) = app.session() {
                session.measured()?;
                app.model_changed();
            }
            Ok(hardware)
        })
        .await
    }

    /// Sends live figures every second until [`App::monitor_stop`].
    pub fn monitor_start(self: &Arc<Self>) {
        if self.monitoring.swap(true, Ordering::AcqRel) {
            return;
        }
        let app = self.clone();
        self.config.runtime.spawn(async move {
            while app.monitoring.load(Ordering::Acquire) {
                let sampler = app.clone();
                let sample = blocking(move || {
                    let own_vram = sampler.session().ok().map(|session| session.engine.placement().accelerator_used);
                    Ok(sampler.machine.sample(own_vram))
                });
                if let Ok(sample) = sample.await {
                    app.emit(AppEvent::Monitor { sample });
                }
                app.offer_to_move_back().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// Tells when layers that were moved to RAM have room on the GPU again.
    async fn offer_to_move_back(self: &Arc<Self>) {
        let Ok(session) = self.session() else { return };
        match blocking(move || session.can_move_back()).await {
            Ok(Some(notice)) => self.emit(AppEvent::Recovery { notice }),
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    pub fn monitor_stop(&self) {
        self.monitoring.store(false, Ordering::Release);
    }

    // Library

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
                Slot::Ready(session) => session.model_id == id,
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
        let Some(text) = path.to_str().map(str::to_owned) else {
            return Err(WireError::bad_argument("path", "the path is not Unicode; rename it"));
        };
        let mut settings = self.settings_get();
        if !settings.extra_folders.contains(&text) {
            settings.extra_folders.push(text);
            self.settings_set(settings).await?;
        }
        Ok(())
    }

    async fn installed(self: &Arc<Self>) -> Result<Installed> {
        let models = self.library().await?;
        let key = |model: InstalledModel| Some(((model.repo?, model.quant.unwrap_or(model.name)), model.id));
        Ok(models.into_iter().filter_map(key).collect())
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
        let (facts, installed) = (self.facts().await?, self.installed().await?);
        let which = (repo.as_str(), commit.as_str(), quant.as_str());
        self.discover.plan(&self.hub.hub()?, which, &settings, &facts, &installed).await
    }

    /// What a plan depends on, as it is now.
    pub async fn facts(self: &Arc<Self>) -> Result<planner::Facts> {
        let app = self.clone();
        blocking(move || Ok(app.session().map_or_else(|_| app.machine.facts(0), |session| session.facts_now()))).await
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

/// What was asked for this run comes first, then the settings, then the environment.
fn endpoint(config: &AppConfig, settings: &Settings) -> String {
    let wish = config.endpoint.clone().or_else(|| settings.hub_endpoint.clone());
    wish.unwrap_or_else(|| default_endpoint(config))
}

fn default_endpoint(config: &AppConfig) -> String {
    config.hf_endpoint.clone().unwrap_or_else(|| hub::DEFAULT_ENDPOINT.to_owned())
}

fn folders(config: &AppConfig, settings: &Settings) -> Folders {
    Folders {
        models: settings.models_folder.as_ref().map_or_else(|| config.models_dir.clone(), PathBuf::from),
        extra: settings.extra_folders.iter().map(PathBuf::from).collect(),
        hf_cache: config.hf_cache_dir.clone().filter(|_| settings.use_hf_cache),
        bundled: config.bundled_models.clone(),
    }
}

fn exclusive(path: &Path) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| WireError::file(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(WireError::new(ErrorCode::Busy, "Headroom is running already with this data folder"))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(WireError::file(path, &error)),
    }
}

/// Work that waits for disks or computes, away from the threads that serve the window. A panic becomes an error.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(WireError::internal(format!("a task ended unexpectedly: {error}"))),
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced whole under these locks, so a panic elsewhere leaves them usable.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
