import { cleanup, configure, render, screen, waitFor } from "@testing-library/svelte";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, test, vi } from "vitest";
import Root from "../../App.svelte";
import { wireError, type OpenedFile } from "../../ipc";
import { fakeApi } from "../../ipc/fake";
import { settled, startApp } from "../../testing";
import { App } from "../../state/app.svelte";
import { DEFAULT_LOAD } from "../../state/model.svelte";
import { LoadPanel } from "./inspector/panel.svelte";

// A whole window is drawn, perhaps on a busy machine.
configure({ asyncUtilTimeout: 15_000 });
vi.setConfig({ testTimeout: 60_000 });
afterEach(cleanup);

/** Files that somebody opens, one after the other. */
function files(...asked: (OpenedFile | Error)[]) {
  return async () => {
    const next = asked.shift() ?? null;
    if (next instanceof Error) {
      throw wireError("fileInvalid", next.message, { subject: "/home/me/letter.gguf" });
    }
    return next;
  };
}

async function fileAsked(app: App) {
  app.take({ type: "fileAsked" });
  await settled();
}

test("a file that the program was started with is chosen in the window, and not loaded", async () => {
  const fake = fakeApi({ pace: 0, settings: { language: "en" } });
  const app = new App({ ...fake, openedFile: files({ modelId: "m3", added: true }) });
  render(Root, { app });
  const user = userEvent.setup();
  const value = (id: string) => screen.getByTestId<HTMLSelectElement>(id).value;
  await screen.findByText(/gemma-3-4b-it-Q8_0 was added to your models\./);
  await waitFor(() => expect(value("model-select")).toBe("m3"));
  expect(value("start-model-select")).toBe("m3");
  expect(app.model.state.type).toBe("none");

  // What is picked after that counts.
  await user.selectOptions(screen.getByTestId("start-model-select"), "m1");
  expect(value("start-model-select")).toBe("m1");
  await user.click(screen.getByTestId("start-load"));
  await waitFor(() => expect(app.model.loaded?.modelId).toBe("m1"));
  expect(value("model-select")).toBe("m1");
});

test("a file that is opened later is shown beside the model that is loaded", async () => {
  const app = await startApp({ settings: { language: "en", inspectorOpen: false } }, () => ({
    openedFile: files(),
  }));
  const panel = new LoadPanel(app);
  await app.use({ id: "m1" });
  panel.follow();
  app.navigation.go("settings");
  app.api.openedFile = files({ modelId: "m2", added: false }, { modelId: "m2", added: false });
  await fileAsked(app);
  expect(app.navigation.place).toBe("chat");
  expect(app.settings.current.inspectorOpen).toBe(true);
  expect(app.toasts.list.map(({ text }) => text)).toEqual([
    "Llama-3.3-70B-Instruct-Q4_K_M is chosen. Press Load to chat with it.",
  ]);
  panel.follow();
  expect(panel.modelId).toBe("m2");
  expect(app.model.loaded?.modelId).toBe("m1");

  // Another model that the user looks at stays, until the file is opened again.
  panel.choose("m3");
  panel.follow();
  expect(panel.modelId).toBe("m3");
  await fileAsked(app);
  panel.follow();
  expect(panel.modelId).toBe("m2");

  // What is loaded after that is shown from now on.
  await app.model.load("m3", DEFAULT_LOAD);
  expect(app.navigation.opened).toBeNull();
  const again = new LoadPanel(app);
  again.follow();
  expect(again.modelId).toBe("m3");
});

test("a file that is no model is told, and nothing else changes", async () => {
  const app = await startApp({ settings: { language: "en" } }, () => ({
    openedFile: files(new Error("no magic")),
  }));
  expect(app.toasts.list).toMatchObject([
    { kind: "error", text: "letter.gguf is not a valid GGUF file. Download it again." },
  ]);
  expect(app.navigation.opened).toBeNull();
  await fileAsked(app);
  expect(app.toasts.list).toHaveLength(1);
});

test("the model that is loaded already needs no words", async () => {
  const app = await startApp({}, () => ({ openedFile: files() }));
  await app.use({ id: "m1" });
  app.api.openedFile = files({ modelId: "m1", added: false });
  await fileAsked(app);
  expect(app.toasts.list).toEqual([]);
  expect(app.navigation.opened).toEqual({ id: "m1" });
});
