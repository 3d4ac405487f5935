import type { FileProgress } from "../ipc";
import { bytes, timeLeft } from "./format";
import { t } from "./index.svelte";

/** 0..1 */
export function share({ bytes, total }: Pick<FileProgress, "bytes" | "total">): number {
  return total > 0 ? Math.min(1, bytes / total) : 0;
}

/** "250 MB of 1.0 GB · 1 min 30 s left", with something in the middle. */
export function howFar(progress: FileProgress, ...middle: string[]): string {
  const { bytes: done, total, secondsLeft } = progress;
  const far = t("common.of", { done: bytes(done), total: bytes(total) });
  return inLine(far, ...middle, timeLeft(secondsLeft));
}

/** What there is to say, in one line. */
export function inLine(...parts: (string | null)[]): string {
  return parts.filter((part) => part !== null).join(" · ");
}
