import type { chat as en } from "../en/chat";
import type { Words } from "../types";

export const chat: Words<typeof en> = {
  title: "チャット",
};
