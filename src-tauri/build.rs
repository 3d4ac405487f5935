//! Names the commands, so that each needs a permission (`allow-NAME`), and checks that there is a window to embed.

/// Every command of `src/commands.rs`. The capability of the main window allows them one by one.
const COMMANDS: &[&str] = &[
    "startup",
    "settings_get",
    "settings_set",
    "hub_token_set",
    "hardware",
    "hardware_measure",
    "monitor_start",
    "monitor_stop",
    "library",
    "library_remove",
    "library_verify",
    "library_verify_cancel",
    "library_reveal",
    "library_open",
    "opened_file",
    "hub_recommended",
    "hub_search",
    "hub_model",
    "hub_plan",
    "downloads",
    "download_start",
    "download_pause",
    "download_resume",
    "download_cancel",
    "plan",
    "draft_models",
    "model_load",
    "model_unload",
    "model_load_cancel",
    "model_state",
    "set_gpu_layers",
    "chats",
    "chat",
    "chat_create",
    "chat_rename",
    "chat_pin",
    "chat_delete",
    "chat_restore",
    "chats_export",
    "chats_import",
    "chats_import_cancel",
    "chats_count",
    "chats_delete_all",
    "chat_set_system_prompt",
    "chat_set_format",
    "chat_select",
    "chat_send",
    "chat_stop",
    "open_link",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if !std::path::Path::new("../ui/dist/index.html").is_file() {
        return Err("the window is not built yet (ui/dist is missing): run `cargo xtask run`, \
                    which builds it first, or `npm run build` in ui"
            .into());
    }
    println!("cargo::rerun-if-changed=../ui/dist");
    let manifest = tauri_build::AppManifest::new().commands(COMMANDS);
    Ok(tauri_build::try_build(tauri_build::Attributes::new().app_manifest(manifest))?)
}
