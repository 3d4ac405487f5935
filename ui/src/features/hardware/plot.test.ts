import { expect, test } from "vitest";
import { plot, range } from "./plot";

const NOW = 1_000_000;

test("draws the newest at the right edge, full at the top", () => {
  const { line, area } = plot(
    [
      { at: NOW - 1000, value: 0 },
      { at: NOW, value: 10 },
    ],
    10,
  );
  expect(line).toBe("M119000 1L120000 0");
  expect(area).toBe("M119000 1L120000 0L120000 1L119000 1Z");
});

test("leaves gaps where nothing was watched or nothing is known", () => {
  const at = (seconds: number, value: number | null) => ({ at: NOW - seconds * 1000, value });
  const { line } = plot([at(30, 5), at(20, 5), at(19, null), at(1, 5), at(0, 5)], 10);
  expect(line.split("M")).toHaveLength(4);
});

test("leaves out what is older than two minutes and survives nothing", () => {
  expect(
    plot(
      [
        { at: NOW - 130_000, value: 5 },
        { at: NOW, value: 5 },
      ],
      10,
    ).line,
  ).toBe("M120000 0.5");
  expect(plot([], 10)).toEqual({ line: "", area: "" });
  expect(plot([{ at: NOW, value: 5 }], 0).line).toBe("M120000 1");
  expect(range([{ at: 0, value: null }])).toBe(null);
  expect(
    range([
      { at: 0, value: 3 },
      { at: 1, value: null },
      { at: 2, value: 1 },
    ]),
  ).toEqual([1, 3]);
});
