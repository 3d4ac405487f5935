import type { MemoryParts } from "../ipc";

export const KINDS = ["weights", "kv", "compute", "other"] as const;

export interface MemorySegments {
  segments: { kind: (typeof KINDS)[number]; bytes: number; share: number }[];
  /** Bytes of the whole width. */
  scale: number;
  /** Where the available memory ends, 0..1. */
  limit: number;
  /** Bytes beyond what is available. */
  over: number;
}

/** The widths of the stacked bar. What does not fit makes the bar longer than the memory, and the rest is marked. */
export function memorySegments(parts: MemoryParts, available: number): MemorySegments {
  const scale = Math.max(available, parts.total, 1);
  const segments = KINDS.filter((kind) => parts[kind] > 0).map((kind) => ({
    kind,
    bytes: parts[kind],
    share: parts[kind] / scale,
  }));
  return { segments, scale, limit: available / scale, over: Math.max(0, parts.total - available) };
}
