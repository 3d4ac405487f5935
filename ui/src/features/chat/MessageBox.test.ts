import { fireEvent, screen } from "@testing-library/svelte";
import { expect, test, vi } from "vitest";
import type { Api } from "../../ipc";
import { renderWith, startApp, until } from "../../testing";
import UserMessage from "./message/UserMessage.svelte";
import MessageBox from "./MessageBox.svelte";

async function setUp(change: (api: Api) => Partial<Api> = () => ({})) {
  const app = await startApp({}, change);
  await app.model.load("m1", app.settings.load("m1"));
  renderWith(app, MessageBox, {});
  return { app, input: screen.getByTestId<HTMLTextAreaElement>("message-input") };
}

test("the Enter of a Japanese composition keeps the text, the next one sends it", async () => {
  const chatSend = vi.fn<Api["chatSend"]>().mockResolvedValue();
  const { input } = await setUp(() => ({ chatSend }));
  await fireEvent.input(input, { target: { value: "日本語" } });
  await fireEvent.keyDown(input, { key: "Enter", isComposing: true, keyCode: 229 });
  await fireEvent.compositionEnd(input);
  await fireEvent.keyDown(input, { key: "Enter", keyCode: 229 });
  expect(chatSend).not.toHaveBeenCalled();
  expect(input.value).toBe("日本語");
  await fireEvent.keyDown(input, { key: "Enter", keyCode: 13 });
  await until(() => chatSend.mock.calls.length === 1);
  expect(chatSend.mock.calls[0]?.[0].turn).toEqual({ type: "send", text: "日本語", parent: null });
  expect(input.value).toBe("");
});

test("what could not be sent is still there", async () => {
  const { input, app } = await setUp(() => ({ chatSend: () => Promise.reject(new Error("no")) }));
  await fireEvent.input(input, { target: { value: "precious" } });
  await fireEvent.keyDown(input, { key: "Enter" });
  await until(() => app.toasts.list.length === 1);
  await until(() => input.value === "precious");
});

test("Escape stops the answer, but not the one that ends a composition", async () => {
  const chatStop = vi.fn<Api["chatStop"]>().mockResolvedValue();
  const { app, input } = await setUp((api) => ({
    chatStop,
    chatSend: (args) => api.chatSend(args, () => {}),
  }));
  await fireEvent.keyDown(input, { key: "Escape" });
  expect(chatStop).not.toHaveBeenCalled();
  await fireEvent.input(input, { target: { value: "hello" } });
  await fireEvent.keyDown(input, { key: "Enter" });
  app.chats.shown!.chat.running = true;
  await fireEvent.keyDown(input, { key: "Escape", isComposing: true });
  expect(chatStop).not.toHaveBeenCalled();
  await fireEvent.keyDown(input, { key: "Escape" });
  await until(() => chatStop.mock.calls.length === 1);
});

test("text files are put into the message, others are told", async () => {
  const { app, input } = await setUp();
  await fireEvent.input(input, { target: { value: "Explain:" } });
  const large = new File([new Uint8Array(600 * 1024)], "large.txt");
  const files = [new File(["let a;\n"], "a.js"), new File([new Uint8Array([0, 1])], "b.bin"), large];
  await fireEvent.change(screen.getByTestId("attach-files"), { target: { files } });
  await until(() => app.toasts.list.length === 2);
  expect(input.value).toBe("Explain:\n\na.js:\n```\nlet a;\n```\n");
  const told = app.toasts.list.map(({ text }) => text);
  expect(told[0]).toContain("b.bin");
  expect(told[1]).toContain("large.txt");
});

test("it comes back to its chat, before what was typed since", async () => {
  let refuse = (_: Error) => {};
  const chatSend = () => new Promise<void>((_, reject) => (refuse = reject));
  const { input, app } = await setUp(() => ({ chatSend }));
  const first = app.chats.current!;
  await fireEvent.input(input, { target: { value: "precious" } });
  await fireEvent.keyDown(input, { key: "Enter" });
  await fireEvent.input(input, { target: { value: "more" } });
  await app.chats.show("2");
  refuse(new Error("no"));
  await until(() => app.toasts.list.length === 1);
  await until(() => app.chats.drafts.get(first) === "precious\nmore");
  expect(app.chats.drafts.get("2")).toBeUndefined();
});

test("a message said otherwise that could not be sent is still there", async () => {
  const app = await startApp({}, () => ({ chatSend: () => Promise.reject(new Error("no")) }));
  await app.model.load("m1", app.settings.load("m1"));
  await app.chats.show("2");
  const message = app.chats.shown!.chat.messages[0]!;
  renderWith(app, UserMessage, { message, canSend: true });
  await fireEvent.click(screen.getByTestId("edit"));
  await fireEvent.input(screen.getByTestId("edit-input"), { target: { value: "precious" } });
  await fireEvent.click(screen.getByTestId("edit-send"));
  await until(() => app.toasts.list.length === 1);
  await until(() => screen.queryByTestId<HTMLTextAreaElement>("edit-input")?.value === "precious");
});

test("without a model nothing is sent", async () => {
  const chatSend = vi.fn<Api["chatSend"]>().mockResolvedValue();
  const { app, input } = await setUp(() => ({ chatSend }));
  await app.model.unload();
  await fireEvent.input(input, { target: { value: "hello" } });
  await fireEvent.keyDown(input, { key: "Enter" });
  expect(chatSend).not.toHaveBeenCalled();
  expect(screen.getByTestId("send")).toHaveProperty("disabled", true);
});

test("a draft belongs to its chat", async () => {
  const { app, input } = await setUp();
  await fireEvent.input(input, { target: { value: "for this one" } });
  const first = app.chats.current;
  await app.chats.show("2");
  await until(() => input.value === "");
  await app.chats.show(first!);
  await until(() => input.value === "for this one");
});

test("whoever has loaded a model goes on in the box, but nobody is pulled there", async () => {
  const { app, input } = await setUp();
  expect(document.activeElement).toBe(input);
  await app.model.unload();
  const button = document.body.appendChild(document.createElement("button"));
  button.focus();
  await app.model.load("m1", app.settings.load("m1"));
  await new Promise((done) => setTimeout(done));
  expect(document.activeElement).toBe(button);
  button.remove();
});
