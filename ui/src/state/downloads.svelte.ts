import { SvelteSet } from "svelte/reactivity";
import type { Api, Download } from "../ipc";
import { toWireError, wireError } from "../ipc";

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

  /** What is damaged of an installed model takes its place anew. */
  async again(repo: string, modelId: string): Promise<void> {
    try {
      const page = await this.api.hubModel(repo);
      const row = page.quants.find(({ installed }) => installed === modelId);
      if (!row) {
        throw wireError("notFound", `${repo} has no such file`, { subject: repo });
      }
      await this.start(repo, page.commit, row.quant);
    } catch (error) {
      this.failed(error);
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
