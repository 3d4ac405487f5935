import type { Chat, HubModel, InstalledModel, Message, Settings } from "../bindings";

const GB = 1e9;
const HOUR = 3600e3;
const DAY = 24 * HOUR;

export function settings(): Settings {
  return {
    language: "auto",
    theme: "system",
    modelsFolder: null,
    extraFolders: [],
    useHfCache: true,
    hubEndpoint: null,
    hasHubToken: false,
    contextPolicy: "stop",
    thinking: null,
    systemPrompt: "",
    sampling: {
      temperature: 0.8,
      topK: 40,
      topP: 0.95,
      minP: 0.05,
      repeatPenalty: 1,
      presencePenalty: 0,
      frequencyPenalty: 0,
      seed: null,
      maxTokens: null,
    },
    threads: null,
    leaveResponsive: false,
    gpus: { type: "all" },
    chatMemory: 4_000_000_000,
    server: { on: false, port: 8080 },
    load: {},
    inspectorOpen: true,
  };
}

export function installed(now: number): InstalledModel[] {
  const model = (id: string, name: string, more: Partial<InstalledModel>): InstalledModel => ({
    id,
    name,
    path: `models/${more.repo ?? "local"}/${name}.gguf`,
    source: "library",
    repo: null,
    quant: "Q4_K_M",
    architecture: "llama",
    parameters: null,
    bytes: 0,
    contextMax: 32768,
    layers: 33,
    lastUsed: null,
    problem: null,
    verified: null,
    ...more,
  });
  return [
    model("m1", "Qwen3-8B-Q4_K_M", {
      repo: "unsloth/Qwen3-8B-GGUF",
      architecture: "qwen3",
      parameters: 8.19e9,
      bytes: 5.03 * GB,
      contextMax: 40960,
      layers: 37,
      lastUsed: now - 2 * HOUR,
    }),
    model("m2", "Llama-3.3-70B-Instruct-Q4_K_M", {
      repo: "bartowski/Llama-3.3-70B-Instruct-GGUF",
      parameters: 70.6e9,
      bytes: 42.5 * GB,
      contextMax: 131072,
      layers: 81,
      lastUsed: now - 3 * DAY,
    }),
    model("m3", "gemma-3-4b-it-Q8_0", {
      source: "hfCache",
      repo: "unsloth/gemma-3-4b-it-GGUF",
      quant: "Q8_0",
      architecture: "gemma3",
      parameters: 3.88e9,
      bytes: 4.13 * GB,
      contextMax: 131072,
      layers: 35,
    }),
    model("m4", "whisper-large-v3", {
      source: "folder",
      quant: "F16",
      architecture: "whisper",
      bytes: 3.1 * GB,
      layers: null,
      contextMax: null,
      problem: {
        code: "modelUnsupported",
        message: "architecture whisper",
        needed: null,
        available: null,
        subject: "whisper",
        retryAfter: null,
      },
    }),
  ];
}

/** As the program's built-in list: smallest first. */
export const RECOMMENDED: HubModel[] = [
  hub("unsloth/Qwen3-0.6B-GGUF", "tiny"),
  hub("bartowski/Llama-3.2-3B-Instruct-GGUF", "small"),
  hub("unsloth/Qwen3-4B-Instruct-2507-GGUF", "small_allround"),
  hub("unsloth/gemma-3-4b-it-GGUF", "small_multilingual"),
  hub("LiquidAI/LFM2-8B-A1B-GGUF", "fast_without_gpu"),
  hub("ibm-granite/granite-4.0-h-tiny-GGUF", "long_context"),
  hub("unsloth/Qwen3-8B-GGUF", "allround"),
  hub("ggml-org/gpt-oss-20b-GGUF", "reasoning"),
  hub("unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF", "large_but_fast"),
  hub("bartowski/Llama-3.3-70B-Instruct-GGUF", "very_large"),
];

function hub(repo: string, note: string): HubModel {
  return { repo, downloads: null, likes: null, updated: null, gated: false, parameters: null, note };
}

/** What a search finds, whatever the words: enough to see pages, gates and big numbers. */
export function found(now: number): HubModel[] {
  const names = [
    "Qwen3-8B",
    "Qwen3-14B",
    "Meta-Llama-3.1-8B-Instruct",
    "gemma-3-12b-it",
    "Mistral-Small-3.2-24B",
  ];
  const owners = ["unsloth", "bartowski", "ggml-org", "lmstudio-community"];
  return owners.flatMap((owner, i) =>
    names.map((name, j) => ({
      repo: `${owner}/${name}-GGUF`,
      downloads: Math.round(1_900_000 / (1 + i * 5 + j)),
      likes: Math.round(1400 / (1 + i + j)),
      updated: now - (i * 9 + j * 4 + 1) * DAY,
      gated: name.startsWith("gemma") && owner === "ggml-org",
      parameters: null,
      note: RECOMMENDED.find((entry) => entry.repo === `${owner}/${name}-GGUF`)?.note ?? null,
    })),
  );
}

export function message(
  id: string,
  parent: string | null,
  role: "user" | "assistant",
  text: string,
  at: number,
): Message {
  const done = role === "assistant";
  return {
    id,
    parent,
    role,
    text,
    thinking: null,
    toolCalls: [],
    model: done ? "Qwen3-8B-Q4_K_M" : null,
    created: at,
    finish: done ? "end" : null,
    stats: done
      ? {
          promptTokens: 412,
          reusedTokens: 380,
          answerTokens: 318,
          firstTokenMs: 812,
          tokensPerSecond: 12.4,
          promptTokensPerSecond: 141,
          contextUsed: 3112,
          context: 8192,
          drafted: 45,
          accepted: 38,
        }
      : null,
  };
}

export function chats(now: number): (Chat & { updated: number; deleted: number | null })[] {
  const chat = (
    id: string,
    title: string,
    updated: number,
    messages: Message[],
    path: string[],
    pinned = false,
  ) => ({
    id,
    title,
    pinned,
    updated,
    deleted: null,
    systemPrompt: "",
    format: { type: "text" as const },
    messages,
    path,
    running: false,
  });
  const thought = message("1-2", "1-1", "assistant", LEARNING, now - 5 * HOUR);
  thought.thinking =
    "The user wants to know why the KV cache grows. I should give the formula and one worked example.";
  const cut = message(
    "3-2",
    "3-1",
    "assistant",
    "Spring rain on the roof,\nthe cat counts every",
    now - 3 * DAY,
  );
  cut.finish = "interrupted";
  return [
    chat(
      "1",
      "Why does the KV cache grow?",
      now - HOUR,
      [
        message("1-1", null, "user", "Why does the KV cache grow with the context?", now - 5 * HOUR),
        thought,
        message(
          "1-3",
          "1-1",
          "assistant",
          "Because each token adds one key and one value vector per layer.",
          now - HOUR,
        ),
        message("1-4", "1-2", "user", "And in code?", now - HOUR),
        message("1-5", "1-4", "assistant", CODE, now - HOUR),
      ],
      ["1-1", "1-2", "1-4", "1-5"],
      true,
    ),
    chat(
      "2",
      "旅行の計画を手伝ってください",
      now - 4 * HOUR,
      [
        message("2-1", null, "user", "京都で二日間過ごします。おすすめの順路はありますか?", now - 4 * HOUR),
        message("2-2", "2-1", "assistant", KYOTO, now - 4 * HOUR),
      ],
      ["2-1", "2-2"],
    ),
    chat(
      "3",
      "A haiku about rain",
      now - 3 * DAY,
      [message("3-1", null, "user", "Write a haiku about rain.", now - 3 * DAY), cut],
      ["3-1", "3-2"],
    ),
  ];
}

const LEARNING = `For every token, each layer keeps **one key and one value vector**. Their size does not depend on the text:

\`\`\`
bytes = tokens × layers × kv_heads × head_dim × 2 × bytes_per_value
\`\`\`

| context | f16 | q8_0 |
|---:|---:|---:|
| 4,096 | 0.6 GB | 0.3 GB |
| 8,192 | 1.2 GB | 0.6 GB |
| 32,768 | 4.8 GB | 2.6 GB |

So doubling the context doubles the cache. See [the paper](https://arxiv.org/abs/2305.13245) on grouped queries for how models keep it small.`;

const CODE = `Here is the sum as a small function:

\`\`\`rust
/// Bytes of the cache for \`tokens\` positions.
fn kv_bytes(tokens: u64, layers: u64, heads: u64, dim: u64) -> u64 {
    let per_value = 2; // f16
    tokens * layers * heads * dim * 2 * per_value
}
\`\`\`

1. \`heads\` are the **KV heads**, not the query heads.
2. The factor 2 stands for keys *and* values.`;

const KYOTO = `二日間なら、東と西に分けるのが楽です。

- **一日目(東山)**: 清水寺 → 八坂神社 → 祇園
- **二日目(嵐山)**: 竹林の小径 → 天龍寺 → 渡月橋

朝は早めに出ると、人の少ない時間に歩けます。`;

export const ANSWER = `A short answer first: **it depends on where the weights are.**

1. Weights in video memory are read at about 300 GB/s.
2. Weights in RAM are read at about 40 GB/s.
3. Weights on disk are read at 2 to 5 GB/s.

\`\`\`python
def tokens_per_second(gigabytes: float, bandwidth: float) -> float:
    """Every weight is read once for each token."""
    return bandwidth / gigabytes

print(tokens_per_second(4.9, 40))  # about 8
\`\`\`

> Moving a few layers to the GPU therefore helps more than a faster CPU.

That is the whole trick behind the slider on the right.`;

export const THOUGHT =
  "The user asks about speed. The main limit is memory bandwidth, so I explain that with three numbers.";
