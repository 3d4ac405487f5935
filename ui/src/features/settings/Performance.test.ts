import { fireEvent, screen } from "@testing-library/svelte";
import { expect, test, vi } from "vitest";
import type { Api } from "../../ipc";
import { renderWith, startApp, until } from "../../testing";
import SettingsView from "./SettingsView.svelte";

const picker = () => screen.queryByTestId<HTMLSelectElement>("settings-gpu");

test("with one graphics card there is nothing to choose", async () => {
  const app = await startApp();
  await app.monitor.refreshHardware();
  renderWith(app, SettingsView, {});
  await until(() => screen.queryByTestId("settings-chat-memory") !== null);
  expect(picker()).toBeNull();
});

test("one of several graphics cards is chosen, and the hardware follows", async () => {
  const settingsSet = vi.fn<Api["settingsSet"]>();
  const app = await startApp({ twoGpus: true }, (api) => ({
    settingsSet: settingsSet.mockImplementation(api.settingsSet),
  }));
  await app.monitor.refreshHardware();
  renderWith(app, SettingsView, {});
  await until(() => picker() !== null);
  expect([...picker()!.options].map((option) => option.value)).toEqual(["", "GPU-1", "GPU-2"]);
  expect(picker()!.value).toBe("");
  await fireEvent.change(picker()!, { target: { value: "GPU-2" } });
  await until(() => app.monitor.hardware?.gpus[0]?.id === "GPU-2");
  expect(settingsSet.mock.calls[0]?.[0].gpu).toBe("GPU-2");
  await fireEvent.change(picker()!, { target: { value: "" } });
  await until(() => settingsSet.mock.calls.length === 2);
  expect(settingsSet.mock.calls[1]?.[0].gpu).toBeNull();
});

test("a chosen card that is gone can be given up", async () => {
  const app = await startApp({ settings: { gpu: "GPU-9" } });
  await app.monitor.refreshHardware();
  renderWith(app, SettingsView, {});
  await until(() => picker()?.value === "GPU-9");
  await fireEvent.change(picker()!, { target: { value: "" } });
  await until(() => picker() === null);
  expect(app.settings.current.gpu).toBeNull();
});
