import { SvelteSet } from "svelte/reactivity";
import type { Api, Download } from "../ipc";
import { toWireError } from "../ipc";

/** Downloads, as the program tells about them. */
export class DownloadsStore {
  list = $state.raw<Download[]>([]);
  /** Downloads whose models are loaded when they are there, if nothing else is loaded then. */
  readonly thenLoad = new SvelteSet<string>();

  constructor(
    private api: Api,
    private failed: (error: unknown) => void,
  ) {}

  get running(): number {
    return this.list.filter(({ state }) => state === "running" || state === "verifying").length;
  }

  of(repo: string, quant: string): Download | undefined {
    return this.list.findLast((download) => download.repo === repo && download.quant === quant);
  }

  take(download: Download): void {
    if (download.state === "cancelled") {
      this.list = this.list.filter(({ id }) => id !== download.id);
      return;
    }
    const known = this.list.some(({ id }) => id === download.id);
    this.list = known
      ? this.list.map((old) => (old.id === download.id ? download : old))
      : [...this.list, download];
  }

  /** The download, or null if it did not begin (the reason was told). */
  async start(repo: string, commit: string, quant: string): Promise<Download | null> {
    try {
      const download = await this.api.downloadStart(repo, commit, quant);
      if (!this.list.some(({ id }) => id === download.id)) {
        this.take(download);
      }
      return download;
    } catch (error) {
      this.failed(error);
      return null;
    }
  }

  pause(id: string): Promise<void> {
    return this.attempt(() => this.api.downloadPause(id));
  }

  resume(id: string): Promise<void> {
    return this.attempt(() => this.api.downloadResume(id));
  }

  /** Deletes what was fetched. */
  cancel(id: string): Promise<void> {
    return this.attempt(() => this.api.downloadCancel(id));
  }

  private async attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      // It ended by itself in the moment of the click.
      if (toWireError(error).code !== "notFound") {
        this.failed(error);
      }
    }
  }
}
