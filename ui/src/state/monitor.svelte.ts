import { untrack } from "svelte";
import type { Api, HardwareReport, MonitorSample } from "../ipc";

const KEPT = 120;

/** Live figures while somebody looks, and what the hardware is. */
export class MonitorStore {
  /** The newest last; about one a second. */
  samples = $state.raw<MonitorSample[]>([]);
  hardware = $state.raw<HardwareReport | null>(null);
  measuring = $state(false);
  private watchers = 0;

  constructor(
    private api: Api,
    private failed: (error: unknown) => void,
  ) {}

  get latest(): MonitorSample | undefined {
    return this.samples.at(-1);
  }

  take(sample: MonitorSample): void {
    this.samples = [...this.samples.slice(1 - KEPT), sample];
  }

  /** For an `$effect`: figures come while the component is there. Returns how to stop. */
  watch(): () => void {
    this.watchers += 1;
    if (this.watchers === 1) {
      // The effect that watches must not depend on the figures that come.
      untrack(() => this.api.monitorStart().catch(this.failed));
    }
    return () => {
      this.watchers -= 1;
      if (this.watchers === 0) {
        this.api.monitorStop().catch(this.failed);
      }
    };
  }

  async refreshHardware(): Promise<void> {
    try {
      this.hardware = await this.api.hardware();
    } catch (error) {
      this.failed(error);
    }
  }

  async measure(): Promise<void> {
    this.measuring = true;
    try {
      this.hardware = await this.api.hardwareMeasure();
    } catch (error) {
      this.failed(error);
    }
    this.measuring = false;
  }
}
