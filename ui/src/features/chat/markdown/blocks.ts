import type { Token, Tokens } from "marked";
import { lastBlock, lex, toHtml } from "./render";

export type Block = { type: "html"; html: string } | { type: "code"; language: string; code: string };

/**
 * The blocks of a text that grows. Finished blocks are parsed and cleaned once: with each piece of an answer only the
 * last block is done again. Unchanged blocks are the same objects, so the page keeps their elements.
 */
export class Blocks {
  /** The part of the text whose blocks cannot change any more. */
  private settledText = "";
  private settled: Block[] = [];
  private shown: Block[] = [];
  private completeText: string | null = null;

  /** `complete`: nothing more comes; addresses defined at the end then reach all blocks. */
  update(source: string, complete: boolean): Block[] {
    // The lexer does the same; here, so that lengths agree.
    const text = source.replace(/\r\n?/g, "\n");
    if (!complete) {
      this.shown = this.keep(this.grow(text));
      this.completeText = null;
    } else if (this.completeText !== text) {
      this.shown = this.keep(toBlocks(lex(text)));
      this.completeText = text;
    }
    return this.shown;
  }

  private grow(text: string): Block[] {
    if (!text.startsWith(this.settledText)) {
      this.settledText = "";
      this.settled = [];
    }
    const tokens = lex(text.slice(this.settledText.length));
    const last = Math.max(0, lastBlock(tokens));
    const finished = tokens.slice(0, last);
    this.settled.push(...toBlocks(finished));
    this.settledText += finished.map((token) => token.raw).join("");
    return [...this.settled, ...toBlocks(tokens.slice(last))];
  }

  private keep(blocks: Block[]): Block[] {
    return blocks.map((block, i) => {
      const old = this.shown[i];
      return old && same(old, block) ? old : block;
    });
  }
}

function toBlocks(tokens: Token[]): Block[] {
  const shown = tokens.filter((token) => token.type !== "space" && token.type !== "def");
  const html = toHtml(shown.filter((token) => token.type !== "code"))[Symbol.iterator]();
  return shown.map((token) =>
    token.type === "code" ? toCode(token as Tokens.Code) : { type: "html", html: html.next().value ?? "" },
  );
}

function toCode({ text, lang }: Tokens.Code): Block {
  return { type: "code", code: text, language: lang?.trim().split(/\s/)[0]?.toLowerCase() ?? "" };
}

function same(a: Block, b: Block): boolean {
  return a.type === "html"
    ? b.type === "html" && a.html === b.html
    : b.type === "code" && a.code === b.code && a.language === b.language;
}
