import { beforeEach, describe, expect, test } from "vitest";
import { wireError, type AnswerStats, type Chat, type Message } from "../ipc";
import {
  canContinue,
  contextThatWasFull,
  conversation,
  latestStats,
  shownMessages,
  siblings,
  take,
  type Conversation,
} from "./conversation";

const message = (
  id: string,
  parent: string | null,
  role: Message["role"],
  more: Partial<Message> = {},
): Message => ({
  id,
  parent,
  role,
  text: "",
  thinking: null,
  toolCalls: [],
  model: null,
  created: 0,
  finish: role === "assistant" ? "end" : null,
  stats: null,
  ...more,
});

const chat = (messages: Message[], path: string[]): Chat => ({
  id: "c",
  title: "",
  pinned: false,
  systemPrompt: "",
  format: { type: "text" },
  messages,
  path,
  running: false,
});

describe("an answer's events", () => {
  let state: Conversation;
  const question = message("q", null, "user", { text: "Hi" });
  const answer = message("a", "q", "assistant", { finish: null });

  beforeEach(() => {
    state = conversation(chat([], []));
    take(state, { type: "started", user: question, answer: { ...answer, toolCalls: [] }, path: ["q", "a"] });
  });

  const text = () => shownMessages(state.chat).at(-1);

  test("make an answer", () => {
    expect(state.chat.running).toBe(true);
    take(state, { type: "preparing" });
    expect(state.before).toBe("preparing");
    take(state, { type: "prompt", done: 10, total: 40 });
    expect(state.before).toBeNull();
    expect(state.prompt).toEqual({ done: 10, total: 40, secondsLeft: null });
    take(state, { type: "thinking", text: "Hm" });
    expect(state.prompt).toBeNull();
    take(state, { type: "thinking", text: "m." });
    take(state, { type: "text", text: "Hel" });
    take(state, { type: "text", text: "lo" });
    const call = { name: "f", arguments: '{"a":1}', id: null, source: "" };
    take(state, { type: "toolCall", call });
    expect(text()).toMatchObject({ thinking: "Hmm.", text: "Hello", toolCalls: [call], finish: null });
    const message = { ...answer, text: "Hello", thinking: "Hmm." };
    take(state, { type: "finished", message, reason: "stopped", title: "Hi", error: null });
    expect(text()).toMatchObject({ text: "Hello", finish: "stopped" });
    expect(state.chat).toMatchObject({ running: false, title: "Hi" });
    expect(state.answer).toBeNull();
  });

  test("an answer that goes on keeps what it has", () => {
    const begun = { ...answer, text: "Hel" };
    take(state, { type: "started", user: null, answer: begun, path: ["q", "a"] });
    take(state, { type: "text", text: "lo" });
    expect(text()?.text).toBe("Hello");
    expect(state.chat.messages).toHaveLength(2);
  });

  test("notices stay with their answer, and the next try begins without them", () => {
    take(state, { type: "dropped", turns: 1, tokens: 200 });
    take(state, { type: "dropped", turns: 1, tokens: 100 });
    const notice = {
      cause: "vramFull",
      gpu: null,
      layersShifted: 0,
      layersMoved: 4,
      expertsMoved: 0,
      gpuLayers: 8,
      layers: 33,
      duringAnswer: true,
    };
    take(state, { type: "recovery", notice });
    expect(state.notices.a).toEqual([
      { type: "dropped", turns: 2, tokens: 300 },
      { type: "recovery", notice },
    ]);
    take(state, { type: "started", user: null, answer: { ...answer }, path: ["q", "a"] });
    expect(state.notices.a).toBeUndefined();
  });

  test("an error is told with its answer", () => {
    const error = {
      code: "contextFull",
      message: "",
      needed: 9,
      available: 8,
      subject: null,
      retryAfter: null,
    } as const;
    take(state, { type: "finished", message: answer, reason: "contextFull", title: "", error });
    expect(state.notices.a).toEqual([{ type: "error", error }]);
    expect(text()?.finish).toBe("contextFull");
  });

  test("a title that is not told does not take the old one away", () => {
    state.chat.title = "Kept";
    take(state, { type: "finished", message: answer, reason: "end", title: "", error: null });
    expect(state.chat.title).toBe("Kept");
  });
});

describe("the tree", () => {
  const tree = chat(
    [
      message("q", null, "user"),
      message("a1", "q", "assistant"),
      message("a2", "q", "assistant"),
      message("q2", null, "user"),
      message("q3", "a2", "user"),
    ],
    ["q", "a2", "q3"],
  );

  test("shows its path only", () => {
    expect(shownMessages(tree).map(({ id }) => id)).toEqual(["q", "a2", "q3"]);
    expect(shownMessages({ ...tree, path: ["q", "gone"] }).map(({ id }) => id)).toEqual(["q"]);
  });

  test("branches share a parent", () => {
    const ids = (id: string) =>
      siblings(
        tree,
        tree.messages.find((m) => m.id === id)!,
      ).map((m) => m.id);
    expect(ids("a2")).toEqual(["a1", "a2"]);
    expect(ids("q")).toEqual(["q", "q2"]);
    expect(ids("q3")).toEqual(["q3"]);
  });
});

test("only an answer that was cut can go on", () => {
  const may = (finish: Message["finish"]) => canContinue(message("a", "q", "assistant", { finish }));
  expect((["interrupted", "stopped", "length"] as const).every(may)).toBe(true);
  expect((["end", "contextFull", "error", null] as const).some(may)).toBe(false);
  expect(canContinue(message("q", null, "user", { finish: "stopped" }))).toBe(false);
});

test("the figures are those of the newest answer on the path", () => {
  const stats = (contextUsed: number) => ({ contextUsed }) as AnswerStats;
  const messages = [
    message("q", null, "user"),
    message("a", "q", "assistant", { stats: stats(1) }),
    message("b", "q", "assistant", { stats: stats(2) }),
    message("q2", "a", "user"),
  ];
  expect(latestStats(chat(messages, ["q", "a", "q2"]))?.contextUsed).toBe(1);
  expect(latestStats(chat(messages, ["q"]))).toBeNull();
});

test("a context was full for as many tokens as it had then", () => {
  const answer = message("a", "q", "assistant", { finish: "contextFull" });
  const state = conversation(chat([message("q", null, "user"), answer], ["q", "a"]));
  // A prompt that was too long has no figures; its refusal has, as long as it is known.
  expect(contextThatWasFull(state)).toBeNull();
  state.notices["a"] = [{ type: "error", error: wireError("contextFull", "", { available: 4096 }) }];
  expect(contextThatWasFull(state)).toBe(4096);
  answer.stats = { context: 512 } as AnswerStats;
  expect(contextThatWasFull(state)).toBe(512);
  answer.finish = "end";
  expect(contextThatWasFull(state)).toBeNull();
});
