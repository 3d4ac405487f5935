import { expect, test } from "vitest";
import { composes, sends } from "./compose";

function press(more: KeyboardEventInit & { keyCode?: number } = {}): KeyboardEvent {
  const event = new KeyboardEvent("keydown", { key: "Enter", ...more });
  // happy-dom knows no old key codes.
  Object.defineProperty(event, "keyCode", { value: more.keyCode ?? 13 });
  Object.defineProperty(event, "isComposing", { value: more.isComposing ?? false });
  return event;
}

test("Enter sends, with Shift it does not", () => {
  expect(sends(press())).toBe(true);
  expect(sends(press({ shiftKey: true }))).toBe(false);
  expect(sends(press({ ctrlKey: true }))).toBe(false);
  expect(sends(press({ key: "a" }))).toBe(false);
});

test("Enter that ends a composition does not send", () => {
  expect(sends(press({ isComposing: true }))).toBe(false);
  // WebKit: after compositionend, isComposing is false again.
  expect(sends(press({ keyCode: 229 }))).toBe(false);
  expect(composes(press({ keyCode: 229 }))).toBe(true);
});
