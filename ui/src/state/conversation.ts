import type { AnswerEvent, AnswerStats, Chat, Message, RecoveryNotice, WireError } from "../ipc";
import { TimeLeft } from "./time-left";

/** What the window adds to a chat while it is open. */
export interface Conversation {
  chat: Chat;
  /** Where the running answer is. */
  answer: string | null;
  /** Tokens of the prompt that were read, until the first token comes; the seconds that it still takes, if many. */
  prompt: { done: number; total: number; secondsLeft: number | null } | null;
  clock: TimeLeft;
  /** What comes before the prompt: another program's answer is written, or the answer's format is prepared. */
  before: "waiting" | "preparing" | null;
  /** Of the running or last answer, by message id. */
  notices: Record<string, Notice[]>;
}

export type Notice =
  | { type: "dropped"; turns: number; tokens: number }
  | { type: "recovery"; notice: RecoveryNotice }
  | { type: "error"; error: WireError };

export function conversation(chat: Chat): Conversation {
  return { chat, answer: null, prompt: null, clock: new TimeLeft(), before: null, notices: {} };
}

/** Takes one event of an answer's channel; changes the conversation in place. */
export function take(state: Conversation, event: AnswerEvent): void {
  const answer = state.chat.messages.find((message) => message.id === state.answer);
  switch (event.type) {
    case "started":
      put(state.chat, event.user);
      put(state.chat, event.answer);
      state.chat.path = event.path;
      state.chat.running = true;
      state.answer = event.answer.id;
      state.prompt = { done: 0, total: 0, secondsLeft: null };
      state.clock = new TimeLeft();
      delete state.notices[event.answer.id];
      break;
    case "waiting":
    case "preparing":
      state.before = event.type;
      break;
    case "prompt": {
      const { done, total } = event;
      state.before = null;
      state.prompt = { done, total, secondsLeft: total > 0 ? state.clock.tell(done / total) : null };
      break;
    }
    case "thinking":
      state.prompt = null;
      if (answer) {
        answer.thinking = (answer.thinking ?? "") + event.text;
      }
      break;
    case "text":
      state.prompt = null;
      if (answer) {
        answer.text += event.text;
      }
      break;
    case "toolCall":
      state.prompt = null;
      answer?.toolCalls.push(event.call);
      break;
    case "stats":
      if (answer) {
        answer.stats = event.stats;
      }
      break;
    case "dropped":
      drop(state, event.turns, event.tokens);
      break;
    case "recovery":
      note(state, { type: "recovery", notice: event.notice });
      break;
    case "finished":
      put(state.chat, { ...event.message, finish: event.reason });
      if (event.error) {
        note(state, { type: "error", error: event.error });
      }
      state.chat.title = event.title || state.chat.title;
      state.chat.running = false;
      state.prompt = null;
      state.before = null;
      state.answer = null;
      break;
  }
}

function put(chat: Chat, message: Message | null): void {
  if (!message) {
    return;
  }
  const at = chat.messages.findIndex((old) => old.id === message.id);
  if (at < 0) {
    chat.messages.push(message);
  } else {
    chat.messages[at] = message;
  }
}

function note(state: Conversation, notice: Notice): void {
  if (state.answer !== null) {
    state.notices[state.answer] = [...(state.notices[state.answer] ?? []), notice];
  }
}

/** An answer may run into the end of the context more than once: that is told as one number. */
function drop(state: Conversation, turns: number, tokens: number): void {
  const notices = state.answer === null ? [] : (state.notices[state.answer] ?? []);
  const before = notices.find((notice) => notice.type === "dropped");
  if (before) {
    before.turns += turns;
    before.tokens += tokens;
  } else {
    note(state, { type: "dropped", turns, tokens });
  }
}

/** The messages that are shown, the first one first. */
export function shownMessages(chat: Chat): Message[] {
  const byId = new Map(chat.messages.map((message) => [message.id, message]));
  return chat.path.flatMap((id) => byId.get(id) ?? []);
}

/** The branches beside a message, itself included, in the order in which they were made. */
export function siblings(chat: Chat, message: Message): Message[] {
  return chat.messages.filter((other) => other.parent === message.parent && other.role === message.role);
}

/** Whether an answer can go on where it was cut. */
export function canContinue(message: Message): boolean {
  return message.role === "assistant" && ["interrupted", "stopped", "length"].includes(message.finish ?? "");
}

/** Tokens of the context that ended the last answer, if one did. The model may have been loaded with more since then. */
export function contextThatWasFull({ chat, notices }: Conversation): number | null {
  const last = shownMessages(chat).at(-1);
  if (last?.finish !== "contextFull") {
    return null;
  }
  const refused = notices[last.id]?.find((notice) => notice.type === "error");
  return last.stats?.context ?? refused?.error.available ?? null;
}

/** The figures of the newest answer that has some. */
export function latestStats(chat: Chat): AnswerStats | null {
  return shownMessages(chat).findLast((message) => message.stats !== null)?.stats ?? null;
}
