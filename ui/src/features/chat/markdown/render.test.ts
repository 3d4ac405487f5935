import { Marked } from "marked";
// @vitest-environment jsdom -- happy-dom is too simple a browser to clean markup in.

import { describe, expect, test } from "vitest";
import { lex, toHtml } from "./render";

function html(text: string): string {
  return toHtml(lex(text)).join("");
}

function page(text: string): HTMLElement {
  const element = document.createElement("div");
  element.innerHTML = html(text);
  return element;
}

describe("what a model writes cannot do anything", () => {
  const attacks = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)></svg>",
    "<iframe src='https://example.org'></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:msgbox)",
    "[x](file:///etc/passwd)",
    "[x](mailto:somebody@example.org)",
    "[x](/settings)",
    "[x](#top)",
    "![x](https://example.org/track.png)",
    "![x](data:image/png;base64,AAAA)",
    '![" onerror="alert(1)](https://example.org/a.png)',
    '[x](https://example.org "title\\" onclick=alert(1)")',
    "<style>body { display: none }</style>",
    "<form action='https://example.org'><input name=a></form>",
    "<p style='position: fixed'>x</p>",
    "<math><mtext><style><img src=x onerror=alert(1)></style></mtext></math>",
    "text\n<div onclick=alert(1)>\n\nx\n\n</div>",
    "```html\n<script>alert(1)</script>\n```",
    "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
    "[x]: javascript:alert(1)\n\n[x]",
    "$<img src=x onerror=alert(1)>$ and $$\n<script>alert(1)</script>\n$$",
    '<br onclick="alert(1)"><sub style="position: fixed">x</sub>',
  ];

  test.each(attacks)("%s", (attack) => {
    const found = page(attack);
    const forbidden =
      "script, style, img, svg, iframe, form, input, object, embed, link, meta, math, video, audio";
    expect(found.querySelector(forbidden)).toBeNull();
    for (const element of found.querySelectorAll("*")) {
      for (const { name } of element.attributes) {
        expect(["href", "title", "start", "align", "class", "data-maths"]).toContain(name);
      }
      const href = element.getAttribute("href");
      expect(href === null || /^https?:\/\//.test(href), `${href}`).toBe(true);
    }
  });
});

test("markup shows what it should", () => {
  expect(html("**bold** and `code`")).toBe("<p><strong>bold</strong> and <code>code</code></p>\n");
  expect(page("[the paper](https://arxiv.org/abs/1)").querySelector("a")?.getAttribute("href")).toBe(
    "https://arxiv.org/abs/1",
  );
  expect(page("3. three\n4. four").querySelector("ol")?.getAttribute("start")).toBe("3");
  expect(page("| a |\n|--:|\n| 1 |").querySelector("td")?.getAttribute("align")).toBe("right");
});

test("tags in a text are shown, not swallowed", () => {
  expect(page("Use <div> and <T> here").textContent).toContain("Use <div> and <T> here");
});

test("line breaks, indices and exponents are shown, wherever they are", () => {
  expect(page("| a |\n|---|\n| x<br>y<br/>z |").querySelectorAll("td br")).toHaveLength(2);
  expect(page("H<sub>2</sub>O and x<sup>2</sup>").querySelector("sub + sup")?.textContent).toBe("2");
  expect(page("`<br>` and `<sub>`").textContent).toBe("<br> and <sub>\n");
});

test("emphasis beside Japanese brackets and full stops", () => {
  const strong = (text: string) => [...page(text).querySelectorAll("strong")].map((e) => e.textContent);
  expect(strong("**「太字」**です。これは**強調(emphasis)**です。")).toEqual(["「太字」", "強調(emphasis)"]);
  expect(strong("これは**重要です。**次に、**`code`**を見ます。")).toEqual(["重要です。", "code"]);
  expect(strong("**English** stays, 2**3**4 too, and ** alone **")).toEqual(["English", "3"]);
});

test("a tilde between numbers is a range", () => {
  expect(page("10~20個、30~40個").querySelector("del")).toBeNull();
  expect(page("~~gone~~").querySelector("del")?.textContent).toBe("gone");
});

test("a long text has the same blocks as in one piece", () => {
  const part = (i: number) =>
    `# Part ${i}\n\nSee [this][${i}].\n\n- one\n\n  still one\n- two\n\n\`\`\`rust\nlet a = ${i};\n\n\nlet b;\n\`\`\`\n\n| a |\n|---|\n| ${i} |\n\n> quote\n\n> another`;
  const parts = Array.from({ length: 400 }, (_, i) => part(i));
  // A block that is longer than any part, and addresses at the end.
  parts.push("```\n" + "line\n\n".repeat(5000) + "```");
  parts.push(...parts.map((_, i) => `[${i}]: https://example.org/${i}`));
  const text = parts.join("\n\n");
  const whole = new Marked({ gfm: true, breaks: true }).lexer(text).filter(({ type }) => type !== "space");
  const tokens = lex(text).filter(({ type }) => type !== "space");
  expect(tokens.map(({ raw }) => raw.trim())).toEqual(whole.map(({ raw }) => raw.trim()));
  expect(toHtml(tokens.slice(1, 2))[0]).toContain('href="https://example.org/0"');
});

test("an image is a link that says what it is", () => {
  const link = page("![a cat](https://example.org/cat.png)").querySelector("a");
  expect(link?.getAttribute("href")).toBe("https://example.org/cat.png");
  expect(link?.textContent).toContain("a cat");
});
