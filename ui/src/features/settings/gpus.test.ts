import { expect, test } from "vitest";
import type { Gpu, GpuChoice } from "../../ipc";
import { cards, switched } from "./gpus";

const gpu = (id: string, vramTotal: number, more: Partial<Gpu> = {}): Gpu => ({
  id,
  name: `Card ${id}`,
  vramTotal,
  vramFree: null,
  driver: null,
  computeCapability: null,
  used: true,
  isTestDevice: false,
  ...more,
});
const only = (...ids: string[]): GpuChoice => ({
  type: "only",
  gpus: ids.map((id) => ({ id, name: `Card ${id}` })),
});
const ALL: GpuChoice = { type: "all" };
const [A, B, C] = [gpu("a", 8), gpu("b", 24), gpu("c", 8)];
const on = (choice: GpuChoice, gpus: Gpu[]) =>
  cards(choice, gpus).map((card) => `${card.id}${card.total === null ? "?" : ""}${card.on ? "+" : "-"}`);
const after = (choice: GpuChoice, gpus: Gpu[], id: string, value: boolean) =>
  switched(cards(choice, gpus), id, value);

test("cards keep their order, whatever is chosen: memory first, then names", () => {
  expect(on(ALL, [A, B, C])).toEqual(["b+", "a+", "c+"]);
  expect(on(only("c"), [C, A, B])).toEqual(["b-", "a-", "c+"]);
  expect(on(only(), [A, B])).toEqual(["b-", "a-"]);
  const twins = [gpu("x", 8, { name: "RTX (10)" }), gpu("y", 8, { name: "RTX (9)" })];
  expect(on(ALL, twins)).toEqual(["y+", "x+"]);
  expect(on(ALL, [gpu("t", 8, { isTestDevice: true })])).toEqual([]);
});

test("what cannot be used now is remembered by its name; without anything chosen there, all are used", () => {
  expect(on(only("g", "a"), [A, B])).toEqual(["b-", "a+", "g?+"]);
  expect(on(only("g"), [A, B])).toEqual(["b+", "a+", "g?+"]);
  expect(cards(only("g"), [A]).map(({ name }) => name)).toEqual(["Card a", "Card g"]);
  // It is there and fails: the other one is not used for it.
  expect(on(only("g"), [{ ...A, used: false }])).toEqual(["a-", "g?+"]);
  expect(on(only("g"), [])).toEqual(["g?+"]);
});

test("all that are there is all, also those that come later", () => {
  expect(after(ALL, [A, B, C], "b", false)).toEqual(only("a", "c"));
  expect(after(only("a", "c"), [A, B, C], "b", true)).toEqual(ALL);
  expect(after(only("c"), [A, B, C], "b", true)).toEqual(only("b", "c"));
});

test("none is an empty list, and a card that is gone does not make it all", () => {
  expect(after(ALL, [A], "a", false)).toEqual(only());
  expect(after(only(), [A], "a", true)).toEqual(ALL);
  expect(after(only("a"), [A, B], "a", false)).toEqual(only());
  expect(after(only("g", "a"), [A, B], "a", false)).toEqual(only());
  expect(after(only("g"), [A], "a", false)).toEqual(only());
});

test("a card that is gone stays chosen beside others, and can be given up", () => {
  expect(after(only("g", "a"), [A, B, C], "b", true)).toEqual(only("b", "a", "g"));
  expect(after(only("g", "a"), [A, B], "g", false)).toEqual(only("a"));
  expect(after(only("g"), [A, B], "g", false)).toEqual(ALL);
  expect(after(only("g", "h"), [], "g", false)).toEqual(only("h"));
  expect(after(only("h"), [], "h", false)).toEqual(ALL);
});
