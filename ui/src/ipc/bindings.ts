// Generated from crates/app/src/wire by `cargo xtask bindings`. Do not edit.

export type Language = "en" | "ja";

export type LanguageChoice = "auto" | "en" | "ja";

export type Theme = "system" | "light" | "dark";

export type ContextPolicy = "stop" | "dropOldest";

export type Sampling = { 
/**
 * 0: always the likeliest token.
 */
temperature: number, 
/**
 * 0: off.
 */
topK: number, topP: number, minP: number, repeatPenalty: number, presencePenalty: number, frequencyPenalty: number, 
/**
 * null: another one each time.
 */
seed: number | null, 
/**
 * Tokens an answer may have; null: until the model ends or the context is full.
 */
maxTokens: number | null, };

export type GpuName = { 
/**
 * [`Gpu::id`](super::Gpu)
 */
id: string, 
/**
 * Empty: not known.
 */
name: string, };

export type GpuChoice = { "type": "all" } | { "type": "only", gpus: Array<GpuName>, };

export type ServerSettings = { on: boolean, 
/**
 * At least 1024: below, systems want rights that nobody should give.
 */
port: number, };

export type Settings = { language: LanguageChoice, theme: Theme, 
/**
 * Where downloads go. null: the default folder.
 */
modelsFolder: string | null, 
/**
 * More folders with GGUF files, shown in the library and never written to.
 */
extraFolders: Array<string>, 
/**
 * Show models that other programs keep in the Hugging Face cache.
 */
useHfCache: boolean, 
/**
 * null: https://huggingface.co, or HF_ENDPOINT.
 */
hubEndpoint: string | null, 
/**
 * Whether a token is stored; the token itself never goes to the window.
 */
hasHubToken: boolean, contextPolicy: ContextPolicy, 
/**
 * Whether models that can do both think before they answer; null: as each does by itself.
 */
thinking: boolean | null, systemPrompt: string, sampling: Sampling, 
/**
 * Threads for computing; null: as many as there are physical cores.
 */
threads: number | null, 
/**
 * Leave one core to other programs.
 */
leaveResponsive: boolean, 
/**
 * The GPUs that layers go to, from the next load on.
 */
gpus: GpuChoice, 
/**
 * Bytes on disk for what models remember of chats, so that these need not be read again; 0: none.
 */
chatMemory: number, server: ServerSettings, 
/**
 * Load settings last used, by model id.
 */
load: { [key in string]: LoadSettings }, inspectorOpen: boolean, };

export type ErrorCode = "fileMissing" | "fileInvalid" | "archiveInvalid" | "fileTruncated" | "fileDamaged" | "fileAccess" | "fileUnreadable" | "fileName" | "folderAccess" | "modelUnsupported" | "templateFailed" | "draftVocabulary" | "draftMissing" | "ramFull" | "vramFull" | "diskFull" | "contextFull" | "noModelLoaded" | "busy" | "cancelled" | "offline" | "needsToken" | "tokenRefused" | "needsTerms" | "notFound" | "portTaken" | "rateLimited" | "checksumMismatch" | "hubAnswer" | "badArgument" | "formatNotJson" | "formatInvalid" | "formatTooComplex" | "formatStuck" | "storage" | "internal";

export type WireError = { code: ErrorCode, 
/**
 * English, for logs and for codes that the window does not know.
 */
message: string, 
/**
 * Bytes (or tokens, for `contextFull`) that were needed and that were there.
 */
needed: number | null, available: number | null, 
/**
 * The name the sentence is about: a file, a repository, an architecture.
 */
subject: string | null, 
/**
 * Seconds to wait, for `rateLimited`.
 */
retryAfter: number | null, };

export type ServerState = { "type": "off" } | { "type": "on", url: string, } | { "type": "failed", error: WireError, };

export type GpuReason = { "type": "noDriver" } | { "type": "driverTooOld", found: string, needed: string, } | { "type": "noDevice" } | { "type": "deviceTooOld", found: string, needed: string, } | { "type": "badState", detail: string, } | { "type": "turnedOff" } | { "type": "noneChosen" };

export type Gpu = { 
/**
 * For [`GpuName::id`](super::GpuName).
 */
id: string, name: string, vramTotal: number, 
/**
 * null: not known of a GPU that is not used.
 */
vramFree: number | null, driver: string | null, 
/**
 * "8.9"
 */
computeCapability: string | null, 
/**
 * It takes layers; others could be chosen.
 */
used: boolean, 
/**
 * The test device, not a real card.
 */
isTestDevice: boolean, };

export type HardwareReport = { cpuName: string, physicalCores: number, logicalCores: number, 
/**
 * The instruction sets that the kernels use here ("AVX2", ...).
 */
cpuFeatures: Array<string>, ramTotal: number, ramAvailable: number, 
/**
 * GPUs that can take layers, those that do first, in the order in which they are filled.
 */
gpus: Array<Gpu>, 
/**
 * Why none of them does. Those that were asked for and cannot be used are not in `gpus`.
 */
gpuReason: GpuReason | null, modelsDiskFree: number | null, 
/**
 * Bytes per second; null until measured.
 */
ramBandwidth: number | null, diskBandwidth: number | null, measuring: boolean, };

export type Throttle = "heat" | "powerLimit" | "powerSupply" | "hardware";

export type GpuProgram = { pid: number, name: string | null, 
/**
 * Bytes; Windows does not tell.
 */
vram: number | null, 
/**
 * It is this program.
 */
own: boolean, };

export type GpuFigures = { name: string, total: number, free: number, 
/**
 * What our own buffers take.
 */
own: number, 
/**
 * 0..1
 */
load: number | null, 
/**
 * Degrees Celsius.
 */
temperature: number | null, 
/**
 * Empty: nothing slows it down.
 */
throttling: Array<Throttle> | null, 
/**
 * Those that hold most first.
 */
programs: Array<GpuProgram> | null, };

export type MonitorSample = { at: number, ramTotal: number, ramAvailable: number, 
/**
 * This process: private (anonymous) and resident bytes.
 */
ownPrivate: number | null, ownResident: number | null, 
/**
 * Those that take layers; where there is none, the first that could.
 */
gpus: Array<GpuFigures>, 
/**
 * 0..1
 */
cpuLoad: number | null, };

export type KvType = "f32" | "f16" | "bf16" | "q8_0" | "q5_1" | "q5_0" | "q4_1" | "q4_0" | "iq4_nl";

export type GpuLayers = { "type": "auto" } | { "type": "fixed", layers: number, };

export type LoadSettings = { gpuLayers: GpuLayers, 
/**
 * So many of the first layers of a mixture of experts leave their routed experts in RAM; null: the planner's choice.
 */
cpuMoe: number | null, 
/**
 * Tokens; null: the planner's choice.
 */
context: number | null, kvTypeK: KvType, kvTypeV: KvType, 
/**
 * Id of an installed model that guesses for this one ([`crate::App::draft_models`]); null: none.
 */
draft: string | null, };

export type Fits = "gpu" | "split" | "ram" | "disk" | "no";

export type MemoryParts = { weights: number, kv: number, compute: number, other: number, total: number, };

export type GpuShare = { name: string, layers: number, parts: MemoryParts, available: number, };

export type Reason = { 
/**
 * "noAccelerator", "allOnAccelerator", "acceleratorHolds", "acceleratorTooSmall", "beyondAccelerator", "acceleratorLacks",
 * "expertsInRam", "promptsStreamed", "severalAccelerators", "contextReduced", "contextBeyondTraining", "weightsFromDisk",
 * "ramShort", "kvLarge", "draftModel"
 */
code: string, 
/**
 * English.
 */
text: string, needed: number | null, available: number | null, };

export type Forecast = { tgLow: number, tgHigh: number, 
/**
 * Null where only the speed of answers is known.
 */
ppLow: number | null, ppHigh: number | null, };

export type Plan = { 
/**
 * Layers on GPUs, of `layers` (the output layer is the last one).
 */
gpuLayers: number, layers: number, 
/**
 * What the planner would choose.
 */
recommendedGpuLayers: number, 
/**
 * More than this does not fit.
 */
maxGpuLayers: number, 
/**
 * Layers before this one leave their routed experts in RAM.
 */
cpuMoe: number, 
/**
 * Layers that have routed experts (0: no mixture of experts), and those on GPUs whose experts are in RAM.
 */
expertLayers: number, expertsApart: number, context: number, 
/**
 * The most tokens the model was trained for.
 */
contextMax: number, fits: Fits, ram: MemoryParts, 
/**
 * Of all GPUs.
 */
vram: MemoryParts, ramAvailable: number, vramAvailable: number, 
/**
 * The same by GPU, also of those that are given nothing.
 */
gpus: Array<GpuShare>, 
/**
 * Prompts of so many tokens or more are computed on a GPU also in what is in RAM; null: none are.
 */
streamFrom: number | null, forecast: Forecast | null, reasons: Array<Reason>, };

export type ModelSource = "library" | "folder" | "hfCache" | "bundled";

export type VerifiedFile = { path: string, 
/**
 * Its SHA-256 was compared with the one that the Hub gave. Where none is known, only the header was looked at, and
 * whether the file is as long as that says.
 */
compared: boolean, problem: WireError | null, };

export type Verified = { at: number, 
/**
 * In the order of the parts.
 */
files: Array<VerifiedFile>, };

export type InstalledModel = { 
/**
 * Stable as long as the file stays where it is.
 */
id: string, name: string, path: string, source: ModelSource, 
/**
 * "owner/name" if it was downloaded.
 */
repo: string | null, quant: string | null, architecture: string | null, parameters: number | null, bytes: number, contextMax: number | null, layers: number | null, lastUsed: number | null, 
/**
 * Why it cannot be loaded, if so.
 */
problem: WireError | null, 
/**
 * What its verification has found since the program began, if its files are still as they were then.
 */
verified: Verified | null, };

export type Compiling = { done: number, of: number, };

export type OpenedFile = { modelId: string, 
/**
 * It was not in the library before.
 */
added: boolean, };

export type LoadStage = { "type": "compiling" } & Compiling | { "type": "layers" };

export type ModelState = { "type": "none" } | { "type": "loading", modelId: string, name: string, stage: LoadStage, 
/**
 * Of this stage, 0..1
 */
progress: number, } | { "type": "ready", loaded: LoadedModel, } | { "type": "failed", modelId: string, name: string, error: WireError, };

export type GpuUse = { name: string, 
/**
 * Layers that are on it now, and the bytes that our buffers take.
 */
layers: number, used: number, 
/**
 * It does not answer any more.
 */
lost: boolean, };

export type LoadedModel = { modelId: string, name: string, 
/**
 * As asked for.
 */
settings: LoadSettings, 
/**
 * As planned for the placement that holds now.
 */
plan: Plan, 
/**
 * What layers on their way to a GPU wait for.
 */
compiling: Compiling | null, 
/**
 * Layers on GPUs now; differs from the plan while layers move.
 */
gpuLayers: number, 
/**
 * Layers before this one have their routed experts in RAM now.
 */
cpuMoe: number, 
/**
 * Bytes our buffers really take now.
 */
ramUsed: number, vramUsed: number, 
/**
 * The devices that take layers, or why there are none.
 */
gpus: Array<GpuUse>, gpuReason: GpuReason | null, 
/**
 * The model's chat template is missing: a plain one is used.
 */
templateMissing: boolean, 
/**
 * Why the draft model of the settings is not used, if so.
 */
draftProblem: WireError | null, 
/**
 * Whether it thinks before it answers can be chosen: [`Settings::thinking`](super::Settings::thinking).
 */
thinkingSwitch: boolean, };

export type RecoveryNotice = { 
/**
 * "vramFull", "deviceLost"; "vramFree": there is room again; "gpuBack": a lost GPU answers again
 */
cause: string, 
/**
 * The GPU that it is about, where there is more than one.
 */
gpu: string | null, 
/**
 * To RAM; with the last two those that can go back.
 */
layersMoved: number, 
/**
 * To other GPUs.
 */
layersShifted: number, 
/**
 * Layers that stay on GPUs and whose routed experts were moved, or can go back.
 */
expertsMoved: number, gpuLayers: number, layers: number, 
/**
 * An answer was running and went on.
 */
duringAnswer: boolean, };

export type HubSort = "downloads" | "likes" | "trending" | "updated";

export type HubQuery = { text: string, sort: HubSort, 
/**
 * From the page before.
 */
cursor: string | null, 
/**
 * [`HubModel::parameters`] are wanted. The Hub's answer is then many times as long.
 */
parameters: boolean, };

export type HubModel = { repo: string, downloads: number | null, likes: number | null, updated: number | null, gated: boolean, 
/**
 * null: not asked for, or the Hub does not know.
 */
parameters: number | null, 
/**
 * From the built-in list: family and a word on what it is good for ("chat", "reasoning", "code", "small").
 */
note: string | null, };

export type HubPage = { models: Array<HubModel>, next: string | null, };

export type Quality = "original" | "nearOriginal" | "veryGood" | "balanced" | "reduced" | "visiblyWorse";

export type HeaderFacts = { architecture: string, parameters: number, 
/**
 * The most tokens the model was trained for.
 */
contextMax: number, };

export type QuantRow = { quant: string, files: Array<string>, bytes: number, 
/**
 * Null until the header is known; the same for all rows, as a repository holds one model.
 */
header: HeaderFacts | null, 
/**
 * Null until the header is known.
 */
bitsPerWeight: number | null, quality: Quality | null, plan: Plan | null, 
/**
 * The one to take on this PC, with why ("fitsGpu", "fitsRam", "bestQuality", "smallest").
 */
recommended: string | null, 
/**
 * The id in the library if it is there already.
 */
installed: string | null, 
/**
 * Why there is no plan.
 */
problem: WireError | null, };

export type HubModelPage = { repo: string, commit: string, gated: boolean, quants: Array<QuantRow>, };

export type DownloadState = "queued" | "running" | "waiting" | "paused" | "verifying" | "done" | "failed" | "cancelled";

export type Download = { id: string, repo: string, quant: string, state: DownloadState, bytes: number, total: number, bytesPerSecond: number, secondsLeft: number | null, 
/**
 * The model in the library, when done.
 */
modelId: string | null, error: WireError | null, };

export type ChatSummary = { id: string, title: string, pinned: boolean, updated: number, 
/**
 * In the bin since then; deleted for good 30 days later.
 */
deleted: number | null, 
/**
 * Where the search words were found.
 */
snippet: string | null, };

export type AnswerFormat = { "type": "text" } | { "type": "json" } | { "type": "schema", schema: string, };

export type Role = "system" | "user" | "assistant";

export type FinishReason = "end" | "stopped" | "length" | "contextFull" | "error" | "interrupted";

export type AnswerStats = { promptTokens: number, 
/**
 * Of those, taken from the turn before.
 */
reusedTokens: number, answerTokens: number, firstTokenMs: number, tokensPerSecond: number, promptTokensPerSecond: number, contextUsed: number, context: number, 
/**
 * Tokens that were guessed and computed ahead, and those of them that the answer has.
 */
drafted: number, accepted: number, };

export type ToolCall = { name: string, 
/**
 * A JSON object.
 */
arguments: string, id: string | null, 
/**
 * As the model wrote it.
 */
source: string, };

export type Message = { id: string, 
/**
 * The message before it; branches share a parent.
 */
parent: string | null, role: Role, text: string, thinking: string | null, 
/**
 * Tools that the model wanted; nobody ran them.
 */
toolCalls: Array<ToolCall>, model: string | null, created: number, finish: FinishReason | null, stats: AnswerStats | null, };

export type Chat = { id: string, title: string, pinned: boolean, systemPrompt: string, format: AnswerFormat, messages: Array<Message>, path: Array<string>, 
/**
 * An answer is being written now.
 */
running: boolean, };

export type Turn = { "type": "send", text: string, parent: string | null, } | { "type": "edit", message: string, text: string, } | { "type": "regenerate", message: string, } | { "type": "continue", message: string, };

export type SendArgs = { chat: string, turn: Turn, 
/**
 * null: the settings' own.
 */
sampling: Sampling | null, };

export type AnswerEvent = { "type": "started", user: Message | null, answer: Message, path: Array<string>, } | { "type": "waiting" } | { "type": "preparing" } | { "type": "prompt", done: number, total: number, } | { "type": "thinking", text: string, } | { "type": "text", text: string, } | { "type": "toolCall", call: ToolCall, } | { "type": "stats", stats: AnswerStats, } | { "type": "dropped", turns: number, tokens: number, } | { "type": "recovery", notice: RecoveryNotice, } | { "type": "finished", message: Message, reason: FinishReason, title: string, error: WireError | null, };

export type FileProgress = { bytes: number, 
/**
 * 0: nobody knows how long it is.
 */
total: number, secondsLeft: number | null, };

export type Startup = { version: string, settings: Settings, 
/**
 * The language of the system, used where the settings say "auto".
 */
systemLanguage: Language, 
/**
 * The Hub's address that was asked for at the start; before the settings' own.
 */
hubEndpoint: string | null, 
/**
 * The Hub's address where nobody says another.
 */
hubEndpointDefault: string, model: ModelState, server: ServerState, downloads: Array<Download>, 
/**
 * The chat to show first, if any (the demo's).
 */
openChat: string | null, 
/**
 * A chat whose answer was cut by a crash, if any: offer to go on.
 */
interruptedChat: string | null, 
/**
 * Settings or chats that were damaged and are kept under these names, if any: say so.
 */
keptAside?: Array<string>, };

export type AppEvent = { "type": "model", state: ModelState, } | { "type": "recovery", notice: RecoveryNotice, } | { "type": "server", state: ServerState, } | { "type": "download", download: Download, } | { "type": "library" } | { "type": "fileAsked" } | { "type": "monitor", sample: MonitorSample, } | { "type": "forgotten", chat: string, title: string, } | { "type": "import", progress: FileProgress | null, } | { "type": "verify", modelId: string, progress: FileProgress | null, } | { "type": "hardware", hardware: HardwareReport, };
