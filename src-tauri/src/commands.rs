//! One line for each command of the window: everything else is the app's.

use crate::words;
use app::App;
use app::wire::*;
use server::Switch;
use std::path::PathBuf;
use std::sync::Arc;
use tauri::ipc::Channel;
use tauri::{AppHandle, State, Wry};
use tauri_plugin_dialog::{DialogExt, FilePath};
use tauri_plugin_opener::OpenerExt;

type Held<'a> = State<'a, Arc<App>>;
type Answer<T> = Result<T, WireError>;

#[tauri::command]
pub async fn startup(app: Held<'_>) -> Answer<Startup> {
    Ok(app.startup())
}

#[tauri::command]
pub async fn settings_get(app: Held<'_>) -> Answer<Settings> {
    Ok(app.settings_get())
}

#[tauri::command]
pub async fn settings_set(app: Held<'_>, server: State<'_, Switch>, settings: Settings) -> Answer<Settings> {
    let kept = app.settings_set(settings).await?;
    server.follow().await;
    Ok(kept)
}

#[tauri::command]
pub async fn hub_token_set(app: Held<'_>, token: Option<String>) -> Answer<Settings> {
    app.hub_token_set(token).await
}

#[tauri::command]
pub async fn hardware(app: Held<'_>) -> Answer<HardwareReport> {
    app.hardware().await
}

#[tauri::command]
pub async fn hardware_measure(app: Held<'_>) -> Answer<HardwareReport> {
    app.hardware_measure().await
}

#[tauri::command]
pub async fn monitor_start(app: Held<'_>) -> Answer<()> {
    app.monitor_start();
    Ok(())
}

#[tauri::command]
pub async fn monitor_stop(app: Held<'_>) -> Answer<()> {
    app.monitor_stop();
    Ok(())
}

#[tauri::command]
pub async fn library(app: Held<'_>) -> Answer<Vec<InstalledModel>> {
    app.library().await
}

#[tauri::command]
pub async fn library_remove(app: Held<'_>, id: String) -> Answer<()> {
    app.library_remove(id).await
}

#[tauri::command]
pub async fn library_verify(app: Held<'_>, id: String) -> Answer<Verified> {
    app.library_verify(id).await
}

#[tauri::command]
pub async fn library_verify_cancel(app: Held<'_>) -> Answer<()> {
    app.library_verify_cancel();
    Ok(())
}

#[tauri::command]
pub async fn library_reveal(app: Held<'_>, handle: AppHandle<Wry>, id: String) -> Answer<()> {
    let path = app.library_path(id).await?;
    handle.opener().reveal_item_in_dir(path).map_err(|error| WireError::internal(error.to_string()))
}

/// Asks for a GGUF file (or a folder) and shows it in the library; false if nothing was chosen.
#[tauri::command]
pub async fn library_open(app: Held<'_>, handle: AppHandle<Wry>, folder: Option<bool>) -> Answer<bool> {
    let dialog = handle.dialog().file();
    let path = match folder.unwrap_or(false) {
        true => chosen(|answer| dialog.pick_folder(answer)).await,
        false => chosen(|answer| dialog.add_filter("GGUF", &["gguf"]).pick_file(answer)).await,
    };
    match path {
        Some(path) => app.library_add(path).await.map(|()| true),
        None => Ok(false),
    }
}

/// The model of the file that the program was asked to open, once; null if there is none.
#[tauri::command]
pub async fn opened_file(app: Held<'_>) -> Answer<Option<OpenedFile>> {
    app.opened_file().await
}

/// Asks where to, and writes every chat there; null if nothing was chosen.
#[tauri::command]
pub async fn chats_export(app: Held<'_>, handle: AppHandle<Wry>) -> Answer<Option<u32>> {
    let dialog = handle.dialog().file().add_filter("JSON", &["json"]).set_file_name("headroom-chats.json");
    match chosen(|answer| dialog.save_file(answer)).await {
        Some(path) => app.chats_export(path).await.map(Some),
        None => Ok(None),
    }
}

/// Asks for a file of chats and adds them; null if nothing was chosen.
#[tauri::command]
pub async fn chats_import(app: Held<'_>, handle: AppHandle<Wry>) -> Answer<Option<u32>> {
    let mut dialog = handle.dialog().file();
    // GTK takes patterns with a dot only, which no choice of all files can be made of: there all are shown at once.
    if cfg!(windows) {
        dialog = dialog.add_filter("JSON", &["json"]).add_filter(words::all_files(app.language()), &["*"]);
    }
    match chosen(|answer| dialog.pick_file(answer)).await {
        Some(path) => app.chats_import(path).await.map(Some),
        None => Ok(None),
    }
}

#[tauri::command]
pub async fn chats_import_cancel(app: Held<'_>) -> Answer<()> {
    app.chats_import_cancel();
    Ok(())
}

#[tauri::command]
pub async fn chats_count(app: Held<'_>) -> Answer<u32> {
    app.chats_count().await
}

#[tauri::command]
pub async fn chats_delete_all(app: Held<'_>) -> Answer<u32> {
    app.chats_delete_all().await
}

/// What the user chooses in the dialog that `show` opens; nothing if it is closed.
async fn chosen(show: impl FnOnce(Box<dyn FnOnce(Option<FilePath>) + Send>)) -> Option<PathBuf> {
    let (sender, mut answer) = tauri::async_runtime::channel(1);
    show(Box::new(move |path| drop(sender.try_send(path))));
    answer.recv().await.flatten()?.into_path().ok()
}

#[tauri::command]
pub async fn hub_recommended(app: Held<'_>) -> Answer<HubPage> {
    Ok(app.hub_recommended())
}

#[tauri::command]
pub async fn hub_search(app: Held<'_>, query: HubQuery) -> Answer<HubPage> {
    app.hub_search(query).await
}

#[tauri::command]
pub async fn hub_model(app: Held<'_>, repo: String) -> Answer<HubModelPage> {
    app.hub_model(repo).await
}

#[tauri::command]
pub async fn hub_plan(
    app: Held<'_>,
    repo: String,
    commit: String,
    quant: String,
    settings: LoadSettings,
) -> Answer<QuantRow> {
    app.hub_plan(repo, commit, quant, settings).await
}

#[tauri::command]
pub async fn downloads(app: Held<'_>) -> Answer<Vec<Download>> {
    Ok(app.downloads())
}

#[tauri::command]
pub async fn download_start(app: Held<'_>, repo: String, commit: String, quant: String) -> Answer<Download> {
    app.download_start(repo, commit, quant).await
}

#[tauri::command]
pub async fn download_pause(app: Held<'_>, id: String) -> Answer<()> {
    app.download_pause(id).await
}

#[tauri::command]
pub async fn download_resume(app: Held<'_>, id: String) -> Answer<()> {
    app.download_resume(id).await
}

#[tauri::command]
pub async fn download_cancel(app: Held<'_>, id: String) -> Answer<()> {
    app.download_cancel(id).await
}

#[tauri::command]
pub async fn plan(app: Held<'_>, model_id: String, settings: LoadSettings) -> Answer<Plan> {
    app.plan(model_id, settings).await
}

#[tauri::command]
pub async fn draft_models(app: Held<'_>, model_id: String) -> Answer<Vec<String>> {
    app.draft_models(model_id).await
}

#[tauri::command]
pub async fn model_load(app: Held<'_>, model_id: String, settings: LoadSettings) -> Answer<()> {
    app.model_load(model_id, settings).await
}

#[tauri::command]
pub async fn model_unload(app: Held<'_>) -> Answer<()> {
    app.model_unload().await
}

#[tauri::command]
pub async fn model_load_cancel(app: Held<'_>) -> Answer<()> {
    app.model_load_cancel();
    Ok(())
}

#[tauri::command]
pub async fn model_state(app: Held<'_>) -> Answer<ModelState> {
    Ok(app.model_state())
}

#[tauri::command]
pub async fn set_gpu_layers(app: Held<'_>, layers: GpuLayers, cpu_moe: Option<u32>) -> Answer<ModelState> {
    app.set_gpu_layers(layers, cpu_moe).await
}

#[tauri::command]
pub async fn chats(app: Held<'_>, query: String, deleted: bool) -> Answer<Vec<ChatSummary>> {
    app.chats(query, deleted).await
}

#[tauri::command]
pub async fn chat(app: Held<'_>, id: String) -> Answer<Chat> {
    app.chat(id).await
}

#[tauri::command]
pub async fn chat_create(app: Held<'_>) -> Answer<Chat> {
    app.chat_create().await
}

#[tauri::command]
pub async fn chat_rename(app: Held<'_>, id: String, title: String) -> Answer<()> {
    app.chat_rename(id, title).await
}

#[tauri::command]
pub async fn chat_pin(app: Held<'_>, id: String, pinned: bool) -> Answer<()> {
    app.chat_pin(id, pinned).await
}

#[tauri::command]
pub async fn chat_delete(app: Held<'_>, id: String) -> Answer<()> {
    app.chat_delete(id).await
}

#[tauri::command]
pub async fn chat_restore(app: Held<'_>, id: String) -> Answer<()> {
    app.chat_restore(id).await
}

#[tauri::command]
pub async fn chat_set_system_prompt(app: Held<'_>, id: String, text: String) -> Answer<()> {
    app.chat_set_system_prompt(id, text).await
}

#[tauri::command]
pub async fn chat_set_format(app: Held<'_>, id: String, format: AnswerFormat) -> Answer<()> {
    app.chat_set_format(id, format).await
}

#[tauri::command]
pub async fn chat_select(app: Held<'_>, id: String, message: String) -> Answer<Chat> {
    app.chat_select(id, message).await
}

#[tauri::command]
pub async fn chat_send(app: Held<'_>, args: SendArgs, on_event: Channel<AnswerEvent>) -> Answer<()> {
    // A window that was closed does not end the answer: it is kept.
    app.chat_send(args, Box::new(move |event| drop(on_event.send(event)))).await
}

#[tauri::command]
pub async fn chat_stop(app: Held<'_>, chat: String) -> Answer<()> {
    app.chat_stop(&chat);
    Ok(())
}

/// Opens a web address in the browser; the window has shown where it goes.
#[tauri::command]
pub async fn open_link(handle: AppHandle<Wry>, url: String) -> Answer<()> {
    if !["https://", "http://"].iter().any(|scheme| url.to_ascii_lowercase().starts_with(scheme)) {
        return Err(WireError::bad_argument("url", "only http and https addresses are opened"));
    }
    handle.opener().open_url(url, None::<&str>).map_err(|error| WireError::internal(error.to_string()))
}
