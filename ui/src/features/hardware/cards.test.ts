import { screen } from "@testing-library/svelte";
import { expect, test } from "vitest";
import { en } from "../../i18n/en";
import type { GpuChoice } from "../../ipc";
import { renderWith, startApp, until } from "../../testing";
import { DEFAULT_LOAD } from "../../state/model.svelte";
import Graphics from "./Graphics.svelte";
import HardwareView from "./HardwareView.svelte";

test("each of several graphics cards has a plot and its share of our memory", async () => {
  const app = await startApp({ twoGpus: true });
  renderWith(app, HardwareView, {});
  await until(() => screen.queryAllByText(/^Video memory in use, /).length === 2);
  expect(screen.getByText("Video memory in use, RTX A2000 12GB")).toBeTruthy();
  expect(screen.getByText("Video memory, GeForce RTX 4060")).toBeTruthy();
  expect(screen.queryByText("not used; Settings choose the cards")).toBeNull();
});

test("a card that was not chosen is named as unused", async () => {
  const chosen: GpuChoice = { type: "only", gpus: [{ id: "GPU-2", name: "NVIDIA RTX A2000 12GB" }] };
  const app = await startApp({ twoGpus: true, settings: { gpus: chosen } });
  renderWith(app, HardwareView, {});
  await until(() => screen.queryByText("Video memory in use") !== null);
  await until(() => screen.queryAllByText("not used; Settings choose the cards").length === 1);
});

test("with no card chosen all are there, and the reason is told", async () => {
  const app = await startApp({ twoGpus: true, settings: { gpus: { type: "only", gpus: [] } } });
  renderWith(app, HardwareView, {});
  await until(() => screen.queryByTestId("hardware-gpu-reason")?.dataset.reason === "noneChosen");
  expect(screen.getAllByText("not used; Settings choose the cards")).toHaveLength(2);
  expect(screen.getByText(en.plan.gpu_noneChosen)).toBeTruthy();
});

test("a card that was chosen while a model is loaded says from when on it is used", async () => {
  const app = await startApp({ twoGpus: true });
  await app.monitor.refreshHardware();
  const report = app.monitor.hardware!;
  const hardware = { ...report, gpus: report.gpus.map((gpu, i) => ({ ...gpu, used: i === 0 })) };
  const view = renderWith(app, Graphics, { hardware });
  expect(screen.getByText("not used; Settings choose the cards")).toBeTruthy();
  view.unmount();
  await app.api.modelLoad("m1", DEFAULT_LOAD);
  await until(() => app.model.loaded !== null);
  renderWith(app, Graphics, { hardware });
  expect(screen.getByText("used from the next load on")).toBeTruthy();
  expect(screen.queryByText("not used; Settings choose the cards")).toBeNull();
});
