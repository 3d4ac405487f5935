import { expect, test } from "vitest";
import { en } from "./en";
import { fill, placeholders } from "./fill";
import { ja } from "./ja";

const areas = Object.keys(en) as (keyof typeof en)[];

test.each(areas)("%s says the same in both languages", (area) => {
  const [english, japanese] = [en[area], ja[area]] as Record<string, string>[];
  expect(Object.keys(japanese!)).toEqual(Object.keys(english!));
  for (const [key, text] of Object.entries(english!)) {
    const other = japanese![key]!;
    expect(other.trim(), `${area}.${key}`).not.toBe("");
    // Japanese may leave out a number's plural, never a value.
    expect(placeholders(other), `${area}.${key}`).toEqual(placeholders(text));
  }
});

test("fills names, numbers and plurals", () => {
  expect(fill("{a} of {b}", { a: 8192, b: "x" }, "en")).toBe("8,192 of x");
  expect(fill("{n} {n|layer|layers}", { n: 1 }, "en")).toBe("1 layer");
  expect(fill("{n} {n|layer|layers}", { n: 4 }, "en")).toBe("4 layers");
  expect(fill("a value of {name}", { name: "{other}", other: "x" }, "en")).toBe("a value of {other}");
});
