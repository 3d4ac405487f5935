import DOMPurify from "dompurify";
import { Lexer, Marked, Tokenizer, type Token, type Tokens } from "marked";
import markedCjkFriendly from "marked-cjk-friendly";
import { t } from "../../../i18n/index.svelte";
import { maths } from "./maths";

/** Text that only looks like markup stays text. */
function escape(text: string): string {
  const names: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (c) => names[c] ?? c);
}

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    // Nothing is loaded from the network: an image is a link that says what it is.
    image({ href, text }: Tokens.Image) {
      const words = text ? t("chat.imageAlt", { alt: text }) : t("chat.imageNone");
      return `<a href="${escape(href)}">${escape(words)}</a>`;
    },
    // Models write tags as text far more often than as markup, but for those that Markdown has nothing for.
    html({ text }: Tokens.HTML | Tokens.Tag) {
      return escape(text).replace(/&lt;(br ?\/?|\/?sub|\/?sup)&gt;/gi, "<$1>");
    },
    checkbox({ checked }: Tokens.Checkbox) {
      return checked ? "☑ " : "☐ ";
    },
  },
});

/** No address is longer. In WebKit the rule for them searches everything it gets, for each word. */
const LONGEST_URL = 2048;

class QuickTokenizer extends Tokenizer {
  override url(src: string) {
    return super.url(src.slice(0, LONGEST_URL));
  }
}
marked.setOptions({ tokenizer: new QuickTokenizer() });

// Marks of emphasis beside Japanese brackets and full stops.
marked.use(markedCjkFriendly());
// One tilde is a range, as in 10~20.
marked.use({ tokenizer: { del: (src) => (src.startsWith("~~") ? false : undefined) } });
marked.use(
  maths((text, display) => `<var data-maths="${display ? "display" : "inline"}">${escape(text)}</var>`),
);

const CLEAN = {
  ALLOWED_TAGS: [
    ..."div p br hr strong em del code pre blockquote ul ol li a sup sub var".split(" "),
    ..."h1 h2 h3 h4 h5 h6 table thead tbody tr th td".split(" "),
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align", "data-maths"],
  // What else an address can be, the program does not open.
  ALLOWED_URI_REGEXP: /^https?:\/\//i,
  // No addresses: the rule above is not for them.
  ADD_URI_SAFE_ATTR: ["start", "align", "data-maths"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

/** The blocks of a text (paragraphs, lists, code, ...), with the addresses that are defined anywhere in it. */
export function lex(text: string): Token[] {
  const links = {};
  const tokens = lexParts(text, links);
  // An address may be defined after the words that use it.
  return Object.keys(links).length > 0 ? lexParts(text, links) : tokens;
}

/** Characters that the lexer gets at once. In WebKit it searches all of them for each block. */
const PART = 4096;

function lexParts(text: string, links: Lexer["tokens"]["links"]): Token[] {
  const all: Token[] = [];
  for (let at = 0, size = PART; at < text.length;) {
    const end = text.indexOf("\n\n", at + size);
    const lexer = new Lexer(marked.defaults);
    lexer.tokens.links = links;
    const tokens = lexer.lex(text.slice(at, end < 0 ? text.length : end));
    if (end < 0) {
      return [...all, ...tokens];
    }
    // The last block may go on behind the part.
    const finished = tokens.slice(0, Math.max(0, lastBlock(tokens)));
    const length = rawLength(finished);
    all.push(...finished);
    at += length;
    size = length > 0 ? PART : size * 2;
  }
  return all;
}

/** Where the last block is, behind which there are only empty lines. */
export function lastBlock(tokens: Token[]): number {
  return tokens.findLastIndex((token) => token.type !== "space");
}

function rawLength(tokens: Token[]): number {
  return tokens.reduce((length, token) => length + token.raw.length, 0);
}

/**
 * Blocks as HTML that may be put into the page: this is the only way from text to markup. All at once, because cleaning
 * takes a document each time, which is slow: thousands of paragraphs took a minute in WebKit.
 */
export function toHtml(tokens: Token[]): string[] {
  if (tokens.length === 0) {
    return [];
  }
  // Text has no tags of its own: the divs are ours.
  const whole = tokens.map((token) => `<div>${marked.parser([token])}</div>`).join("");
  const clean = DOMPurify.sanitize(whole, { ...CLEAN, RETURN_DOM_FRAGMENT: true });
  return tokens.map((_, i) => clean.children[i]?.innerHTML ?? "");
}
