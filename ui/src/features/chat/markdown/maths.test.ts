// @vitest-environment jsdom -- happy-dom is too simple a browser to clean markup in.

import { describe, expect, test, vi } from "vitest";
import { Blocks } from "./blocks";
import { lex, toHtml } from "./render";
import { typeset } from "./typeset";

function page(text: string): HTMLElement {
  const element = document.createElement("div");
  element.innerHTML = toHtml(lex(text)).join("");
  return element;
}

/** The formulas that are found: in lines of their own with a mark before. */
function formulas(text: string): string[] {
  return [...page(text).querySelectorAll<HTMLElement>("var")].map(
    (formula) => (formula.dataset.maths === "display" ? "! " : "") + formula.textContent,
  );
}

describe("formulas are found", () => {
  const cases: [string, string[]][] = [
    ["The energy $E = mc^2$, and \\(a^2+b^2\\).", ["$E = mc^2$", "\\(a^2+b^2\\)"]],
    ["速度$v_0$は**$a*b$**です。", ["$v_0$", "$a*b$"]],
    ["*see $a*b$ and $c*d$ there*", ["$a*b$", "$c*d$"]],
    ["$x$", ["$x$"]],
    ["So $$x = 1$$ it is, or \\[y\\] here.", ["! $$x = 1$$", "! \\[y\\]"]],
    ["$$\n\\int_0^1 x\\,dx\n= \\frac12\n$$", ["! $$\n\\int_0^1 x\\,dx\n= \\frac12\n$$"]],
    ["Then:\n\\[\na\n- b\n# c\n\\]\nand more", ["! \\[\na\n- b\n# c\n\\]"]],
    ["1. one\n\n   $$\n   a\n   $$\n\n2. two $b$", ["! $$\na\n$$", "$b$"]],
    ["| $a$ | b |\n|---|---|\n| c | $d_1$ |", ["$a$", "$d_1$"]],
    ["\\(a\\)\\(b\\)", ["\\(a\\)", "\\(b\\)"]],
    ["$\\$5$ is TeX's dollar", ["$\\$5$"]],
    ["$a < b$ and $a & b$", ["$a < b$", "$a & b$"]],
  ];
  test.each(cases)("%j", (text, found) => expect(formulas(text)).toEqual(found));
});

describe("money, shells and code are none", () => {
  const cases = [
    "It costs $5 and then $10.",
    "Between $5-$10, or US$5 (US$).",
    "echo $HOME/$USER and $PATH",
    "`$a$` and `\\(b\\)`",
    "```\n$$\na\n$$\n```",
    "    $$\n    a\n    $$",
    "An escaped \\$a\\$ stays.",
    "$ a $, $$",
    `$${"a".repeat(6000)}$`,
    `$$${"a".repeat(6000)}$$`,
  ];
  test.each(cases)("%j", (text) => expect(formulas(text)).toEqual([]));
});

test("a formula that is being written is no list and no heading", () => {
  const text = "Then:\n\n$$\na\n- b\n===\n\\frac{1}{2}\n$$\n\nEnd.";
  const growing = new Blocks();
  for (let length = 0; length <= text.length; length++) {
    const shown = growing.update(text.slice(0, length), false);
    expect(JSON.stringify(shown)).not.toMatch(/<(li|h1)>/);
  }
  expect(growing.update(text, false)).toEqual(new Blocks().update(text, true));
});

test("formulas are set, and what cannot be set stays as it was written", async () => {
  const element = page(
    "$\\frac{a}{b}$ and $\\nothing{$ and \\(\\href{https://example.org}{x}\\) and\n\n$$x$$",
  );
  document.body.append(element);
  typeset(element);
  await vi.waitFor(() => expect(element.querySelectorAll(".katex").length).toBeGreaterThan(1), 20_000);
  expect(element.querySelector("math mfrac")).not.toBeNull();
  expect(element.querySelector(".katex-display")).not.toBeNull();
  expect(element.textContent).toContain("$\\nothing{$");
  // TeX cannot make links.
  expect(element.querySelector("a")).toBeNull();
  // At once, when it is there.
  const next = page("$y$");
  typeset(next);
  expect(next.querySelector(".katex")).not.toBeNull();
});

test("texts with marks everywhere are read in an instant", () => {
  for (const mark of ["$$ ", "$a ", "\\( ", "\\[ ", "$$\n", "a\n$$ b\n"]) {
    const text = mark.repeat(20_000);
    expect(
      lex(text)
        .map(({ raw }) => raw)
        .join(""),
    ).toBe(text);
  }
});
