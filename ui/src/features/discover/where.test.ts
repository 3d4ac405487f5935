import { expect, test } from "vitest";
import { setLanguage } from "../../i18n/index.svelte";
import type { Fits, Plan } from "../../ipc";
import { fakePlan } from "../../ipc/fake/plan";
import { DEFAULT_LOAD } from "../../state/model.svelte";
import { whereSentence } from "./where";

const GB = 1e9;

function words(fits: Fits): string {
  const plan = fakePlan({ bytes: 8.5 * GB, layers: 33, contextMax: 32768 }, DEFAULT_LOAD, true);
  const shown: Plan = {
    ...plan,
    fits,
    gpuLayers: 27,
    ram: { ...plan.ram, total: 1.1 * GB },
    vram: { ...plan.vram, total: 7.2 * GB },
    ramAvailable: 0.9 * GB,
  };
  return whereSentence(shown);
}

test("says where a model runs, with the numbers that matter", () => {
  setLanguage("en");
  expect(words("gpu")).toBe("All on the GPU: 7.2 GB");
  expect(words("split")).toBe("GPU 27/33 + RAM 1.1 GB");
  expect(words("ram")).toBe("RAM 1.1 GB");
  expect(words("disk")).toBe("From disk: needs 1.1 GB, 900 MB is free");
  expect(words("no")).toBe("Does not fit: needs 1.1 GB of RAM, 900 MB is free");
});
