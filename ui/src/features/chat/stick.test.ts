import { expect, test, vi } from "vitest";
import { Stick } from "./stick.svelte";

/** A scroller of 100 px with a text that grows, and what the browser would tell. */
function scroller() {
  let grown = () => {};
  vi.stubGlobal(
    "ResizeObserver",
    class {
      constructor(callback: () => void) {
        grown = callback;
      }
      observe() {}
      disconnect() {}
    },
  );
  const element = document.createElement("div");
  let height = 1000;
  let top = 0;
  const clamp = (to: number) => (top = Math.max(0, Math.min(to, height - 100)));
  Object.defineProperties(element, {
    clientHeight: { value: 100 },
    scrollHeight: { get: () => height },
    scrollTop: { get: () => top, set: clamp },
  });
  const stick = new Stick();
  stick.attach(element);
  stick.toEnd();
  return {
    stick,
    grow(by: number) {
      height += by;
      grown();
    },
    /** Grown, and nobody was told yet. */
    growUnseen: (by: number) => (height += by),
    scroll: (to: number) => {
      clamp(to);
      element.dispatchEvent(new Event("scroll"));
    },
    press: (key: string) => element.dispatchEvent(new KeyboardEvent("keydown", { key })),
    told: () => element.dispatchEvent(new Event("scroll")),
    fromEnd: () => height - 100 - top,
  };
}

test("stays at the end, also where scroll events come after the text has grown", () => {
  const { stick, grow, growUnseen, told, fromEnd } = scroller();
  grow(300);
  growUnseen(200);
  told();
  expect(stick.there).toBe(true);
  grow(0);
  expect(fromEnd()).toBe(0);
});

test("stays with a reader who went up, until they come back", () => {
  const { stick, grow, scroll, fromEnd } = scroller();
  scroll(700);
  expect(stick.there).toBe(false);
  grow(500);
  expect(fromEnd()).toBe(700);
  // Downwards, but not to the end.
  scroll(800);
  expect(stick.there).toBe(false);
  scroll(1390);
  expect(stick.there).toBe(true);
  grow(400);
  expect(fromEnd()).toBe(0);
});

test("stays with a reader who goes up by a line", () => {
  const { stick, grow, scroll, fromEnd } = scroller();
  scroll(880);
  expect(stick.there).toBe(false);
  grow(20);
  expect(fromEnd()).toBe(40);
});

test("stays at the end of a text that shrinks", () => {
  const { stick, grow, told, scroll, fromEnd } = scroller();
  grow(-300);
  scroll(600);
  told();
  expect(stick.there).toBe(true);
  grow(50);
  expect(fromEnd()).toBe(0);
});

test("goes along after End, however quickly the text grows", () => {
  const { stick, grow, press, scroll, fromEnd } = scroller();
  scroll(300);
  press("End");
  expect(stick.there).toBe(true);
  grow(500);
  expect(fromEnd()).toBe(0);
});
