import { expect, test, vi } from "vitest";
import type { Api, LoadSettings, Plan } from "../../../ipc";
import { fakePlan } from "../../../ipc/fake/plan";
import { settled, startApp, until } from "../../../testing";
import { LoadPanel } from "./panel.svelte";

/** An `Api.plan` that answers when told to. */
function slowPlanner() {
  const asked: { wish: LoadSettings; answer: () => void }[] = [];
  const plan: Api["plan"] = (_id, wish) =>
    new Promise<Plan>((done) => {
      const answer = () => done(fakePlan({ bytes: 5e9, layers: 37, contextMax: 40960 }, wish, true));
      asked.push({ wish, answer });
    });
  return { asked, plan };
}

test("while the slider moves one plan is asked for at a time, and the last position is planned", async () => {
  const { asked, plan } = slowPlanner();
  const panel = new LoadPanel(await startApp({}, () => ({ plan })));
  panel.choose("m1");
  asked.shift()?.answer();
  await settled();
  for (let layers = 1; layers <= 20; layers++) {
    panel.move({ gpuLayers: { type: "fixed", layers } });
  }
  await settled();
  expect(asked).toHaveLength(1);
  asked.shift()?.answer();
  await settled();
  expect(asked.map(({ wish }) => wish.gpuLayers)).toEqual([{ type: "fixed", layers: 20 }]);
  asked.shift()?.answer();
  await settled();
  expect(panel.plan?.gpuLayers).toBe(20);
  expect(asked).toHaveLength(0);
});

test("a plan for the model before is thrown away", async () => {
  const { asked, plan } = slowPlanner();
  const panel = new LoadPanel(await startApp({}, () => ({ plan })));
  panel.choose("m1");
  panel.choose("m2");
  asked.shift()?.answer();
  await settled();
  expect(panel.plan).toBeNull();
  asked.shift()?.answer();
  await settled();
  expect(panel.plan).not.toBeNull();
});

test("moving the slider moves no layers, letting it go does", async () => {
  const setGpuLayers = vi.fn<Api["setGpuLayers"]>();
  const app = await startApp({}, (api) => ({
    setGpuLayers: setGpuLayers.mockImplementation(api.setGpuLayers),
  }));
  const panel = new LoadPanel(app);
  panel.choose("m1");
  await panel.settle({ gpuLayers: { type: "fixed", layers: 3 } });
  expect(setGpuLayers, "the model is not loaded").not.toHaveBeenCalled();
  await panel.load();
  panel.follow();
  panel.move({ gpuLayers: { type: "fixed", layers: 7 } });
  panel.move({ gpuLayers: { type: "fixed", layers: 8 } });
  await settled();
  expect(setGpuLayers).not.toHaveBeenCalled();
  await panel.settle({ gpuLayers: { type: "fixed", layers: 8 } });
  expect(setGpuLayers.mock.calls).toEqual([[{ type: "fixed", layers: 8 }, null]]);
  expect(app.model.loaded?.gpuLayers).toBe(8);
});

test("what does not fit comes back to where the layers are", async () => {
  const app = await startApp();
  const panel = new LoadPanel(app);
  panel.choose("m2");
  await panel.load();
  panel.follow();
  await panel.settle({ gpuLayers: { type: "fixed", layers: 80 } });
  panel.follow();
  const { loaded } = app.model;
  expect(loaded!.gpuLayers).toBeLessThan(80);
  expect(panel.wish.gpuLayers).toEqual({ type: "fixed", layers: loaded!.gpuLayers });
  expect(panel.plan).toBe(loaded!.plan);
  expect(app.toasts.list[0]?.testId).toBe("recovery-notice");
});

test("a wish while layers move is told at once, of those after it the last one counts", async () => {
  const finish: (() => void)[] = [];
  const setGpuLayers = vi.fn<Api["setGpuLayers"]>();
  const app = await startApp({}, (api) => ({
    setGpuLayers: setGpuLayers.mockImplementation(async () => {
      await new Promise<void>((done) => finish.push(done));
      return api.modelState();
    }),
  }));
  const wish = (layers: number) => app.model.setGpuLayers({ type: "fixed", layers }, null);
  void wish(1);
  void wish(2);
  void wish(3);
  void wish(4);
  await until(() => finish.length === 2);
  finish[0]?.();
  await until(() => finish.length === 3);
  finish[1]?.();
  finish[2]?.();
  await until(() => !app.model.moving);
  expect(setGpuLayers.mock.calls.map(([layers]) => layers)).toEqual([
    { type: "fixed", layers: 1 },
    { type: "fixed", layers: 2 },
    { type: "fixed", layers: 4 },
  ]);
});

test("what was wished stays while the model is being loaded, and afterwards", async () => {
  let go = () => {};
  const app = await startApp({}, (api) => ({
    modelLoad: async (id, settings) => {
      const loaded = api.modelLoad(id, settings);
      await new Promise<void>((done) => (go = done));
      return loaded;
    },
  }));
  const panel = new LoadPanel(app);
  panel.choose("m1");
  panel.change({ context: 512 });
  const loading = panel.load();
  app.take({
    type: "model",
    state: { type: "loading", modelId: "m1", name: "m1", stage: { type: "layers" }, progress: 0 },
  });
  panel.follow();
  expect(panel.wish.context).toBe(512);
  go();
  await loading;
  panel.follow();
  expect(panel.isLoaded).toBe(true);
  expect(panel.wish).toEqual(app.model.loaded!.settings);
  expect(panel.wish.context).toBe(512);
  expect(panel.needsReload).toBe(false);
});

test("the panel keeps the model that the user looks at while another is loaded", async () => {
  const app = await startApp();
  const panel = new LoadPanel(app);
  panel.choose("m1");
  await panel.load();
  panel.follow();
  panel.choose("m3");
  panel.follow();
  expect(panel.modelId).toBe("m3");
  await app.model.load("m2", app.settings.load("m2"));
  panel.follow();
  expect(panel.modelId).toBe("m2");
});

test("a longer context needs loading again", async () => {
  const app = await startApp();
  const panel = new LoadPanel(app);
  panel.choose("m1");
  await panel.load();
  panel.follow();
  expect(panel.needsReload).toBe(false);
  panel.change({ context: 16384 });
  expect(panel.needsReload).toBe(true);
  await panel.load();
  expect(panel.needsReload).toBe(false);
  expect(app.model.loaded?.plan.context).toBe(16384);
});

test("a plan that comes after the layers have moved is old", async () => {
  const late: (() => void)[] = [];
  const app = await startApp({}, (api) => ({
    plan: async (id, wish) => {
      const plan = await api.plan(id, wish);
      if (wish.gpuLayers.type === "fixed") {
        await new Promise<void>((done) => late.push(done));
      }
      return plan;
    },
  }));
  const panel = new LoadPanel(app);
  panel.choose("m2");
  await panel.load();
  panel.follow();
  await panel.settle({ gpuLayers: { type: "fixed", layers: 80 } });
  panel.follow();
  late.forEach((done) => done());
  await new Promise((done) => setTimeout(done));
  expect(panel.plan).toBe(app.model.loaded!.plan);
});
