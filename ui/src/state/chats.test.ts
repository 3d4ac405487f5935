import { expect, test } from "vitest";
import { startApp, until } from "../testing";
import { shownMessages } from "./conversation";

test("an answer is written on while another chat is shown", async () => {
  const app = await startApp({ pace: 1 });
  await app.model.load("m1", app.settings.load("m1"));
  await app.chats.show("2");
  await app.chats.send({ type: "send", text: "Hello", parent: null });
  expect(app.chats.running).toBe("2");
  await app.chats.show("1");
  expect(app.chats.running).toBe("2");
  await until(() => app.chats.running === null, "the end of the answer");
  await app.chats.show("2");
  const last = shownMessages(app.chats.shown!.chat).at(-1);
  expect(last).toMatchObject({ role: "assistant", finish: "end" });
  expect(last?.text).toContain("slider");
});

test("a first message makes a chat and names it", async () => {
  const app = await startApp({ empty: true });
  expect(app.chats.current).toBeNull();
  await app.chats.create();
  const id = app.chats.current;
  expect(await app.chats.create(), "an empty chat is as good as a new one").toBe(id);
  expect(app.chats.list).toHaveLength(1);
});

test("a chat goes to the bin and comes back", async () => {
  const app = await startApp();
  await app.chats.show("1");
  await app.chats.delete("1");
  expect(app.chats.list.map(({ id }) => id)).not.toContain("1");
  expect(app.chats.current).not.toBe("1");
  await app.chats.restore("1");
  expect(app.chats.list.map(({ id }) => id)).toContain("1");
});

test("regenerating makes a branch, and the other one can be shown again", async () => {
  const app = await startApp();
  await app.model.load("m1", app.settings.load("m1"));
  await app.chats.show("2");
  await app.chats.send({ type: "regenerate", message: "2-2" });
  await until(() => app.chats.running === null);
  const { chat } = app.chats.shown!;
  expect(chat.messages.filter(({ parent }) => parent === "2-1")).toHaveLength(2);
  expect(chat.path.at(-1)).not.toBe("2-2");
  await app.chats.select("2-2");
  expect(app.chats.shown!.chat.path).toEqual(["2-1", "2-2"]);
});

test("after the window was loaded anew, a running answer is followed to its end", async () => {
  let reads = 0;
  const app = await startApp({}, (api) => ({
    chat: async (id) => ({ ...(await api.chat(id)), running: id === "2" && reads++ < 2 }),
  }));
  await app.chats.show("2");
  expect(app.chats.running).toBe("2");
  await until(() => app.chats.running === null, "the end");
});

test("the chat that was used last is shown first, pinned or not", async () => {
  const app = await startApp();
  await app.chats.refresh();
  const [last, ...older] = [...app.chats.list].sort((a, b) => b.updated - a.updated);
  await app.chats.pin(last!.id, false);
  await app.chats.pin(older.at(-1)!.id, true);
  await app.chats.start(null);
  expect(app.chats.list[0]?.id).not.toBe(last?.id);
  expect(app.chats.current).toBe(last?.id);
});
