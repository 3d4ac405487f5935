import { t } from "../i18n/index.svelte";
import type { KvType } from "../ipc";

/** The usual type first, then the smaller ones, then what is more exact. */
const TYPES: KvType[] = ["f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "bf16", "f32"];

/** Types of a KV cache, as a Select offers them. */
export function kvOptions(): { value: KvType; label: string }[] {
  return TYPES.map((value) => ({ value, label: t(`plan.kv_${value}`) }));
}
