/** A figure at a time; null where the system does not tell. */
export type Point = { at: number; value: number | null };

export const SPAN_MS = 120_000;
/** Figures come every second: a longer pause is a gap, not a slope. */
const GAP_MS = 4000;

export type Plot = { line: string; area: string };

/** Paths in a box of `SPAN_MS` by 1, the newest point at the right edge; `max` is at the top. */
export function plot(points: Point[], max: number): Plot {
  const newest = points.at(-1)?.at ?? 0;
  const lines: [number, number][][] = [];
  let before: number | null = null;
  for (const { at, value } of points) {
    const x = SPAN_MS - (newest - at);
    if (value === null || x < 0) {
      before = null;
      continue;
    }
    if (before === null || at - before > GAP_MS) {
      lines.push([]);
    }
    const height = max > 0 ? Math.min(1, Math.max(0, value / max)) : 0;
    lines.at(-1)?.push([x, 1 - height]);
    before = at;
  }
  const path = (line: [number, number][]) => `M${line.map(([x, y]) => `${x} ${round(y)}`).join("L")}`;
  return {
    line: lines.map(path).join(""),
    area: lines.map((line) => `${path(line)}L${line.at(-1)?.[0]} 1L${line[0]?.[0]} 1Z`).join(""),
  };
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** The lowest and the highest value that is known. */
export function range(points: Point[]): [number, number] | null {
  const values = points.flatMap(({ value }) => value ?? []);
  return values.length > 0 ? [Math.min(...values), Math.max(...values)] : null;
}
