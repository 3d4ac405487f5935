import { bytes } from "../../i18n/format";
import { tCode } from "../../i18n/index.svelte";
import type { Plan } from "../../ipc";

/** "GPU 27/33 + RAM 1.1 GB": where a model runs here, with the numbers that matter for it. */
export function whereSentence(plan: Plan): string {
  return tCode(`discover.where_${plan.fits}`, {
    gpuLayers: plan.gpuLayers,
    layers: plan.layers,
    ram: bytes(plan.ram.total),
    vram: bytes(plan.vram.total),
    available: bytes(plan.ramAvailable),
  });
}
