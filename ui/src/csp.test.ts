import { expect, test } from "vitest";

const components = import.meta.glob<string>("./**/*.svelte", {
  query: "?raw",
  import: "default",
  eager: true,
});
const words = import.meta.glob<string>("./**/*.css", { query: "?raw", import: "default", eager: true });

test("no component has a style attribute: the content security policy would drop it", () => {
  expect(Object.keys(components).length).toBeGreaterThan(30);
  for (const [path, source] of Object.entries(components)) {
    const markup = source.replace(/<(script|style)[\s\S]*?<\/\1>/g, "");
    expect(markup, path).not.toMatch(/\sstyle=/);
  }
});

test("no style asks the network", () => {
  expect(Object.values(words).every((source) => source.includes("{"))).toBe(true);
  for (const [path, source] of [...Object.entries(words), ...Object.entries(components)]) {
    expect(source, path).not.toMatch(/url\(|@import/);
  }
});
