import type { katex as Katex } from "./katex";

const MARKS = /^(?:\$\$([\s\S]+)\$\$|\$([\s\S]+)\$|\\\(([\s\S]+)\\\)|\\\[([\s\S]+)\\\])$/;

let katex: typeof Katex | undefined;

/** Sets the formulas in what `render.ts` has made. They are read as TeX until the program for it is there, and where it refuses. */
export function typeset(element: HTMLElement): void {
  const found = element.querySelectorAll<HTMLElement>("var[data-maths]");
  if (found.length === 0) {
    return;
  }
  if (katex) {
    found.forEach(set);
  } else {
    void import("./katex").then((module) => {
      katex = module.katex;
      found.forEach(set);
    });
  }
}

function set(element: HTMLElement): void {
  const text = element.textContent ?? "";
  const [, ...parts] = MARKS.exec(text) ?? [];
  const tex = parts.find((part) => part !== undefined);
  if (!katex || tex === undefined) {
    return;
  }
  try {
    // Not trusted: no addresses, images or styles of its own.
    katex.render(tex, element, {
      displayMode: element.dataset.maths === "display",
      throwOnError: true,
      strict: "ignore",
      trust: false,
      maxSize: 20,
      maxExpand: 1000,
    });
    element.dataset.set = "";
  } catch {
    element.textContent = text;
  }
}
