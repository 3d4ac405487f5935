// @vitest-environment jsdom -- happy-dom is too simple a browser to clean markup in.

import { beforeEach, expect, test, vi } from "vitest";
import { Blocks } from "./blocks";
import * as render from "./render";

const TEXT = `# Title

A paragraph with **bold** text.

- one
- two

  still two

\`\`\`rust
fn main() {
    println!("hi");
}

// after an empty line
\`\`\`

| a | b |
|---|---|
| 1 | 2 |

Last words.`;

const cleaned = vi.spyOn(render, "toHtml");
beforeEach(() => {
  cleaned.mockClear();
});

test("a text that grows has the same blocks as the whole text, at every length", () => {
  const growing = new Blocks();
  for (let length = 0; length <= TEXT.length; length++) {
    const part = TEXT.slice(0, length);
    expect(growing.update(part, false)).toEqual(new Blocks().update(part, true));
  }
});

test("finished blocks are made once", () => {
  const blocks = new Blocks();
  const paragraphs = Array.from({ length: 20 }, (_, i) => `Paragraph ${i}.`).join("\n\n");
  blocks.update(paragraphs, false);
  cleaned.mockClear();
  for (let i = 0; i < 10; i++) {
    blocks.update(`${paragraphs} ${"more ".repeat(i)}`, false);
  }
  // Each time the last one only.
  expect(cleaned.mock.calls.flatMap(([tokens]) => tokens)).toHaveLength(10);
});

test("the blocks of a long text are cleaned all at once", () => {
  const text = Array.from({ length: 100 }, (_, i) => `Line ${i}\n\n\`\`\`\ncode ${i}\n\`\`\``).join("\n\n");
  const blocks = new Blocks().update(text, true);
  expect(cleaned).toHaveBeenCalledTimes(1);
  expect(blocks).toHaveLength(200);
  expect(blocks[100]).toEqual({ type: "html", html: "<p>Line 50</p>\n" });
  expect(blocks[101]).toMatchObject({ type: "code", code: "code 50" });
});

test("unchanged blocks stay the same objects, also when the answer is complete", () => {
  const blocks = new Blocks();
  const before = blocks.update("One.\n\nTwo", false);
  const after = blocks.update("One.\n\nTwo and more", false);
  expect(after[0]).toBe(before[0]);
  expect(after[1]).not.toBe(before[1]);
  expect(blocks.update("One.\n\nTwo and more", true)[0]).toBe(before[0]);
});

test("an address defined at the end reaches the blocks before it", () => {
  const blocks = new Blocks();
  const text = "See [here][1].\n\nMore.\n\n[1]: https://example.org";
  blocks.update(text.slice(0, 25), false);
  const [first] = blocks.update(text, true);
  expect(first).toMatchObject({ type: "html", html: expect.stringContaining('href="https://example.org"') });
});

test("another text in the place of the old one begins anew", () => {
  const blocks = new Blocks();
  blocks.update("One.\n\nTwo.\n\nThree", false);
  expect(blocks.update("Other.", false)).toEqual([{ type: "html", html: "<p>Other.</p>\n" }]);
});

test("code keeps its lines, and its language is one word", () => {
  const [code] = new Blocks().update("```Python title=x\na = 1\n\nb = 2\n```", true);
  expect(code).toEqual({ type: "code", language: "python", code: "a = 1\n\nb = 2" });
  expect(new Blocks().update("```js\nlet a", false)).toEqual([
    { type: "code", language: "js", code: "let a" },
  ]);
});
