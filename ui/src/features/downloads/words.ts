import { bytes, bytesPerSecond, percent, timeLeft } from "../../i18n/format";
import { t } from "../../i18n/index.svelte";
import { howFar, inLine, share } from "../../i18n/progress";
import { errorSentence } from "../../i18n/sentences";
import type { Download } from "../../ipc";

const ORDER: Download["state"][] = ["running", "verifying", "waiting", "queued", "paused", "failed", "done"];

/** What works comes first, what is done last; otherwise as they were begun. */
export function sorted(downloads: Download[]): Download[] {
  return [...downloads].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state));
}

/** Bytes of it that are on the disk. While it is checked, its figure counts bytes that were compared. */
export function arrived({ state, bytes, total }: Pick<Download, "state" | "bytes" | "total">): number {
  return state === "verifying" ? total : bytes;
}

/** "Qwen3-8B Q4_K_M" */
export function nameOf({ repo, quant }: Pick<Download, "repo" | "quant">): string {
  return `${shortRepo(repo)} ${quant}`;
}

/** The name without its owner and without what all of them end in. */
export function shortRepo(repo: string): string {
  return repo.slice(repo.indexOf("/") + 1).replace(/[-_.]gguf$/i, "");
}

/** How a download is doing, in one line. */
export function statusLine(download: Download): string {
  const { state, error } = download;
  const values = {
    percent: percent(share(download)),
    done: bytes(download.bytes),
    total: bytes(download.total),
  };
  switch (state) {
    case "running":
      return download.bytesPerSecond > 0 ? running(download) : t("downloads.starting");
    case "waiting": {
      const lost = error === null || error.code === "offline";
      return t(lost ? "downloads.waiting" : "downloads.waitingBusy", { percent: values.percent });
    }
    case "paused":
      return t("downloads.paused", values);
    case "failed":
      return error ? errorSentence(error) : t("downloads.failed", { percent: values.percent });
    case "verifying":
      return inLine(t("downloads.verifying"), timeLeft(download.secondsLeft));
    case "done":
      return t("downloads.done", { total: values.total });
    default:
      return t(`downloads.${state}`);
  }
}

function running(download: Download): string {
  return howFar(download, bytesPerSecond(download.bytesPerSecond));
}
