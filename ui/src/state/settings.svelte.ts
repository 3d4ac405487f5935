import { setLanguage } from "../i18n/index.svelte";
import {
  toWireError,
  type Api,
  type Language,
  type LoadSettings,
  type Settings,
  type Startup,
  type WireError,
} from "../ipc";
import { DEFAULT_LOAD } from "./model.svelte";
import { applyTheme } from "./theme";

/** The user's settings; a change is shown at once and kept by the program. */
export class SettingsStore {
  current = $state() as Settings;
  /** The Hub's address that the program was started with; comes before the settings. */
  startedHub = $state.raw<string | null>(null);
  /** The Hub's address where the settings name none. */
  defaultHub = $state.raw("https://huggingface.co");
  private systemLanguage: Language = "en";
  /** Changes are written one after the other, so that the last one wins. */
  private writing: Promise<unknown> = Promise.resolve();
  private waiting = 0;

  constructor(
    private api: Api,
    private failed: (error: unknown) => void,
  ) {}

  start({ settings, systemLanguage, hubEndpoint, hubEndpointDefault }: Startup): void {
    this.systemLanguage = systemLanguage;
    this.startedHub = hubEndpoint;
    this.defaultHub = hubEndpointDefault;
    this.take(settings);
  }

  /** Where the program finds models. */
  get hub(): string {
    return (this.startedHub ?? this.current.hubEndpoint ?? this.defaultHub).trim().replace(/\/+$/, "");
  }

  /** How a model was loaded the last time. */
  load(modelId: string): LoadSettings {
    const last = this.current.load[modelId];
    return last ? $state.snapshot(last) : DEFAULT_LOAD;
  }

  /** Changes some settings. If the program refuses, the ones before come back and the reason is told. */
  async change(change: Partial<Settings>): Promise<void> {
    const refused = await this.attempt(change);
    if (refused) {
      this.failed(refused);
    }
  }

  /** The same for a field that tells the reason itself: what the program refused, or null. */
  attempt(change: Partial<Settings>): Promise<WireError | null> {
    this.take({ ...$state.snapshot(this.current), ...change });
    return this.write(async () => this.api.settingsSet({ ...(await this.api.settingsGet()), ...change }));
  }

  setToken(token: string | null): Promise<WireError | null> {
    return this.write(() => this.api.hubTokenSet(token));
  }

  /** After the program changed settings itself. */
  refresh(): Promise<WireError | null> {
    return this.write(() => this.api.settingsGet());
  }

  private write(work: () => Promise<Settings>): Promise<WireError | null> {
    this.waiting += 1;
    const written = this.writing.then(async () => {
      let refused: WireError | null = null;
      const kept = await work().catch((error: unknown) => {
        refused = toWireError(error);
        return this.api.settingsGet().catch(() => null);
      });
      this.waiting -= 1;
      // What comes later is shown already.
      if (kept && this.waiting === 0) {
        this.take(kept);
      }
      return refused;
    });
    this.writing = written;
    return written;
  }

  /** As the program says, after it changed them itself. */
  take(settings: Settings): void {
    this.current = settings;
    setLanguage(settings.language === "auto" ? this.systemLanguage : settings.language);
    applyTheme(settings.theme);
  }
}
