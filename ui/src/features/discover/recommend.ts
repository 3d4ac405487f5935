import type { HardwareReport, HubModel } from "../../ipc";

/** Billions of parameters, as the repository's name says. */
export type Size = { total: number; active: number };

export type PickReason = "gpu" | "fast" | "ram" | "small" | "disk";

export type Pick = { model: HubModel; size: Size; bytes: number; reason: PickReason };

/** A usual 4-bit file has about 4.8 bits per weight. */
const BYTES_PER_PARAMETER = 0.6;
/** More weights than this per token and answers from RAM come slower than people read. */
const QUICK_FROM_RAM = 4.5;
const BEARABLE_FROM_RAM = 14;
/** The most that leaves room for other programs on any PC. */
const SMALL = 4;

/** "Qwen3-30B-A3B" is 30 and 3, "gemma-4-E4B" about 8 and 4 (half of it are embeddings, used sparsely). */
export function sizeOf(repo: string): Size | null {
  const name = repo.slice(repo.indexOf("/") + 1);
  const found = /(?:^|[-_.])(E|\d+x)?(\d+(?:\.\d+)?)B(?![a-z0-9])/i.exec(name);
  if (!found) {
    return null;
  }
  const number = Number(found[2]);
  const prefix = found[1]?.toLowerCase();
  if (prefix === "e") {
    return { total: number * 2, active: number };
  }
  const total = prefix ? number * Number.parseInt(prefix, 10) : number;
  const active = /[-_.]A(\d+(?:\.\d+)?)B(?![a-z0-9])/i.exec(name);
  return { total, active: active ? Number(active[1]) : prefix ? number * 2 : total };
}

/** Bytes that a model may take here. */
export function memoryOf({ gpus, ramAvailable }: HardwareReport): { vram: number; ram: number } {
  const free = gpus.map(({ used, vramFree }) => (used ? (vramFree ?? 0) : 0));
  return { vram: free.reduce((sum, bytes) => sum + bytes, 0), ram: ramAvailable };
}

/** KV cache and buffers, as the planner's own quick guess has it. */
function needs(bytes: number): number {
  return bytes * 1.2 + 512 * 2 ** 20;
}

/** Whether so many bytes of weights have room somewhere. */
function hasRoom(bytes: number, { vram, ram }: ReturnType<typeof memoryOf>): boolean {
  return needs(bytes) <= ram + vram;
}

/** Whether a model's usual 4-bit file has room here; null: nobody says how large it is. */
export function fits({ repo, parameters }: HubModel, hardware: HardwareReport): boolean | null {
  const size = sizeOf(repo);
  const total = parameters ?? (size ? size.total * 1e9 : null);
  return total === null ? null : hasRoom(total * BYTES_PER_PARAMETER, memoryOf(hardware));
}

/** Three models for this PC: the one to start with, a larger one, a small one. */
export function choose(models: HubModel[], hardware: HardwareReport): Pick[] {
  const sized = models.flatMap((model) => {
    const size = sizeOf(model.repo);
    return size ? [{ model, size, bytes: size.total * 1e9 * BYTES_PER_PARAMETER }] : [];
  });
  sized.sort((a, b) => a.size.total - b.size.total);
  const memory = memoryOf(hardware);
  type Sized = (typeof sized)[number];
  const onGpu = (one: Sized) => needs(one.bytes) <= memory.vram;
  const runs = (one: Sized) => hasRoom(one.bytes, memory);

  const first =
    sized.findLast(onGpu) ?? sized.findLast((one) => runs(one) && one.size.active <= QUICK_FROM_RAM);
  if (!first) {
    // Nothing fits: the smallest runs from disk, and that is what we say.
    return sized.slice(0, 1).map((one) => ({ ...one, reason: runs(one) ? "small" : "disk" }));
  }
  const picks: Pick[] = [{ ...first, reason: onGpu(first) ? "gpu" : "fast" }];
  const larger = sized.findLast(
    (one) => runs(one) && one.size.total > first.size.total && one.size.active <= BEARABLE_FROM_RAM,
  );
  if (larger) {
    picks.push({ ...larger, reason: "ram" });
  }
  const small = sized.findLast((one) => one.size.total <= Math.min(first.size.total / 2, SMALL));
  if (small) {
    picks.push({ ...small, reason: "small" });
  }
  // A third one where the PC has no room for a larger one, or none is smaller.
  const next = sized.findLast((one) => runs(one) && picks.every((pick) => pick.model !== one.model));
  if (picks.length < 3 && next) {
    const reason = onGpu(next) ? "gpu" : next.size.active <= QUICK_FROM_RAM ? "fast" : "ram";
    picks.push({ ...next, reason });
  }
  return picks;
}
