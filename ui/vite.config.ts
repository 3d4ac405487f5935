import { svelte } from "@sveltejs/vite-plugin-svelte";
import { svelteTesting } from "@testing-library/svelte/vite";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** KaTeX names its letters in three formats for browsers of every age; both web views read the first one. */
const oneFormat: Plugin = {
  name: "one-format-of-letters",
  enforce: "pre",
  transform(code, id) {
    return /katex.*\.css$/.test(id)
      ? code.replace(/,\s*url\([^)]*\.(?:woff|ttf)\)\s*format\("[a-z]+"\)/g, "")
      : undefined;
  },
};

export default defineConfig({
  plugins: [oneFormat, svelte(), svelteTesting()],
  clearScreen: false,
  server: { host: "127.0.0.1", port: 5173, strictPort: true },
  preview: { host: "127.0.0.1", port: 4173 },
  // The content security policy allows files of our own only: nothing may become a data: address or an inline script.
  build: { target: "safari16", modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  // Patient: other builds may keep the machine busy. Styles are read by tests; without `css` they would be empty.
  test: {
    environment: "happy-dom",
    testTimeout: 30_000,
    include: ["src/**/*.test.ts"],
    css: { include: [/\/src\/design\/.*\.css/] },
  },
});
