const STEPS = [2048, 4096, 8192, 16384, 32768, 65536, 131072];
const MOST = 5;

/** Lengths worth offering for a model: round ones below its own, then its own. */
export function contextChoices(contextMax: number): number[] {
  return [...STEPS.filter((step) => step < contextMax).slice(0, MOST - 1), contextMax];
}

/** "8k" */
export function shortTokens(tokens: number): string {
  return tokens % 1024 === 0 ? `${tokens / 1024}k` : String(tokens);
}
