import { expect, test } from "vitest";
import type { ChatSummary } from "../../../ipc";
import { grouped } from "./groups";

test("pinned chats come first whatever their age; today begins at midnight", () => {
  const now = new Date(2026, 2, 4, 10).getTime();
  const chat = (id: string, hoursAgo: number, pinned = false): ChatSummary => ({
    id,
    title: id,
    pinned,
    updated: now - hoursAgo * 3600e3,
    deleted: null,
    snippet: null,
  });
  const groups = grouped([chat("old pin", 500, true), chat("morning", 9), chat("evening", 11)], now);
  expect(groups.pinned.map(({ id }) => id)).toEqual(["old pin"]);
  expect(groups.today.map(({ id }) => id)).toEqual(["morning"]);
  expect(groups.earlier.map(({ id }) => id)).toEqual(["evening"]);
});
