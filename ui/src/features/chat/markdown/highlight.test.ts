import { expect, test } from "vitest";
import { highlight } from "./highlight";

test("code is escaped and coloured", () => {
  const html = highlight('let a = "<img src=x onerror=alert(1)>";', "rust");
  expect(html).toContain("hljs-keyword");
  expect(html).not.toContain("<img");
});

test("unknown languages and very long code stay plain", () => {
  expect(highlight("a", "klingon")).toBeNull();
  expect(highlight("a ".repeat(50_000), "rust")).toBeNull();
});
