import type { Api, GpuReason, LoadedModel, LoadSettings, Plan, WireError } from "../../../ipc";
import { toWireError } from "../../../ipc";
import type { LibraryStore } from "../../../state/library.svelte";
import { DEFAULT_LOAD, type ModelStore } from "../../../state/model.svelte";
import type { MonitorStore } from "../../../state/monitor.svelte";
import type { Navigation } from "../../../state/navigation.svelte";
import type { SettingsStore } from "../../../state/settings.svelte";

interface Parts {
  api: Api;
  library: LibraryStore;
  model: ModelStore;
  monitor: MonitorStore;
  navigation: Navigation;
  settings: SettingsStore;
}

/** What moves while the model is loaded. */
type Placement = Partial<Pick<LoadSettings, "gpuLayers" | "cpuMoe">>;

/** What the load panel shows: a model, how it should be loaded, and the plan that follows. */
export class LoadPanel {
  modelId = $state<string | null>(null);
  wish = $state.raw<LoadSettings>(DEFAULT_LOAD);
  /** The newest plan that came back; the one before stays until then. */
  plan = $state.raw<Plan | null>(null);
  problem = $state.raw<WireError | null>(null);
  /** Ids of the models that can guess for this one. */
  drafts = $state.raw<string[]>([]);
  private followed: string | null = null;
  /** The file's model that was shown. */
  private opened: { id: string } | null = null;
  /** The model that is being loaded as wished here. */
  private wished: string | null = null;
  private dragging = false;
  /** Plans that were asked for before are old. */
  private agreed = 0;
  private asking = false;
  private askAgain = false;

  constructor(private app: Parts) {}

  /** The panel shows the loaded model, with its settings. */
  get isLoaded(): boolean {
    return this.modelId !== null && this.app.model.loaded?.modelId === this.modelId;
  }

  /** What can only be changed by loading again differs. */
  get needsReload(): boolean {
    const loaded = this.app.model.loaded?.settings;
    return (
      this.isLoaded &&
      loaded !== undefined &&
      (loaded.context !== this.wish.context ||
        loaded.kvTypeK !== this.wish.kvTypeK ||
        loaded.kvTypeV !== this.wish.kvTypeV ||
        loaded.draft !== this.wish.draft)
    );
  }

  /** Where the slider's mark and limit are: while the model is loaded, what the engine goes by. */
  get bounds(): Plan | null {
    const loaded = this.app.model.loaded;
    return loaded && this.isLoaded && !this.needsReload ? loaded.plan : this.plan;
  }

  /** Why no layers can go to a GPU, if so. */
  get gpuReason(): GpuReason | null {
    const { model, monitor } = this.app;
    return this.isLoaded && model.loaded ? model.loaded.gpuReason : (monitor.hardware?.gpuReason ?? null);
  }

  choose(id: string): void {
    this.modelId = id;
    const loaded = this.app.model.loaded;
    this.wish = loaded?.modelId === id ? loaded.settings : this.app.settings.load(id);
    this.plan = loaded?.modelId === id ? loaded.plan : null;
    this.problem = null;
    this.drafts = [];
    void this.findDrafts();
    if (this.plan === null) {
      void this.ask();
    }
  }

  /** A file was opened, or another model is loaded, or how it is. A model that the user looks at meanwhile stays. */
  follow(): void {
    const { model, library, navigation } = this.app;
    const { opened } = navigation;
    if (opened && opened !== this.opened && library.find(opened.id)) {
      this.opened = opened;
      this.choose(opened.id);
    } else if (model.id !== null && model.id !== this.followed && model.id !== this.wished) {
      this.followed = model.id;
      this.choose(model.id);
    } else if (this.modelId === null || !library.find(this.modelId)) {
      const first = library.usable[0];
      if (first) {
        this.choose(first.id);
      }
    } else if (model.loaded && this.isLoaded && !this.dragging && !model.moving) {
      this.agree(model.loaded);
    }
    this.followed = model.id;
  }

  /** Nothing moves: the slider stands where the layers are, and the plan is the engine's own. */
  private agree(loaded: LoadedModel): void {
    const auto = loaded.settings.gpuLayers.type === "auto";
    this.wish = {
      ...this.wish,
      gpuLayers: auto ? loaded.settings.gpuLayers : { type: "fixed", layers: loaded.gpuLayers },
      cpuMoe: loaded.settings.cpuMoe === null ? null : loaded.cpuMoe,
    };
    this.agreed += 1;
    if (this.needsReload) {
      void this.ask();
    } else {
      this.plan = loaded.plan;
    }
  }

  /** Asks which installed models can guess for this one; a model that is new may be one of them. */
  async findDrafts(): Promise<void> {
    const id = this.modelId;
    if (id !== null) {
      // A model that is gone says so elsewhere.
      const drafts = await this.app.api.draftModels(id).catch(() => []);
      if (id === this.modelId) {
        this.drafts = drafts;
      }
    }
  }

  /** The speeds of this PC are known, or known better. */
  measured(): void {
    if (this.modelId !== null && (!this.isLoaded || this.needsReload)) {
      void this.ask();
    }
  }

  change(change: Partial<LoadSettings>): void {
    this.wish = { ...this.wish, ...change };
    void this.ask();
  }

  /** The slider moved: only the plan follows. */
  move(placement: Placement): void {
    this.dragging = true;
    this.change(placement);
  }

  /** The slider was let go, or "Auto" was switched: the engine follows, if it has the model. */
  async settle(placement: Placement): Promise<void> {
    this.dragging = false;
    this.change(placement);
    if (this.isLoaded) {
      await this.app.model.setGpuLayers(this.wish.gpuLayers, this.wish.cpuMoe);
    }
  }

  async load(): Promise<void> {
    if (this.modelId !== null) {
      this.wished = this.modelId;
      await this.app.model.load(this.modelId, this.wish);
      this.wished = null;
    }
  }

  /** One question at a time; while it runs, only the newest wish waits. */
  private async ask(): Promise<void> {
    if (this.asking) {
      this.askAgain = true;
      return;
    }
    this.asking = true;
    do {
      this.askAgain = false;
      await this.askOnce();
    } while (this.askAgain);
    this.asking = false;
  }

  private async askOnce(): Promise<void> {
    const [id, agreed] = [this.modelId, this.agreed];
    if (id === null) {
      return;
    }
    try {
      const plan = await this.app.api.plan(id, this.wish);
      if (id === this.modelId && agreed === this.agreed) {
        this.plan = plan;
        this.problem = null;
      }
    } catch (error) {
      if (id === this.modelId && agreed === this.agreed) {
        this.plan = null;
        this.problem = toWireError(error);
      }
    }
  }
}
