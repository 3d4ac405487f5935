import { expect, test } from "vitest";
import { wireError, type Api, type LoadSettings, type WireError } from "../../ipc";
import { fakeApi } from "../../ipc/fake";
import { DEFAULT_LOAD } from "../../state/model.svelte";
import { isBest, QuantsPage, sharedProblem } from "./quants.svelte";

const REPO = "unsloth/Qwen3-8B-GGUF";

test("shows rows first and fills their plans", async () => {
  const page = new QuantsPage(fakeApi({ pace: 0 }), REPO);
  const opened = page.open(DEFAULT_LOAD);
  while (page.rows.length === 0) {
    await new Promise((next) => setTimeout(next));
  }
  expect(page.rows.every((row) => row.plan === null)).toBe(true);
  expect(page.pending.size).toBe(page.rows.length);
  await opened;
  expect(page.rows.every((row) => row.plan !== null)).toBe(true);
  expect(page.pending.size).toBe(0);
  expect(page.rows.find((row) => row.recommended)?.quant).toBe("Q4_K_M");
});

test("another wish replaces the plans that are under way", async () => {
  const asked: (number | null)[] = [];
  const fake = fakeApi({ pace: 0 });
  const api: Api = {
    ...fake,
    hubPlan: (repo, commit, quant, wish: LoadSettings) => {
      asked.push(wish.context);
      return fake.hubPlan(repo, commit, quant, wish);
    },
  };
  const page = new QuantsPage(api, REPO);
  await page.open(DEFAULT_LOAD);
  asked.length = 0;
  const first = page.fill({ ...DEFAULT_LOAD, context: 2048 });
  const second = page.fill({ ...DEFAULT_LOAD, context: 4096 });
  await Promise.all([first, second]);
  expect(asked.filter((context) => context === 2048)).toHaveLength(2);
  expect(page.rows.map((row) => row.plan?.context)).toEqual(page.rows.map(() => 4096));
});

test("nothing is asked for after the page was left", async () => {
  let asked = 0;
  const fake = fakeApi({ pace: 0 });
  const hubPlan: Api["hubPlan"] = (...args) => {
    asked += 1;
    return fake.hubPlan(...args);
  };
  const page = new QuantsPage({ ...fake, hubPlan }, REPO);
  const opened = page.open(DEFAULT_LOAD);
  page.close();
  await opened;
  expect(asked).toBe(0);
  expect(page.page).toBe(null);
});

test("a problem of all rows is told once, another one at its row", async () => {
  const page = new QuantsPage(fakeApi({ pace: 0 }), "ggml-org/gemma-3-12b-it-GGUF");
  await page.open(DEFAULT_LOAD);
  expect(sharedProblem(page.rows)?.code).toBe("needsTerms");
  const [first, ...others] = page.rows;
  const mixed = [{ ...first!, problem: wireError("fileInvalid", "") }, ...others];
  expect(sharedProblem(mixed)).toBe(null);
  const invalid = page.rows.map((row) => ({ ...row, problem: wireError("fileInvalid", "") }));
  expect(sharedProblem(invalid)).toBe(null);
  expect(sharedProblem([])).toBe(null);
});

test("what cannot run is not recommended", async () => {
  const page = new QuantsPage(fakeApi({ pace: 0 }), REPO);
  await page.open(DEFAULT_LOAD);
  const best = page.rows.filter(isBest);
  expect(best.map((row) => row.quant)).toEqual(["Q4_K_M"]);
  const given = (code: WireError["code"]) => isBest({ ...best[0]!, problem: wireError(code, "") });
  expect([given("modelUnsupported"), given("fileInvalid"), given("needsTerms")]).toEqual([
    false,
    false,
    true,
  ]);
});
