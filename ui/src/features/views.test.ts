import { cleanup, configure, render, screen, waitFor, within } from "@testing-library/svelte";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, test, vi } from "vitest";
import Root from "../App.svelte";
import { wireError, type Api, type InstalledModel } from "../ipc";
import { fakeApi, type FakeOptions } from "../ipc/fake";
import { App } from "../state/app.svelte";
import { DEFAULT_LOAD } from "../state/model.svelte";
import type { Place } from "../state/navigation.svelte";

// A whole window is drawn in each test, perhaps on a busy machine.
configure({ asyncUtilTimeout: 15_000 });
vi.setConfig({ testTimeout: 60_000 });
afterEach(cleanup);

async function open(
  place: Place,
  options: FakeOptions = {},
  change: (fake: Api) => Partial<Api> = () => ({}),
) {
  const fake = fakeApi({ pace: 0, settings: { language: "en" }, ...options });
  const app = new App({ ...fake, ...change(fake) });
  app.navigation.go(place);
  render(Root, { app });
  await screen.findByRole("heading", { level: 1 });
  return { app, user: userEvent.setup() };
}

test("deleting a model asks with the bytes that it frees", async () => {
  const removed: string[] = [];
  const { user } = await open("models", {}, (fake) => ({
    libraryRemove: async (id) => {
      removed.push(id);
      await fake.libraryRemove(id);
    },
  }));
  const [first] = await screen.findAllByTestId("library-item");
  await user.click(within(first!).getByTestId("library-remove"));
  expect(screen.getByText(/Qwen3-8B-Q4_K_M is deleted from the disk. That frees 5.0 GB/)).toBeTruthy();
  expect(removed).toEqual([]);
  await user.click(screen.getByRole("button", { name: "Delete 5.0 GB" }));
  await waitFor(() => expect(screen.getAllByTestId("library-item")).toHaveLength(3));
  expect(removed).toEqual(["m1"]);
});

test("a model is verified, and a damaged part is named with what to do", async () => {
  let verified: InstalledModel["verified"] = null;
  let finish = () => {};
  let callOff = () => {};
  const asked: string[] = [];
  const started: string[] = [];
  const { app, user } = await open("models", {}, (fake) => ({
    libraryVerify: (id) => {
      asked.push(id);
      return new Promise((done, failed) => {
        finish = () => done({ at: Date.now(), files: [] });
        callOff = () => failed(wireError("cancelled", "cancelled"));
      });
    },
    libraryVerifyCancel: async () => callOff(),
    downloadStart: (repo, commit, quant) => {
      started.push(`${repo}:${quant}`);
      return fake.downloadStart(repo, commit, quant);
    },
    library: async () => {
      const [first, ...rest] = await fake.library();
      return [{ ...first!, verified }, ...rest];
    },
  }));
  const items = await screen.findAllByTestId("library-item");
  const [first, second] = items.map((item) => within(item));
  first!.getByRole("button", { name: "Verify Qwen3-8B-Q4_K_M" }).focus();
  await user.keyboard("{Enter}");
  expect(asked).toEqual(["m1"]);
  app.take({ type: "verify", modelId: "m1", progress: { bytes: 1.25e9, total: 5e9, secondsLeft: 90 } });
  const bar = await first!.findByRole("progressbar", { name: "Verification of Qwen3-8B-Q4_K_M" });
  expect(bar.getAttribute("aria-valuenow")).toBe("25");
  expect(first!.getByTestId("verify-progress").textContent).toContain("1.3 GB of 5.0 GB · 1 min 30 s left");
  expect(second!.getByTestId<HTMLButtonElement>("library-verify").disabled).toBe(true);
  // The same button calls it off, and keeps the focus.
  expect(document.activeElement?.getAttribute("aria-label")).toBe("Stop verifying Qwen3-8B-Q4_K_M");
  await user.keyboard("{Enter}");
  await waitFor(() => expect(first!.queryByTestId("verify-progress")).toBe(null));
  expect(app.toasts.list).toEqual([]);

  await user.keyboard("{Enter}");
  expect(asked).toEqual(["m1", "m1"]);
  const problem = wireError("fileDamaged", "", { subject: "/models/m-00002-of-00003.gguf" });
  const file = (n: number, more = {}) => ({
    path: `/models/m-0000${n}-of-00003.gguf`,
    compared: true,
    problem: null,
    ...more,
  });
  verified = { at: Date.now(), files: [file(1), file(2, { problem }), file(3)] };
  finish();
  app.take({ type: "library" });
  const status = first!.getByRole("status");
  await waitFor(() => expect(status.textContent).toContain("Not in order: 1 of 3 files."));
  expect(status.textContent).toContain(
    "m-00002-of-00003.gguf is damaged: its bytes are not those on Hugging Face.",
  );
  await user.click(first!.getByRole("button", { name: "Download again" }));
  await waitFor(() => expect(started).toEqual(["unsloth/Qwen3-8B-GGUF:Q4_K_M"]));
});

test.each([
  ["Qwen3-8B-Q4_K_M", /every byte is as on Hugging Face/],
  ["whisper-large-v3", /it is GGUF, and as long as it says. Its bytes cannot be compared/],
])("what a verification of %s could compare is said", async (name, words) => {
  const { user } = await open("models");
  const items = await screen.findAllByTestId("library-item");
  const item = within(items.find((item) => item.dataset.name === name)!);
  await user.click(item.getByTestId("library-verify"));
  await waitFor(() => expect(item.getByRole("status").textContent).toMatch(words));
  expect(item.queryByTestId("verify-again")).toBe(null);
});

test("Ctrl+N begins a chat from everywhere, Ctrl+L goes to the message box", async () => {
  const { app, user } = await open("models");
  const before = app.chats.current;
  await user.keyboard("{Control>}l{/Control}");
  const box = () => screen.getByTestId("message-input");
  await waitFor(() => expect(document.activeElement).toBe(box()));
  expect(app.chats.current).toBe(before);
  app.navigation.go("settings");
  await user.keyboard("{Control>}n{/Control}");
  await waitFor(() => expect(app.chats.current).not.toBe(before));
  await waitFor(() => expect(document.activeElement).toBe(box()));
});

test.each([
  ["en", "Architecture not supported yet: mamba9"],
  ["ja", "未対応のアーキテクチャ: mamba9"],
] as const)("a size that cannot run names its architecture (%s)", async (language, words) => {
  const { app } = await open("discover", { settings: { language } }, (fake) => ({
    hubPlan: async (repo, commit, quant, settings) => {
      const row = await fake.hubPlan(repo, commit, quant, settings);
      const problem = wireError("modelUnsupported", "no", { subject: quant === "F16" ? "mamba9" : null });
      return quant === "F16" || quant === "Q8_0" ? { ...row, plan: null, problem } : row;
    },
  }));
  app.navigation.repo = "unsloth/Qwen3-8B-GGUF";
  const text = async (quant: string) => {
    const rows = await screen.findAllByTestId("quant-row");
    return rows.find((row) => row.dataset.quant === quant)?.textContent;
  };
  await waitFor(async () => expect(await text("F16")).toContain(words));
  const [short] = words.split(":");
  await waitFor(async () =>
    expect(await text("Q8_0")).toMatch(language === "en" ? /Not supported yet/ : /未対応/),
  );
  expect(await text("Q8_0")).not.toContain(short);
});

test("a loaded model is not deleted, and says why", async () => {
  const { app, user } = await open("models");
  await app.model.load("m1", DEFAULT_LOAD);
  const [first] = await screen.findAllByTestId("library-item");
  await user.click(within(first!).getByTestId("library-remove"));
  expect(screen.getByText(/is in use. Unload it first/)).toBeTruthy();
  expect(screen.queryByRole("button", { name: "Delete 5.0 GB" })).toBe(null);
});

test("only models of our own folder can be deleted, and broken ones not loaded", async () => {
  await open("models");
  const items = await screen.findAllByTestId("library-item");
  const removable = items.filter((item) => within(item).queryByTestId("library-remove"));
  expect(removable.map((item) => item.dataset.name)).toEqual([
    "Qwen3-8B-Q4_K_M",
    "Llama-3.3-70B-Instruct-Q4_K_M",
  ]);
  const broken = items.find((item) => item.dataset.name === "whisper-large-v3")!;
  expect(within(broken).getByTestId<HTMLButtonElement>("library-load").disabled).toBe(true);
  expect(within(broken).getByText(/does not run whisper/)).toBeTruthy();
});

test("cancelling a download asks with the bytes that are lost; a finished one only leaves the list", async () => {
  const cancelled: string[] = [];
  const { app, user } = await open("models", {}, () => ({
    downloadCancel: async (id) => void cancelled.push(id),
  }));
  const download = {
    id: "d1",
    repo: "unsloth/Qwen3-8B-GGUF",
    quant: "Q8_0",
    state: "running" as const,
    bytes: 3.1e9,
    total: 8.7e9,
    bytesPerSecond: 84e6,
    secondsLeft: 67,
    modelId: null,
    error: null,
  };
  app.take({ type: "download", download });
  const item = await screen.findByTestId("download-item");
  const bar = within(item).getByRole("progressbar", { name: "Download of Qwen3-8B Q8_0" });
  expect(bar.getAttribute("aria-valuetext")).toBe("3.1 GB of 8.7 GB · 84 MB/s · 1 min 7 s left");
  await user.click(within(item).getByTestId("download-cancel"));
  expect(screen.getByText("3.1 GB of Qwen3-8B Q8_0 have arrived and will be deleted.")).toBeTruthy();
  expect(cancelled).toEqual([]);
  await user.click(screen.getByRole("button", { name: "Delete 3.1 GB" }));
  expect(cancelled).toEqual(["d1"]);

  app.take({ type: "download", download: { ...download, state: "done", modelId: "m1" } });
  await user.click(await screen.findByRole("button", { name: "Remove Qwen3-8B Q8_0 from this list" }));
  expect(cancelled).toEqual(["d1", "d1"]);
  app.take({ type: "download", download: { ...download, state: "cancelled" } });
  await waitFor(() => expect(screen.queryByTestId("download-item")).toBe(null));
});

test("a refused setting is told at its field, and what was typed stays", async () => {
  const { app, user } = await open("settings", {}, (fake) => ({
    settingsSet: (settings) => {
      if (settings.hubEndpoint !== null && !settings.hubEndpoint.startsWith("http")) {
        return Promise.reject(wireError("badArgument", "no address", { subject: "hubEndpoint" }));
      }
      return fake.settingsSet(settings);
    },
  }));
  const field = screen.getByTestId<HTMLInputElement>("settings-endpoint");
  await user.type(field, "mirror.example");
  await user.tab();
  expect(await screen.findByText(/begins with http/)).toBeTruthy();
  expect(field.value).toBe("mirror.example");
  expect(field.getAttribute("aria-invalid")).toBe("true");
  expect(app.settings.current.hubEndpoint).toBe(null);

  await user.clear(field);
  await user.type(field, "https://mirror.example");
  await user.tab();
  expect(await screen.findByText("Saved")).toBeTruthy();
  expect(app.settings.current.hubEndpoint).toBe("https://mirror.example");
  expect(field.getAttribute("aria-invalid")).toBe(null);
});

test("the token is sent and not kept in the window", async () => {
  const tokens: (string | null)[] = [];
  const { app, user } = await open("settings", {}, (fake) => ({
    hubTokenSet: (token) => {
      tokens.push(token);
      return fake.hubTokenSet(token);
    },
  }));
  const field = screen.getByTestId<HTMLInputElement>("settings-token");
  await user.type(field, " hf_secret {Enter}");
  await waitFor(() => expect(app.settings.current.hasHubToken).toBe(true));
  expect(tokens).toEqual(["hf_secret"]);
  expect(field.value).toBe("");
  expect(document.body.textContent).not.toContain("hf_secret");
});

test("disk space for chats is chosen, and a chat that has none left is told by name", async () => {
  const { app, user } = await open("settings");
  const sizes = await screen.findByTestId<HTMLSelectElement>("settings-chat-memory");
  expect(sizes.selectedOptions[0]?.textContent).toBe("Up to 4.0 GB");
  await user.selectOptions(sizes, "None");
  await waitFor(() => expect(app.settings.current.chatMemory).toBe(0));
  expect((await app.api.settingsGet()).chatMemory).toBe(0);
  app.take({ type: "forgotten", chat: "1", title: "Holidays" });
  expect(await screen.findByText(/no room to keep “Holidays” ready/)).toBeTruthy();
});

test("without a network Discover says what still works", async () => {
  const { user } = await open("discover");
  await user.type(screen.getByTestId("discover-search"), "offline");
  await user.click(screen.getByTestId("discover-submit"));
  expect(await screen.findByText(/Models in your library work without a network/)).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Open my models" }));
  expect(await screen.findAllByTestId("library-item")).toHaveLength(4);
});

test("only what fits is shown, and what it is judged by is said", async () => {
  const asked: boolean[] = [];
  const { app, user } = await open("discover", {}, (fake) => ({
    hubSearch: async (query) => {
      asked.push(query.parameters);
      const page = await fake.hubSearch(query);
      const sizes = [8e9, 900e9, null];
      return {
        ...page,
        models: page.models
          .slice(0, 3)
          .map((model, i) => ({ ...model, repo: `a/m${i}`, parameters: sizes[i] ?? null })),
      };
    },
  }));
  await user.click(screen.getByTestId("discover-submit"));
  const shown = () => screen.queryAllByTestId("discover-result").map((button) => button.dataset.repo);
  await waitFor(() => expect(shown()).toEqual(["a/m0", "a/m1", "a/m2"]));
  const filter = screen.getByRole("switch", { name: "Fits my PC" });
  expect(document.getElementById(filter.getAttribute("aria-describedby")!)?.textContent).toMatch(
    /By the number of parameters.*video memory and .* of RAM are free/,
  );
  filter.focus();
  await user.keyboard(" ");
  await waitFor(() => expect(shown()).toEqual(["a/m0"]));
  expect(asked).toEqual([false, true]);
  expect(screen.getByText("1 of the first 3 models fit")).toBeTruthy();
  expect(screen.getByText("1 is not shown, because nothing says how large it is.")).toBeTruthy();
  expect(document.activeElement).toBe(filter);
  await user.keyboard(" ");
  await waitFor(() => expect(shown()).toHaveLength(3));
  expect(app.search.fits).toBe(false);
});

test("from a search to a model in the library", async () => {
  const { user } = await open("discover", { empty: true });
  await user.type(screen.getByTestId("discover-search"), "bartowski qwen3-8b");
  await user.click(screen.getByTestId("discover-submit"));
  const result = await waitFor(() => {
    const found = screen.getAllByTestId("discover-result");
    expect(found.map((button) => button.dataset.repo)).toEqual(["bartowski/Qwen3-8B-GGUF"]);
    return found[0]!;
  });
  await user.click(result);
  const row = await waitFor(() => {
    const row = screen.getAllByTestId("quant-row").find((row) => row.dataset.quant === "Q4_K_M")!;
    expect(within(row).getByText(/All on the GPU/)).toBeTruthy();
    return row;
  });
  await user.click(within(row).getByTestId("quant-download"));
  await screen.findByTestId("download-load");
  expect(await within(row).findByTestId("quant-load")).toBeTruthy();
});

test("a download that failed can be tried again in its row", async () => {
  const resumed: string[] = [];
  const { app, user } = await open("discover", {}, () => ({
    downloadResume: async (id) => {
      resumed.push(id);
    },
  }));
  app.downloads.take({
    id: "7",
    repo: "bartowski/Qwen3-8B-GGUF",
    quant: "Q4_K_M",
    state: "failed",
    bytes: 0,
    total: 5e9,
    bytesPerSecond: 0,
    secondsLeft: null,
    modelId: null,
    error: wireError("diskFull", ""),
  });
  app.navigation.openRepo("bartowski/Qwen3-8B-GGUF");
  await user.click(await screen.findByRole("button", { name: "Try to download Q4_K_M again" }));
  expect(resumed).toEqual(["7"]);
});

test("where the token is refused, the first way out is to enter another one", async () => {
  const { user } = await open("discover", {}, () => ({
    hubSearch: () => Promise.reject(wireError("tokenRefused", "")),
  }));
  await user.type(screen.getByTestId("discover-search"), "qwen");
  await user.click(screen.getByTestId("discover-submit"));
  await screen.findByRole("heading", { name: "Your access token does not work" });
  const ways = screen.getAllByRole("button", { name: /Open Settings|Try again/ });
  expect(ways.map((way) => way.textContent?.trim())).toEqual(["Open Settings", "Try again"]);
  await user.click(ways[0]!);
  await waitFor(() => expect(document.activeElement).toBe(screen.getByTestId("settings-token")));
});

test("the hardware page says why no GPU is used and what to do, and invents no numbers", async () => {
  const { user } = await open("hardware", { gpuReason: { type: "noDriver" } });
  const reason = await screen.findByTestId("hardware-gpu-reason");
  expect(reason.textContent).toContain("No NVIDIA driver found");
  expect(reason.textContent).toContain("install its driver");
  expect(screen.getAllByText("not measured yet")).toHaveLength(2);
  await user.click(screen.getByTestId("hardware-measure"));
  expect(await screen.findByText("61.3 GB/s")).toBeTruthy();
});

test("a speed that nobody knows is no number, and says how to know it", async () => {
  const { app, user } = await open("discover", {}, (fake) => ({
    hubPlan: async (...args) => {
      const row = await fake.hubPlan(...args);
      const measured = (await fake.hardware()).ramBandwidth !== null;
      return measured || !row.plan ? row : { ...row, plan: { ...row.plan, forecast: null } };
    },
  }));
  app.navigation.openRepo("unsloth/Qwen3-8B-GGUF");
  const row = (await screen.findAllByTestId("quant-row"))[0]!;
  expect(await within(row).findByText("not known")).toBeTruthy();
  await user.click(await screen.findByRole("button", { name: "Measure now" }));
  expect(await within(row).findByText(/tok\/s/)).toBeTruthy();
});

test("terms are told once, with the way to the token", async () => {
  const { app, user } = await open("discover");
  app.navigation.openRepo("ggml-org/gemma-3-12b-it-GGUF");
  await waitFor(() => expect(screen.getAllByText("Terms not accepted yet")).toHaveLength(7));
  expect(screen.getAllByText(/asks you to accept its terms/)).toHaveLength(1);
  const buttons = screen.getAllByTestId<HTMLButtonElement>("quant-download");
  expect(buttons.every((button) => button.disabled)).toBe(true);
  await user.click(screen.getByRole("button", { name: "Add token" }));
  await waitFor(() => expect(document.activeElement).toBe(screen.getByTestId("settings-token")));
});

test("the first model loads by itself, if nothing else is loaded", async () => {
  const { app, user } = await open("discover", { empty: true });
  const suggestions = await screen.findByTestId("discover-recommended");
  await user.click((await within(suggestions).findAllByRole("button", { name: "Download" }))[0]!);
  await waitFor(() => expect(app.model.loaded?.name).toBe("Qwen3-8B-Q4_K_M"));
  expect(app.navigation.place).toBe("discover");
});

test("back from a model's page, the focus is where it was", async () => {
  const { user } = await open("discover");
  const suggestions = await screen.findByTestId("discover-recommended");
  const button = await within(suggestions).findByRole("button", { name: /gpt-oss-20b/ });
  await user.click(button);
  expect(document.activeElement).toBe(screen.getByRole("heading", { level: 1, name: "gpt-oss-20b" }));
  await user.click(screen.getByRole("button", { name: "Back" }));
  await waitFor(() => {
    expect((document.activeElement as HTMLElement).dataset.repo).toBe("ggml-org/gpt-oss-20b-GGUF");
  });
});

test("all chats are deleted only after a question", async () => {
  const { app, user } = await open("settings");
  expect(app.chats.list.length).toBeGreaterThan(0);
  await user.click(await screen.findByTestId("settings-delete-chats"));
  const dialog = await screen.findByRole("dialog");
  expect(app.chats.list.length).toBeGreaterThan(0);
  await user.click(within(dialog).getByTestId("confirm"));
  await screen.findByText(/chats deleted\./);
  expect(app.chats.list).toEqual([]);
  expect(app.chats.shown).toBeNull();
});

test("an import of chats says how far it is, and can be called off", async () => {
  let end = (_: unknown) => {};
  let cancelled = 0;
  const { app, user } = await open("settings", {}, () => ({
    chatsImport: () => new Promise((_, reject) => (end = reject)),
    chatsImportCancel: async () => void (cancelled += 1),
  }));
  await user.click(await screen.findByRole("button", { name: "Import chats" }));
  expect(screen.queryByTestId("import-progress")).toBe(null);
  app.take({ type: "import", progress: { bytes: 250e6, total: 1e9, secondsLeft: 90 } });
  const progress = await screen.findByTestId("import-progress");
  expect(progress.textContent).toContain("250 MB of 1.0 GB · 1 min 30 s left");
  expect(within(progress).getByRole("progressbar").getAttribute("aria-valuenow")).toBe("25");
  await user.click(within(progress).getByRole("button", { name: "Cancel" }));
  expect(cancelled).toBe(1);
  app.take({ type: "import", progress: null });
  end(wireError("cancelled", "the import was called off"));
  expect(await screen.findByText("Import cancelled. Nothing was added.")).toBeTruthy();
  expect(screen.queryByTestId("import-progress")).toBe(null);
});

test("a window that was loaded anew finds the import, and its chats at the end", async () => {
  const { app } = await open("settings");
  app.take({ type: "import", progress: { bytes: 1e6, total: 0, secondsLeft: null } });
  const progress = await screen.findByTestId("import-progress");
  expect(within(progress).getByRole("progressbar").getAttribute("aria-valuenow")).toBe(null);
  await app.api.chatCreate();
  const before = app.chats.list.length;
  app.take({ type: "import", progress: null });
  await waitFor(() => expect(app.chats.list).toHaveLength(before + 1));
});
