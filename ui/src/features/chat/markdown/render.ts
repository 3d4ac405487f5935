import DOMPurify from "dompurify";
import { Marked, type Token, type Tokens } from "marked";
import { t } from "../../../i18n/index.svelte";

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
    // Models write tags as text far more often than as markup.
    html({ text }: Tokens.HTML | Tokens.Tag) {
      return escape(text);
    },
    checkbox({ checked }: Tokens.Checkbox) {
      return checked ? "☑ " : "☐ ";
    },
  },
});

const CLEAN = {
  ALLOWED_TAGS: [
    ..."p br hr strong em del code pre blockquote ul ol li a sup sub".split(" "),
    ..."h1 h2 h3 h4 h5 h6 table thead tbody tr th td".split(" "),
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align"],
  // What else an address can be, the program does not open.
  ALLOWED_URI_REGEXP: /^https?:\/\//i,
  // No addresses: the rule above is not for them.
  ADD_URI_SAFE_ATTR: ["start", "align"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

/** The blocks of a text (paragraphs, lists, code, ...), with the addresses that are defined anywhere in it. */
export function lex(text: string): Token[] {
  return marked.lexer(text);
}

/** A block as HTML that may be put into the page: this is the only way from text to markup. */
export function toHtml(token: Token): string {
  return DOMPurify.sanitize(marked.parser([token]), CLEAN);
}
