import { screen } from "@testing-library/svelte";
import { expect, test } from "vitest";
import type { GpuFigures, GpuProgram, MonitorSample } from "../../ipc";
import { renderWith, settled, startApp } from "../../testing";
import HardwareView from "./HardwareView.svelte";
import { byName, rest, throttled } from "./programs";

const program = (name: string | null, vram: number | null, more: Partial<GpuProgram> = {}): GpuProgram => ({
  pid: 7,
  name,
  vram,
  own: false,
  ...more,
});

const card = (more: Partial<GpuFigures>): GpuFigures => ({
  name: "NVIDIA GeForce RTX 4060",
  total: 8e9,
  free: 3e9,
  own: 0,
  load: null,
  temperature: null,
  throttling: null,
  programs: null,
  ...more,
});

const sample = (...gpus: GpuFigures[]): MonitorSample => ({
  at: Date.now(),
  ramTotal: 16e9,
  ramAvailable: 8e9,
  ownPrivate: null,
  ownResident: null,
  gpus,
  cpuLoad: null,
});

async function shown(...gpus: GpuFigures[]) {
  const app = await startApp({}, () => ({ monitorStart: async () => undefined }));
  renderWith(app, HardwareView, {});
  app.take({ type: "monitor", sample: sample(...gpus) });
  await settled();
}

test("programs of one name are one, and ours is named", () => {
  const all = [program("chrome", 1e9), program("headroom", 2e9, { own: true }), program("chrome", 3e9)];
  expect(byName(all)).toEqual([
    { name: "chrome (2)", vram: 4e9 },
    { name: "Headroom", vram: 2e9 },
  ]);
  expect(byName([program(null, null), program("a", 0), program("b", null)])).toEqual([
    { name: "a", vram: 0 },
    { name: "Program 7", vram: null },
    { name: "b", vram: null },
  ]);
});

test("what is left is told only beside what is known", () => {
  expect(rest(card({ programs: [program("a", 4e9)] }))).toBe(1e9);
  expect(rest(card({ programs: [program("a", 5e9)] }))).toBe(null);
  expect(rest(card({ programs: [program("a", null)] }))).toBe(null);
  expect(rest(card({}))).toBe(null);
});

test("what slows a card down is said in words", () => {
  expect(throttled(card({ throttling: ["heat", "powerLimit"] }))).toBe(
    "slowed down because it is too hot, at its power limit",
  );
  expect([throttled(card({ throttling: [] })), throttled(card({}))]).toEqual([null, null]);
});

test("load, temperature and programs are shown where the driver tells", async () => {
  const programs = [program("blender", 3e9), program("headroom", 1.5e9, { own: true })];
  await shown(card({ load: 0.97, temperature: 83, throttling: ["heat"], programs }));
  expect(screen.getByRole("img", { name: /^GPU load: 97 %/ })).toBeTruthy();
  expect(screen.getByRole("img", { name: /^GPU temperature: 83 °C/ })).toBeTruthy();
  expect(screen.getByText("slowed down because it is too hot")).toBeTruthy();
  const text = screen.getByTestId("hardware-programs").textContent?.replaceAll("\u00a0", " ");
  expect(text).toMatch(/blender\s*3.0 GB\s*Headroom\s*1.5 GB\s*Driver and others\s*500 MB/);
});

test("what the driver does not tell is not there", async () => {
  await shown(card({}));
  expect(screen.queryByRole("img", { name: /^GPU/ })).toBe(null);
  expect(screen.queryByTestId("hardware-programs")).toBe(null);
});

test("on Windows programs are named without figures, and why is said", async () => {
  await shown(card({ programs: [program("game.exe", null)] }));
  expect(screen.getByTestId("hardware-programs").textContent).toMatch(
    /game.exe\s*not known.*Windows does not tell/s,
  );
});
