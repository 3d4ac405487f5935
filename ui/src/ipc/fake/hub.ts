import { wireError } from "../api";
import type {
  AppEvent,
  Download,
  HubModelPage,
  HubPage,
  HubQuery,
  InstalledModel,
  LoadSettings,
  QuantRow,
} from "../bindings";
import { pause } from "./clock";
import { RECOMMENDED, found } from "./data";
import { fakePlan } from "./plan";

const GB = 1e9;
const PAGE = 8;
const QUANTS: [string, number, QuantRow["quality"]][] = [
  ["F16", 16, "original"],
  ["Q8_0", 8.5, "nearOriginal"],
  ["Q6_K", 6.6, "veryGood"],
  ["Q5_K_M", 5.7, "veryGood"],
  ["Q4_K_M", 4.8, "balanced"],
  ["Q3_K_M", 3.9, "reduced"],
  ["Q2_K", 3, "visiblyWorse"],
];

/** The Hub and the downloads from it. */
export class FakeHub {
  readonly list: Download[] = [];

  constructor(
    private pace: number,
    private library: InstalledModel[],
    private gpu: boolean,
    private emit: (event: AppEvent) => void,
  ) {}

  recommended(): HubPage {
    return { models: RECOMMENDED, next: null };
  }

  async search(query: HubQuery): Promise<HubPage> {
    await pause(this.pace * 15);
    if (query.text === "offline") {
      throw wireError("offline", "no network");
    }
    const words = query.text.toLowerCase().split(/\s+/).filter(Boolean);
    const all = found(Date.now()).filter((model) =>
      words.every((word) => model.repo.toLowerCase().includes(word)),
    );
    const key = query.sort === "trending" ? "downloads" : query.sort;
    all.sort((a, b) => (b[key] ?? 0) - (a[key] ?? 0));
    const from = Number(query.cursor ?? 0);
    return {
      models: all
        .slice(from, from + PAGE)
        .map((model) => (query.parameters ? { ...model, parameters: parametersOf(model.repo) } : model)),
      next: from + PAGE < all.length ? String(from + PAGE) : null,
    };
  }

  async model(repo: string): Promise<HubModelPage> {
    await pause(this.pace * 12);
    const parameters = parametersOf(repo);
    const gated = found(0).some((model) => model.repo === repo && model.gated);
    return {
      repo,
      commit: "c0ffee",
      gated,
      quants: QUANTS.map(([quant, bits]) => ({
        quant,
        files: [`${repo.split("/")[1]}-${quant}.gguf`],
        bytes: Math.round((parameters * bits) / 8),
        header: null,
        bitsPerWeight: null,
        quality: null,
        plan: null,
        recommended: quant === "Q4_K_M" ? "fitsRam" : null,
        installed: this.library.find((model) => model.repo === repo && model.quant === quant)?.id ?? null,
        problem: null,
      })),
    };
  }

  async plan(repo: string, quant: string, settings: LoadSettings): Promise<QuantRow> {
    await pause(this.pace * 10);
    const page = await this.model(repo);
    const row = page.quants.find((row) => row.quant === quant);
    const known = QUANTS.find(([name]) => name === quant);
    if (!row || !known) {
      throw wireError("notFound", quant, { subject: quant });
    }
    if (page.gated) {
      return { ...row, problem: wireError("needsTerms", "terms", { subject: repo }) };
    }
    const plan = fakePlan({ bytes: row.bytes, layers: 33, contextMax: 40960 }, settings, this.gpu);
    const recommended = quant === "Q4_K_M" ? (plan.fits === "gpu" ? "fitsGpu" : "fitsRam") : null;
    const header = { architecture: "llama", parameters: parametersOf(repo), contextMax: 40960 };
    return { ...row, header, bitsPerWeight: known[1], quality: known[2], plan, recommended };
  }

  async start(repo: string, quant: string): Promise<Download> {
    const row = (await this.model(repo)).quants.find((row) => row.quant === quant);
    const download: Download = {
      id: `d${this.list.length + 1}`,
      repo,
      quant,
      state: "queued",
      bytes: 0,
      total: row?.bytes ?? 5 * GB,
      bytesPerSecond: 0,
      secondsLeft: null,
      modelId: null,
      error: null,
    };
    this.list.push(download);
    void this.run(download);
    return { ...download };
  }

  change(id: string, state: Download["state"]): void {
    const download = this.list.find((download) => download.id === id);
    if (!download) {
      throw wireError("notFound", id);
    }
    const resumed = state === "running" && download.state !== "running";
    this.set(download, { state, bytesPerSecond: 0, secondsLeft: null });
    if (resumed) {
      void this.run(download);
    }
  }

  private async run(download: Download): Promise<void> {
    await pause(this.pace * 10);
    this.set(download, { state: "running" });
    const speed = 84e6;
    while (download.state === "running" && download.bytes < download.total) {
      await pause(this.pace * 5);
      if (download.state === "running") {
        const bytes = Math.min(download.total, download.bytes + download.total / 120);
        this.set(download, {
          bytes,
          bytesPerSecond: speed,
          secondsLeft: Math.round((download.total - bytes) / speed),
        });
      }
    }
    if (download.bytes < download.total) {
      return;
    }
    this.set(download, { state: "verifying", bytesPerSecond: 0, secondsLeft: null });
    await pause(this.pace * 40);
    const id = `m${this.library.length + 1}`;
    this.library.push({
      id,
      name: `${download.repo.split("/")[1]?.replace(/-GGUF$/, "")}-${download.quant}`,
      path: `models/${download.repo}/${download.quant}.gguf`,
      source: "library",
      repo: download.repo,
      quant: download.quant,
      architecture: "llama",
      parameters: parametersOf(download.repo),
      bytes: download.total,
      contextMax: 40960,
      layers: 33,
      lastUsed: null,
      problem: null,
      verified: null,
    });
    this.set(download, { state: "done", modelId: id });
    this.emit({ type: "library" });
  }

  private set(download: Download, change: Partial<Download>): void {
    Object.assign(download, change);
    this.emit({ type: "download", download: { ...download } });
  }
}

function parametersOf(repo: string): number {
  const billions = /(\d+(?:\.\d+)?)b/i.exec(repo)?.[1] ?? "8";
  return Number(billions) * 1e9;
}
