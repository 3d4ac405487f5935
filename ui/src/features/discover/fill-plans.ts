import type { QuantRow } from "../../ipc";

/** Each plan reads a remote header: two at once are quick enough and leave the line to downloads. */
const AT_ONCE = 2;

type Fill = {
  quants: string[];
  plan: (quant: string) => Promise<QuantRow>;
  filled: (row: QuantRow) => void;
  failed: (quant: string, error: unknown) => void;
  signal: AbortSignal;
};

/** Asks for the plan of each quantization, one after another. After an abort nothing is asked or reported any more. */
export async function fillPlans({ quants, plan, filled, failed, signal }: Fill): Promise<void> {
  const waiting = [...quants];
  const work = async () => {
    for (let quant = waiting.shift(); quant !== undefined && !signal.aborted; quant = waiting.shift()) {
      try {
        const row = await plan(quant);
        if (!signal.aborted) filled(row);
      } catch (error) {
        if (!signal.aborted) failed(quant, error);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

/** The recommended one first: it is what most people wait for. */
export function fillOrder(rows: QuantRow[]): string[] {
  const first = rows.filter((row) => row.recommended !== null);
  const rest = rows.filter((row) => row.recommended === null);
  return [...first, ...rest].map((row) => row.quant);
}
