import type { MarkedExtension, Token } from "marked";

/**
 * Formulas in TeX, as models mark them: `$...$`, `$$...$$`, `\(...\)` and `\[...\]`. Here they are found; `typeset.ts` sets
 * them. Longer ones than 5000 characters stay as they are written: setting them would hold up the window.
 */

/**
 * A formula in lines of its own, which has no empty lines. One whose end has not come yet is taken whole too, so that nothing
 * of it is read as a list or a heading meanwhile.
 */
const BLOCK =
  /^ {0,3}(?:\$\$(?:(?!\$\$|\n[ \t]*\n)[\s\S]){1,5000}(?:\$\$|$)|\\\[(?:(?!\\\]|\n[ \t]*\n)[\s\S]){1,5000}(?:\\\]|$))[ \t]*(?:\n+|$)/;

const BLOCK_START = /\n {0,3}(?:\$\$|\\\[)/;

/**
 * A formula among words. Single dollars are often money or variables of a shell: a formula in them touches both, and no letter
 * or digit stands around it.
 */
const INLINE =
  /\$\$(?:(?!\$\$)[\s\S]){1,5000}\$\$|\$(?:\\[^\n]|[^\s$\\])(?:(?:\\[^\n]|[^$\\\n]){0,5000}(?:\\[^\n]|[^\s$\\]))?\$(?![A-Za-z0-9$])|\\\((?:(?!\\[()])[\s\S]){1,5000}\\\)|\\\[(?:(?!\\[[\]])[\s\S]){1,5000}\\\]/;

const FIRST = new RegExp(`^(?:${INLINE.source})`);
const EACH = new RegExp(INLINE.source, "g");

/** What stands before single dollars decides, too. (Older web views do not know how to look behind.) */
function isFormula(text: string, before: string): boolean {
  return !/^\$[^$]/.test(text) || !/[A-Za-z0-9$\\]$/.test(before.slice(-1));
}

/** Characters in which the next formula is looked for at once. */
const REACH = 4096;

function start(src: string): number | undefined {
  const found = src.slice(0, REACH).search(/\$|\\[([]/);
  return found >= 0 ? found : src.length > REACH ? REACH - 1 : undefined;
}

/** `show`: a formula, marks and all, as markup. */
export function maths(show: (text: string, display: boolean) => string): MarkedExtension {
  return {
    hooks: {
      // Stars and underlines in formulas emphasize nothing.
      emStrongMask: (src) =>
        src.replace(EACH, (text, at: number) =>
          isFormula(text, src.slice(0, at)) ? `$${"a".repeat(text.length - 2)}$` : text,
        ),
    },
    extensions: [
      {
        name: "maths",
        level: "block",
        start(src) {
          const found = BLOCK_START.exec(src);
          return found ? found.index + 1 : undefined;
        },
        tokenizer(src) {
          const raw = BLOCK.exec(src)?.[0];
          return raw ? { type: "maths", raw, text: raw.trim() } : undefined;
        },
        renderer: ({ text }) => `<p>${show(text as string, true)}</p>\n`,
      },
      {
        name: "mathsInline",
        level: "inline",
        start,
        tokenizer(src, tokens: Token[]) {
          const raw = FIRST.exec(src)?.[0];
          return raw && isFormula(raw, tokens.at(-1)?.raw ?? "")
            ? { type: "mathsInline", raw, text: raw }
            : undefined;
        },
        renderer: ({ text }) => show(text as string, /^(?:\$\$|\\\[)/.test(text as string)),
      },
    ],
  };
}
