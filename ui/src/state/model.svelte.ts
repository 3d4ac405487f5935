import type { Api, GpuLayers, LoadSettings, LoadedModel, ModelState } from "../ipc";
import { toWireError } from "../ipc";
import { TimeLeft } from "./time-left";

export const DEFAULT_LOAD: LoadSettings = {
  gpuLayers: { type: "auto" },
  cpuMoe: null,
  context: null,
  kvTypeK: "f16",
  kvTypeV: "f16",
  draft: null,
};

/** The one model that is loaded, or on its way. */
export class ModelStore {
  state = $state.raw<ModelState>({ type: "none" });
  /** Seconds until the stage of loading that runs is done, if that can be told and takes long. */
  secondsLeft = $state<number | null>(null);
  /** Layers are being moved because the slider was let go. */
  moving = $state(false);
  private wanted: Parameters<Api["setGpuLayers"]> | null = null;
  private asking = 0;
  private clock = new TimeLeft();

  constructor(
    private api: Api,
    private failed: (error: unknown) => void,
  ) {}

  get loaded(): LoadedModel | null {
    return this.state.type === "ready" ? this.state.loaded : null;
  }

  /** The model that is loaded, loading or failed to load. */
  get id(): string | null {
    switch (this.state.type) {
      case "none":
        return null;
      case "ready":
        return this.state.loaded.modelId;
      default:
        return this.state.modelId;
    }
  }

  take(state: ModelState): void {
    this.state = state;
    this.secondsLeft = state.type === "loading" ? this.clock.tell(state.progress) : null;
  }

  /** True when the model is ready. A failure is part of the state and told there. */
  async load(modelId: string, settings: LoadSettings): Promise<boolean> {
    try {
      await this.api.modelLoad(modelId, settings);
      this.take(await this.api.modelState());
      return true;
    } catch (error) {
      this.take(await this.api.modelState());
      if (this.state.type !== "failed" && toWireError(error).code !== "cancelled") {
        this.failed(error);
      }
      return false;
    }
  }

  async unload(): Promise<void> {
    await this.attempt(() => this.api.modelUnload());
  }

  async cancel(): Promise<void> {
    await this.attempt(() => this.api.modelLoadCancel());
  }

  /**
   * Moves layers and experts of the loaded model, also in the middle of an answer. A second wish takes the place of one that is
   * being done; of those that come while both are under way the last counts.
   */
  async setGpuLayers(layers: GpuLayers, cpuMoe: number | null): Promise<void> {
    this.wanted = [layers, cpuMoe];
    if (this.asking === 2) {
      return;
    }
    this.asking += 1;
    this.moving = true;
    for (let next = this.takeWanted(); next; next = this.takeWanted()) {
      const wish = next;
      await this.attempt(async () => {
        this.take(await this.api.setGpuLayers(...wish));
      });
    }
    this.asking -= 1;
    this.moving = this.asking > 0;
  }

  private takeWanted(): Parameters<Api["setGpuLayers"]> | null {
    const wanted = this.wanted;
    this.wanted = null;
    return wanted;
  }

  private async attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.failed(error);
    }
  }
}
