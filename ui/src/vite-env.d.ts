/// <reference types="svelte" />
/// <reference types="vite/client" />
/** Without types of its own: what is copied from formulas is TeX. */
declare module "katex/contrib/copy-tex";
