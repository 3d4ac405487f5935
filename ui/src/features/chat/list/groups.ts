import type { ChatSummary } from "../../../ipc";

export interface Groups {
  pinned: ChatSummary[];
  today: ChatSummary[];
  earlier: ChatSummary[];
}

/** The list as it is shown: pinned ones first, whatever their age. */
export function grouped(chats: readonly ChatSummary[], now: number = Date.now()): Groups {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const groups: Groups = { pinned: [], today: [], earlier: [] };
  for (const chat of chats) {
    groups[chat.pinned ? "pinned" : chat.updated >= midnight ? "today" : "earlier"].push(chat);
  }
  return groups;
}
