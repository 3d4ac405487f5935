import { beforeEach, expect, test } from "vitest";
import { setLanguage } from "./index.svelte";
import { howFar, share } from "./progress";

beforeEach(() => setLanguage("en"));

test("a share is within 0 and 1", () => {
  expect(share({ bytes: 0, total: 0 })).toBe(0);
  expect(share({ bytes: 1, total: 4 })).toBe(0.25);
  expect(share({ bytes: 7, total: 5 })).toBe(1);
});

test("says how far it is, and what is left where that is known", () => {
  const progress = { bytes: 250e6, total: 1e9, secondsLeft: 90 };
  expect(howFar(progress)).toBe("250 MB of 1.0 GB · 1 min 30 s left");
  expect(howFar({ ...progress, secondsLeft: null }, "84 MB/s")).toBe("250 MB of 1.0 GB · 84 MB/s");
  setLanguage("ja");
  expect(howFar(progress)).toBe("250 MB / 1.0 GB · 残り1分30秒");
});
