import { createContext } from "svelte";
import { t } from "../i18n/index.svelte";
import { recoverySentence, recoveryWhy } from "../i18n/sentences";
import type { Api, AppEvent, Download, InstalledModel, RecoveryNotice, ServerState } from "../ipc";
import { ChatsStore } from "./chats.svelte";
import { DownloadsStore } from "./downloads.svelte";
import { LibraryStore } from "./library.svelte";
import { ModelStore } from "./model.svelte";
import { MonitorStore } from "./monitor.svelte";
import { Navigation } from "./navigation.svelte";
import { SearchStore } from "./search.svelte";
import { SettingsStore } from "./settings.svelte";
import { Toasts } from "./toasts.svelte";

/** Everything that more than one view knows. Views get it with `useApp()`; tests make their own. */
export class App {
  readonly navigation = new Navigation();
  readonly toasts = new Toasts();
  readonly settings: SettingsStore;
  readonly model: ModelStore;
  readonly library: LibraryStore;
  readonly downloads: DownloadsStore;
  readonly monitor: MonitorStore;
  readonly chats: ChatsStore;
  readonly search: SearchStore;
  /** How other programs can ask the loaded model. */
  server = $state.raw<ServerState>({ type: "off" });
  version = $state("");

  constructor(readonly api: Api) {
    const failed = (error: unknown) => this.toasts.error(error);
    this.settings = new SettingsStore(api, failed);
    this.model = new ModelStore(api, failed);
    this.library = new LibraryStore(api, failed);
    this.downloads = new DownloadsStore(api, failed);
    this.monitor = new MonitorStore(api, failed);
    this.chats = new ChatsStore(api, failed);
    this.search = new SearchStore(api);
  }

  /** Settles when the first frame can be drawn. Returns how to stop listening. */
  async start(): Promise<() => void> {
    // Listen first: what changes between the picture and the first event would be lost otherwise.
    const stop = await this.api.onEvent((event) => this.take(event));
    const startup = await this.api.startup();
    this.version = startup.version;
    this.settings.start(startup);
    this.model.take(startup.model);
    this.takeServer(startup.server);
    this.downloads.list = startup.downloads;
    void this.library.refresh();
    void this.monitor.refreshHardware();
    void this.chats.start(startup.openChat ?? startup.interruptedChat);
    void this.openFile();
    if (startup.openChat !== null && startup.interruptedChat !== null) {
      this.tellInterrupted(startup.interruptedChat);
    }
    if (startup.keptAside?.length) {
      this.toasts.add(t("common.keptAside", { names: startup.keptAside.join(", ") }), {
        kind: "warning",
        stay: true,
      });
    }
    return stop;
  }

  take(event: AppEvent): void {
    switch (event.type) {
      case "model":
        if (event.state.type === "loading" && event.state.modelId !== this.model.id) {
          this.navigation.opened = null;
        }
        this.model.take(event.state);
        break;
      case "server":
        this.takeServer(event.state);
        break;
      case "recovery":
        this.tellRecovery(event.notice);
        break;
      case "forgotten":
        this.toasts.add(t("chat.forgotten", { title: event.title || t("chat.untitled") }));
        break;
      case "download":
        this.downloads.take(event.download);
        this.loadIfWanted(event.download);
        break;
      case "library":
        void this.library.refresh();
        break;
      case "fileAsked":
        void this.openFile();
        break;
      case "import":
        this.chats.takeImport(event.progress);
        break;
      case "verify":
        this.library.takeVerify(event.modelId, event.progress);
        break;
      case "monitor":
        this.monitor.take(event.sample);
        break;
      case "hardware":
        this.monitor.hardware = event.hardware;
        break;
    }
  }

  /** Loads a model with the settings it had the last time, and shows the chat. */
  async use(model: Pick<InstalledModel, "id">): Promise<void> {
    this.navigation.openMessage();
    if (this.model.id === model.id && this.model.state.type === "ready") {
      return;
    }
    await this.model.load(model.id, this.settings.load(model.id));
  }

  /** Asks for a file or a folder, whose models are then in the library. */
  async addModels(folder: boolean): Promise<void> {
    try {
      if (await this.api.libraryOpen(folder)) {
        await Promise.all([this.settings.refresh(), this.library.refresh()]);
      }
    } catch (error) {
      this.toasts.error(error);
    }
  }

  /** Shows the model of a file that the program was asked to open, if there is one. */
  private async openFile(): Promise<void> {
    try {
      const opened = await this.api.openedFile();
      if (opened === null) {
        return;
      }
      const { modelId, added } = opened;
      await Promise.all([this.settings.refresh(), this.library.refresh()]);
      this.navigation.openModel(modelId);
      if (!this.settings.current.inspectorOpen) {
        void this.settings.change({ inspectorOpen: true });
      }
      const name = this.library.find(modelId)?.name ?? "";
      if (added || this.model.loaded?.modelId !== modelId) {
        this.toasts.add(t(added ? "chat.openedNew" : "chat.opened", { name }), { testId: "opened" });
      }
    } catch (error) {
      this.toasts.error(error);
    }
  }

  /** The first model loads by itself; nobody who has one loaded loses it. */
  private loadIfWanted({ id, state, modelId }: Download): void {
    if (
      state === "done" &&
      modelId !== null &&
      this.downloads.thenLoad.delete(id) &&
      this.model.id === null
    ) {
      void this.model.load(modelId, this.settings.load(modelId));
    }
  }

  private takeServer(state: ServerState): void {
    this.server = state;
    // Beside the switch it is told there.
    if (state.type === "failed" && this.navigation.place !== "settings") {
      this.toasts.error(state.error);
    }
  }

  /** Puts the layers, and experts, back that a recovery moved to RAM. */
  moveBack(notice: RecoveryNotice): Promise<void> {
    const layers = notice.gpuLayers + notice.layersMoved;
    return this.model.setGpuLayers({ type: "fixed", layers }, this.model.loaded?.settings.cpuMoe ?? null);
  }

  /** Another chat is shown first: that an answer was cut is told aside. */
  private tellInterrupted(chat: string): void {
    const show = () => {
      this.navigation.go("chat");
      void this.chats.show(chat);
    };
    this.toasts.add(t("chat.interruptedElsewhere"), {
      stay: true,
      actions: [{ label: t("common.open"), run: show }],
    });
  }

  private tellRecovery(notice: RecoveryNotice): void {
    // Where the reader looks at the answer, the conversation tells it.
    const seen = this.navigation.place === "chat" && Boolean(this.chats.shown?.answer);
    if (notice.duringAnswer && seen) {
      return;
    }
    const free = notice.cause === "vramFree" || notice.cause === "gpuBack";
    // What never moved cannot move back.
    const again = notice.duringAnswer || free ? t("plan.recovery_back") : t("common.retry");
    const why = () => this.toasts.add(recoveryWhy(notice), { stay: true });
    this.toasts.add(recoverySentence(notice), {
      kind: free ? "info" : "warning",
      stay: true,
      testId: "recovery-notice",
      actions: [
        { label: t("plan.recovery_why"), run: why },
        { label: again, run: () => void this.moveBack(notice) },
      ],
    });
  }
}

export const [useApp, provideApp] = createContext<App>();
