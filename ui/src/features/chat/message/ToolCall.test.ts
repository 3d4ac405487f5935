import { render, screen } from "@testing-library/svelte";
import { expect, test } from "vitest";
import ToolCall from "./ToolCall.svelte";

const call = (name: string, args: string) => ({ name, arguments: args, id: null, source: "" });

test("a tool call shows what is wanted, and that nobody did it", () => {
  render(ToolCall, { call: call("get_weather", '{"city":"<b>京都</b>","days":3}') });
  const shown = screen.getByTestId("tool-call").textContent;
  expect(shown).toContain("get_weather");
  expect(shown).toContain('"city": "<b>京都</b>"');
  expect(shown).toContain("Headroom runs no tools");
});

test("no arguments are nothing to show, and unreadable ones are shown as they are", () => {
  const { unmount } = render(ToolCall, { call: call("now", "{}") });
  expect(screen.queryByRole("region", { name: "Arguments" })).toBeNull();
  unmount();
  render(ToolCall, { call: call("now", "{oops") });
  expect(screen.getByRole("region", { name: "Arguments" }).textContent).toBe("{oops");
});
