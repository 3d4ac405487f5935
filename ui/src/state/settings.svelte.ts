import { setLanguage } from "../i18n/index.svelte";
import type { Api, Language, Settings } from "../ipc";
import { applyTheme } from "./theme";

/** The user's settings; a change is shown at once and kept by the program. */
export class SettingsStore {
  current = $state() as Settings;
  private systemLanguage: Language = "en";
  /** Changes are written one after the other, so that the last one wins. */
  private writing: Promise<void> = Promise.resolve();

  constructor(
    private api: Api,
    private failed: (error: unknown) => void,
  ) {}

  start(settings: Settings, systemLanguage: Language): void {
    this.systemLanguage = systemLanguage;
    this.take(settings);
  }

  /** Changes some settings. If the program refuses, the ones before come back and the reason is told. */
  change(change: Partial<Settings>): Promise<void> {
    const wanted = { ...$state.snapshot(this.current), ...change };
    this.take(wanted);
    this.writing = this.writing.then(async () => {
      try {
        const kept = await this.api.settingsSet({ ...$state.snapshot(this.current), ...change });
        this.current.hasHubToken = kept.hasHubToken;
      } catch (error) {
        this.take(await this.api.settingsGet());
        this.failed(error);
      }
    });
    return this.writing;
  }

  /** As the program says, after it changed them itself. */
  take(settings: Settings): void {
    this.current = settings;
    setLanguage(settings.language === "auto" ? this.systemLanguage : settings.language);
    applyTheme(settings.theme);
  }
}
