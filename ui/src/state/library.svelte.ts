import type { Api, FileProgress, InstalledModel } from "../ipc";

/** The installed models. */
export class LibraryStore {
  models = $state.raw<InstalledModel[]>([]);
  /** False until the folders were read once. */
  known = $state(false);
  /** The model that is being verified, and how far that is. */
  verifying = $state.raw<{ id: string; progress: FileProgress | null } | null>(null);
  private reading: Promise<void> | null = null;
  private again = false;

  constructor(
    private api: Api,
    private failed: (error: unknown) => void,
  ) {}

  /** Models that can be loaded, the last used first. */
  get usable(): InstalledModel[] {
    const usable = this.models.filter((model) => model.problem === null);
    return usable.sort((a, b) => (b.lastUsed ?? 0) - (a.lastUsed ?? 0) || a.name.localeCompare(b.name));
  }

  find(id: string | null): InstalledModel | undefined {
    return this.models.find((model) => model.id === id);
  }

  /** What it finds is in the list. */
  async verify(id: string): Promise<void> {
    this.verifying = { id, progress: null };
    try {
      await this.api.libraryVerify(id);
    } catch (error) {
      this.failed(error);
    }
    this.verifying = null;
  }

  async cancelVerify(): Promise<void> {
    try {
      await this.api.libraryVerifyCancel();
    } catch (error) {
      this.failed(error);
    }
  }

  /** null: it has ended. */
  takeVerify(id: string, progress: FileProgress | null): void {
    this.verifying = progress === null ? null : { id, progress };
  }

  /** Reads the list again; a change that comes meanwhile makes it read once more. */
  refresh(): Promise<void> {
    this.again = this.reading !== null;
    this.reading ??= this.read().finally(() => (this.reading = null));
    return this.reading;
  }

  private async read(): Promise<void> {
    try {
      do {
        this.again = false;
        this.models = await this.api.library();
        this.known = true;
      } while (this.again);
    } catch (error) {
      this.failed(error);
    }
  }
}
