import type { Sampling } from "../../../ipc";

export interface SamplingField {
  name: keyof Sampling;
  min: number;
  max: number;
  step: number;
  /** Empty means null. */
  optional?: boolean;
}

/** In the order in which they act, the first ones used most. */
export const FIELDS: readonly SamplingField[] = [
  { name: "temperature", min: 0, max: 5, step: 0.05 },
  { name: "topK", min: 0, max: 1000, step: 1 },
  { name: "topP", min: 0, max: 1, step: 0.01 },
  { name: "minP", min: 0, max: 1, step: 0.01 },
  { name: "repeatPenalty", min: 0.5, max: 2, step: 0.01 },
  { name: "presencePenalty", min: -2, max: 2, step: 0.05 },
  { name: "frequencyPenalty", min: -2, max: 2, step: 0.05 },
  { name: "seed", min: 0, max: 4294967295, step: 1, optional: true },
  { name: "maxTokens", min: 1, max: 1048576, step: 1, optional: true },
];

export const DEFAULT_SAMPLING: Sampling = {
  temperature: 0.8,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
  repeatPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: null,
  maxTokens: null,
};

/** How free the choice of words is; everything else stays as it is. */
export const PRESETS = {
  precise: { temperature: 0.3, topK: 40, topP: 0.9, minP: 0.1 },
  balanced: { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05 },
  creative: { temperature: 1.1, topK: 100, topP: 0.98, minP: 0.02 },
} as const satisfies Record<string, Partial<Sampling>>;

export type Preset = keyof typeof PRESETS;

/** The preset that these settings are; null if they are one's own. */
export function presetOf(sampling: Sampling): Preset | null {
  const names = Object.keys(PRESETS) as Preset[];
  const same = (name: Preset) =>
    Object.entries(PRESETS[name]).every(
      ([key, value]) =>
        // The program keeps single precision.
        Math.abs((sampling[key as keyof Sampling] ?? NaN) - value) < 1e-6,
    );
  return names.find(same) ?? null;
}

/** What was typed, brought into its range; undefined if it is no number. */
export function parse(field: SamplingField, text: string): number | null | undefined {
  if (text.trim() === "") {
    return field.optional ? null : undefined;
  }
  const value = Number(text);
  if (!Number.isFinite(value)) {
    return undefined;
  }
  const inRange = Math.min(field.max, Math.max(field.min, value));
  return field.step === 1 ? Math.round(inRange) : inRange;
}
