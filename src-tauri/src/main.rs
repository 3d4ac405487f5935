//! The desktop shell: a window, its permissions and its commands. Whatever the program does is in the crate `app`.
#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

mod asked;
mod commands;
mod environment;
mod flags;
mod words;

use app::{App, AppConfig};
use asked::Asked;
use clap::Parser;
use flags::Flags;
use server::Switch;
use std::sync::Arc;
use std::time::Duration;
use tauri::{AppHandle, Emitter, Manager, RunEvent, WebviewWindowBuilder, Wry};
use tauri_plugin_dialog::{DialogExt, MessageDialogKind};
use tauri_plugin_window_state::StateFlags;

/// A program that was quit has given its data up after this time: the server takes three seconds at most, `App::close` five.
const CLOSING: Duration = Duration::from_secs(9);

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    if let Some(folder) = &flags.man {
        return Ok(flags::man(folder)?);
    }
    environment::prepare(&flags)?;
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    let mut builder = tauri::Builder::default().manage(Asked::default());
    // With a data folder of its own, a second program is meant, and nothing outside of the folder is touched.
    if flags.data_dir.is_none() {
        // The window is shown when its page is there, not when it was shown the last time.
        let remembered = StateFlags::all() & !StateFlags::VISIBLE;
        builder = builder
            // Must be the first plugin.
            .plugin(tauri_plugin_single_instance::init(|handle, arguments, folder| {
                show(handle);
                asked::ask(handle, asked::by_second_start(&arguments, folder.as_ref()));
            }))
            .plugin(tauri_plugin_window_state::Builder::new().with_state_flags(remembered).build());
    }
    let program = builder
        .plugin(tauri_plugin_dialog::init())
        .plugin(tauri_plugin_opener::init())
        .invoke_handler(tauri::generate_handler![
            commands::startup,
            commands::settings_get,
            commands::settings_set,
            commands::hub_token_set,
            commands::hardware,
            commands::hardware_measure,
            commands::monitor_start,
            commands::monitor_stop,
            commands::library,
            commands::library_remove,
            commands::library_verify,
            commands::library_verify_cancel,
            commands::library_reveal,
            commands::library_open,
            commands::opened_file,
            commands::hub_recommended,
            commands::hub_search,
            commands::hub_model,
            commands::hub_plan,
            commands::downloads,
            commands::download_start,
            commands::download_pause,
            commands::download_resume,
            commands::download_cancel,
            commands::plan,
            commands::draft_models,
            commands::model_load,
            commands::model_unload,
            commands::model_load_cancel,
            commands::model_state,
            commands::set_gpu_layers,
            commands::chats,
            commands::chat,
            commands::chat_create,
            commands::chat_rename,
            commands::chat_pin,
            commands::chat_delete,
            commands::chat_restore,
            commands::chats_export,
            commands::chats_import,
            commands::chats_import_cancel,
            commands::chats_count,
            commands::chats_delete_all,
            commands::chat_set_system_prompt,
            commands::chat_set_format,
            commands::chat_select,
            commands::chat_send,
            commands::chat_stop,
            commands::open_link,
        ])
        .on_page_load(|window, payload| {
            if payload.event() == tauri::webview::PageLoadEvent::Finished {
                show(window.app_handle());
            }
        })
        .setup(move |tauri| {
            match open(tauri.handle(), &flags) {
                Ok(()) => {}
                Err(error) => fail(tauri.handle(), &error),
            }
            Ok(())
        })
        .build(tauri::generate_context!())?;
    program.run(|handle, event| {
        if let (RunEvent::Exit, Some(app)) = (event, handle.try_state::<Arc<App>>()) {
            // Whoever starts the program again now gets a window: of the new one, which waits for this one's data.
            tauri_plugin_single_instance::destroy(handle);
            let server = handle.state::<Switch>();
            tauri::async_runtime::block_on(async {
                server.end().await;
                app.close().await;
            });
        }
    });
    Ok(())
}

/// Opens the app, then the window on it.
fn open(handle: &AppHandle<Wry>, flags: &Flags) -> anyhow::Result<()> {
    let events = handle.clone();
    let config = AppConfig {
        // An event without a window to hear it is lost, as it should be.
        events: Arc::new(move |event| drop(events.emit("headroom", event))),
        runtime: tauri::async_runtime::handle().inner().clone(),
        ..environment::config(handle, flags)?
    };
    let web_data = flags.data_dir.is_some().then(|| config.data_dir.join("webview"));
    let app = App::open_within(config, CLOSING)?;
    handle.manage(app.clone());
    handle.manage(Switch::new(app.clone()));
    let server = handle.clone();
    tauri::async_runtime::spawn(async move { server.state::<Switch>().follow().await });
    asked::ask(handle, asked::by_start(flags));
    if let Some(model) = flags.demo.clone() {
        tauri::async_runtime::spawn(async move {
            // The window tells a failed load.
            if let Err(error) = app.open_demo(&model).await {
                tracing::error!("{error}");
            }
        });
    }
    let windows = &handle.config().app.windows;
    for window in windows {
        let mut builder = WebviewWindowBuilder::from_config(handle, window)?;
        if let Some(folder) = &web_data {
            builder = builder.data_directory(folder.clone());
        }
        builder.build()?;
    }
    Ok(())
}

fn show(handle: &AppHandle<Wry>) {
    if let Some(window) = handle.get_webview_window("main") {
        let _ = window.unminimize();
        let _ = window.show();
        let _ = window.set_focus();
    }
}

/// Says why there is no window, and ends.
fn fail(handle: &AppHandle<Wry>, error: &anyhow::Error) {
    eprintln!("{error:#}");
    let handle = handle.clone();
    let language = environment::language();
    let text = match environment::has_web_view() {
        true => words::cannot_start(error, language),
        false => words::no_web_view(language),
    };
    let dialog = handle.dialog().message(text).title("Headroom").kind(MessageDialogKind::Error);
    dialog.show(move |_| handle.exit(1));
}
