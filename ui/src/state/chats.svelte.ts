import { SvelteMap } from "svelte/reactivity";
import type { AnswerFormat, Api, Chat, ChatSummary, FileProgress, Turn, WireError } from "../ipc";
import { toWireError } from "../ipc";
import { conversation, take, type Conversation } from "./conversation";

/** How often a chat is read again whose answer runs, but not through this window (it was loaded anew). */
const POLL_MS = 700;

/** The chat list, the open chat, and the answer that is being written, whatever view is shown. */
export class ChatsStore {
  list = $state.raw<ChatSummary[]>([]);
  query = $state("");
  /** The bin is shown instead of the chats. */
  bin = $state(false);
  current = $state<string | null>(null);
  /** How far the import is that runs, if one does. */
  importing = $state.raw<FileProgress | null>(null);
  /** What is written and not sent, by chat id ("" without a chat). */
  drafts = new SvelteMap<string, string>();
  private open = new SvelteMap<string, Conversation>();
  private asked = 0;

  constructor(
    private api: Api,
    private failed: (error: unknown) => void,
  ) {}

  /** Shows a chat: the one asked for, or the last one that was used, pinned or not. */
  async start(wanted: string | null): Promise<void> {
    await this.refresh();
    const last = this.list.reduce<ChatSummary | null>(
      (last, chat) => (last && last.updated >= chat.updated ? last : chat),
      null,
    );
    const first = wanted ?? last?.id ?? null;
    if (first !== null) {
      await this.show(first);
    }
  }

  get shown(): Conversation | null {
    return this.current === null ? null : (this.open.get(this.current) ?? null);
  }

  /** The chat in which an answer is being written. One at a time is. */
  get running(): string | null {
    for (const [id, { chat }] of this.open) {
      if (chat.running) {
        return id;
      }
    }
    return null;
  }

  async refresh(): Promise<void> {
    const mine = ++this.asked;
    await this.attempt(async () => {
      const list = await this.api.chats(this.query, this.bin);
      // Answers may come out of order while somebody types.
      if (mine === this.asked) {
        this.list = list;
      }
    });
  }

  search(query: string): void {
    this.query = query;
    void this.refresh();
  }

  showBin(bin: boolean): void {
    this.bin = bin;
    void this.refresh();
  }

  async show(id: string): Promise<void> {
    this.current = id;
    if (!this.open.get(id)?.chat.running) {
      await this.attempt(async () => this.put(await this.api.chat(id)));
    }
  }

  async create(): Promise<string | null> {
    // An empty chat that is there already is as new as another one.
    if (this.shown && this.shown.chat.messages.length === 0 && !this.bin) {
      return this.current;
    }
    this.bin = false;
    this.query = "";
    return this.attempt(async () => {
      const chat = await this.api.chatCreate();
      this.put(chat);
      this.current = chat.id;
      await this.refresh();
      return chat.id;
    });
  }

  /** Sends in the open chat, or in a new one. True when the answer has begun. */
  async send(turn: Turn): Promise<boolean> {
    const id = this.current ?? (await this.create());
    if (id === null) {
      return false;
    }
    const done = await this.attempt(async () => {
      await this.api.chatSend({ chat: id, turn, sampling: null }, (event) => {
        const state = this.open.get(id);
        if (state) {
          take(state, event);
        }
        if (event.type === "started" || event.type === "finished") {
          void this.refresh();
        }
      });
      return true;
    });
    return done ?? false;
  }

  async stop(): Promise<void> {
    const running = this.running;
    if (running !== null) {
      await this.attempt(() => this.api.chatStop(running));
    }
  }

  async select(message: string): Promise<void> {
    const id = this.current;
    if (id !== null) {
      await this.attempt(async () => this.put(await this.api.chatSelect(id, message)));
    }
  }

  async rename(id: string, title: string): Promise<void> {
    const state = this.open.get(id);
    if (state) {
      state.chat.title = title;
    }
    await this.change(() => this.api.chatRename(id, title));
  }

  pin(id: string, pinned: boolean): Promise<void> {
    return this.change(() => this.api.chatPin(id, pinned));
  }

  /** Into the bin. */
  async delete(id: string): Promise<void> {
    await this.change(() => this.api.chatDelete(id));
    if (this.current === id) {
      this.current = null;
      const next = this.list[0]?.id;
      if (next !== undefined && !this.bin) {
        await this.show(next);
      }
    }
  }

  restore(id: string): Promise<void> {
    return this.change(() => this.api.chatRestore(id));
  }

  /** The number of chats in a file that the user chose; null if none was chosen or it failed. */
  async export(): Promise<number | null> {
    return this.attempt(() => this.api.chatsExport());
  }

  /** Likewise, of those that came. */
  async import(): Promise<number | null> {
    return this.attempt(() => this.api.chatsImport());
  }

  async cancelImport(): Promise<void> {
    await this.attempt(() => this.api.chatsImportCancel());
  }

  /** At the end the new chats are there, also for a window that was loaded anew meanwhile. */
  takeImport(progress: FileProgress | null): void {
    this.importing = progress;
    if (progress === null) {
      void this.refresh();
    }
  }

  /** Of all chats, those in the bin too. */
  async count(): Promise<number | null> {
    return this.attempt(() => this.api.chatsCount());
  }

  /** For good, the bin too. */
  async deleteAll(): Promise<number | null> {
    const count = await this.attempt(() => this.api.chatsDeleteAll());
    if (count !== null) {
      this.current = null;
      this.open.clear();
      this.drafts.clear();
    }
    await this.refresh();
    return count;
  }

  async setSystemPrompt(text: string): Promise<void> {
    const state = this.shown;
    if (state) {
      state.chat.systemPrompt = text;
      await this.attempt(() => this.api.chatSetSystemPrompt(state.chat.id, text));
    }
  }

  /** The error, if answers cannot be given this form. */
  async setFormat(format: AnswerFormat): Promise<WireError | null> {
    const state = this.shown;
    try {
      if (state) {
        await this.api.chatSetFormat(state.chat.id, format);
        state.chat.format = format;
      }
      return null;
    } catch (error) {
      return toWireError(error);
    }
  }

  private put(chat: Chat): void {
    const old = this.open.get(chat.id);
    const state = $state(conversation(chat));
    state.notices = old?.notices ?? {};
    this.open.set(chat.id, state);
    if (chat.running && !old?.answer) {
      void this.follow(chat.id);
    }
  }

  /** The window was loaded anew in the middle of an answer: its channel is gone, the program still writes it. */
  private async follow(id: string): Promise<void> {
    for (let running = true; running;) {
      await new Promise((done) => setTimeout(done, POLL_MS));
      const chat = await this.attempt(() => this.api.chat(id));
      const state = this.open.get(id);
      if (!chat || !state) {
        return;
      }
      state.chat = chat;
      running = chat.running;
    }
    await this.refresh();
  }

  private async change(work: () => Promise<void>): Promise<void> {
    await this.attempt(work);
    await this.refresh();
  }

  /** null if it failed; the reason was told. */
  private async attempt<T>(work: () => Promise<T>): Promise<T | null> {
    try {
      return await work();
    } catch (error) {
      this.failed(error);
      return null;
    }
  }
}
