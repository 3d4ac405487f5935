import { expect, test } from "vitest";
import { wireError, type Api, type HubModel, type HubPage } from "../ipc";
import { fakeApi } from "../ipc/fake";
import { SearchStore } from "./search.svelte";

const model = (repo: string): HubModel => ({
  repo,
  downloads: null,
  likes: null,
  updated: null,
  gated: false,
  parameters: null,
  note: null,
});

/** Searches that are answered by hand. */
function desk() {
  const asked: { cursor: string | null; answer: (page: HubPage) => void; fail: (error: unknown) => void }[] =
    [];
  const hubSearch: Api["hubSearch"] = ({ cursor }) =>
    new Promise((answer, fail) => asked.push({ cursor, answer, fail }));
  return { asked, search: new SearchStore({ ...fakeApi({ pace: 0 }), hubSearch }) };
}

test("adds pages and shows nothing twice", async () => {
  const { asked, search } = desk();
  const first = search.run();
  asked[0]?.answer({ models: [model("a/1"), model("a/2")], next: "2" });
  await first;
  const more = search.more();
  await search.more();
  expect(asked).toHaveLength(2);
  expect(asked[1]?.cursor).toBe("2");
  asked[1]?.answer({ models: [model("a/2"), model("a/3")], next: null });
  await more;
  expect(search.models?.map(({ repo }) => repo)).toEqual(["a/1", "a/2", "a/3"]);
  expect(search.next).toBe(null);
});

test("an answer to words that were changed since is dropped", async () => {
  const { asked, search } = desk();
  const old = search.run();
  const current = search.run();
  asked[1]?.answer({ models: [model("new/1")], next: null });
  await current;
  asked[0]?.answer({ models: [model("old/1")], next: null });
  await old;
  expect(search.models?.map(({ repo }) => repo)).toEqual(["new/1"]);
  const left = search.run();
  search.clear();
  asked[2]?.answer({ models: [model("late/1")], next: null });
  await left;
  expect([search.models, search.busy]).toEqual([null, null]);
});

test("a page that fails leaves the ones before", async () => {
  const { asked, search } = desk();
  const first = search.run();
  asked[0]?.answer({ models: [model("a/1")], next: "2" });
  await first;
  const more = search.more();
  asked[1]?.fail(wireError("offline", ""));
  await more;
  expect(search.error?.code).toBe("offline");
  expect(search.models).toHaveLength(1);
});
