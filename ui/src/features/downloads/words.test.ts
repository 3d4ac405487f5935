import { beforeEach, expect, test } from "vitest";
import { setLanguage } from "../../i18n/index.svelte";
import { wireError, type Download } from "../../ipc";
import { arrived, nameOf, sorted, statusLine } from "./words";

function download(change: Partial<Download>): Download {
  return {
    id: "1",
    repo: "unsloth/Qwen3-8B-GGUF",
    quant: "Q4_K_M",
    state: "running",
    bytes: 3.05e9,
    total: 5e9,
    bytesPerSecond: 84e6,
    secondsLeft: 23,
    modelId: null,
    error: null,
    ...change,
  };
}

beforeEach(() => setLanguage("en"));

test.each<[Partial<Download>, string]>([
  [{}, "3.1 GB of 5.0 GB · 84 MB/s · 23 s left"],
  [{ secondsLeft: null }, "3.1 GB of 5.0 GB · 84 MB/s"],
  [{ bytesPerSecond: 0, secondsLeft: null }, "Connecting"],
  [{ state: "queued" }, "Waiting for its turn"],
  [{ state: "failed" }, "Stopped at 61 %. Resume it to try again."],
  [
    { state: "failed", error: wireError("diskFull", "") },
    "The disk is full. Free some space, then try again.",
  ],
  [{ state: "waiting", error: wireError("offline", "") }, "Connection lost at 61 %. Resumes by itself."],
  [
    { state: "waiting", error: wireError("rateLimited", "") },
    "Interrupted at 61 %, because Hugging Face is busy. Resumes by itself.",
  ],
  [{ state: "paused" }, "Paused at 61 %: 3.1 GB of 5.0 GB"],
  [{ state: "verifying" }, "Checking that every byte arrived · 23 s left"],
  [{ state: "verifying", secondsLeft: null }, "Checking that every byte arrived"],
  [{ state: "done" }, "Done: 5.0 GB"],
  [
    { state: "failed", error: wireError("diskFull", "", { needed: 5e9, available: 1e9 }) },
    "Needs 5.0 GB on the disk, 1.0 GB is free. Free some space, then try again.",
  ],
])("says how %o is doing", (change, words) => {
  expect(statusLine(download(change))).toBe(words);
});

test("says it in Japanese", () => {
  setLanguage("ja");
  expect(statusLine(download({ state: "waiting" }))).toBe("61%で接続が切れました。自動的に再開します。");
});

test("puts what works first and keeps the order otherwise", () => {
  const states = ["done", "queued", "failed", "running", "paused", "queued"] as const;
  const list = states.map((state, i) => download({ id: String(i), state }));
  expect(sorted(list).map(({ id }) => id)).toEqual(["3", "1", "5", "4", "2", "0"]);
});

test("what is checked has arrived", () => {
  expect(arrived(download({ state: "verifying", bytes: 1e9 }))).toBe(5e9);
  expect(arrived(download({ state: "paused", bytes: 1e9 }))).toBe(1e9);
});

test("knows names", () => {
  expect(nameOf(download({}))).toBe("Qwen3-8B Q4_K_M");
});
