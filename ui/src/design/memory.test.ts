import { expect, test } from "vitest";
import { memorySegments } from "./memory";

const parts = { weights: 5, kv: 2, compute: 1, other: 0, total: 8 };

test("what fits is measured against the memory", () => {
  const { segments, over, limit } = memorySegments(parts, 16);
  expect(segments.map(({ kind, share }) => [kind, share])).toEqual([
    ["weights", 5 / 16],
    ["kv", 2 / 16],
    ["compute", 1 / 16],
  ]);
  expect([over, limit]).toEqual([0, 1]);
});

test("what does not fit makes the bar longer than the memory", () => {
  const { segments, over, limit } = memorySegments(parts, 4);
  expect(segments.reduce((sum, { share }) => sum + share, 0)).toBe(1);
  expect([over, limit]).toEqual([4, 0.5]);
});

test("no memory at all is no division by zero", () => {
  const nothing = { weights: 0, kv: 0, compute: 0, other: 0, total: 0 };
  expect(memorySegments(nothing, 0)).toMatchObject({ segments: [], over: 0, limit: 0 });
});
