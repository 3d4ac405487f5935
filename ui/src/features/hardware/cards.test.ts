import { screen } from "@testing-library/svelte";
import { expect, test } from "vitest";
import { en } from "../../i18n/en";
import type { GpuChoice } from "../../ipc";
import { renderWith, startApp, until } from "../../testing";
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
