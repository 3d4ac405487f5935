//! The app in a process of its own with GPUs, whose driver is a libcuda.so.1 over the emulator of `backend-cuda`. The library must
//! be there before a program looks for it, so every test starts itself again with it. Needs a C++ compiler (`c++`).
#![allow(dead_code, clippy::unwrap_used)]

use crate::common::*;
use crate::library;
use app::App;
use app::wire::*;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

pub const MEMORY: u64 = 8 << 30;
const QUESTION: &str = "Returns an iterator over";
/// How the CPU's greedy answer begins; further on other roundings may find other words.
const TOKENS: u32 = 40;

/// Does `body`, which is test `name`, in a process with the fake driver and this setting of it.
pub fn with_gpu(name: &str, setting: (&str, &str), body: impl AsyncFnOnce(Cards)) {
    with_driver(name, setting, false, body);
}

/// The same with a management library, which tells what is free on GPUs that are not open.
pub fn with_told_gpus(name: &str, setting: (&str, &str), body: impl AsyncFnOnce(Cards)) {
    with_driver(name, setting, true, body);
}

fn with_driver(name: &str, (variable, value): (&str, &str), told: bool, body: impl AsyncFnOnce(Cards)) {
    if let Some(files) = std::env::var_os("GPU_FILES") {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(body(Cards { files: files.into() }));
    }
    let (driver, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    if told {
        let library = library::compile("emulator/libnvml.cpp");
        std::os::unix::fs::symlink(library, driver.path().join("libnvidia-ml.so.1")).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .envs(library::fake_driver(driver.path()))
        .env("GPU_FILES", files.path())
        .env("FAKE_CUDA_OTHERS", files.path().join("others"))
        .env("FAKE_CUDA_LOSE", files.path().join("lose"))
        .env("FAKE_CUDA_REFUSE", files.path().join("refuse"))
        .env("FAKE_CUDA_SHUT", files.path().join("shut"))
        .env("FAKE_CUDA_OPENED", files.path().join("opened"))
        .env("FAKE_CUDA_CONTEXT", "100000000")
        .env("FAKE_CUDA_MODULE", "1000000")
        .env(variable, value)
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{variable} {value}:\n{text}\n{errors}");
}

/// What a test does to the GPU.
pub struct Cards {
    pub files: PathBuf,
}

impl Cards {
    /// Other programs have so many bytes of its memory from now on.
    pub fn others(&self, bytes: u64) {
        std::fs::write(self.files.join("new"), bytes.to_string()).unwrap();
        std::fs::rename(self.files.join("new"), self.files.join("others")).unwrap();
    }

    /// The same by card.
    pub fn others_of(&self, bytes: &str) {
        std::fs::write(self.files.join("new"), bytes).unwrap();
        std::fs::rename(self.files.join("new"), self.files.join("others")).unwrap();
    }

    /// From now on launches fail on the cards with a 1.
    pub fn loses(&self, cards: &str) {
        std::fs::write(self.files.join("new"), cards).unwrap();
        std::fs::rename(self.files.join("new"), self.files.join("lose")).unwrap();
    }

    /// From now on launches fail ("lose"), or kernels do not compile ("refuse").
    pub fn fails(&self, how: &str) {
        std::fs::write(self.files.join(how), "").unwrap();
    }

    /// From now on no contexts are made on the cards with a 1.
    pub fn shuts(&self, cards: &str) {
        std::fs::write(self.files.join("shut"), cards).unwrap();
    }

    /// How many contexts each card was given so far.
    pub fn opened(&self) -> String {
        std::fs::read_to_string(self.files.join("opened")).unwrap_or_default()
    }

    pub fn mend(&self, how: &str) {
        std::fs::remove_file(self.files.join(how)).unwrap();
    }

    /// The trained model with so many layers on the GPU.
    pub async fn ready(&self, gpu_layers: GpuLayers) -> (Arc<App>, Events) {
        install_trained(&self.files);
        let (app, events) = open(&self.files, |config| config.use_gpu = true);
        load(&app, "rustdoc", settings(gpu_layers)).await;
        (app, events)
    }
}

pub fn settings(gpu_layers: GpuLayers) -> LoadSettings {
    LoadSettings { gpu_layers, context: Some(512), ..LoadSettings::default() }
}

pub fn fixed(layers: u32) -> GpuLayers {
    GpuLayers::Fixed { layers }
}

/// An answer, with something done when its first text is there.
pub async fn answered(app: &Arc<App>, then: impl AsyncFnOnce()) -> Vec<AnswerEvent> {
    let chat = app.chat_create().await.unwrap().id;
    let mut answer = begin(app, &chat, say(QUESTION), greedy(TOKENS)).await.unwrap();
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(AnswerEvent::Text { .. })) {
        seen.push(answer.recv().await.expect("the answer goes on"));
    }
    then().await;
    seen.extend(rest(answer).await);
    let (message, reason, error) = end(&seen);
    assert_eq!(error, None);
    assert!(matches!(reason, FinishReason::Length | FinishReason::End), "{reason:?}");
    assert_eq!(message.text, streamed(&seen));
    assert!(message.text.len() > 20, "{}", message.text);
    seen
}

pub fn told(events: &[AnswerEvent]) -> Vec<RecoveryNotice> {
    let notice = |event: &AnswerEvent| match event {
        AnswerEvent::Recovery { notice } => Some(notice.clone()),
        _ => None,
    };
    events.iter().filter_map(notice).collect()
}

pub fn take_notices(events: &Events) -> Vec<RecoveryNotice> {
    let notice = |event: AppEvent| match event {
        AppEvent::Recovery { notice } => Some(notice),
        _ => None,
    };
    events.lock().unwrap().drain(..).filter_map(notice).collect()
}

pub async fn choose(app: &Arc<App>, gpus: GpuChoice) {
    app.settings_set(Settings { gpus, ..app.settings_get() }).await.unwrap();
}

pub fn only(ids: &[&str]) -> GpuChoice {
    GpuChoice::Only { gpus: ids.iter().map(|id| GpuName { id: (*id).into(), name: String::new() }).collect() }
}
