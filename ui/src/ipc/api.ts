import type {
  AnswerEvent,
  AnswerFormat,
  AppEvent,
  Chat,
  ChatSummary,
  Download,
  GpuLayers,
  HardwareReport,
  HubModelPage,
  HubPage,
  HubQuery,
  InstalledModel,
  LoadSettings,
  ModelState,
  OpenedFile,
  Plan,
  QuantRow,
  SendArgs,
  Settings,
  Startup,
  Verified,
  WireError,
} from "./bindings";

/** Every command of the program, one method each. A failed command rejects with a `WireError`. */
export interface Api {
  startup(): Promise<Startup>;
  settingsGet(): Promise<Settings>;
  settingsSet(settings: Settings): Promise<Settings>;
  /** null: forget the token. */
  hubTokenSet(token: string | null): Promise<Settings>;

  hardware(): Promise<HardwareReport>;
  /** Takes a few seconds. */
  hardwareMeasure(): Promise<HardwareReport>;
  monitorStart(): Promise<void>;
  monitorStop(): Promise<void>;

  library(): Promise<InstalledModel[]>;
  libraryRemove(id: string): Promise<void>;
  /** Compares its bytes with what the Hub said of them; progress comes as `verify` events, one runs at a time. */
  libraryVerify(id: string): Promise<Verified>;
  /** Ends the verification that runs; it rejects with `cancelled`. */
  libraryVerifyCancel(): Promise<void>;
  /** Shows the file in the file manager. */
  libraryReveal(id: string): Promise<void>;
  /** Asks for a file or folder and shows it in the library; false if nothing was chosen. */
  libraryOpen(folder: boolean): Promise<boolean>;
  /** The model of the file that the program was asked to open, once; null if there is none. */
  openedFile(): Promise<OpenedFile | null>;

  hubRecommended(): Promise<HubPage>;
  hubSearch(query: HubQuery): Promise<HubPage>;
  /** Rows come without plans; ask `hubPlan` for each. */
  hubModel(repo: string): Promise<HubModelPage>;
  hubPlan(repo: string, commit: string, quant: string, settings: LoadSettings): Promise<QuantRow>;

  downloads(): Promise<Download[]>;
  downloadStart(repo: string, commit: string, quant: string): Promise<Download>;
  downloadPause(id: string): Promise<void>;
  downloadResume(id: string): Promise<void>;
  /** Deletes what was fetched. */
  downloadCancel(id: string): Promise<void>;

  /** Takes below 16 ms: may be asked for at every step of the slider. */
  plan(modelId: string, settings: LoadSettings): Promise<Plan>;
  /** Ids of the installed models that can guess for this one. */
  draftModels(modelId: string): Promise<string[]>;
  /** Settles when the model is ready; progress comes as `model` events. */
  modelLoad(modelId: string, settings: LoadSettings): Promise<void>;
  modelLoadCancel(): Promise<void>;
  modelUnload(): Promise<void>;
  modelState(): Promise<ModelState>;
  setGpuLayers(layers: GpuLayers, cpuMoe: number | null): Promise<ModelState>;

  chats(query: string, deleted: boolean): Promise<ChatSummary[]>;
  chat(id: string): Promise<Chat>;
  chatCreate(): Promise<Chat>;
  chatRename(id: string, title: string): Promise<void>;
  chatPin(id: string, pinned: boolean): Promise<void>;
  /** Into the bin, for 30 days. */
  chatDelete(id: string): Promise<void>;
  chatRestore(id: string): Promise<void>;
  /** Asks where to; the number of chats, null if nothing was chosen. */
  chatsExport(): Promise<number | null>;
  /** Asks for a file; the number of chats that came, null if nothing was chosen. */
  chatsImport(): Promise<number | null>;
  /** Ends the import that runs; it rejects with `cancelled`, and nothing is added. */
  chatsImportCancel(): Promise<void>;
  /** Of all chats, those in the bin too. */
  chatsCount(): Promise<number>;
  /** For good, the bin too; the number of chats. */
  chatsDeleteAll(): Promise<number>;
  chatSetSystemPrompt(id: string, text: string): Promise<void>;
  /** Rejects a schema that cannot be used; nothing is changed then. */
  chatSetFormat(id: string, format: AnswerFormat): Promise<void>;
  /** Shows the branch that the message is on. */
  chatSelect(id: string, message: string): Promise<Chat>;
  /** Settles when the answer has begun; the events go on until `finished`. */
  chatSend(args: SendArgs, onEvent: (event: AnswerEvent) => void): Promise<void>;
  chatStop(chat: string): Promise<void>;

  openLink(url: string): Promise<void>;

  /** Events that come at any time; returns how to stop listening. */
  onEvent(listener: (event: AppEvent) => void): Promise<() => void>;
}

/** What a rejected command threw. Anything unexpected becomes `internal`. */
export function toWireError(error: unknown): WireError {
  if (typeof error === "object" && error !== null && "code" in error && "message" in error) {
    return error as WireError;
  }
  return wireError("internal", error instanceof Error ? error.message : String(error));
}

export function wireError(
  code: WireError["code"],
  message: string,
  more: Partial<WireError> = {},
): WireError {
  return { code, message, needed: null, available: null, subject: null, retryAfter: null, ...more };
}
