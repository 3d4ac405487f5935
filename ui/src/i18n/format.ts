import type { Forecast } from "../ipc";
import { language, t } from "./index.svelte";
import { formatter, number as plain } from "./numbers";

const UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

/** "4.9 GB", "26 GB", "714 MB": decimal units, as files and memory are sold. */
export function bytes(value: number): string {
  let unit = 0;
  let amount = Math.abs(value);
  // 999.6 MB would be shown as 1,000 MB: the next unit begins there.
  while (amount >= 999.5 && unit < UNITS.length - 1) {
    amount /= 1000;
    unit += 1;
  }
  const digits = unit >= 3 && amount < 99.95 ? 1 : 0;
  const shown = formatter(language(), { maximumFractionDigits: digits, minimumFractionDigits: digits });
  return `${value < 0 ? "−" : ""}${shown.format(amount)} ${UNITS[unit]}`;
}

/** No line ends between a figure and its unit, nor between it and the word for what is free. */
export function unbroken(text: string): string {
  return text
    .replace(/(\d) (?=[kMGT]?B(?![a-z]))/g, "$1\u00a0")
    .replace(/(\u00a0[kMGT]?B) (?=free)/g, "$1\u00a0")
    .replace(/(B(?=が空き))?(が(?=空き))?空き(?=\d)?/g, (part) => part.split("").join("\u2060"))
    .replace(/き(?=\d)/g, "き\u2060")
    .replace(/のうち/g, "のうち\u200b");
}

/** Facts in one line; where it takes two, the dot stays on the first. */
export function dotted(facts: readonly (string | false | null)[]): string {
  return facts.filter(Boolean).join("\u00a0· ");
}

export function bytesPerSecond(value: number): string {
  return `${bytes(value)}/s`;
}

/** "8,192" */
export function number(value: number): string {
  return plain(value, language());
}

/** "1.9M", "8.2B": downloads, parameters. In Japanese 190万, 82億. */
export function compact(value: number): string {
  return formatter(language(), { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

/** Parameters are said as "8.2B" in every language. */
export function parameters(value: number): string {
  const shown = formatter("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
  return shown.replace("K", "k");
}

/** 0..1 as "61 %", in Japanese "61%". */
export function percent(share: number): string {
  const shown = formatter(language(), { maximumFractionDigits: 0 }).format(share * 100);
  return language() === "ja" ? `${shown}%` : `${shown} %`;
}

/** "12.4", from 100 on "141". */
export function speed(tokensPerSecond: number): string {
  const digits = tokensPerSecond < 99.95 ? 1 : 0;
  return formatter(language(), { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(
    tokensPerSecond,
  );
}

/** "18–22 tok/s"; below ten with one digit, far below one with two. */
export function forecast({ tgLow, tgHigh }: Pick<Forecast, "tgLow" | "tgHigh">): string {
  const digits = tgLow < 0.095 ? 2 : tgHigh < 10 ? 1 : 0;
  const shown = formatter(language(), { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const [low, high] = [shown.format(tgLow), shown.format(tgHigh)];
  return t("common.tokensPerSecond", { speed: low === high ? low : `${low}–${high}` });
}

/** "1 min 30 s left", where that is known. */
export function timeLeft(seconds: number | null): string | null {
  return seconds === null ? null : t("common.left", { time: duration(seconds) });
}

/** "0.02 s", "0.8 s", "2 min 5 s", "1 h 4 min": two parts at most. */
export function duration(seconds: number): string {
  if (seconds < 9.95) {
    // A little is not nothing.
    const digits = seconds < 0.095 ? { maximumSignificantDigits: 1 } : { maximumFractionDigits: 1 };
    return t("common.seconds", { n: formatter(language(), digits).format(seconds) });
  }
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  if (hours > 0) {
    return joined(t("common.hours", { n: hours }), minutes > 0 && t("common.minutes", { n: minutes }));
  }
  if (minutes > 0) {
    return joined(t("common.minutes", { n: minutes }), rest > 0 && t("common.seconds", { n: String(rest) }));
  }
  return t("common.seconds", { n: String(rest) });
}

function joined(first: string, second: string | false): string {
  return second ? [first, second].join(language() === "ja" ? "" : " ") : first;
}

/** "Mar 4, 2026" */
export function date(at: number): string {
  return new Intl.DateTimeFormat(language(), { dateStyle: "medium" }).format(at);
}

/** "14:05" */
export function time(at: number): string {
  return new Intl.DateTimeFormat(language(), { timeStyle: "short" }).format(at);
}

export function dateTime(at: number): string {
  return new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "short" }).format(at);
}

/** "3 days ago" */
export function ago(at: number, now: number = Date.now()): string {
  const relative = new Intl.RelativeTimeFormat(language(), { numeric: "auto" });
  // As everywhere else in Japanese, nothing stands between a figure and its counter.
  const said = (amount: number, unit: Intl.RelativeTimeFormatUnit) => {
    const words = relative.format(amount, unit);
    return language() === "ja" ? words.replace(/(\d) /, "$1") : words;
  };
  const seconds = (at - now) / 1000;
  const steps: [Intl.RelativeTimeFormatUnit, number][] = [
    ["year", 365 * 86400],
    ["month", 30 * 86400],
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
  ];
  for (const [unit, size] of steps) {
    if (Math.abs(seconds) >= size) {
      return said(Math.trunc(seconds / size), unit);
    }
  }
  return said(0, "minute");
}

/** A graphics card without its maker, which is the same for all of them, where there is little room. */
export function cardName(name: string): string {
  return name.replace(/^NVIDIA (?=.)/, "");
}
