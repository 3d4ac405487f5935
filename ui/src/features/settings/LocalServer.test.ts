import { screen } from "@testing-library/svelte";
import userEvent from "@testing-library/user-event";
import { expect, test, vi } from "vitest";
import { renderWith, startApp, until } from "../../testing";
import SettingsView from "./SettingsView.svelte";

const state = () => screen.getByTestId("server-state");
const port = () => screen.getByLabelText<HTMLInputElement>("Port");

test("the server is switched on, moved to another port, and off", async () => {
  const app = await startApp({ settings: { language: "en" } });
  renderWith(app, SettingsView, {});
  const user = userEvent.setup();
  expect(state().dataset["state"]).toBe("off");
  await user.click(screen.getByTestId("settings-server"));
  await until(() => state().dataset["state"] === "on");
  expect(screen.getByTestId("server-url").textContent).toBe("http://127.0.0.1:8080/v1");
  expect(state().textContent).toContain("requests are refused until one is");
  await app.use({ id: "m1" });
  await until(() => !state().textContent.includes("refused"));

  const writeText = vi.fn(async () => {});
  vi.spyOn(navigator.clipboard, "writeText").mockImplementation(writeText);
  await user.click(screen.getByRole("button", { name: "Copy" }));
  expect(writeText).toHaveBeenCalledWith("http://127.0.0.1:8080/v1");

  await user.clear(port());
  await user.type(port(), "9000");
  await user.tab();
  await until(() => screen.queryByText("http://127.0.0.1:9000/v1") !== null);
  await user.click(screen.getByTestId("settings-server"));
  await until(() => state().dataset["state"] === "off");
  expect(app.settings.current.server).toEqual({ on: false, port: 9000 });
});

test.each(["70000", "4294967295"])("port %s is refused beside its field", async (typed) => {
  const app = await startApp({ settings: { language: "en" } });
  renderWith(app, SettingsView, {});
  const user = userEvent.setup();
  await user.clear(port());
  await user.type(port(), typed);
  await user.tab();
  await screen.findByText("Ports go from 1024 to 65535.");
  expect(app.settings.current.server.port).toBe(8080);
});

test("a port that another program has is told beside the switch, or in the corner elsewhere", async () => {
  const taken = { server: { on: true, port: 5000 }, language: "en" } as const;
  const app = await startApp({ settings: taken });
  const said = "Port 5000 cannot be used: another program has it. Choose another port in Settings.";
  expect(app.toasts.list.map(({ text }) => text)).toEqual([said]);
  app.toasts.list = [];
  app.navigation.go("settings");
  renderWith(app, SettingsView, {});
  expect(state().textContent).toContain(said);
  await app.settings.change({ server: { on: true, port: 5001 } });
  await app.settings.change({ server: { on: true, port: 5000 } });
  await until(() => state().dataset["state"] === "failed");
  expect(app.toasts.list).toEqual([]);
});
