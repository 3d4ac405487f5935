import type { Theme } from "../ipc";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
let chosen: Theme = "system";

/** Sets the attribute that tokens.css goes by; "system" follows the system while the window is open. */
export function applyTheme(theme: Theme): void {
  chosen = theme;
  const system = dark.matches ? "dark" : "light";
  document.documentElement.dataset.theme = theme === "system" ? system : theme;
}

dark.addEventListener("change", () => applyTheme(chosen));
