import { t } from "../../i18n/index.svelte";

export type Parsed = { value: number | null } | { error: string };

/** The largest that the program takes where it counts. */
const MAX_INTEGER = 2 ** 32 - 1;
export const MAX_PORT = 65_535;

/** What somebody typed, also in full-width digits. Empty is null where that means something. */
export function parseNumber(text: string, kind: "decimal" | "integer", optional: boolean): Parsed {
  const typed = text.normalize("NFKC").trim();
  if (typed === "" && optional) {
    return { value: null };
  }
  const value = typed === "" ? NaN : Number(typed);
  if (kind === "integer") {
    const usable = Number.isInteger(value) && value >= 0 && value <= MAX_INTEGER;
    return usable ? { value } : { error: t("settings.bad_integer") };
  }
  return Number.isFinite(value) ? { value } : { error: t("settings.bad_number") };
}
