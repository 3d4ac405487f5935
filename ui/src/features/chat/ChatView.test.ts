import { fireEvent, screen, within } from "@testing-library/svelte";
import { expect, test, vi } from "vitest";
import type { FakeOptions } from "../../ipc/fake";
import type { AnswerEvent, Api, InstalledModel } from "../../ipc";
import { renderWith, startApp, until } from "../../testing";
import ChatView from "./ChatView.svelte";

async function open(options: FakeOptions = {}, change?: (api: Api) => Partial<Api>) {
  const app = await startApp(options, change);
  renderWith(app, ChatView, {});
  return app;
}

async function write(text: string): Promise<void> {
  await fireEvent.input(screen.getByTestId("message-input"), { target: { value: text } });
  await fireEvent.click(screen.getByTestId("send"));
}

const there = (id: string) => screen.queryByTestId(id) !== null;

test("from nothing loaded to an answer", async () => {
  const app = await open();
  await fireEvent.click(screen.getByTestId("chat-new"));
  await until(() => there("start-load"));
  await fireEvent.click(screen.getByTestId("start-load"));
  await until(() => app.model.loaded !== null);
  await write("Hello");
  await until(() => there("answer-finish"), "the end of the answer");
  expect(screen.getByTestId("answer-finish").dataset.reason).toBe("end");
  expect(screen.getByTestId("message-user").textContent).toContain("Hello");
  expect(within(screen.getByTestId("message-assistant")).getByText(/it depends on where/)).toBeTruthy();
  expect(screen.getByTestId("status-line").textContent).toContain("tok/s");
});

test("who has a file already adds it where the first model is asked for", async () => {
  let models: InstalledModel[] = [];
  const app = await open({}, (fake) => ({
    library: () => Promise.resolve(models),
    libraryOpen: async (folder) => {
      expect(folder).toBe(false);
      models = await fake.library();
      return true;
    },
  }));
  await app.chats.create();
  await until(() => there("start-add"));
  await fireEvent.click(screen.getByTestId("start-add"));
  await until(() => there("start-load"));
});

test("a conversation is copied as a whole", async () => {
  const app = await open();
  await app.model.load("m1", app.settings.load("m1"));
  await app.chats.create();
  await until(() => app.chats.shown?.chat.messages.length === 0);
  expect(there("copy-chat")).toBe(false);
  await write("Hello");
  await until(() => there("answer-finish"), "the end of the answer");
  const writeText = vi.fn().mockResolvedValue(undefined);
  vi.spyOn(navigator.clipboard, "writeText").mockImplementation(writeText);
  await fireEvent.click(screen.getByTestId("copy-chat"));
  expect(writeText.mock.calls[0]?.[0]).toMatch(/^# .+\n\n## You\n\nHello\n\n## Answer\n\n/);
});

test("an answer is stopped and goes on", async () => {
  const app = await open({ pace: 2 });
  await app.model.load("m1", app.settings.load("m1"));
  await app.chats.create();
  await write("Hello");
  await until(() => there("stop"));
  await fireEvent.click(screen.getByTestId("stop"));
  await until(() => there("answer-finish"));
  expect(screen.getByTestId("answer-finish").dataset.reason).toBe("stopped");
  await fireEvent.click(screen.getByTestId("continue"));
  await until(() => there("stop"), "the answer to go on");
  await until(() => there("answer-finish"), "its end");
  expect(screen.getAllByTestId("message-assistant")).toHaveLength(1);
});

test("without models the way leads to Discover", async () => {
  const app = await open({ empty: true });
  await fireEvent.click(await screen.findByText("Go to Discover"));
  expect(app.navigation.place).toBe("discover");
});

test("a link is shown before it opens, and opens only then", async () => {
  const openLink = vi.fn<Api["openLink"]>().mockResolvedValue();
  const app = await open({}, () => ({ openLink }));
  await app.chats.show("1");
  await fireEvent.click(await screen.findByText("the paper"));
  expect(await screen.findByText("https://arxiv.org/abs/2305.13245")).toBeTruthy();
  expect(openLink).not.toHaveBeenCalled();
  await fireEvent.click(screen.getByText("Open", { selector: "button" }));
  expect(openLink.mock.calls).toEqual([["https://arxiv.org/abs/2305.13245"]]);
});

test("a recovery is told in the conversation, with the way back", async () => {
  let emit: (event: AnswerEvent) => void = () => undefined;
  const app = await open({ pace: 2 }, (api) => ({
    chatSend: (args, onEvent) => api.chatSend(args, (emit = onEvent)),
  }));
  await app.model.load("m1", app.settings.load("m1"));
  await app.chats.create();
  await write("Hello");
  await until(() => there("stop"));
  emit({
    type: "recovery",
    notice: {
      cause: "vramFull",
      gpu: null,
      layersShifted: 0,
      layersMoved: 4,
      expertsMoved: 0,
      gpuLayers: 8,
      layers: 37,
      duringAnswer: true,
    },
  });
  await until(() => there("recovery-notice"));
  expect(screen.getByTestId("recovery-notice").textContent).toContain(
    "4 layers moved to RAM, the answer went on.",
  );
  await fireEvent.click(screen.getByText("Move back"));
  await until(() => app.model.loaded?.gpuLayers === 12);
});

test("branches are shown with their number and changed", async () => {
  const app = await open();
  await app.chats.show("1");
  expect((await screen.findByTestId("branch")).textContent).toBe("1/2");
  await fireEvent.click(screen.getByLabelText("Next version"));
  await until(() => screen.getByTestId("branch").textContent === "2/2");
  expect(app.chats.shown?.chat.path).toEqual(["1-1", "1-3"]);
});

test("answers get a format, a wrong one is told, JSON is shown as code", async () => {
  const app = await open();
  await app.chats.create();
  await fireEvent.click(screen.getByTestId("answer-format"));
  await fireEvent.change(await screen.findByTestId("format-kind"), { target: { value: "schema" } });
  const schema = await screen.findByTestId<HTMLTextAreaElement>("format-schema");
  expect(() => JSON.parse(schema.value)).not.toThrow();
  await fireEvent.input(schema, { target: { value: "{" } });
  await fireEvent.click(screen.getByTestId("format-save"));
  await screen.findByText(/not valid JSON/);
  expect(app.chats.shown?.chat.format).toEqual({ type: "text" });
  await fireEvent.input(schema, { target: { value: '{"type": "array"}' } });
  await until(() => screen.queryByText(/not valid JSON/) === null, "the message to go");
  await fireEvent.click(screen.getByTestId("format-save"));
  await until(() => !there("format-schema"));
  expect(app.chats.shown?.chat.format).toEqual({ type: "schema", schema: '{"type": "array"}' });
  expect(screen.getByTestId("answer-format").getAttribute("aria-pressed")).toBe("true");
});
