import { toWireError, type Api, type HubModel, type HubSort, type WireError } from "../ipc";

/** What was searched for in Discover. It outlives the view: people go to Settings for a token and come back. */
export class SearchStore {
  text = $state("");
  sort = $state<HubSort>("downloads");
  /** Only what fits this PC is shown, for which sizes are asked for. */
  fits = $state(false);
  /** null: nothing was searched for yet. */
  models = $state.raw<HubModel[] | null>(null);
  next = $state<string | null>(null);
  /** Of the first page, or of one more. */
  busy = $state<"first" | "more" | null>(null);
  error = $state.raw<WireError | null>(null);
  /** What the program suggests, read once. */
  suggested = $state.raw<HubModel[]>([]);
  private asked = 0;

  constructor(private api: Api) {}

  run(): Promise<void> {
    return this.ask("first", null);
  }

  async more(): Promise<void> {
    if (this.next !== null && this.busy === null) {
      await this.ask("more", this.next);
    }
  }

  async suggest(): Promise<void> {
    if (this.suggested.length === 0) {
      this.suggested = (await this.api.hubRecommended()).models;
    }
  }

  /** Back to the suggestions. */
  clear(): void {
    this.asked += 1;
    this.text = "";
    this.models = this.next = this.busy = this.error = null;
  }

  private async ask(busy: "first" | "more", cursor: string | null): Promise<void> {
    const mine = ++this.asked;
    this.busy = busy;
    this.error = null;
    try {
      const { text, sort, fits: parameters } = this;
      const page = await this.api.hubSearch({ text: text.trim(), sort, cursor, parameters });
      // Answers may come out of order.
      if (mine !== this.asked) {
        return;
      }
      const before = busy === "more" ? (this.models ?? []) : [];
      const known = before.map((model) => model.repo);
      this.models = [...before, ...page.models.filter((model) => !known.includes(model.repo))];
      this.next = page.next;
    } catch (error) {
      if (mine !== this.asked) {
        return;
      }
      this.error = toWireError(error);
      if (busy === "first") {
        this.models = this.next = null;
      }
    }
    this.busy = null;
  }
}
