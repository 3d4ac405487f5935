import { expect, test } from "vitest";
import { TimeLeft } from "./time-left";

test("what is left follows from what was done since the first figure", () => {
  const left = new TimeLeft();
  // Half of it was there before.
  expect(left.tell(0.5, 0)).toBe(null);
  expect(left.tell(0.55, 500), "too early").toBe(null);
  expect(left.tell(0.6, 2000)).toBe(8);
  expect(left.tell(0.6, 4000)).toBe(16);
  expect(left.tell(1, 10_000)).toBe(0);
});

test("short work is done before one has read about it", () => {
  const left = new TimeLeft();
  left.tell(0, 0);
  expect(left.tell(0.5, 2000)).toBe(null);
});

test("a new stage begins anew", () => {
  const left = new TimeLeft();
  left.tell(0, 0);
  expect(left.tell(0.1, 2000)).toBe(18);
  expect(left.tell(0.05, 2100)).toBe(null);
  expect(left.tell(0.15, 4100)).toBe(17);
});

test("work that stands still is not foretold", () => {
  const left = new TimeLeft();
  left.tell(0.2, 0);
  expect(left.tell(0.2, 9000)).toBe(null);
});
