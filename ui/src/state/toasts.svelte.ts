import type { Toast } from "../design/toast";
import { errorSentence } from "../i18n/sentences";
import { toWireError } from "../ipc";

const SHOWN_MS = 7000;
const MOST = 4;

/** Short messages in the corner. Errors stay until they are dismissed. */
export class Toasts {
  list = $state<Toast[]>([]);
  private next = 1;

  add(text: string, options: Partial<Omit<Toast, "id" | "text">> & { stay?: boolean } = {}): void {
    const { stay = false, kind = "info", actions = [], testId } = options;
    // The same message twice is one message, and a newer one of its kind takes the place of the older.
    const repeated = (toast: Toast) =>
      toast.text === text || (testId !== undefined && toast.testId === testId);
    this.list = this.list.filter((toast) => !repeated(toast)).slice(1 - MOST);
    const toast: Toast = { id: this.next++, kind, text, actions, testId };
    this.list.push(toast);
    if (!stay && kind !== "error") {
      setTimeout(() => this.dismiss(toast), SHOWN_MS);
    }
  }

  /** What a failed command threw. That something was cancelled is no news to who did it. */
  error(error: unknown): void {
    const wire = toWireError(error);
    if (wire.code !== "cancelled") {
      this.add(errorSentence(wire), { kind: "error" });
    }
  }

  dismiss({ id }: Pick<Toast, "id">): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }
}
