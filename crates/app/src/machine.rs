//! This PC as the planner and the window see it.

use crate::app::{App, AppConfig, blocking};
use crate::compiling::Watch;
use crate::disk_rates::sample_of;
use crate::error::Result;
use crate::files::{Kind, now, write_atomically};
use crate::gpu::{Gpus, Guess};
use crate::gpu_rates::{self, Limits};
use crate::gpu_seat::Free;
use crate::wire::{AppEvent, Gpu, GpuFigures, GpuReason, HardwareReport, MonitorSample, WireError};
use backend_cpu::{CpuConfig, TestDevice, TestDeviceControl, ThreadPool};
use engine::Device;
use hardware::{GpuStatus, Hardware, MeasureOptions, Measured, Monitor};
use planner::{AcceleratorFacts, Facts};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Makes the test device fail, where there is one.
pub type TestControl = Option<TestDeviceControl>;

/// A device that takes layers.
pub struct Accelerator {
    pub device: Box<dyn Device>,
    pub control: TestControl,
    /// As the window sees it.
    pub shown: Gpu,
}

pub struct Machine {
    /// Bytes of the test device, where there is one.
    test_device: Option<u64>,
    test_device_fails: Option<u64>,
    gpus: Arc<Gpus>,
    measured_path: PathBuf,
    measured: Mutex<Limits>,
    measuring: AtomicBool,
    /// The mount points of folders, which it takes a while to ask for; empty where the system does not say.
    mounts: Mutex<HashMap<PathBuf, String>>,
    monitor: Mutex<Option<Monitor>>,
}

impl Machine {
    pub fn new(config: &AppConfig) -> Machine {
        let measured_path = config.local_dir.join("measured.json");
        let text = std::fs::read(&measured_path).ok();
        // Anything unreadable is measured again.
        let measured = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Machine {
            test_device: config.test_device,
            test_device_fails: config.test_device_fails,
            gpus: Arc::new(Gpus::new(config.use_gpu && config.test_device.is_none())),
            measured_path,
            measured: Mutex::new(measured),
            measuring: AtomicBool::new(false),
            mounts: Mutex::default(),
            monitor: Mutex::new(None),
        }
    }

    pub fn was_measured(&self) -> bool {
        let measured = lock(&self.measured).machine;
        measured.ram_read_bytes_per_s.is_some() && measured.int8_ops_per_s.is_some()
    }

    /// The devices that take layers, as the window sees them, or why there are none.
    fn shown_gpus(&self, status: &GpuStatus) -> Result<Vec<Gpu>, GpuReason> {
        match self.test_device {
            Some(bytes) => Ok(vec![test_gpu(bytes)]),
            None => self.gpus.shown(status).map(|shown| shown.into_iter().flatten().collect()),
        }
    }

    /// Whether GPUs that were lost answer again. Blocks up to some seconds.
    pub fn gpus_are_back(&self) -> bool {
        self.test_device.is_some() || self.gpus.are_back(&hardware::gpus())
    }

    /// The GPUs that layers go to from now on, by [`Gpu::id`]; `None`: all.
    pub fn choose_gpus(&self, ids: Option<Vec<String>>) {
        self.gpus.choose(ids);
    }

    /// GPUs that were lost or absent are tried again when something is next given to them.
    pub fn renew_gpus(&self) {
        self.gpus.renew();
    }

    /// Opens every GPU that takes layers, to know whether that works. Blocks up to some seconds.
    pub fn open_gpus(&self) {
        let free = Free::of(&hardware::gpus());
        self.gpus.open_all(&free);
    }

    /// How the devices look to the window, or why they are not there; in the order of [`Facts::accelerators`].
    ///
    /// # Errors
    /// Why there are none at all.
    pub fn seats(&self) -> Result<Vec<Result<Gpu, GpuReason>>, GpuReason> {
        match self.test_device {
            Some(bytes) => Ok(vec![Ok(test_gpu(bytes))]),
            None => self.gpus.shown(&hardware::gpus()),
        }
    }

    /// Plans, and opens the GPUs that the plan gives something, until all of those are open: what they have and what they take
    /// for themselves is measured then and not guessed. What no layer needs stays closed. `plan` also says which accelerators
    /// it gives something; `own` and `model` as in [`Machine::facts`]. Blocks up to some seconds, and longer where the driver compiles the
    /// kernels for the first time.
    ///
    /// # Errors
    /// Those of `plan`; [`ErrorCode::Cancelled`](crate::wire::ErrorCode::Cancelled).
    pub fn settle<T>(
        &self,
        (own, model): (u64, &Path),
        pool: &Arc<ThreadPool>,
        watch: &mut Watch<'_>,
        mut plan: impl FnMut(&Facts) -> Result<(T, Vec<usize>)>,
    ) -> Result<(T, Facts)> {
        // A GPU that is not open is worth a try if it might do.
        let mut guess = Guess::Hopeful;
        loop {
            let facts = self.facts_with(own, model, guess);
            let (planned, mut numbers) = plan(&facts)?;
            numbers.retain(|number| self.gpus.is_closed(*number));
            match guess {
                _ if !numbers.is_empty() => self.open(&numbers, pool, watch)?,
                Guess::Hopeful => guess = Guess::Careful,
                Guess::Careful => return Ok((planned, facts)),
            }
        }
    }

    /// Afterwards they are open, or it is known why not.
    fn open(&self, numbers: &[usize], pool: &Arc<ThreadPool>, watch: &mut Watch<'_>) -> Result<()> {
        let status = hardware::gpus();
        self.gpus.open(numbers, &Free::of(&status), watch)?;
        self.measure_gpus(&status, pool);
        Ok(())
    }

    /// All devices for layers, in the order of [`Facts::accelerators`]. One that is not open yet is opened when it is first
    /// given something.
    ///
    /// # Errors
    /// Why there are none at all.
    pub fn devices(
        &self,
        pool: &Arc<ThreadPool>,
        config: CpuConfig,
    ) -> Result<Vec<Result<Accelerator, GpuReason>>, GpuReason> {
        if let Some(limit) = self.test_device {
            return Ok(vec![Ok(self.test_device(limit, pool, config))]);
        }
        let status = hardware::gpus();
        let devices = self.gpus.devices(&status, pool)?;
        let both = devices.into_iter().zip(self.gpus.shown(&status)?);
        Ok(both.map(|(device, shown)| Ok(Accelerator { device: device?, control: None, shown: shown? })).collect())
    }

    /// One of them, opened now; after a loss again.
    ///
    /// # Errors
    /// Why it is not there.
    pub fn device(&self, number: usize, pool: &Arc<ThreadPool>, config: CpuConfig) -> Result<Accelerator, GpuReason> {
        if let Some(limit) = self.test_device {
            return Ok(self.test_device(limit, pool, config));
        }
        self.gpus.renew();
        let status = hardware::gpus();
        // Where there are none, the reason is told.
        self.gpus.shown(&status)?;
        // Nobody cancels that, and where it fails the reason is found below.
        let _ = self.open(&[number], pool, &mut Watch::patient());
        let device = self.gpus.device(number, &status, pool)?;
        let shown = self.gpus.shown(&status)?.into_iter().nth(number).unwrap_or(Err(GpuReason::NoDevice))?;
        Ok(Accelerator { device, control: None, shown })
    }

    fn test_device(&self, limit: u64, pool: &Arc<ThreadPool>, config: CpuConfig) -> Accelerator {
        let (device, control) = TestDevice::new(pool.clone(), config, limit);
        if let Some(after) = self.test_device_fails {
            control.fail_run(after);
        }
        Accelerator { device: Box::new(device), control: Some(control), shown: test_gpu(limit) }
    }

    /// Measures GPUs that were not measured yet, once their kernels are there; a fraction of a second each. Where that
    /// fails, it is tried another time.
    fn measure_gpus(&self, status: &GpuStatus, pool: &Arc<ThreadPool>) {
        let known = |id: &String| lock(&self.measured).gpus.contains_key(id);
        let new: Vec<(usize, String)> = self.gpus.ready().into_iter().filter(|(_, id)| !known(id)).collect();
        if new.into_iter().filter(|(number, id)| self.measure_gpu(*number, id, status, pool)).count() == 0 {
            return;
        }
        if let Err(error) = self.keep() {
            tracing::warn!("what was measured cannot be kept: {error}");
        }
    }

    /// False: it has no memory for that now, or fails.
    fn measure_gpu(&self, number: usize, id: &str, status: &GpuStatus, pool: &Arc<ThreadPool>) -> bool {
        let device = self.gpus.device(number, status, pool).ok();
        let Some(rates) = device.and_then(gpu_rates::measure) else { return false };
        lock(&self.measured).gpus.insert(id.into(), rates);
        true
    }

    fn keep(&self) -> Result<()> {
        let limits = lock(&self.measured).clone();
        let text = serde_json::to_vec(&limits).map_err(|error| WireError::internal(error.to_string()))?;
        write_atomically(&self.measured_path, &text, Kind::Public)
    }

    /// Blocks for some milliseconds.
    pub fn report(&self, models: &Path) -> HardwareReport {
        let hardware = Hardware::probe();
        let measured = lock(&self.measured).machine;
        let shown = self.shown_gpus(&hardware.gpus);
        let others = self.gpus.others(&hardware.gpus, shown.as_deref().ok());
        let (shown, gpu_reason) = match shown {
            Ok(shown) => (shown, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        HardwareReport {
            cpu_name: hardware.cpu.name.clone(),
            physical_cores: hardware.cpu.physical_cores.unwrap_or(hardware.cpu.logical_cores) as u32,
            logical_cores: hardware.cpu.logical_cores as u32,
            cpu_features: hardware.cpu.features.clone(),
            ram_total: hardware.ram_total,
            ram_available: hardware.ram_available,
            gpus: [shown, others].concat(),
            gpu_reason,
            models_disk_free: hardware::disk_of(models).map(|disk| disk.free),
            ram_bandwidth: measured.ram_read_bytes_per_s,
            disk_bandwidth: self.disk_rate(models),
            measuring: self.measuring.load(Ordering::Acquire),
        }
    }

    /// While it lives, nothing else is measured; `None`: something is.
    pub(crate) fn begin_measuring(&self) -> Option<Measuring<'_>> {
        (!self.measuring.swap(true, Ordering::AcqRel)).then_some(Measuring(&self.measuring))
    }

    /// The mount point of the disk that a file or folder is on.
    fn mount(&self, path: &Path) -> String {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        if let Some(mount) = lock(&self.mounts).get(folder) {
            return mount.clone();
        }
        let disk = hardware::disk_of(folder);
        let mount = disk.map_or_else(String::new, |disk| disk.mount_point.to_string_lossy().into_owned());
        lock(&self.mounts).insert(folder.to_owned(), mount.clone());
        mount
    }

    /// Bytes per second that the disk of a file or folder is read with.
    fn disk_rate(&self, path: &Path) -> Option<f64> {
        let mount = self.mount(path);
        let limits = lock(&self.measured);
        limits.disks.best(&mount).or(limits.machine.disk_read_bytes_per_s)
    }

    /// Whether it is time to measure the disk of a file.
    pub(crate) fn disk_is_due(&self, path: &Path) -> bool {
        let mount = self.mount(path);
        lock(&self.measured).disks.is_due(&mount, now())
    }

    pub(crate) fn keep_disk_rate(&self, sample: &Path, bytes_per_s: f64) -> Result<()> {
        let mount = self.mount(sample);
        lock(&self.measured).disks.add(mount, bytes_per_s, now());
        self.keep()
    }

    /// Measures bandwidths and arithmetic, in about 3 seconds; `false` if that is being done already. `disk`: a file to
    /// read, or a folder to make one in.
    pub fn measure(&self, disk: Option<PathBuf>) -> Result<bool> {
        let Some(measuring) = self.begin_measuring() else { return Ok(false) };
        let threads = threads(None, false);
        let result = hardware::measure(&MeasureOptions { threads, disk: disk.clone() }, &AtomicBool::new(false));
        let int8 = backend_cpu::int8_rate(threads).ok();
        drop(measuring);
        let found = result.map_err(|error| WireError::internal(format!("measuring failed: {error}")))?;
        let model = disk.filter(|path| path.is_file()).map(|path| self.mount(&path));
        {
            let Limits { machine, disks, .. } = &mut *lock(&self.measured);
            *machine = Measured {
                disk_read_bytes_per_s: found.disk_read_bytes_per_s.or(machine.disk_read_bytes_per_s),
                int8_ops_per_s: int8.or(machine.int8_ops_per_s),
                ..found
            };
            if let (Some(mount), Some(rate)) = (model, found.disk_read_bytes_per_s) {
                disks.replace(mount, rate, now());
            }
        }
        // A GPU whose kernels are not there yet is measured with the first model.
        let ready = self.gpus.ready();
        if !ready.is_empty() {
            let (status, pool) = (hardware::gpus(), Arc::new(ThreadPool::new(threads)));
            for (number, id) in ready {
                self.measure_gpu(number, &id, &status, &pool);
            }
        }
        self.keep()?;
        Ok(true)
    }

    /// Bytes of RAM that programs can still have.
    pub fn ram_available(&self) -> u64 {
        self.with_monitor(Monitor::ram_available)
    }

    /// What a plan depends on. `own`: bytes of RAM that our loaded model would give back; `model`: the file or folder that
    /// is read.
    pub fn facts(&self, own: u64, model: &Path) -> Facts {
        self.facts_with(own, model, Guess::Careful)
    }

    fn facts_with(&self, own: u64, model: &Path, guess: Guess) -> Facts {
        let limits = lock(&self.measured).clone();
        let measured = limits.machine;
        Facts {
            ram_available: self.ram_available().saturating_add(own),
            accelerators: match self.test_device {
                Some(bytes) => {
                    let facts = AcceleratorFacts {
                        name: TEST_GPU.1.into(),
                        memory_free: bytes,
                        // It is RAM with a limit.
                        bandwidth: measured.ram_read_bytes_per_s,
                        ..AcceleratorFacts::default()
                    };
                    vec![limits.tell(TEST_GPU.0, facts)]
                }
                None => {
                    let free = || self.with_monitor(|monitor| Free(monitor.vram_free()));
                    let found = self.gpus.facts(free, guess).into_iter();
                    found.map(|(id, facts)| limits.tell(&id, facts)).collect()
                }
            },
            ram_bandwidth: measured.ram_read_bytes_per_s,
            disk_bandwidth: self.disk_rate(model),
            int8_rate: measured.int8_ops_per_s,
        }
    }

    /// Live figures. `own_vram`: bytes of our buffers on the accelerator.
    pub fn sample(&self, own_vram: Option<u64>) -> MonitorSample {
        let sample = self.with_monitor(Monitor::sample);
        let own = own_vram.unwrap_or(0);
        let mut gpus: Vec<GpuFigures> = match self.test_device {
            Some(total) => vec![GpuFigures::new(TEST_GPU.1.into(), (total, total.saturating_sub(own), own), None)],
            None => self.gpus.figures(&sample.gpus),
        };
        // A card that takes no layers is still worth a bar.
        if let (true, Some(gpu)) = (gpus.is_empty(), sample.gpus.first()) {
            let memory = (gpu.vram_total, gpu.vram_free, own);
            gpus.push(GpuFigures::new(format!("GPU {}", gpu.index), memory, Some(gpu)));
        }
        MonitorSample {
            at: now(),
            ram_total: sample.ram_total,
            ram_available: sample.ram_available,
            own_private: sample.process.private_bytes,
            own_resident: sample.process.rss_bytes,
            gpus,
            cpu_load: sample.cpu_load,
        }
    }

    fn with_monitor<T>(&self, work: impl FnOnce(&mut Monitor) -> T) -> T {
        work(lock(&self.monitor).get_or_insert_with(Monitor::new))
    }
}

/// Says when it ends that nothing is measured any more.
pub(crate) struct Measuring<'a>(&'a AtomicBool);

impl Drop for Measuring<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The instructions that kernels use on this CPU, for people.
pub fn kernels() -> &'static str {
    backend_cpu::Simd::best().level().name()
}

/// Threads to compute with: as the user says, or the physical cores.
pub fn threads(wanted: Option<u32>, leave_responsive: bool) -> usize {
    static CORES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let cores = *CORES.get_or_init(|| {
        let cpu = Hardware::probe().cpu;
        cpu.physical_cores.unwrap_or(cpu.available_threads).min(cpu.available_threads).max(1)
    });
    let threads = wanted.map_or(cores, |wanted| wanted as usize).clamp(1, 1024);
    if leave_responsive { threads.min(cores.saturating_sub(1)).max(1) } else { threads }
}

/// [`Gpu::id`] and name of the test device.
const TEST_GPU: (&str, &str) = ("test", "Test device");

fn test_gpu(bytes: u64) -> Gpu {
    Gpu {
        id: TEST_GPU.0.into(),
        name: TEST_GPU.1.into(),
        vram_total: bytes,
        vram_free: Some(bytes),
        driver: None,
        compute_capability: None,
        used: true,
        is_test_device: true,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Commands about the machine.
impl App {
    pub async fn hardware(self: &Arc<Self>) -> Result<HardwareReport> {
        let app = self.clone();
        blocking(move || Ok(app.machine.report(&app.folders().models))).await
    }

    /// Opens every GPU that takes layers, to know whether that works.
    pub async fn gpus_open(self: &Arc<Self>) -> Result<()> {
        let app = self.clone();
        blocking(move || {
            app.machine.open_gpus();
            Ok(())
        })
        .await
    }

    /// Measures bandwidths again (a few seconds).
    pub async fn hardware_measure(self: &Arc<Self>) -> Result<HardwareReport> {
        let app = self.clone();
        blocking(move || {
            app.machine.measure(app.disk_sample())?;
            app.tell_measured()
        })
        .await
    }

    /// The window and the loaded model's forecast follow what was measured.
    pub(crate) fn tell_measured(&self) -> Result<HardwareReport> {
        let hardware = self.machine.report(&self.folders().models);
        self.emit(AppEvent::Hardware { hardware: hardware.clone() });
        if let Ok(session) = self.session() {
            session.measured()?;
            self.model_changed();
        }
        Ok(hardware)
    }

    /// What is read to measure the disk: the largest model, or where models will be. A file made for it would be read while
    /// the disk still writes it.
    fn disk_sample(&self) -> Option<PathBuf> {
        let folders = self.folders();
        let models = self.library.list(&folders).unwrap_or_default();
        let largest = models.into_iter().max_by_key(|model| model.bytes);
        let sample = largest.and_then(|model| sample_of(Path::new(&model.path)));
        // The folder may not exist before the first download; its parent is on the same disk.
        sample.or_else(|| folders.models.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned))
    }

    /// Sends live figures every second until [`App::monitor_stop`].
    pub fn monitor_start(self: &Arc<Self>) {
        let begin = |count: u64| (count % 2 == 0).then_some(count + 1);
        let Ok(before) = self.monitoring.fetch_update(Ordering::AcqRel, Ordering::Acquire, begin) else { return };
        let app = self.clone();
        self.config.runtime.spawn(async move {
            // Whoever looks away and back within a second gets new figures from another task than this one.
            while app.monitoring.load(Ordering::Acquire) == before + 1 {
                let sampler = app.clone();
                let sample = blocking(move || {
                    let own_vram = sampler.session().ok().map(|session| session.engine.placement().accelerator_used());
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
        let end = |count: u64| (count % 2 == 1).then_some(count + 1);
        let _ = self.monitoring.fetch_update(Ordering::AcqRel, Ordering::Acquire, end);
    }
}
