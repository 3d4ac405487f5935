/** Loaded with the first formula: the program that sets them, its letters, and copying as TeX. */
import katex from "katex";
import "katex/contrib/copy-tex";
import "katex/dist/katex.min.css";

export { katex };
