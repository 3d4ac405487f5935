import type { Gpu, GpuChoice, GpuName } from "../../ipc";

/** A graphics card that can be chosen. */
export interface Card extends GpuName {
  /** Bytes of its memory; null: it is chosen, and cannot be used now. */
  total: number | null;
  on: boolean;
}

/** The cards of this PC, the one with the most memory first, and then those that are only remembered. */
export function cards(choice: GpuChoice, gpus: readonly Gpu[]): Card[] {
  const chosen = choice.type === "only" ? choice.gpus : null;
  const named = (id: string) => chosen?.some((gpu) => gpu.id === id) ?? false;
  const real = gpus.filter((gpu) => !gpu.isTestDevice);
  // Where nothing of what was chosen is there, all are used. What is there but fails is not listed, and keeps its place.
  const others = real.some(({ used }) => used) && !real.some(({ id }) => named(id));
  const all = chosen === null || (chosen.length > 0 && others);
  const there = real
    .map(({ id, name, vramTotal }) => ({ id, name, total: vramTotal, on: all || named(id) }))
    .sort(
      (a, b) =>
        b.total - a.total || a.name.localeCompare(b.name, "en", { numeric: true }) || (a.id < b.id ? -1 : 1),
    );
  const gone = (chosen ?? []).filter(({ id }) => real.every((gpu) => gpu.id !== id));
  return [...there, ...gone.map(({ id, name }) => ({ id, name, total: null, on: true }))];
}

/** The choice after one of the cards was switched. */
export function switched(cards: readonly Card[], id: string, on: boolean): GpuChoice {
  const next = cards.map((card) => (card.id === id ? { ...card, on } : card));
  const there = next.filter(({ total }) => total !== null);
  const chosen = next.filter((card) => card.on);
  if (there.length === 0 ? chosen.length === 0 : there.every((card) => card.on)) {
    // Those that come later, or come back, are used too.
    return { type: "all" };
  }
  if (there.length > 0 && there.every((card) => !card.on)) {
    // Cards that are not there would mean all that are.
    return { type: "only", gpus: [] };
  }
  return { type: "only", gpus: chosen.map(({ id, name }) => ({ id, name })) };
}
