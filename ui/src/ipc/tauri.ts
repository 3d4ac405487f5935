import { Channel, invoke } from "@tauri-apps/api/core";
import { listen } from "@tauri-apps/api/event";
import type { Api } from "./api";
import type { AnswerEvent, AppEvent } from "./bindings";

/** The program itself, through Tauri. */
export const tauriApi: Api = {
  startup: () => invoke("startup"),
  settingsGet: () => invoke("settings_get"),
  settingsSet: (settings) => invoke("settings_set", { settings }),
  hubTokenSet: (token) => invoke("hub_token_set", { token }),

  hardware: () => invoke("hardware"),
  hardwareMeasure: () => invoke("hardware_measure"),
  monitorStart: () => invoke("monitor_start"),
  monitorStop: () => invoke("monitor_stop"),

  library: () => invoke("library"),
  libraryRemove: (id) => invoke("library_remove", { id }),
  libraryVerify: (id) => invoke("library_verify", { id }),
  libraryVerifyCancel: () => invoke("library_verify_cancel"),
  libraryReveal: (id) => invoke("library_reveal", { id }),
  libraryOpen: (folder) => invoke("library_open", { folder }),
  openedFile: () => invoke("opened_file"),

  hubRecommended: () => invoke("hub_recommended"),
  hubSearch: (query) => invoke("hub_search", { query }),
  hubModel: (repo) => invoke("hub_model", { repo }),
  hubPlan: (repo, commit, quant, settings) => invoke("hub_plan", { repo, commit, quant, settings }),

  downloads: () => invoke("downloads"),
  downloadStart: (repo, commit, quant) => invoke("download_start", { repo, commit, quant }),
  downloadPause: (id) => invoke("download_pause", { id }),
  downloadResume: (id) => invoke("download_resume", { id }),
  downloadCancel: (id) => invoke("download_cancel", { id }),

  plan: (modelId, settings) => invoke("plan", { modelId, settings }),
  draftModels: (modelId) => invoke("draft_models", { modelId }),
  modelLoad: (modelId, settings) => invoke("model_load", { modelId, settings }),
  modelLoadCancel: () => invoke("model_load_cancel"),
  modelUnload: () => invoke("model_unload"),
  modelState: () => invoke("model_state"),
  setGpuLayers: (layers, cpuMoe) => invoke("set_gpu_layers", { layers, cpuMoe }),

  chats: (query, deleted) => invoke("chats", { query, deleted }),
  chat: (id) => invoke("chat", { id }),
  chatCreate: () => invoke("chat_create"),
  chatRename: (id, title) => invoke("chat_rename", { id, title }),
  chatPin: (id, pinned) => invoke("chat_pin", { id, pinned }),
  chatDelete: (id) => invoke("chat_delete", { id }),
  chatRestore: (id) => invoke("chat_restore", { id }),
  chatsExport: () => invoke("chats_export"),
  chatsImport: () => invoke("chats_import"),
  chatsImportCancel: () => invoke("chats_import_cancel"),
  chatsCount: () => invoke("chats_count"),
  chatsDeleteAll: () => invoke("chats_delete_all"),
  chatSetSystemPrompt: (id, text) => invoke("chat_set_system_prompt", { id, text }),
  chatSetFormat: (id, format) => invoke("chat_set_format", { id, format }),
  chatSelect: (id, message) => invoke("chat_select", { id, message }),
  chatSend: (args, onEvent) => invoke("chat_send", { args, onEvent: new Channel<AnswerEvent>(onEvent) }),
  chatStop: (chat) => invoke("chat_stop", { chat }),

  openLink: (url) => invoke("open_link", { url }),

  onEvent: (listener) => listen<AppEvent>("headroom", (event) => listener(event.payload)),
};
