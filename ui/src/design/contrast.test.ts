import { expect, test } from "vitest";
import tokens from "./tokens.css?raw";

type Colours = Record<string, string>;

/** The colours of a theme, by name. */
function theme(name: "light" | "dark"): Colours {
  const body = new RegExp(`:root\\[data-theme="${name}"\\] \\{([^}]*)\\}`).exec(tokens)?.[1] ?? "";
  return Object.fromEntries(
    [...body.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, key, hex]) => [key, hex]),
  );
}

function luminance(hex: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const share = parseInt(hex.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** As WCAG 2 counts it. */
function contrast(one: string, other: string): number {
  const [dark = 0, light = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

const GROUNDS = ["bg", "bg-side", "bg-rail", "bg-raised", "bg-sunken", "bg-hover", "bg-chosen", "bg-user"];
/** What is written in which colour on which grounds. */
const TEXTS: Record<string, string[]> = {
  "text-1": [...GROUNDS, "warn-bg", "danger-bg", "code-bg"],
  "text-2": [...GROUNDS, "warn-bg", "danger-bg", "code-bg"],
  "accent-text": [...GROUNDS],
  "text-on-accent": ["accent", "accent-hover"],
  danger: ["bg", "bg-side", "bg-raised", "danger-bg"],
  warn: ["bg", "bg-side", "bg-raised", "bg-hover", "warn-bg"],
  ...Object.fromEntries(
    ["keyword", "string", "number", "title", "comment"].map((part) => [`code-${part}`, ["code-bg"]]),
  ),
};
/** Shapes that mean something: the edge of the focus, of a switch, of a part of a memory bar. */
const SHAPES: Record<string, string[]> = {
  focus: GROUNDS,
  "border-strong": ["bg", "bg-side", "bg-rail", "bg-raised", "bg-sunken"],
  accent: ["bg", "bg-side", "bg-rail", "bg-raised", "mem-track"],
  danger: ["bg-raised", "mem-track"],
};

for (const name of ["light", "dark"] as const) {
  const colours = theme(name);

  test.each(
    [
      { pairs: TEXTS, least: 4.5 },
      { pairs: SHAPES, least: 3 },
    ].flatMap(({ pairs, least }) =>
      Object.entries(pairs).flatMap(([ink, grounds]) => grounds.map((ground) => ({ ink, ground, least }))),
    ),
  )(`${name}: $ink on $ground has $least`, ({ ink, ground, least }) => {
    const [one, other] = [colours[ink], colours[ground]];
    expect(one, ink).toBeDefined();
    expect(other, ground).toBeDefined();
    expect(contrast(one ?? "", other ?? "")).toBeGreaterThanOrEqual(least);
  });
}
