import { expect, test } from "vitest";
import { EXAMPLE_SCHEMA, indented, isJson } from "./json";

test("JSON is told from text", () => {
  expect(isJson('{"a": 1}', "text")).toBe(true);
  expect(isJson(" [1, 2]", undefined)).toBe(true);
  expect(isJson("[a link](https://example.com)", "text")).toBe(false);
  expect(isJson('{"a": ', "text"), "not whole").toBe(false);
  expect(isJson('{"a": ', "schema"), "it will be").toBe(true);
  expect(isJson("42", "schema"), "a number reads well as it is").toBe(false);
});

test("lines are broken and values stay", () => {
  const value = '{"a":[1,12345678901234567890,{"b":"x, {y}: \\"z\\""}],"c":{ },"d":[],"e":1e400}';
  const shown = indented(value);
  expect(shown.split("\n")).toEqual([
    "{",
    '  "a": [',
    "    1,",
    "    12345678901234567890,",
    "    {",
    '      "b": "x, {y}: \\"z\\""',
    "    }",
    "  ],",
    '  "c": {},',
    '  "d": [],',
    '  "e": 1e400',
    "}",
  ]);
  expect(indented(shown), "it is shown the same way again").toBe(shown);
  expect(indented(EXAMPLE_SCHEMA).replace(/\s/g, "")).toBe(EXAMPLE_SCHEMA.replace(/\s/g, ""));
});

test("what is still being written is shown as far as it goes", () => {
  for (const text of ['{"a', '{"a":', '{"a": [1,', '{"a": "x\\', "[", "[[[["]) {
    expect(indented(text).replace(/\s/g, "")).toBe(text.replace(/\s/g, ""));
  }
});
