import type { Language } from "../ipc";

const cache = new Map<string, Intl.NumberFormat>();

/** Making a formatter costs far more than using it. */
export function formatter(language: Language, options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = language + JSON.stringify(options);
  let found = cache.get(key);
  if (!found) {
    found = new Intl.NumberFormat(language, options);
    cache.set(key, found);
  }
  return found;
}

/** "8,192"; fractions to two digits. */
export function number(value: number, language: Language): string {
  return formatter(language, { maximumFractionDigits: 2 }).format(value);
}
