import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Pace } from "./pace.svelte";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "performance"] });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** Pieces every 10 ms for a second, where the frame after a drawing comes so late; how often was drawn. */
function drawn(late: number): number {
  vi.stubGlobal("requestAnimationFrame", (frame: () => void) => setTimeout(frame, late));
  const pace = new Pace("");
  let [count, before] = [0, ""];
  for (let i = 0; i < 100; i++) {
    pace.offer("x".repeat(i + 1));
    if (pace.text !== before) {
      [count, before] = [count + 1, pace.text];
    }
    vi.advanceTimersByTime(10);
  }
  vi.advanceTimersByTime(1000);
  expect(pace.text, "the last piece is drawn, too").toBe("x".repeat(100));
  return count;
}

test("what is quickly drawn is drawn often, what takes long seldom", () => {
  expect(drawn(16)).toBeGreaterThan(15);
  expect(drawn(100)).toBeLessThan(5);
});

test("the first text is there at once", () => {
  const pace = new Pace("begun");
  expect(pace.text).toBe("begun");
  pace.offer("begun and");
  expect(pace.text).toBe("begun and");
});
