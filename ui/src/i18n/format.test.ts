import { beforeEach, describe, expect, test } from "vitest";
import { ago, bytes, cardName, compact, duration, forecast, percent, speed, unbroken } from "./format";
import { setLanguage } from "./index.svelte";

beforeEach(() => setLanguage("en"));

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [714_000_000, "714 MB"],
  [999_400_000, "999 MB"],
  [999_600_000, "1.0 GB"],
  [4_920_000_000, "4.9 GB"],
  [38_200_000_000, "38.2 GB"],
  [412_300_000_000, "412 GB"],
  [1_500_000_000_000, "1.5 TB"],
  [-1_200_000_000, "−1.2 GB"],
])("%d bytes are %s", (value, text) => expect(bytes(value)).toBe(text));

test.each([
  [0, "0 s"],
  [0.003, "0.003 s"],
  [0.0237, "0.02 s"],
  [0.0951, "0.1 s"],
  [0.8, "0.8 s"],
  [5, "5 s"],
  [9.97, "10 s"],
  [61, "1 min 1 s"],
  [3600, "1 h"],
  [7320, "2 h 2 min"],
])("%d seconds are %s", (value, text) => expect(duration(value)).toBe(text));

describe("speeds", () => {
  test("have one digit where it says something", () => {
    expect(speed(12.44)).toBe("12.4");
    expect(speed(141.2)).toBe("141");
    expect(forecast({ tgLow: 18.2, tgHigh: 22.4 })).toBe("18–22 tok/s");
    expect(forecast({ tgLow: 0.58, tgHigh: 0.63 })).toBe("0.6 tok/s");
  });
});

test("numbers are said as the language does", () => {
  expect(percent(0.614)).toBe("61 %");
  expect(compact(1_900_000)).toBe("1.9M");
  setLanguage("ja");
  expect(compact(1_900_000)).toBe("190万");
  expect(duration(125)).toBe("2分5秒");
  expect(percent(0.614)).toBe("61%");
  expect(forecast({ tgLow: 18.2, tgHigh: 22.4 })).toBe("18–22トークン/秒");
});

test("times are told from now", () => {
  const now = Date.UTC(2026, 2, 4);
  expect(ago(now - 3 * 86400e3, now)).toBe("3 days ago");
  expect(ago(now - 1000, now)).toBe("this minute");
  setLanguage("ja");
  expect(ago(now - 3 * 86400e3, now)).toBe("3日前");
  expect(ago(now - 86400e3, now)).toBe("昨日");
});

test("a graphics card is called without its maker where there is little room", () => {
  expect(cardName("NVIDIA GeForce RTX 4060 Ti")).toBe("GeForce RTX 4060 Ti");
  expect(["Fake GPU", "NVIDIA ", ""].map(cardName)).toEqual(["Fake GPU", "NVIDIA ", ""]);
});

test("figures and the word for what is free stay together", () => {
  const lines = (text: string) => unbroken(text).split(/[ \u200b]|(?<=の)(?=う)/);
  expect(lines("21.5 GB of 33.6 GB free")).toEqual(["21.5\u00a0GB", "of", "33.6\u00a0GB\u00a0free"]);
  const together = (text: string) => unbroken(text).replaceAll("\u2060", "+").replaceAll("\u00a0", "_");
  expect(together("33.6 GBのうち21.5 GBが空き")).toBe("33.6_GBのうち\u200b21.5_GB+が+空+き");
  expect(together("空き8.2 GB")).toBe("空+き+8.2_GB");
  expect(together("VRAMの空き12 GBとRAMの空き8 GBに")).toBe("VRAMの空+き+12_GBとRAMの空+き+8_GBに");
  expect(together("現在の空き: RAM 8 GB")).toBe("現在の空+き: RAM 8_GB");
  expect(together("必要12 GB、空き800 MB。")).toBe("必要12_GB、空+き+800_MB。");
  expect(together("7 Books, 2 layers")).toBe("7 Books, 2 layers");
});
