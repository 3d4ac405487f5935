import type { AnswerEvent, AnswerStats, Chat, FinishReason, Message, SendArgs } from "../bindings";
import { wireError } from "../api";
import { pause } from "./clock";
import { ANSWER, THOUGHT, message } from "./data";

export type FakeChat = Chat & { updated: number; deleted: number | null };

/** Writes answers word by word, one at a time, like the program. */
export class FakeTalk {
  private running: string | null = null;
  private stopping = false;
  private ids = 100;

  /** `pace`: milliseconds between two pieces. */
  constructor(private pace: number) {}

  isRunning(chat: string): boolean {
    return this.running === chat;
  }

  stop(chat: string): void {
    this.stopping ||= this.running === chat;
  }

  async stopAll(): Promise<void> {
    this.stopping = this.running !== null;
    while (this.running !== null) {
      await pause(this.pace);
    }
  }

  send(
    chat: FakeChat,
    args: SendArgs,
    model: string,
    context: number,
    emit: (event: AnswerEvent) => void,
  ): void {
    if (this.running !== null) {
      throw wireError("busy", "another answer is being written: stop it first");
    }
    const { user, answer } = this.prepare(chat, args, model);
    this.running = chat.id;
    this.stopping = false;
    emit(structuredClone({ type: "started", user, answer, path: chat.path }));
    void this.write(chat, answer, context, args.sampling?.maxTokens ?? null, emit);
  }

  private prepare(
    chat: FakeChat,
    { turn }: SendArgs,
    model: string,
  ): { user: Message | null; answer: Message } {
    const now = Date.now();
    const find = (id: string) => {
      const found = chat.messages.find((message) => message.id === id);
      if (!found) {
        throw wireError("notFound", `the chat has no message ${id}`);
      }
      return found;
    };
    let user: Message | null = null;
    let answer: Message;
    if (turn.type === "continue") {
      answer = find(turn.message);
      answer.finish = null;
    } else {
      if (turn.type !== "regenerate") {
        const parent =
          turn.type === "send" ? (turn.parent ?? chat.path.at(-1) ?? null) : find(turn.message).parent;
        user = message(`n${this.ids++}`, parent, "user", turn.text, now);
        chat.messages.push(user);
        chat.title ||= turn.text.trim().split("\n")[0]?.slice(0, 60) ?? "";
      }
      const parent = turn.type === "regenerate" ? find(turn.message).parent : (user?.id ?? null);
      answer = {
        ...message(`n${this.ids++}`, parent, "assistant", "", now),
        finish: null,
        stats: null,
        model,
      };
      chat.messages.push(answer);
    }
    chat.updated = now;
    chat.path = pathTo(chat.messages, answer.id);
    return { user: structuredClone(user), answer };
  }

  private async write(
    chat: FakeChat,
    answer: Message,
    context: number,
    maxTokens: number | null,
    emit: (event: AnswerEvent) => void,
  ): Promise<void> {
    const begun = performance.now();
    if (chat.format.type !== "text") {
      emit({ type: "preparing" });
      await pause(this.pace * 10);
    }
    const promptTokens = 60 + chat.path.length * 130;
    for (let done = 0; done <= 4 && !this.stopping; done++) {
      emit({ type: "prompt", done: Math.round((promptTokens * done) / 4), total: promptTokens });
      await pause(this.pace * 3);
    }
    const firstTokenMs = performance.now() - begun;
    let tokens = 0;
    const stats = (): AnswerStats => ({
      promptTokens,
      reusedTokens: 0,
      answerTokens: tokens,
      firstTokenMs,
      tokensPerSecond: tokens / Math.max(0.001, (performance.now() - begun - firstTokenMs) / 1000),
      promptTokensPerSecond: 141,
      contextUsed: Math.min(context, promptTokens + tokens),
      context,
      drafted: 0,
      accepted: 0,
    });
    let reason: FinishReason = "end";
    for (const { kind, piece } of this.pieces(answer)) {
      if (this.stopping) {
        reason = "stopped";
        break;
      }
      if (maxTokens !== null && tokens >= maxTokens) {
        reason = "length";
        break;
      }
      tokens += 1;
      if (kind === "thinking") {
        answer.thinking = (answer.thinking ?? "") + piece;
      } else {
        answer.text += piece;
      }
      emit({ type: kind, text: piece });
      if (tokens % 20 === 0) {
        emit({ type: "stats", stats: stats() });
      }
      await pause(this.pace);
    }
    answer.finish = this.stopping ? "stopped" : reason;
    answer.stats = stats();
    this.running = null;
    emit({ type: "stats", stats: answer.stats });
    emit(
      structuredClone({
        type: "finished",
        message: answer,
        reason: answer.finish,
        title: chat.title,
        error: null,
      }),
    );
  }

  private *pieces(answer: Message): Generator<{ kind: "thinking" | "text"; piece: string }> {
    const words = (text: string) => text.match(/\s*\S+\s*/g) ?? [];
    if (answer.text === "" && answer.thinking === null) {
      for (const piece of words(THOUGHT)) {
        yield { kind: "thinking", piece };
      }
    }
    for (const piece of words(answer.text === "" ? ANSWER : " … and here it goes on to its end.")) {
      yield { kind: "text", piece };
    }
  }
}

/** The messages from the first to `leaf`. */
export function pathTo(messages: Message[], leaf: string): string[] {
  const path: string[] = [];
  for (let at: string | null = leaf; at !== null;) {
    const id: string = at;
    path.unshift(id);
    at = messages.find((message) => message.id === id)?.parent ?? null;
  }
  return path;
}
