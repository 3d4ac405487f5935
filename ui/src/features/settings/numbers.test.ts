import { beforeAll, expect, test } from "vitest";
import { setLanguage } from "../../i18n/index.svelte";
import { parseNumber } from "./numbers";

beforeAll(() => setLanguage("en"));

test("takes numbers, also full-width ones", () => {
  expect(parseNumber(" 0.8 ", "decimal", false)).toEqual({ value: 0.8 });
  expect(parseNumber("-1", "decimal", false)).toEqual({ value: -1 });
  expect(parseNumber("０．８", "decimal", false)).toEqual({ value: 0.8 });
  expect(parseNumber("40", "integer", false)).toEqual({ value: 40 });
});

test("takes nothing as null where that means something", () => {
  expect(parseNumber(" ", "integer", true)).toEqual({ value: null });
  expect(parseNumber("", "decimal", false)).toEqual({ error: "Enter a number." });
});

test.each(["-1", "1.5", "x", "4294967296", "Infinity"])("refuses %s as a count", (text) => {
  expect(parseNumber(text, "integer", true)).toEqual({ error: "Enter a whole number, 0 or more." });
});
