import { expect, test } from "vitest";
import type { HardwareReport, HubModel } from "../../ipc";
import { RECOMMENDED } from "../../ipc/fake/data";
import { choose, fits, sizeOf } from "./recommend";

const GB = 1e9;

function pc(ramAvailable: number, vramFree = 0): HardwareReport {
  const gpu = {
    id: "GPU-1",
    name: "GPU",
    vramTotal: vramFree,
    vramFree,
    driver: null,
    computeCapability: null,
    used: true,
  };
  return {
    cpuName: "",
    physicalCores: 8,
    logicalCores: 16,
    cpuFeatures: [],
    ramTotal: ramAvailable * 1.5,
    ramAvailable,
    gpus: vramFree > 0 ? [{ ...gpu, isTestDevice: false }] : [],
    gpuReason: null,
    modelsDiskFree: null,
    ramBandwidth: null,
    diskBandwidth: null,
    measuring: false,
  };
}

function picks(ram: number, vram = 0, models: HubModel[] = RECOMMENDED): [string, string][] {
  return choose(models, pc(ram * GB, vram * GB)).map(({ model, reason }) => [
    model.repo.replace(/^.*\/|-GGUF$/g, ""),
    reason,
  ]);
}

test.each([
  ["unsloth/Qwen3-0.6B-GGUF", { total: 0.6, active: 0.6 }],
  ["unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF", { total: 30, active: 3 }],
  ["ggml-org/gpt-oss-20b-GGUF", { total: 20, active: 20 }],
  ["unsloth/gemma-4-E4B-it-GGUF", { total: 8, active: 4 }],
  ["mistralai/Mixtral-8x7B-GGUF", { total: 56, active: 14 }],
  ["someone-7b/model-GGUF", null],
  ["ibm-granite/granite-4.0-h-tiny-GGUF", null],
  ["x/Model-4bit-GGUF", null],
])("reads the size in %s", (repo, size) => {
  expect(sizeOf(repo)).toEqual(size);
});

test("starts with what fits into video memory whole", () => {
  expect(picks(21.4, 7.4)).toEqual([
    ["Qwen3-8B", "gpu"],
    ["Qwen3-30B-A3B-Instruct-2507", "ram"],
    ["gemma-3-4b-it", "small"],
  ]);
});

test("without a GPU, starts with what computes little per token", () => {
  expect(picks(12)).toEqual([
    ["LFM2-8B-A1B", "fast"],
    ["gemma-3-4b-it", "small"],
    ["Qwen3-8B", "ram"],
  ]);
});

test("offers three on a small PC, and never one that does not fit", () => {
  const small = picks(4);
  expect(small).toHaveLength(3);
  expect(small[0]).toEqual(["gemma-3-4b-it", "fast"]);
  expect(small.map(([name]) => name)).not.toContain("Qwen3-8B");
});

test("is honest where nothing fits", () => {
  expect(picks(0.5)).toEqual([["Qwen3-0.6B", "disk"]]);
  expect(picks(16, 0, [])).toEqual([]);
});

test.each([
  // 0.6 bytes per parameter, a fifth more, and half a gigabyte: 6.3 GB.
  ["unsloth/Qwen3-8B-GGUF", null, 6, 0, false],
  ["unsloth/Qwen3-8B-GGUF", null, 7, 0, true],
  ["unsloth/Qwen3-8B-GGUF", null, 3, 4, true],
  // The Hub knows better than the name.
  ["unsloth/Qwen3-8B-GGUF", 80e9, 7, 0, false],
  ["someone/Phi-4-mini-GGUF", 3.8e9, 7, 0, true],
  ["someone/Phi-4-mini-GGUF", null, 7, 0, null],
])("whether %s of %s parameters fits into %s and %s GB", (repo, parameters, ram, vram, expected) => {
  const model = { ...RECOMMENDED[0]!, repo, parameters };
  expect(fits(model, pc(ram * GB, vram * GB))).toBe(expected);
});
