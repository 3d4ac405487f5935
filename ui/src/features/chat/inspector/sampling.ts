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
