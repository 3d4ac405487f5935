import { t } from "../../i18n/index.svelte";
import type { GpuFigures, GpuProgram } from "../../ipc";

export type Program = { name: string; vram: number | null };

/** What the programs hold of a card's memory, those that hold most first; several of one name are one. */
export function byName(programs: GpuProgram[]): Program[] {
  const names = new Map<string, { count: number; vram: number | null }>();
  for (const { pid, name, vram, own } of programs) {
    const shown = own ? t("hardware.ownName") : (name ?? t("hardware.unnamed", { pid: String(pid) }));
    const before = names.get(shown) ?? { count: 0, vram: null };
    const sum = vram === null ? before.vram : (before.vram ?? 0) + vram;
    names.set(shown, { count: before.count + 1, vram: sum });
  }
  return [...names]
    .map(([name, { count, vram }]) => ({
      name: count > 1 ? t("hardware.several", { name, n: count }) : name,
      vram,
    }))
    .sort((a, b) => (b.vram ?? -1) - (a.vram ?? -1));
}

/** What is in use and not told of any program, where something is told of any. */
export function rest({ total, free, programs }: GpuFigures): number | null {
  const told = (programs ?? []).flatMap(({ vram }) => vram ?? []);
  const left = total - free - told.reduce((sum, bytes) => sum + bytes, 0);
  return told.length > 0 && left > 0 ? left : null;
}

/** What slows a card down, in words; null: nothing does, or nobody knows. */
export function throttled({ throttling }: GpuFigures): string | null {
  return throttling === null || throttling.length === 0
    ? null
    : throttling.map((reason) => t(`hardware.throttle_${reason}`)).join(t("plan.comma"));
}
