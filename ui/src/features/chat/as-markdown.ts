import type { Chat } from "../../ipc";

/** What the parts of a conversation are called. */
export interface Labels {
  system: string;
  you: string;
  answer: string;
}

/** The branch of a chat that is shown, as text for other programs; what the model thought is left out. */
export function asMarkdown(chat: Chat, title: string, labels: Labels): string {
  const parts = [`# ${title}`];
  if (chat.systemPrompt.trim()) {
    parts.push(`## ${labels.system}`, chat.systemPrompt.trim());
  }
  for (const id of chat.path) {
    const message = chat.messages.find((message) => message.id === id);
    if (message) {
      parts.push(
        `## ${message.role === "user" ? labels.you : labels.answer}`,
        [message.text.trim(), ...message.toolCalls.map((call) => call.source)].filter(Boolean).join("\n\n"),
      );
    }
  }
  return parts.filter(Boolean).join("\n\n") + "\n";
}
