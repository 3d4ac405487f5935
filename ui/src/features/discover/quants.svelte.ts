import { SvelteSet } from "svelte/reactivity";
import {
  toWireError,
  type Api,
  type HubModelPage,
  type LoadSettings,
  type QuantRow,
  type WireError,
} from "../../ipc";
import { fillOrder, fillPlans } from "./fill-plans";

/** The page of one repository: its quantizations come at once, their plans one after another. */
export class QuantsPage {
  page = $state.raw<HubModelPage | null>(null);
  rows = $state.raw<QuantRow[]>([]);
  /** Quantizations whose plan is on its way. */
  readonly pending = new SvelteSet<string>();
  error = $state.raw<WireError | null>(null);
  private filling = new AbortController();

  constructor(
    private api: Api,
    readonly repo: string,
  ) {}

  async open(settings: LoadSettings): Promise<void> {
    this.error = null;
    this.filling.abort();
    const mine = (this.filling = new AbortController());
    try {
      const page = await this.api.hubModel(this.repo);
      if (!mine.signal.aborted) {
        this.page = page;
        this.rows = page.quants;
        await this.fill(settings);
      }
    } catch (error) {
      if (!mine.signal.aborted) {
        this.error = toWireError(error);
      }
    }
  }

  /** Plans all rows; those that show a plan keep it until the new one is there. */
  async fill(settings: LoadSettings): Promise<void> {
    const { page } = this;
    if (!page) {
      return;
    }
    this.filling.abort();
    const { signal } = (this.filling = new AbortController());
    const quants = fillOrder(this.rows);
    this.pending.clear();
    quants.forEach((quant) => this.pending.add(quant));
    await fillPlans({
      quants,
      plan: (quant) => this.api.hubPlan(page.repo, page.commit, quant, settings),
      filled: (row) => this.put(row.quant, row),
      failed: (quant, error) => this.put(quant, { plan: null, problem: toWireError(error) }),
      signal,
    });
  }

  /** Nobody looks any more. */
  close(): void {
    this.filling.abort();
  }

  private put(quant: string, change: Partial<QuantRow>): void {
    this.pending.delete(quant);
    this.rows = this.rows.map((row) => (row.quant === quant ? { ...row, ...change } : row));
  }
}

const REFUSALS: readonly WireError["code"][] = ["needsToken", "tokenRefused", "needsTerms"];

/** Whether the Hub wants a token, another one, or its terms accepted: something that the user can give. */
export function isRefusal(problem: WireError | null | undefined): boolean {
  return REFUSALS.some((code) => code === problem?.code);
}

/** Whether no engine of ours runs the file, whatever the user gives. */
export function cannotRun(row: Pick<QuantRow, "problem">): boolean {
  return row.problem?.code === "modelUnsupported" || row.problem?.code === "fileInvalid";
}

/** Whether the row is to be pointed at: sizes alone recommended it, before its header was read. */
export function isBest(row: Pick<QuantRow, "problem" | "recommended">): boolean {
  return row.recommended !== null && !cannotRun(row);
}

/** The problem that all rows share, so that it is told once: terms, token, architecture, network; no file's own. */
export function sharedProblem(rows: QuantRow[]): WireError | null {
  const [first] = rows;
  const same = (row: QuantRow) => row.plan === null && row.problem?.code === first?.problem?.code;
  return first?.problem && first.problem.code !== "fileInvalid" && rows.every(same) ? first.problem : null;
}
