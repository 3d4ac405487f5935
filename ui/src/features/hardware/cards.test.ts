import { screen } from "@testing-library/svelte";
import { expect, test } from "vitest";
import { renderWith, startApp, until } from "../../testing";
import HardwareView from "./HardwareView.svelte";

test("each of several graphics cards has a plot and its share of our memory", async () => {
  const app = await startApp({ twoGpus: true });
  renderWith(app, HardwareView, {});
  await until(() => screen.queryAllByText(/^Video memory in use, /).length === 2);
  expect(screen.getByText("Video memory in use, NVIDIA RTX A2000 12GB")).toBeTruthy();
  expect(screen.getByText("Video memory, NVIDIA GeForce RTX 4060")).toBeTruthy();
  expect(screen.queryByText("not used; Settings choose the card")).toBeNull();
});

test("a card that was not chosen is named as unused", async () => {
  const app = await startApp({ twoGpus: true, settings: { gpu: "GPU-2" } });
  renderWith(app, HardwareView, {});
  await until(() => screen.queryByText("Video memory in use") !== null);
  await until(() => screen.queryAllByText("not used; Settings choose the card").length === 1);
});
