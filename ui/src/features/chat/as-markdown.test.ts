import { expect, test } from "vitest";
import type { Chat, Message } from "../../ipc";
import { asMarkdown } from "./as-markdown";

const message = (id: string, role: Message["role"], text: string, more: Partial<Message> = {}) =>
  ({ id, role, text, thinking: null, toolCalls: [], ...more }) as Message;

test("the branch that is shown is copied, without what was thought", () => {
  const chat = {
    systemPrompt: " Be brief. ",
    path: ["1", "3"],
    messages: [
      message("1", "user", "What is **this**?"),
      message("2", "assistant", "Another version"),
      message("3", "assistant", "\n`code`\n", {
        thinking: "Hm",
        toolCalls: [{ id: null, name: "f", arguments: "{}", source: "<tool_call>f</tool_call>" }],
      }),
    ],
  } as unknown as Chat;
  const labels = { system: "System prompt", you: "You", answer: "Answer" };
  expect(asMarkdown(chat, "Title", labels)).toBe(
    "# Title\n\n## System prompt\n\nBe brief.\n\n## You\n\nWhat is **this**?\n\n## Answer\n\n`code`\n\n<tool_call>f</tool_call>\n",
  );
});
