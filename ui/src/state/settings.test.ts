import { expect, test } from "vitest";
import { wireError, type Settings } from "../ipc";
import { fakeApi } from "../ipc/fake";
import { SettingsStore } from "./settings.svelte";

async function store(refuse: (settings: Settings) => boolean = () => false) {
  const fake = fakeApi({ pace: 0 });
  const told: unknown[] = [];
  const api = {
    ...fake,
    settingsSet: (settings: Settings) =>
      refuse(settings)
        ? Promise.reject(wireError("badArgument", "", { subject: "threads" }))
        : fake.settingsSet(settings),
  };
  const settings = new SettingsStore(api, (error) => told.push(error));
  settings.start({ ...(await fake.startup()), systemLanguage: "en" });
  return { fake, settings, told };
}

test("a change keeps what the program changed meanwhile", async () => {
  const { fake, settings } = await store();
  await fake.settingsSet({ ...(await fake.settingsGet()), extraFolders: ["/models"] });
  await settings.change({ theme: "dark" });
  expect(await fake.settingsGet()).toMatchObject({ theme: "dark", extraFolders: ["/models"] });
  expect(settings.current.extraFolders).toEqual(["/models"]);
});

test("changes that follow each other quickly are all kept, and shown at once", async () => {
  const { fake, settings } = await store();
  const first = settings.change({ theme: "dark" });
  const second = settings.change({ systemPrompt: "Be brief." });
  expect(settings.current).toMatchObject({ theme: "dark", systemPrompt: "Be brief." });
  await first;
  expect(settings.current.systemPrompt).toBe("Be brief.");
  await second;
  expect(await fake.settingsGet()).toMatchObject({ theme: "dark", systemPrompt: "Be brief." });
});

test("what is refused goes back and is told, by the field or in the corner", async () => {
  const { settings, told } = await store(({ threads }) => threads === 0);
  expect((await settings.attempt({ threads: 0 }))?.subject).toBe("threads");
  expect(settings.current.threads).toBe(null);
  expect(told).toHaveLength(0);
  await settings.change({ threads: 0 });
  expect(told).toHaveLength(1);
  expect(await settings.attempt({ threads: 4 })).toBe(null);
  expect(settings.current.threads).toBe(4);
});

test("the Hub's address is the one of this start, then the one of the settings", async () => {
  const { fake, settings } = await store();
  expect(settings.hub).toBe("https://huggingface.co");
  await settings.change({ hubEndpoint: "https://mirror.example/" });
  expect(settings.hub).toBe("https://mirror.example");
  settings.start({ ...(await fake.startup()), hubEndpoint: "http://127.0.0.1:9" });
  expect(settings.hub).toBe("http://127.0.0.1:9");
});
