import { svelte } from "@sveltejs/vite-plugin-svelte";
import { svelteTesting } from "@testing-library/svelte/vite";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [svelte(), svelteTesting()],
  clearScreen: false,
  server: { host: "127.0.0.1", port: 5173, strictPort: true },
  preview: { host: "127.0.0.1", port: 4173 },
  // The content security policy allows files of our own only: nothing may become a data: address or an inline script.
  build: { target: "safari16", modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  // Patient: other builds may keep the machine busy.
  test: { environment: "happy-dom", testTimeout: 30_000, include: ["src/**/*.test.ts"] },
});
