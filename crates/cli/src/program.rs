//! What every command may need: the environment, the app, Ctrl-C.

use crate::args::Arguments;
use crate::failure::Failure;
use app::wire::{AppEvent, GpuChoice, Language, WireError};
use app::{App, AppConfig, Environment};
use engine::Cancel;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};

pub type Events = Arc<dyn Fn(AppEvent) + Send + Sync>;

pub struct Program {
    pub json: bool,
    environment: Environment,
    /// --endpoint
    endpoint: Option<String>,
    use_gpu: bool,
    /// --gpu
    gpus: Option<GpuChoice>,
    handle: Handle,
}

impl Program {
    /// The one place of this program that looks at its environment. The runtime must live as long as the program.
    pub fn new(arguments: &Arguments) -> Result<(Program, Runtime), Failure> {
        let mut environment = Environment::new(|name| std::env::var(name).ok(), std::env::home_dir());
        if let Some(folder) = &arguments.data_dir {
            let folder = std::path::absolute(folder).map_err(|error| Failure::io(folder, error))?;
            if folder.exists() && !folder.is_dir() {
                return Err(Failure::usage(format!("--data-dir {} is not a folder", folder.display())));
            }
            (environment.data_dir, environment.local_dir) = (Some(folder), None);
        }
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new("internal", error))?;
        let handle = runtime.handle().clone();
        let (json, endpoint, use_gpu) = (arguments.json, arguments.endpoint.clone(), !arguments.no_gpu);
        let gpus = gpus(&arguments.gpu)?;
        Ok((Program { json, environment, endpoint, use_gpu, gpus, handle }, runtime))
    }

    pub fn data_dir(&self) -> Result<PathBuf, Failure> {
        let missing = || Failure::usage("there is no home folder: say with --data-dir where data and models are");
        self.environment.data_dir.clone().ok_or_else(missing)
    }

    /// Where models go while the settings do not say.
    pub fn models_dir(&self) -> Result<PathBuf, Failure> {
        Ok(self.environment.models_dir(&self.data_dir()?))
    }

    /// For what only reads: works also while the window is open. `test_device`: its bytes.
    pub fn visit(&self, test_device: Option<u64>) -> Result<Arc<App>, Failure> {
        Ok(App::visit(self.config(test_device, Arc::new(|_| {}))?)?)
    }

    /// For what changes the library.
    ///
    /// # Errors
    /// Code "busy" while another program has the data folder.
    pub fn own(&self, events: Events) -> Result<Arc<App>, Failure> {
        Ok(App::own(self.config(None, events)?)?)
    }

    fn config(&self, test_device: Option<u64>, events: Events) -> Result<AppConfig, Failure> {
        let data_dir = self.data_dir()?;
        let Environment { endpoint: hf_endpoint, token, hf_cache_dir, .. } = self.environment.clone();
        Ok(AppConfig {
            local_dir: self.environment.local_to(&data_dir),
            models_dir: self.models_dir()?,
            data_dir,
            endpoint: self.endpoint.clone(),
            hf_endpoint,
            token,
            hf_cache_dir,
            bundled_models: Vec::new(),
            chat_ram: None,
            test_device,
            test_device_fails: None,
            use_gpu: self.use_gpu,
            gpus: self.gpus.clone(),
            system_language: Language::En,
            events,
            runtime: self.handle.clone(),
        })
    }

    pub fn wait<T>(&self, work: impl Future<Output = Result<T, WireError>>) -> Result<T, Failure> {
        Ok(self.handle.block_on(work)?)
    }

    /// Like [`Program::wait`], for work that fails in the words of this program.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
    }

    /// From now on Ctrl-C stops what runs, and ends the program only where nothing does.
    pub fn interrupts(&self) -> Interrupts {
        let running: Arc<Mutex<Option<Cancel>>> = Arc::default();
        let listener = running.clone();
        let interrupt = self.interrupt();
        self.handle.spawn(async move {
            let Ok(mut interrupt) = interrupt else { return };
            while interrupt.recv().await.is_some() {
                match take(&listener) {
                    Some(cancel) => cancel.cancel(),
                    None => std::process::exit(1),
                }
            }
        });
        Interrupts(running)
    }

    /// From now on Ctrl-C, and a request of the system to end, only cancel: the program ends when it has cleaned up.
    pub fn interrupts_only_cancel(&self, cancel: &Cancel) {
        let interrupt = self.interrupt();
        let cancel_interrupt = cancel.clone();
        self.handle.spawn(async move {
            let Ok(mut interrupt) = interrupt else { return };
            while interrupt.recv().await.is_some() {
                cancel_interrupt.cancel();
            }
        });
        self.requests_to_end_only_cancel(cancel.clone());
    }

    #[cfg(unix)]
    fn requests_to_end_only_cancel(&self, cancel: Cancel) {
        use tokio::signal::unix::{SignalKind, signal};
        let _runtime = self.handle.enter();
        let terminate = signal(SignalKind::terminate());
        self.handle.spawn(async move {
            let Ok(mut terminate) = terminate else { return };
            while terminate.recv().await.is_some() {
                cancel.cancel();
            }
        });
    }

    /// Ctrl-Break, and a terminal that is closed: Windows then waits some seconds for the program's end.
    #[cfg(windows)]
    fn requests_to_end_only_cancel(&self, cancel: Cancel) {
        use tokio::signal::windows::{ctrl_break, ctrl_close};
        let _runtime = self.handle.enter();
        let requests = ctrl_break().and_then(|stop| Ok((stop, ctrl_close()?)));
        self.handle.spawn(async move {
            let Ok((mut stop, mut close)) = requests else { return };
            loop {
                tokio::select! {
                    _ = stop.recv() => cancel.cancel(),
                    _ = close.recv() => cancel.cancel(),
                }
            }
        });
    }

    /// Ctrl-C, caught from this moment on. (`tokio::signal::ctrl_c` begins when it is first polled: an interrupt before
    /// that would end the program where it stands.)
    #[cfg(unix)]
    fn interrupt(&self) -> std::io::Result<tokio::signal::unix::Signal> {
        let _runtime = self.handle.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
    }

    #[cfg(windows)]
    fn interrupt(&self) -> std::io::Result<tokio::signal::windows::CtrlC> {
        let _runtime = self.handle.enter();
        tokio::signal::windows::ctrl_c()
    }
}

/// The GPUs that --gpu means; `None` without it.
fn gpus(wanted: &[String]) -> Result<Option<GpuChoice>, Failure> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let gpus = match app::gpus() {
        Ok(gpus) => gpus,
        Err(reason) => {
            let text = format!("--gpu {}: {}", wanted.join(","), crate::doctor::why(&reason));
            return Err(Failure::new("no-gpu", text));
        }
    };
    GpuChoice::named(wanted, &gpus).map(Some).map_err(|word| {
        let all: Vec<String> = gpus.iter().enumerate().map(|(n, gpu)| format!("{n}: {}", gpu.name)).collect();
        let all = all.join(", ");
        Failure::usage(format!("--gpu {word} is not one of the GPUs, or more than one of them: {all}"))
    })
}

/// What Ctrl-C stops.
pub struct Interrupts(Arc<Mutex<Option<Cancel>>>);

impl Interrupts {
    /// The next Ctrl-C cancels this; another one ends the program.
    pub fn begin(&self) -> Cancel {
        let cancel = Cancel::new();
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(cancel.clone());
        cancel
    }

    pub fn end(&self) {
        take(&self.0);
    }
}

fn take(running: &Mutex<Option<Cancel>>) -> Option<Cancel> {
    // Replaced whole under the lock, so a panic elsewhere leaves it usable.
    running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
}
