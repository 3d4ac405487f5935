import { screen, within } from "@testing-library/svelte";
import userEvent from "@testing-library/user-event";
import { expect, test, vi } from "vitest";
import { en } from "../../i18n/en";
import type { Api, GpuChoice, GpuName } from "../../ipc";
import type { FakeOptions } from "../../ipc/fake";
import { renderWith, startApp, until } from "../../testing";
import SettingsView from "./SettingsView.svelte";

const RTX = { id: "GPU-1", name: "NVIDIA GeForce RTX 4060" };
const A2000 = { id: "GPU-2", name: "NVIDIA RTX A2000 12GB" };
const only = (...gpus: GpuName[]): GpuChoice => ({ type: "only", gpus });

const group = () => screen.queryByRole("group", { name: "Graphics cards for models" });
const card = (name: string | RegExp) => within(group()!).getByRole("switch", { name });
const on = () =>
  within(group()!)
    .getAllByRole("switch")
    .map((one) => one.getAttribute("aria-checked") === "true");

async function open(options: FakeOptions) {
  const settingsSet = vi.fn<Api["settingsSet"]>();
  const app = await startApp(options, (api) => ({
    settingsSet: settingsSet.mockImplementation(api.settingsSet),
  }));
  await app.monitor.refreshHardware();
  renderWith(app, SettingsView, {});
  await until(() => screen.queryByTestId("settings-chat-memory") !== null);
  const saved = () => settingsSet.mock.calls.at(-1)?.[0].gpus;
  return { app, saved, user: userEvent.setup() };
}

test("any of several graphics cards are chosen, by the keyboard too, and the hardware follows", async () => {
  const { app, saved, user } = await open({ twoGpus: true });
  expect(on()).toEqual([true, true]);
  await user.click(card(/RTX 4060/));
  await until(() => app.monitor.hardware?.gpus[0]?.id === "GPU-2");
  expect(saved()).toEqual(only(A2000));
  expect(on()).toEqual([true, false]);
  // The other one, without the mouse.
  card(/A2000/).focus();
  await user.keyboard(" ");
  await until(() => app.monitor.hardware?.gpuReason?.type === "noneChosen");
  expect(saved()).toEqual(only());
  expect(on()).toEqual([false, false]);
  expect(within(group()!).getByRole("status").textContent).toBe(en.settings.gpuNone);
  await user.keyboard("{Enter}");
  await until(() => on()[0] === true);
  expect(within(group()!).getByRole("status").textContent).toBe("");
  await user.click(card(/RTX 4060/));
  await until(() => app.monitor.hardware?.gpus.every((gpu) => gpu.used) === true);
  expect(saved()).toEqual({ type: "all" });
});

test("the only graphics card can be switched off", async () => {
  const { saved, user } = await open({});
  expect(on()).toEqual([true]);
  await user.click(card(/RTX 4060 · /));
  await until(() => on()[0] === false);
  expect(saved()).toEqual(only());
});

test.each<FakeOptions>([
  { gpuReason: { type: "noDevice" } },
  { gpuReason: { type: "turnedOff" }, settings: { gpus: only(RTX) } },
])(
  "without a card, or with those of this run left alone, there is nothing to choose: %j",
  async (options) => {
    const { app } = await open(options);
    expect(app.monitor.hardware?.gpuReason).toEqual(options.gpuReason);
    expect(group()).toBeNull();
  },
);

test("a chosen card that is gone is named and can be given up", async () => {
  const gone = { id: "GPU-9", name: "NVIDIA GeForce GTX 1080" };
  const { app, saved, user } = await open({ settings: { gpus: only(gone) } });
  expect(on()).toEqual([true, true]);
  await user.click(card("NVIDIA GeForce GTX 1080: cannot be used now"));
  await until(() => on().length === 1);
  expect(saved()).toEqual({ type: "all" });
  expect(app.settings.current.gpus).toEqual({ type: "all" });
});

test("a card of old settings, of which only the id is known, is called by that", async () => {
  await open({ twoGpus: true, settings: { gpus: only({ id: "GPU-9", name: "" }, RTX) } });
  expect(card("GPU-9: cannot be used now").getAttribute("aria-checked")).toBe("true");
  expect(on()).toEqual([false, true, true]);
});
