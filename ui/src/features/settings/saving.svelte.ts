import { createContext } from "svelte";
import { has, tCode } from "../../i18n/index.svelte";
import { errorSentence } from "../../i18n/sentences";
import type { Settings, WireError } from "../../ipc";
import type { App } from "../../state/app.svelte";

const SHOWN_MS = 2000;

/** Saves what the view changes, and lets it say so for a moment. */
export class Saving {
  shown = $state(false);
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private app: App) {}

  /** null if it was saved, or why not. */
  async keep(change: Partial<Settings>): Promise<string | null> {
    return this.told(await this.app.settings.attempt(change));
  }

  /** For controls whose values cannot be wrong: a failure is told in the corner. */
  async pick(change: Partial<Settings>): Promise<void> {
    const refused = await this.keep(change);
    if (refused !== null) {
      this.app.toasts.add(refused, { kind: "error" });
    }
  }

  async token(token: string | null): Promise<string | null> {
    return this.told(await this.app.settings.setToken(token));
  }

  private told(refused: WireError | null): string | null {
    if (refused) {
      return fieldSentence(refused);
    }
    this.shown = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (this.shown = false), SHOWN_MS);
    return null;
  }
}

/** A refused value in words that fit below its field. */
export function fieldSentence(error: WireError): string {
  const key = `settings.bad_${error.subject}`;
  return error.code === "badArgument" && has(key) ? tCode(key, {}) : errorSentence(error);
}

export const [useSaving, provideSaving] = createContext<Saving>();
