import type { Fits, InstalledModel, LoadSettings, MemoryParts, Plan, Reason } from "../bindings";

const GB = 1e9;
/** The part of a layer that its routed experts are. */
const EXPERTS = 0.8;
const BYTES_OF: Record<string, number> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  q8_0: 1.0625,
  q5_1: 0.75,
  q5_0: 0.6875,
  q4_1: 0.625,
  q4_0: 0.5625,
  iq4_nl: 0.5625,
};

export const MACHINE = {
  ramTotal: 34.1 * GB,
  ramAvailable: 21.4 * GB,
  vramTotal: 8.6 * GB,
  vramAvailable: 7.4 * GB,
};

/** The planner in miniature: the same shape and trends, no claim to the same numbers. */
export function fakePlan(
  model: Pick<InstalledModel, "bytes" | "layers" | "contextMax"> & Partial<InstalledModel>,
  wish: LoadSettings,
  gpu: boolean,
  cards: string[] = ["GeForce"],
): Plan {
  const layers = model.layers ?? 33;
  const contextMax = model.contextMax ?? 32768;
  const context = Math.min(wish.context ?? 8192, contextMax);
  const perLayer = model.bytes / layers;
  const kvPerToken = 1024 * ((BYTES_OF[wish.kvTypeK] ?? 2) + (BYTES_OF[wish.kvTypeV] ?? 2));
  const kvPerLayer = kvPerToken * context;
  const vramAvailable = gpu ? MACHINE.vramAvailable : 0;
  const compute = 0.28 * GB;
  const room = vramAvailable - compute - 0.3 * GB;
  // Of a mixture of experts, most of a layer is experts.
  const expertLayers = model.architecture?.includes("moe") ? layers - 1 : 0;
  const apartOf = (n: number, cpuMoe: number) =>
    Math.max(0, Math.min(cpuMoe, expertLayers) - (layers - 1 - Math.min(n, layers - 1)));
  const takes = (n: number, cpuMoe: number) =>
    n * (perLayer + kvPerLayer) - apartOf(n, cpuMoe) * perLayer * EXPERTS;
  const least = (n: number) => {
    const wished =
      wish.cpuMoe ?? Array.from({ length: expertLayers }, (_, at) => at).find((at) => takes(n, at) <= room);
    return Math.min(wished ?? expertLayers, expertLayers);
  };
  const max =
    Array.from({ length: layers + 1 }, (_, n) => n).findLast((n) => takes(n, least(n)) <= room) ?? 0;
  const wanted = wish.gpuLayers.type === "auto" ? max : wish.gpuLayers.layers;
  const gpuLayers = Math.max(0, Math.min(wanted, layers));
  const cpuMoe = least(gpuLayers);
  const apart = apartOf(gpuLayers, cpuMoe);
  const vram = parts(
    gpuLayers * perLayer - apart * perLayer * EXPERTS,
    gpuLayers * kvPerLayer,
    gpuLayers ? compute : 0,
    gpuLayers ? 0.3 * GB : 0,
  );
  const host = layers - gpuLayers;
  const ram = parts(host * perLayer + apart * perLayer * EXPERTS, host * kvPerLayer, 0.35 * GB, 0.12 * GB);
  const fits = gpuLayers > max ? "no" : fitsOf(gpuLayers, layers, ram.total);
  const speed = 260 / (vram.weights / GB + 9 * (ram.weights / GB) + 2) / (fits === "disk" ? 8 : 1);
  const code = apart > 0 && gpuLayers <= max ? ["expertsInRam"] : [];
  const reasons = reasonsOf(gpu, gpuLayers, layers, gpuLayers > max, vram, vramAvailable, ram);
  const forecast = { tgLow: speed * 0.9, tgHigh: speed * 1.15, ppLow: speed * 8, ppHigh: speed * 14 };
  return {
    gpuLayers,
    layers,
    recommendedGpuLayers: max,
    maxGpuLayers: max,
    cpuMoe,
    expertLayers,
    expertsApart: apart,
    context,
    contextMax,
    fits,
    ram,
    vram,
    ramAvailable: MACHINE.ramAvailable,
    vramAvailable,
    streamFrom: null,
    gpus: gpu
      ? cards.map((name, i) => ({
          name,
          layers: i ? 0 : gpuLayers,
          parts: i ? parts(0, 0, 0, 0) : vram,
          available: vramAvailable,
        }))
      : [],
    forecast,
    reasons: [...reasons, ...code.map((code) => reason(code, apart * perLayer * EXPERTS))],
  };
}

function parts(weights: number, kv: number, compute: number, other: number): MemoryParts {
  const round = Math.round;
  return {
    weights: round(weights),
    kv: round(kv),
    compute: round(compute),
    other: round(other),
    total: round(weights + kv + compute + other),
  };
}

function fitsOf(gpuLayers: number, layers: number, ram: number): Fits {
  if (ram > MACHINE.ramAvailable) {
    return "disk";
  }
  return gpuLayers === layers ? "gpu" : gpuLayers > 0 ? "split" : "ram";
}

const reason = (code: string, needed: number | null = null, available: number | null = null): Reason => ({
  code,
  text: code,
  needed,
  available,
});

function reasonsOf(
  gpu: boolean,
  gpuLayers: number,
  layers: number,
  beyond: boolean,
  vram: MemoryParts,
  vramAvailable: number,
  ram: MemoryParts,
): Reason[] {
  const reasons: Reason[] = [];
  if (!gpu) {
    reasons.push(reason("noAccelerator"));
  } else if (beyond) {
    reasons.push(reason("beyondAccelerator", vram.total, vramAvailable));
  } else if (gpuLayers === layers) {
    reasons.push(reason("allOnAccelerator", vram.total, vramAvailable));
  } else if (gpuLayers > 0) {
    reasons.push(reason("acceleratorHolds", vram.total, vramAvailable));
  }
  if (ram.total > MACHINE.ramAvailable) {
    reasons.push(reason("weightsFromDisk", ram.total, MACHINE.ramAvailable));
  }
  return reasons;
}
