//! The app: what holds everything together. One method per command of the window; those about the machine are in
//! `machine.rs`, about library, Hub and downloads in `catalog.rs`, about the loaded model in `models.rs`, about chats in `talk.rs`.

use crate::catalog::{HubSource, folders};
use crate::chats::Chats;
use crate::discover::Discover;
use crate::downloads::Downloads;
use crate::error::Result;
use crate::library::Library;
use crate::machine::Machine;
use crate::memory_files::MemoryFolder;
use crate::session::Session;
use crate::settings::{self, SettingsFile};
use crate::store::Store;
use crate::turns::Turns;
use crate::wire::*;
use engine::Cancel;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Everything that the app is told; it asks nobody else.
pub struct AppConfig {
    /// Settings, chats, downloads; made if it is not there.
    pub data_dir: PathBuf,
    /// What must not go from PC to PC with the user's account, as the data may on Windows: what models remember of chats, which
    /// is large, and what was measured of this PC. May be the data folder.
    pub local_dir: PathBuf,
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
    /// The GPUs for this run, before the settings (--gpu).
    pub gpus: Option<GpuChoice>,
    pub system_language: Language,
    pub events: Arc<dyn Fn(AppEvent) + Send + Sync>,
    /// Where background work runs; it must have its I/O and time drivers.
    pub runtime: tokio::runtime::Handle,
}

pub struct App {
    pub(crate) config: AppConfig,
    pub(crate) owner: Option<Owner>,
    pub(crate) settings: Mutex<Settings>,
    pub(crate) chats: Chats,
    pub(crate) library: Library,
    pub(crate) machine: Arc<Machine>,
    pub(crate) discover: Discover,
    pub(crate) downloads: Downloads,
    pub(crate) hub: Arc<HubSource>,
    pub(crate) slot: Mutex<Slot>,
    /// One load or unload at a time.
    pub(crate) loading: tokio::sync::Mutex<()>,
    /// The window's answer that is being written, or waits for its turn.
    pub(crate) answer: Mutex<Option<RunningAnswer>>,
    pub(crate) turns: Turns,
    server: Mutex<ServerState>,
    /// Calls off the import of chats that is running.
    pub(crate) importing: Mutex<Option<Cancel>>,
    /// Calls off the verification of a model that is running.
    pub(crate) verifying: Mutex<Option<hub::CancellationToken>>,
    /// Calls off the measurement of a disk that is under way.
    pub(crate) measuring_disk: Mutex<Option<Arc<AtomicBool>>>,
    /// How often watching has begun or ended: odd while somebody watches.
    pub(crate) monitoring: AtomicU64,
    interrupted_chat: Option<String>,
    /// Damaged files of ours under their new names.
    kept_aside: Vec<PathBuf>,
    open_chat: Mutex<Option<String>>,
    /// A file that somebody wants to see, until the window asks for it.
    pub(crate) asked_file: Mutex<Option<PathBuf>>,
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
    Loading { model_id: String, name: String, stage: LoadStage, progress: f32, cancel: Cancel },
    Ready(Arc<Session>),
    Failed { model_id: String, name: String, error: WireError },
}

pub(crate) struct RunningAnswer {
    pub chat: String,
    pub cancel: Cancel,
}

impl App {
    /// Opens the data folder and goes on with what was left: downloads run again, a cut answer is marked.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`] if another program has the folder open; a folder that cannot be used.
    pub fn open(config: AppConfig) -> Result<Arc<App>> {
        App::open_within(config, Duration::ZERO)
    }

    /// The same, where another program may take so long to give the folder up: one that was quit still keeps what it
    /// remembers of chats.
    ///
    /// # Errors
    /// As [`App::open`].
    pub fn open_within(config: AppConfig, patience: Duration) -> Result<Arc<App>> {
        let app = App::own_within(config, patience)?;
        app.downloads.go_on();
        Ok(app)
    }

    /// Like [`App::open`], for a program that does one thing and ends: downloads are left as they are.
    ///
    /// # Errors
    /// As [`App::open`].
    pub fn own(config: AppConfig) -> Result<Arc<App>> {
        App::own_within(config, Duration::ZERO)
    }

    fn own_within(config: AppConfig, patience: Duration) -> Result<Arc<App>> {
        let folder = config.data_dir.clone();
        let folder = folder.as_path();
        std::fs::create_dir_all(folder).map_err(|error| WireError::file(folder, &error))?;
        let lock_file = exclusive(&folder.join("headroom.lock"), patience)?;
        let settings_file = SettingsFile::new(folder);
        let ((settings, old_settings), token) = (settings_file.load()?, settings_file.token()?);
        let (store, old_store) = Store::open(&folder.join("headroom.db"))?;
        let (chats, interrupted) = Chats::open(Arc::new(store))?;
        if config.local_dir != folder {
            // Earlier versions had it there; with a chat that is deleted it must be gone.
            MemoryFolder::delete(folder);
        }
        let memory = MemoryFolder::open(&config.local_dir, chats.clone())?;
        let owner = Owner { settings_file, memory, _lock: lock_file };
        let kept_aside = old_settings.into_iter().chain(old_store).collect();
        let app = App::new(config, settings, token, (chats, interrupted), Some(owner), kept_aside)?;
        if app.chats.any_to_clear()? {
            app.clear_in_background();
        }
        Ok(app)
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
        let app = App {
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
            turns: Turns::default(),
            server: Mutex::default(),
            importing: Mutex::new(None),
            verifying: Mutex::new(None),
            measuring_disk: Mutex::new(None),
            monitoring: AtomicU64::new(0),
            interrupted_chat,
            kept_aside,
            open_chat: Mutex::new(None),
            asked_file: Mutex::new(None),
            config,
        };
        app.choose_gpus();
        Ok(Arc::new(app))
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
            server: lock(&self.server).clone(),
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

    /// Other programs can ask, or cannot any more: the window is told if that is news.
    pub fn served(&self, state: ServerState) {
        let before = std::mem::replace(&mut *lock(&self.server), state.clone());
        if before != state {
            self.emit(AppEvent::Server { state });
        }
    }

    // Settings

    pub fn settings_get(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// What the window speaks.
    pub fn language(&self) -> Language {
        match self.settings_get().language {
            LanguageChoice::Auto => self.config.system_language,
            LanguageChoice::En => Language::En,
            LanguageChoice::Ja => Language::Ja,
        }
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
            // Layers of a loaded model stay where they are.
            if matches!(&*lock(&app.slot), Slot::None | Slot::Failed { .. }) {
                app.choose_gpus();
            }
            if folders_changed {
                app.emit(AppEvent::Library);
            }
            Ok(new)
        })
        .await
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
}

impl App {
    /// What was asked for this run comes first, then the settings.
    pub(crate) fn choose_gpus(&self) {
        let choice = self.config.gpus.clone().unwrap_or_else(|| lock(&self.settings).gpus.clone());
        self.machine.choose_gpus(choice.ids());
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

fn exclusive(path: &Path, patience: Duration) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| WireError::file(path, &error))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if begun.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(WireError::new(ErrorCode::Busy, "Headroom is running already with this data folder"));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(WireError::file(path, &error)),
        }
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
