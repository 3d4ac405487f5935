import type { Language } from "../ipc";
import { en } from "./en";
import { ja } from "./ja";
import { fill } from "./fill";
import type { PlaceholderNames, Values } from "./types";

const DICTIONARIES = { en, ja };

type En = typeof en;
type AreaKeys<A extends keyof En> = `${A}.${keyof En[A] & string}`;
/** "area.word" */
export type Key = { [A in keyof En]: AreaKeys<A> }[keyof En];
type TextOf<K extends Key> = K extends `${infer A extends keyof En}.${infer W}`
  ? W extends keyof En[A]
    ? En[A][W] & string
    : never
  : never;
type Arguments<K extends Key> = [PlaceholderNames<TextOf<K>>] extends [never]
  ? []
  : [values: Record<PlaceholderNames<TextOf<K>>, string | number>];

let current = $state<Language>("en");

/** The language of the window. Reading it in a template follows a change. */
export function language(): Language {
  return current;
}

export function setLanguage(language: Language): void {
  current = language;
  document.documentElement.lang = language;
}

/** The words for a key in the window's language; the compiler knows which values a text needs. */
export function t<K extends Key>(key: K, ...values: Arguments<K>): string {
  return fill(text(key), (values[0] ?? {}) as Values, current);
}

/** Whether a word exists, for codes that come from the program (`has("plan.reason_" + code)`). */
export function has(key: string): key is Key {
  return text(key as Key) !== "";
}

/** For keys made of codes, after `has`: values that the text does not use are ignored. */
export function tCode(key: Key, values: Values): string {
  return fill(text(key), values, current);
}

function text(key: Key): string {
  const dot = key.indexOf(".");
  const area = (DICTIONARIES[current] as Record<string, Record<string, string>>)[key.slice(0, dot)];
  return area?.[key.slice(dot + 1)] ?? "";
}
