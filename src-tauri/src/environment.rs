//! The one place of the desktop program that looks at its environment.

use crate::flags::Flags;
use app::wire::Language;
use app::{AppConfig, Environment};
use std::env;
use std::sync::Arc;
use tauri::{AppHandle, Manager, Wry};

/// Puts the environment right before GTK and WebKit read it: nobody may drive the window unless asked to, and the
/// DMA-BUF renderer, which shows an empty window with some drivers, is off unless the user has decided.
#[cfg(target_os = "linux")]
pub fn prepare(flags: &Flags) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    const RENDERER: &str = "WEBKIT_DISABLE_DMABUF_RENDERER";
    const AUTOMATION: &str = "TAURI_WEBVIEW_AUTOMATION";
    let driven = env::var_os(AUTOMATION).is_some() && !flags.automation;
    if env::var_os(RENDERER).is_some() && !driven {
        return Ok(());
    }
    // The same process, started again: changing the environment of a running one is not safe.
    let mut again = std::process::Command::new(env::current_exe()?);
    again.args(env::args_os().skip(1));
    if env::var_os(RENDERER).is_none() {
        again.env(RENDERER, "1");
    }
    if driven {
        again.env_remove(AUTOMATION);
    }
    Err(again.exec().into())
}

#[cfg(not(target_os = "linux"))]
pub fn prepare(_: &Flags) -> anyhow::Result<()> {
    Ok(())
}

/// Folders, addresses and language; events and runtime are the caller's.
pub fn config(handle: &AppHandle<Wry>, flags: &Flags) -> anyhow::Result<AppConfig> {
    let found = Environment::new(|name| env::var(name).ok(), handle.path().home_dir().ok());
    let data_dir = match (&flags.data_dir, &found.data_dir) {
        (Some(folder), _) => std::path::absolute(folder)?,
        (None, Some(folder)) => folder.clone(),
        (None, None) => handle.path().app_data_dir()?,
    };
    Ok(AppConfig {
        local_dir: found.local_to(&data_dir),
        models_dir: found.models_dir(&data_dir),
        data_dir,
        endpoint: flags.endpoint.clone(),
        hf_endpoint: found.endpoint,
        token: found.token,
        hf_cache_dir: found.hf_cache_dir,
        bundled_models: flags.demo.iter().cloned().collect(),
        chat_ram: None,
        test_device: flags.test_device,
        test_device_fails: flags.test_device_fails,
        use_gpu: !flags.no_gpu,
        gpus: None,
        system_language: language(),
        events: Arc::new(|_| {}),
        runtime: tauri::async_runtime::handle().inner().clone(),
    })
}

/// Whether the system's web view, which draws the window, is installed: on some older Windows it is not.
pub fn has_web_view() -> bool {
    !cfg!(windows) || tauri::webview_version().is_ok()
}

/// The language that the system's user has chosen.
pub fn language() -> Language {
    let locale = sys_locale::get_locale().unwrap_or_default();
    if locale.starts_with("ja") { Language::Ja } else { Language::En }
}
