import type { Language } from "../ipc";
import { number } from "./numbers";
import type { Values } from "./types";

/** Puts values in the place of `{name}`, and the right form in the place of `{n|layer|layers}`. */
export function fill(text: string, values: Values, language: Language): string {
  return text.replace(/\{([^}]+)\}/g, (_, inner: string) => {
    const [name = "", one, other] = inner.split("|");
    const value = values[name];
    if (value === undefined) {
      return "";
    }
    if (one !== undefined && other !== undefined) {
      return new Intl.PluralRules(language).select(Number(value)) === "one" ? one : other;
    }
    return typeof value === "number" ? number(value, language) : value;
  });
}

/** The names of all placeholders of a text, sorted; plural forms count as their name. */
export function placeholders(text: string): string[] {
  const names = [...text.matchAll(/\{([^}|]+)/g)].map((match) => match[1] ?? "");
  return [...new Set(names)].sort();
}
