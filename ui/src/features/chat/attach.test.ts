import { expect, test } from "vitest";
import { textOf, withFile } from "./attach";

const bytes = (...values: number[]) => new Uint8Array(values);

test("files are read as what they are written in", () => {
  expect(textOf(new TextEncoder().encode("日本語\r\nline\rend"))).toBe("日本語\nline\nend");
  expect(textOf(bytes(0xef, 0xbb, 0xbf, 0x61))).toBe("a");
  expect(textOf(bytes(0xff, 0xfe, 0xe5, 0x65, 0x2c, 0x67))).toBe("日本");
  expect(textOf(bytes(0xfe, 0xff, 0x65, 0xe5))).toBe("日");
  expect(textOf(bytes(0x93, 0xfa, 0x96, 0x7b))).toBe("日本");
  expect(textOf(bytes())).toBe("");
});

test("pictures and programs are no text", () => {
  expect(textOf(bytes(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d))).toBeNull();
  expect(textOf(bytes(0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0))).toBeNull();
  expect(textOf(bytes(0xff, 0xfe, 0x61))).toBeNull();
});

test("a file stands at the end, within marks of its own", () => {
  expect(withFile("", "a.txt", "one\n")).toBe("a.txt:\n```\none\n```\n");
  expect(withFile("Explain:  \n", "a.md", "```\ncode\n````\n")).toBe(
    "Explain:\n\na.md:\n`````\n```\ncode\n````\n`````\n",
  );
});
