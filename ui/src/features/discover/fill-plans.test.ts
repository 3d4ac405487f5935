import { expect, test } from "vitest";
import { wireError, type QuantRow } from "../../ipc";
import { fillOrder, fillPlans } from "./fill-plans";

function row(quant: string, recommended: string | null = null): QuantRow {
  return {
    quant,
    files: [],
    bytes: 1,
    header: null,
    bitsPerWeight: null,
    quality: null,
    plan: null,
    recommended,
    installed: null,
    problem: null,
  };
}

/** Plans that are answered by hand. */
function desk() {
  const asked: { quant: string; answer: () => void; fail: () => void }[] = [];
  const filled: string[] = [];
  const failed: string[] = [];
  const abort = new AbortController();
  const done = fillPlans({
    quants: ["a", "b", "c", "d"],
    plan: (quant) =>
      new Promise((answer, fail) =>
        asked.push({ quant, answer: () => answer(row(quant)), fail: () => fail(wireError("offline", "")) }),
      ),
    filled: (row) => filled.push(row.quant),
    failed: (quant) => failed.push(quant),
    signal: abort.signal,
  });
  const settle = () => new Promise((next) => setTimeout(next));
  return { asked, filled, failed, abort, done, settle };
}

test("asks for two at once, never more, and goes on as answers come", async () => {
  const { asked, filled, settle, done } = desk();
  expect(asked.map(({ quant }) => quant)).toEqual(["a", "b"]);
  await settle();
  expect(asked).toHaveLength(2);
  asked[1]?.answer();
  await settle();
  expect(asked.map(({ quant }) => quant)).toEqual(["a", "b", "c"]);
  asked[2]?.answer();
  await settle();
  asked[0]?.answer();
  asked[3]?.answer();
  await done;
  expect(filled).toEqual(["b", "c", "a", "d"]);
  expect(asked).toHaveLength(4);
});

test("after an abort nothing is asked and nothing is told", async () => {
  const { asked, filled, failed, abort, done } = desk();
  abort.abort();
  asked[0]?.answer();
  asked[1]?.fail();
  await done;
  expect(asked).toHaveLength(2);
  expect([filled, failed]).toEqual([[], []]);
});

test("a failure of one does not end the others", async () => {
  const { asked, failed, filled, settle, done } = desk();
  asked[0]?.fail();
  await settle();
  asked.slice(1).forEach(({ answer }) => answer());
  await settle();
  asked.slice(3).forEach(({ answer }) => answer());
  await done;
  expect(failed).toEqual(["a"]);
  expect(filled).toEqual(["b", "c", "d"]);
});

test("the recommended one comes first, the others as they stand", () => {
  expect(fillOrder([row("Q8"), row("Q4", "fitsGpu"), row("Q2")])).toEqual(["Q4", "Q8", "Q2"]);
});
