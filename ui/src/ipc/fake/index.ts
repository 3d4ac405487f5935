import { wireError, type Api } from "../api";
import type {
  AppEvent,
  GpuLayers,
  GpuReason,
  HardwareReport,
  InstalledModel,
  LoadSettings,
  LoadStage,
  ModelState,
  Plan,
  ServerState,
  Settings,
  Verified,
} from "../bindings";
import { pause } from "./clock";
import * as data from "./data";
import { FakeHub } from "./hub";
import { MACHINE, fakePlan } from "./plan";
import { FakeTalk, pathTo, type FakeChat } from "./talk";

export interface FakeOptions {
  /** Milliseconds of one step of anything; 0 in tests. */
  pace?: number;
  /** Why there is no GPU; null: there is one. */
  gpuReason?: GpuReason | null;
  /** Nothing installed, no chats: the first start. */
  empty?: boolean;
  /** The first model is a mixture of experts, too large for the GPU. */
  mixture?: boolean;
  /** There is a second graphics card. */
  twoGpus?: boolean;
  settings?: Partial<Settings>;
}

const GPU = {
  id: "GPU-1",
  name: "NVIDIA GeForce RTX 4060",
  vramTotal: MACHINE.vramTotal,
  vramFree: MACHINE.vramAvailable,
  driver: "580.95",
  computeCapability: "8.9",
  isTestDevice: false,
};

const SECOND_GPU = {
  ...GPU,
  id: "GPU-2",
  name: "NVIDIA RTX A2000 12GB",
  vramTotal: 12.9e9,
  vramFree: null,
};

/** Another program listens there. */
const TAKEN_PORT = 5000;

/** Plays the program in memory, so that the window can be made and tested without it. */
export function fakeApi(options: FakeOptions = {}): Api {
  const { pace = 20, gpuReason: absent = null, empty = false, mixture = false, twoGpus = false } = options;
  const listeners = new Set<(event: AppEvent) => void>();
  const emit = (event: AppEvent) => listeners.forEach((listener) => listener(structuredClone(event)));
  let settings: Settings = { ...data.settings(), ...options.settings };
  const library: InstalledModel[] = empty ? [] : data.installed(Date.now());
  if (mixture && library[0]) {
    Object.assign(library[0], { architecture: "qwen3moe", bytes: 18.6e9, layers: 49 });
  }
  const chats: FakeChat[] = empty ? [] : data.chats(Date.now());
  const talk = new FakeTalk(pace);
  const hub = new FakeHub(pace, library, absent === null, emit);
  let state: ModelState = { type: "none" };
  let measured = false;
  let loads = 0;
  let moves = 0;
  let verifies = 0;
  /** The GPU has its kernels. */
  let ready = false;
  let monitor: ReturnType<typeof setInterval> | undefined;

  const setState = (next: ModelState) => {
    state = next;
    emit({ type: "model", state });
  };
  const installed = (id: string) => {
    const model = library.find((model) => model.id === id);
    if (!model) {
      throw wireError("notFound", id, { subject: id });
    }
    return model;
  };
  const chatOf = (id: string) => {
    const chat = chats.find((chat) => chat.id === id);
    if (!chat) {
      throw wireError("notFound", `there is no chat ${id}`);
    }
    return chat;
  };
  const shown = (chat: FakeChat) => structuredClone({ ...chat, running: talk.isRunning(chat.id) });
  const plan = (model: InstalledModel, wish: LoadSettings) => {
    if (model.problem) {
      throw model.problem;
    }
    return fakePlan(model, wish, gpuReason() === null, used());
  };
  const gpus = () => {
    const { gpus } = settings;
    const named = (id: string) => gpus.type === "all" || gpus.gpus.some((gpu) => gpu.id === id);
    const there = twoGpus ? [GPU, SECOND_GPU] : [GPU];
    // A choice of which nothing is there leaves it to the program.
    const all = gpus.type === "only" && gpus.gpus.length > 0 && !there.some(({ id }) => named(id));
    const cards = there.map((gpu) => ({ ...gpu, used: all || named(gpu.id) }));
    return [...cards.filter((gpu) => gpu.used), ...cards.filter((gpu) => !gpu.used)];
  };
  const gpuReason = (): GpuReason | null =>
    absent ?? (gpus().some((gpu) => gpu.used) ? null : { type: "noneChosen" });
  /** Names of the cards that take layers. */
  const used = () => gpus().flatMap((gpu) => (gpu.used ? [gpu.name] : []));
  /** The first card is given everything. */
  const gpuUse = (layers: number, bytes: number) =>
    gpuReason()
      ? []
      : used().map((name, i) => ({ name, layers: i ? 0 : layers, used: i ? 0 : bytes, lost: false }));
  const server = (): ServerState => {
    const { on, port } = settings.server;
    if (on && port === TAKEN_PORT) {
      return { type: "failed", error: wireError("portTaken", "taken", { subject: String(port) }) };
    }
    return on ? { type: "on", url: `http://127.0.0.1:${port}/v1` } : { type: "off" };
  };
  const hardware = (): HardwareReport => ({
    cpuName: "AMD Ryzen 7 7700",
    physicalCores: 8,
    logicalCores: 16,
    cpuFeatures: ["AVX2", "AVX-512", "VNNI"],
    ramTotal: MACHINE.ramTotal,
    ramAvailable: MACHINE.ramAvailable,
    gpus: absent ? [] : gpus(),
    gpuReason: gpuReason(),
    modelsDiskFree: 412e9,
    ramBandwidth: measured ? 61.3e9 : null,
    diskBandwidth: measured ? 3.4e9 : null,
    measuring: false,
  });

  async function load(modelId: string, wish: LoadSettings): Promise<void> {
    const mine = ++loads;
    const model = installed(modelId);
    await talk.stopAll();
    const planned = plan(model, wish);
    const show = async (stage: LoadStage, progress: number) => {
      setState({ type: "loading", modelId, name: model.name, stage, progress });
      await pause(pace * 4);
      if (mine !== loads) {
        throw wireError("cancelled", "cancelled");
      }
    };
    // The first model waits for the driver.
    const of = ready || gpuReason() !== null || planned.gpuLayers === 0 ? 0 : 4;
    ready ||= of > 0;
    for (let done = 0; done < of; done++) {
      await show({ type: "compiling", done, of }, done / of);
    }
    for (let step = 0; step <= 20; step++) {
      await show({ type: "layers" }, step / 20);
    }
    settings.load[modelId] = wish;
    model.lastUsed = Date.now();
    setState({
      type: "ready",
      loaded: {
        modelId,
        name: model.name,
        settings: wish,
        plan: planned,
        gpuLayers: planned.gpuLayers,
        cpuMoe: planned.cpuMoe,
        ramUsed: planned.ram.total,
        vramUsed: planned.vram.total,
        gpus: gpuUse(planned.gpuLayers, planned.vram.total),
        gpuReason: gpuReason(),
        draftProblem: null,
        compiling: null,
        templateMissing: false,
        thinkingSwitch: true,
      },
    });
    emit({ type: "library" });
  }

  /** Layer by layer, as the engine does it between two tokens; until a later wish comes. */
  async function setGpuLayers(layers: GpuLayers, cpuMoe: number | null): Promise<ModelState> {
    if (state.type !== "ready") {
      throw wireError("noModelLoaded", "no model is loaded");
    }
    const mine = ++moves;
    const model = installed(state.loaded.modelId);
    const wish = { ...state.loaded.settings, gpuLayers: layers, cpuMoe };
    const planned = plan(model, wish);
    const target = Math.min(planned.gpuLayers, planned.maxGpuLayers);
    const loaded = { ...state.loaded, settings: wish, compiling: null };
    const placed = (layers: number) => plan(model, { ...wish, gpuLayers: { type: "fixed", layers } });
    const show = (layers: number, shown: Plan) => {
      const { ram, vram } = placed(layers);
      const now = {
        plan: shown,
        gpuLayers: layers,
        cpuMoe: planned.cpuMoe,
        ramUsed: ram.total,
        vramUsed: vram.total,
        gpus: gpuUse(layers, vram.total),
      };
      setState({ type: "ready", loaded: { ...loaded, ...now } });
    };
    // A GPU that was given nothing yet.
    const of = ready || target === 0 ? 0 : 4;
    for (let done = 0; done < of; done++) {
      setState({ type: "ready", loaded: { ...loaded, compiling: { done, of } } });
      await pause(pace * 4);
      if (mine !== moves) {
        return structuredClone(state);
      }
    }
    ready ||= of > 0;
    for (let at = loaded.gpuLayers; at !== target;) {
      await pause(pace * 3);
      if (mine !== moves) {
        return structuredClone(state);
      }
      at += Math.sign(target - at);
      show(at, loaded.plan);
    }
    show(target, placed(target));
    if (planned.gpuLayers > target) {
      const { layers, gpuLayers } = planned;
      const moved = { gpu: null, layersMoved: gpuLayers - target, layersShifted: 0, expertsMoved: 0 };
      const notice = { cause: "vramFull", ...moved, gpuLayers: target, layers };
      emit({ type: "recovery", notice: { ...notice, duringAnswer: false } });
    }
    return structuredClone(state);
  }

  async function verify(model: InstalledModel): Promise<Verified> {
    const mine = ++verifies;
    const compared = model.source !== "folder";
    const total = compared ? model.bytes : 0;
    for (let step = 0; step < 20; step++) {
      const progress = { bytes: (total * step) / 20, total, secondsLeft: step > 4 ? 20 - step : null };
      emit({ type: "verify", modelId: model.id, progress });
      await pause(pace * 4);
      if (mine !== verifies) {
        emit({ type: "verify", modelId: model.id, progress: null });
        throw wireError("cancelled", "cancelled");
      }
    }
    model.verified = { at: Date.now(), files: [{ path: model.path, compared, problem: null }] };
    emit({ type: "verify", modelId: model.id, progress: null });
    emit({ type: "library" });
    return model.verified;
  }

  function sample(): void {
    const loaded = state.type === "ready" ? state.loaded : null;
    const jitter = 0.12e9 * Math.sin(Date.now() / 2500);
    emit({
      type: "monitor",
      sample: {
        at: Date.now(),
        ramTotal: MACHINE.ramTotal,
        ramAvailable: Math.max(0.8e9, MACHINE.ramAvailable - (loaded?.ramUsed ?? 0) * 0.9 + jitter),
        ownPrivate: 0.3e9,
        ownResident: 0.3e9 + (loaded?.ramUsed ?? 0),
        gpus: gpuReason()
          ? []
          : used().map((name, i) => {
              const own = i ? 0 : (loaded?.vramUsed ?? 0);
              const { vramTotal: total, vramAvailable } = MACHINE;
              const answering = chats.some((chat) => talk.isRunning(chat.id));
              const others = { pid: 4242, name: "browser", vram: total - vramAvailable - 0.3e9, own: false };
              return {
                name,
                total,
                free: vramAvailable - own,
                own,
                load: answering ? 0.9 : 0.05,
                temperature: answering ? 78 : 46,
                throttling: answering ? ["powerLimit" as const] : [],
                programs: own > 0 ? [{ pid: 1, name: "headroom", vram: own, own: true }, others] : [others],
              };
            }),
        cpuLoad:
          0.2 +
          0.15 * Math.sin(Date.now() / 1500) +
          (chats.some((chat) => talk.isRunning(chat.id)) ? 0.4 : 0),
      },
    });
  }

  return {
    startup: async () => ({
      version: "0.1.0",
      settings: structuredClone(settings),
      systemLanguage: navigator.language.startsWith("ja") ? "ja" : "en",
      hubEndpoint: null,
      hubEndpointDefault: "https://huggingface.co",
      model: structuredClone(state),
      server: server(),
      downloads: structuredClone(hub.list),
      openChat: null,
      interruptedChat: empty ? null : "3",
    }),
    settingsGet: async () => structuredClone(settings),
    settingsSet: async (next) => {
      const before = server();
      settings = structuredClone(next);
      if (JSON.stringify(server()) !== JSON.stringify(before)) {
        emit({ type: "server", state: server() });
      }
      return structuredClone(settings);
    },
    hubTokenSet: async (token) => structuredClone((settings = { ...settings, hasHubToken: token !== null })),

    hardware: async () => hardware(),
    hardwareMeasure: async () => {
      await pause(pace * 100);
      measured = true;
      emit({ type: "hardware", hardware: hardware() });
      return hardware();
    },
    monitorStart: async () => {
      if (monitor === undefined) {
        sample();
        monitor = setInterval(sample, 1000);
      }
    },
    monitorStop: async () => {
      clearInterval(monitor);
      monitor = undefined;
    },

    library: async () => structuredClone(library),
    libraryRemove: async (id) => {
      if (state.type === "ready" && state.loaded.modelId === id) {
        throw wireError("busy", "the model is loaded: unload it first");
      }
      library.splice(library.indexOf(installed(id)), 1);
      emit({ type: "library" });
    },
    libraryVerify: async (id) => verify(installed(id)),
    libraryVerifyCancel: async () => void (verifies += 1),
    libraryReveal: async () => undefined,
    libraryOpen: async () => false,
    openedFile: async () => null,

    hubRecommended: async () => hub.recommended(),
    hubSearch: (query) => hub.search(query),
    hubModel: (repo) => hub.model(repo),
    hubPlan: (repo, _commit, quant, wish) => hub.plan(repo, quant, wish),

    downloads: async () => structuredClone(hub.list),
    downloadStart: (repo, _commit, quant) => hub.start(repo, quant),
    downloadPause: async (id) => hub.change(id, "paused"),
    downloadResume: async (id) => hub.change(id, "running"),
    downloadCancel: async (id) => hub.change(id, "cancelled"),

    plan: async (modelId, wish) => plan(installed(modelId), wish),
    draftModels: async (modelId) => {
      const { architecture, bytes } = installed(modelId);
      const fits = library.filter((model) => model.architecture === architecture && model.bytes < bytes);
      return fits.map((model) => model.id);
    },
    modelLoad: async (modelId, wish) => {
      try {
        await load(modelId, wish);
      } catch (error) {
        setState({ type: "none" });
        throw error;
      }
    },
    modelLoadCancel: async () => {
      loads += 1;
    },
    modelUnload: async () => {
      loads += 1;
      await talk.stopAll();
      setState({ type: "none" });
    },
    modelState: async () => structuredClone(state),
    setGpuLayers,

    chats: async (query, deleted) => {
      const words = query.toLowerCase().split(/\s+/).filter(Boolean);
      const texts = (chat: FakeChat) => [chat.title, ...chat.messages.map((message) => message.text)];
      return chats
        .filter((chat) => (chat.deleted !== null) === deleted)
        .filter((chat) =>
          words.every((word) => texts(chat).some((text) => text.toLowerCase().includes(word))),
        )
        .sort((a, b) => Number(b.pinned) - Number(a.pinned) || b.updated - a.updated)
        .map(({ id, title, pinned, updated, deleted, messages }) => {
          const hit =
            words[0] && messages.find((message) => message.text.toLowerCase().includes(words[0] ?? ""));
          return { id, title, pinned, updated, deleted, snippet: hit ? hit.text.slice(0, 90) : null };
        });
    },
    chat: async (id) => shown(chatOf(id)),
    chatCreate: async () => {
      const id = String(chats.length + 1);
      const chat = {
        id,
        title: "",
        pinned: false,
        systemPrompt: settings.systemPrompt,
        format: { type: "text" as const },
        messages: [],
        path: [],
      };
      chats.push({ ...chat, running: false, updated: Date.now(), deleted: null });
      return shown(chatOf(id));
    },
    chatRename: async (id, title) => void (chatOf(id).title = title),
    chatPin: async (id, pinned) => void (chatOf(id).pinned = pinned),
    chatDelete: async (id) => void (chatOf(id).deleted = Date.now()),
    chatRestore: async (id) => void (chatOf(id).deleted = null),
    chatsExport: async () => chats.filter((chat) => chat.deleted === null).length,
    chatsImport: async () => null,
    chatsImportCancel: async () => emit({ type: "import", progress: null }),
    chatsCount: async () => chats.length,
    chatsDeleteAll: async () => chats.splice(0).length,
    chatSetSystemPrompt: async (id, text) => void (chatOf(id).systemPrompt = text),
    chatSetFormat: async (id, format) => {
      if (format.type === "schema") {
        try {
          JSON.parse(format.schema);
        } catch {
          throw wireError("formatNotJson", "the schema is not JSON", { subject: "1:1" });
        }
      }
      chatOf(id).format = format;
    },
    chatSelect: async (id, message) => {
      const chat = chatOf(id);
      let leaf = message;
      for (let child; (child = chat.messages.findLast((next) => next.parent === leaf));) {
        leaf = child.id;
      }
      chat.path = pathTo(chat.messages, leaf);
      return shown(chat);
    },
    chatSend: async (args, onEvent) => {
      if (state.type !== "ready") {
        throw wireError("noModelLoaded", "no model is loaded");
      }
      talk.send(chatOf(args.chat), args, state.loaded.name, state.loaded.plan.context, onEvent);
    },
    chatStop: async (chat) => talk.stop(chat),

    openLink: async (url) => void window.open(url, "_blank", "noopener"),

    onEvent: async (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
