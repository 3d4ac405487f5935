import { fireEvent, screen } from "@testing-library/svelte";
import { expect, test, vi } from "vitest";
import { wireError, type Api } from "../../../ipc";
import { DEFAULT_LOAD } from "../../../state/model.svelte";
import { renderWith, startApp, until } from "../../../testing";
import Inspector from "./Inspector.svelte";

function slider(): HTMLInputElement {
  return screen.getByTestId("gpu-layers");
}

test("bars follow the slider, layers follow its end", async () => {
  const setGpuLayers = vi.fn<Api["setGpuLayers"]>();
  const app = await startApp({}, (api) => ({
    setGpuLayers: setGpuLayers.mockImplementation(api.setGpuLayers),
  }));
  renderWith(app, Inspector, {});
  await until(() => screen.queryByTestId("memory-vram") !== null);
  await fireEvent.click(screen.getByTestId("load-model"));
  await until(() => screen.queryByTestId("unload-model") !== null);
  const planned = () => Number(screen.getByTestId("memory-vram").dataset.planned);
  const used = () => Number(screen.getByTestId("memory-vram").dataset.used);
  const before = planned();
  expect(used()).toBe(before);
  await fireEvent.input(slider(), { target: { value: "10" } });
  await until(() => planned() < before);
  expect(used(), "nothing has moved").toBe(before);
  await fireEvent.change(slider(), { target: { value: "10" } });
  await until(() => used() === planned() && used() < before);
  expect(setGpuLayers.mock.calls).toEqual([[{ type: "fixed", layers: 10 }, null]]);
});

test("layers that wait for the driver say so", async () => {
  const app = await startApp();
  renderWith(app, Inspector, {});
  await until(() => screen.queryByTestId("memory-vram") !== null);
  await fireEvent.change(slider(), { target: { value: "0" } });
  await fireEvent.click(screen.getByTestId("load-model"));
  await until(() => screen.queryByTestId("unload-model") !== null);
  const waits = () => screen.queryByTestId("compiling")?.textContent ?? null;
  expect(waits()).toBeNull();
  await fireEvent.change(slider(), { target: { value: "5" } });
  await until(() => waits() === "Preparing the graphics card, the first time only: 2 of 4");
  expect(app.model.loaded?.gpuLayers).toBe(0);
  await until(() => app.model.loaded?.gpuLayers === 5);
  expect(waits()).toBeNull();
});

test("a mixture of experts has a second count: layers whose experts are in RAM", async () => {
  const setGpuLayers = vi.fn<Api["setGpuLayers"]>();
  const app = await startApp({ mixture: true }, (api) => ({
    setGpuLayers: setGpuLayers.mockImplementation(api.setGpuLayers),
  }));
  renderWith(app, Inspector, {});
  const experts = () => screen.queryByTestId<HTMLInputElement>("cpu-moe");
  await until(() => experts() !== null);
  expect(slider().valueAsNumber, "all layers, without most experts").toBe(Number(slider().max));
  expect(experts()!.valueAsNumber).toBeGreaterThan(0);
  expect(experts()!.getAttribute("aria-label") ?? experts()!.labels?.[0]?.textContent).toBe("Experts in RAM");
  const auto = screen.getByTestId("cpu-moe-auto");
  expect(auto.getAttribute("aria-pressed")).toBe("true");
  const planned = () => Number(screen.getByTestId("memory-vram").dataset.planned);
  await until(() => screen.queryByTestId("memory-vram") !== null);
  const before = planned();
  await fireEvent.change(experts()!, { target: { value: experts()!.max } });
  await until(() => planned() < before);
  expect(auto.getAttribute("aria-pressed")).toBe("false");
  await fireEvent.click(auto);
  await until(() => planned() === before);
  await fireEvent.click(screen.getByTestId("load-model"));
  await until(() => screen.queryByTestId("unload-model") !== null);
  await fireEvent.change(screen.getByTestId("cpu-moe-number"), { target: { value: "7" } });
  await until(() => setGpuLayers.mock.calls.length === 1);
  expect(setGpuLayers.mock.calls[0]?.[1]).toBe(7);
  await fireEvent.change(screen.getByTestId("model-select"), { target: { value: "m2" } });
  await until(() => experts() === null);
});

test("with several graphics cards each has its own bar", async () => {
  const app = await startApp({ twoGpus: true });
  renderWith(app, Inspector, {});
  const bars = () => screen.queryAllByTestId("memory-gpu");
  await until(() => bars().length === 2);
  expect(screen.queryByTestId("memory-vram")).toBeNull();
  const layers = slider().valueAsNumber;
  expect(bars().map((bar) => bar.querySelector(".name")?.textContent)).toEqual([
    `GeForce RTX 4060, ${layers} layers`,
    "RTX A2000 12GB, 0 layers",
  ]);
  await fireEvent.click(screen.getByTestId("load-model"));
  await until(() => screen.queryByTestId("unload-model") !== null);
  const [first, second] = bars();
  expect(first!.dataset.used).toBe(first!.dataset.planned);
  expect([second!.dataset.used, second!.dataset.planned]).toEqual(["0", "0"]);
});

test("loading says what it is about: the driver's work first, the first time", async () => {
  const app = await startApp({ pace: 1 });
  renderWith(app, Inspector, {});
  await until(() => screen.queryByTestId("memory-vram") !== null);
  const said = () => screen.queryByTestId("load-stage")?.textContent ?? "";
  await fireEvent.click(screen.getByTestId("load-model"));
  await until(() => said() === "Preparing the graphics card, the first time only: 3 of 4");
  await until(() => said().startsWith("Loading: "));
  await until(() => screen.queryByTestId("unload-model") !== null);
});

test("Page keys go by four, Auto is a state", async () => {
  const app = await startApp();
  renderWith(app, Inspector, {});
  await until(() => !slider().disabled);
  const auto = screen.getByTestId("gpu-layers-auto");
  expect(auto.getAttribute("aria-pressed")).toBe("true");
  const from = slider().valueAsNumber;
  await fireEvent.keyDown(slider(), { key: "PageDown" });
  await until(() => slider().valueAsNumber === from - 4);
  expect(auto.getAttribute("aria-pressed")).toBe("false");
  await fireEvent.click(auto);
  await until(() => slider().valueAsNumber === from);
  expect(auto.getAttribute("aria-pressed")).toBe("true");
});

test("a typed number stays in range", async () => {
  const app = await startApp();
  renderWith(app, Inspector, {});
  await until(() => !slider().disabled);
  const number = screen.getByTestId<HTMLInputElement>("gpu-layers-number");
  await fireEvent.change(number, { target: { value: "999" } });
  await until(() => number.value === number.max);
  await fireEvent.change(number, { target: { value: "-3" } });
  await until(() => number.value === "0");
});

test("without a GPU the slider says why", async () => {
  const app = await startApp({ gpuReason: { type: "driverTooOld", found: "470.1", needed: "570" } });
  renderWith(app, Inspector, {});
  await until(() => screen.queryByTestId("gpu-layers-reason") !== null);
  expect(slider().disabled).toBe(true);
  expect(screen.getByTestId("gpu-layers-reason").textContent).toMatch(/470\.1.*570/);
});

test("whether it thinks is asked of models that can do both", async () => {
  const app = await startApp();
  renderWith(app, Inspector, {});
  await until(() => screen.queryByTestId("load-model") !== null);
  expect(screen.queryByTestId("thinking")).toBeNull();
  await fireEvent.click(screen.getByTestId("load-model"));
  await until(() => screen.queryByTestId("thinking") !== null);
  const picker = screen.getByTestId<HTMLSelectElement>("thinking");
  expect(picker.value).toBe("auto");
  for (const [value, thinking] of [
    ["off", false],
    ["on", true],
    ["auto", null],
  ] as const) {
    await fireEvent.change(picker, { target: { value } });
    await until(() => app.settings.current.thinking === thinking);
  }
});

test("sampling is kept, what is no number is not", async () => {
  const settingsSet = vi.fn<Api["settingsSet"]>();
  const app = await startApp({}, (api) => ({ settingsSet: settingsSet.mockImplementation(api.settingsSet) }));
  renderWith(app, Inspector, {});
  await fireEvent.click(screen.getByText("Sampling"));
  await until(() => screen.queryByTestId("sampling-temperature") !== null);
  await fireEvent.change(screen.getByTestId("sampling-temperature"), { target: { value: "0.3" } });
  await until(() => settingsSet.mock.calls.length === 1);
  expect(settingsSet.mock.calls[0]?.[0].sampling.temperature).toBe(0.3);
  await fireEvent.change(screen.getByTestId("sampling-seed"), { target: { value: "42" } });
  await until(() => settingsSet.mock.calls.length === 2);
  expect(settingsSet.mock.calls[1]?.[0].sampling).toMatchObject({ temperature: 0.3, seed: 42 });
  const style = screen.getByTestId<HTMLSelectElement>("sampling-preset");
  expect(style.value).toBe("own");
  await fireEvent.change(style, { target: { value: "creative" } });
  const sampling = settingsSet.mock.calls.at(-1)?.[0].sampling;
  expect(sampling).toMatchObject({ temperature: 1.1, topK: 100, topP: 0.98, minP: 0.02, seed: 42 });
  await until(() => style.value === "creative");
});

test("a measurement brings the forecast of a model that is not loaded", async () => {
  const app = await startApp({}, (api) => ({
    plan: async (id, wish) => {
      const plan = await api.plan(id, wish);
      return (await api.hardware()).ramBandwidth === null ? { ...plan, forecast: null } : plan;
    },
  }));
  renderWith(app, Inspector, {});
  await until(() => screen.queryByTestId("forecast") !== null);
  expect(screen.getByTestId("forecast").textContent).toBe("");
  await app.monitor.measure();
  await until(() => screen.getByTestId("forecast").textContent !== "");
});

test("a draft model is offered where its tokens fit, and goes with the load", async () => {
  const modelLoad = vi.fn<Api["modelLoad"]>();
  const app = await startApp({}, (api) => ({
    draftModels: async (id) => (id === "m2" ? ["m1"] : []),
    modelLoad: modelLoad.mockImplementation(api.modelLoad),
  }));
  renderWith(app, Inspector, {});
  const picker = () => screen.getByLabelText<HTMLSelectElement>("Draft model");
  const offered = () => [...picker().options].map((option) => option.textContent.trim());
  await until(() => screen.queryByTestId("draft-model") !== null);
  expect(offered()).toEqual(["None"]);
  await fireEvent.change(screen.getByTestId("model-select"), { target: { value: "m2" } });
  await until(() => offered().length === 2);
  expect(offered()[1]).toContain("Qwen3-8B-Q4_K_M");
  expect(picker().value).toBe("");
  await fireEvent.change(picker(), { target: { value: "m1" } });
  await fireEvent.click(screen.getByTestId("load-model"));
  await until(() => screen.queryByTestId("load-model") === null);
  expect(modelLoad.mock.calls[0]?.[1].draft).toBe("m1");
  await fireEvent.change(picker(), { target: { value: "" } });
  await until(() => screen.queryByTestId("load-model") !== null);
  expect(screen.getByTestId("load-model").textContent).toContain("Reload");
});

test("a draft model that is gone is named so, and what was loaded without it says why", async () => {
  const load = { ...DEFAULT_LOAD, draft: "gone" };
  const app = await startApp({ settings: { load: { m1: load } } }, (api) => ({
    modelState: async () => {
      const state = await api.modelState();
      if (state.type === "ready") {
        state.loaded.draftProblem = wireError("draftMissing", "");
      }
      return state;
    },
  }));
  renderWith(app, Inspector, {});
  await until(() => screen.queryByTestId("draft-model") !== null);
  const picker = screen.getByTestId<HTMLSelectElement>("draft-model");
  expect(picker.selectedOptions[0]?.textContent).toBe("No longer installed");
  await fireEvent.click(screen.getByTestId("load-model"));
  await until(
    () => screen.queryByText(/Loaded without the draft model.*choose another one or none/) !== null,
  );
});
