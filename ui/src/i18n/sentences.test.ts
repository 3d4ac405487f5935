import { beforeEach, expect, test } from "vitest";
import { wireError, type ErrorCode, type Plan } from "../ipc";
import { en } from "./en";
import { setLanguage } from "./index.svelte";
import { errorSentence, gpuReasonSentence, reasonSentence, recoverySentence } from "./sentences";

beforeEach(() => setLanguage("en"));

/** Every code, so that a new one does not compile without being here. */
const CODES: Record<ErrorCode, true> = {
  fileMissing: true,
  archiveInvalid: true,
  fileInvalid: true,
  fileTruncated: true,
  fileDamaged: true,
  fileAccess: true,
  fileUnreadable: true,
  fileName: true,
  folderAccess: true,
  modelUnsupported: true,
  templateFailed: true,
  draftVocabulary: true,
  draftMissing: true,
  ramFull: true,
  vramFull: true,
  diskFull: true,
  contextFull: true,
  noModelLoaded: true,
  busy: true,
  cancelled: true,
  offline: true,
  needsToken: true,
  tokenRefused: true,
  needsTerms: true,
  notFound: true,
  portTaken: true,
  rateLimited: true,
  checksumMismatch: true,
  hubAnswer: true,
  badArgument: true,
  formatNotJson: true,
  formatInvalid: true,
  formatTooComplex: true,
  formatStuck: true,
  storage: true,
  internal: true,
};

const codes = Object.keys(CODES) as ErrorCode[];

test.each(codes)("%s has a sentence in both languages, with and without numbers", (code) => {
  for (const language of ["en", "ja"] as const) {
    setLanguage(language);
    for (const more of [{}, { needed: 38.2e9, available: 21.4e9, subject: "a.gguf", retryAfter: 60 }]) {
      const sentence = errorSentence(wireError(code, "details", more));
      expect(sentence.length).toBeGreaterThan(4);
      expect(sentence).not.toMatch(/[{}]|undefined|null/);
      expect(sentence).not.toContain(code);
    }
  }
});

test("numbers are said where they are known", () => {
  const full = wireError("ramFull", "", { needed: 38.2e9, available: 21.4e9 });
  expect(errorSentence(full)).toContain("Needs 38.2 GB of RAM, 21.4 GB is free");
  expect(errorSentence(wireError("contextFull", "", { needed: 9000, available: 8192 }))).toContain(
    "9,000 tokens",
  );
  expect(errorSentence(wireError("rateLimited", "", { retryAfter: 90 }))).toContain("in 1 min 30 s");
});

test("a file is named without its folders", () => {
  for (const subject of ["/models/a.gguf", "C:\\models\\a.gguf", "a.gguf"]) {
    expect(errorSentence(wireError("fileInvalid", "", { subject }))).toMatch(/^a\.gguf is not/);
  }
  expect(errorSentence(wireError("needsToken", "", { subject: "owner/name" }))).toMatch(/^owner\/name needs/);
});

test("of a split model it is said which part is missing", () => {
  const missing = (subject: string) => errorSentence(wireError("fileMissing", "", { subject }));
  expect(missing("/models/big-00001-of-00012.gguf")).toMatch(
    /^Part 1 of 12 is missing: big-00001-of-00012\.gguf\./,
  );
  expect(missing("/models/big.gguf")).toMatch(/^big\.gguf is not there any more/);
  setLanguage("ja");
  expect(missing("C:\\big-00010-of-00012.GGUF")).toContain("12個のファイルに分かれたモデルの10番目");
});

test("a folder for downloads is named in full, and a wrong token is not asked for as a missing one", () => {
  const folder = errorSentence(wireError("folderAccess", "", { subject: "E:\\models\\owner\\name" }));
  expect(folder).toContain("E:\\models\\owner\\name");
  expect(errorSentence(wireError("tokenRefused", ""))).toMatch(/does not accept your token/);
});

test("a code that this window does not know is told in the program's words", () => {
  const unknown = wireError("fromTheFuture" as ErrorCode, "the flux is low");
  expect(errorSentence(unknown)).toBe("the flux is low");
});

test("plans are explained with their numbers", () => {
  const numbers = { gpuLayers: 28, layers: 33, maxGpuLayers: 23, context: 8192, contextMax: 32768 };
  const plan = { ...numbers, gpus: [] as Plan["gpus"] } as Plan;
  const reason = { code: "beyondAccelerator", text: "english", needed: 9e9, available: 7.4e9 };
  expect(reasonSentence(reason, plan)).toBe(
    "28 layers need 9.0 GB of video memory, 7.4 GB is free. At most 23 layers fit.",
  );
  expect(reasonSentence({ ...reason, code: "unknown" }, plan)).toBe("english");
  const parts = { weights: 0, kv: 0, compute: 0, other: 0, total: 0 };
  const gpu = (name: string, layers: number) => ({ name, layers, parts, available: 0 });
  const several = { ...plan, gpus: [gpu("A", 20), gpu("B", 0), gpu("C", 8)] };
  expect(reasonSentence({ ...reason, code: "severalAccelerators" }, several)).toBe(
    "No single GPU holds these layers: 20 on A, 8 on C.",
  );
});

test("recoveries and missing GPUs are told as the design says", () => {
  const notice = {
    cause: "vramFull",
    gpu: null,
    layersShifted: 0,
    layersMoved: 4,
    expertsMoved: 0,
    gpuLayers: 8,
    layers: 33,
    duringAnswer: true,
  };
  expect(recoverySentence(notice)).toBe("VRAM ran out: 4 layers moved to RAM, the answer went on.");
  expect(recoverySentence({ ...notice, layersMoved: 1, duringAnswer: false })).toBe(
    "VRAM is full: 1 layer stayed in RAM.",
  );
  expect(recoverySentence({ ...notice, cause: "other" })).toBe("Moved to RAM: 4 layers.");
  const experts = { ...notice, layersMoved: 0, expertsMoved: 3 };
  expect(recoverySentence(experts)).toBe(
    "VRAM ran out: the experts of 3 layers moved to RAM, the answer went on.",
  );
  expect(recoverySentence({ ...experts, layersMoved: 2 })).toContain(
    "2 layers and the experts of 3 more moved",
  );
  expect(recoverySentence({ ...notice, cause: "vramFree", duringAnswer: false })).toBe(
    "Video memory is free again: 4 layers can go back to the GPU.",
  );
  expect(recoverySentence({ ...notice, cause: "gpuBack", duringAnswer: false })).toBe(
    "The GPU works again: 4 layers can go back to it.",
  );
  const shifted = { ...notice, gpu: "RTX A2000", layersMoved: 0, layersShifted: 2 };
  expect(recoverySentence(shifted)).toBe(
    "RTX A2000: VRAM ran out: 2 layers moved to another GPU, the answer went on.",
  );
  expect(recoverySentence({ ...shifted, gpu: null, duringAnswer: false })).toBe(
    "VRAM is full: 2 layers went to another GPU.",
  );
  expect(recoverySentence({ ...shifted, layersMoved: 1, layersShifted: 1 })).toBe(
    "RTX A2000: VRAM ran out: 1 layer moved to RAM, the answer went on. 1 layer moved to another GPU.",
  );
  expect(gpuReasonSentence({ type: "noDriver" })).toBe(en.plan.gpu_noDriver);
  setLanguage("ja");
  expect(recoverySentence(shifted)).toBe(
    "RTX A2000: VRAMが不足したため2層を別のGPUに移し、回答を続けました。",
  );
  expect(recoverySentence(notice)).toBe("VRAMが不足したため4層をRAMに移し、回答を続けました。");
  expect(recoverySentence(experts)).toBe(
    "VRAMが不足したため3層分のエキスパートをRAMに移し、回答を続けました。",
  );
});
