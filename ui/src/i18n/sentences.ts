import type { GpuReason, Plan, Reason, RecoveryNotice, WireError } from "../ipc";
import { bytes, cardName, duration, number } from "./format";
import { has, t, tCode, type Key } from "./index.svelte";

/** How the name of a split model's part ends. */
const PART = /-0*(\d+)-of-0*(\d+)\.gguf$/i;

/** What happened and what to do, for an error of any command. */
export function errorSentence(error: WireError): string {
  const { code, needed, available, retryAfter } = error;
  const amount = code === "contextFull" ? number : bytes;
  const values = {
    subject: subject(error),
    message: error.message,
    needed: needed === null ? "" : amount(needed),
    available: available === null ? "" : amount(available),
    wait: retryAfter === null ? "" : duration(retryAfter),
  };
  const [, part, count] = (code === "fileMissing" && error.subject?.match(PART)) || [];
  if (part && count) {
    return t("errors.fileMissing_part", { ...values, part, count });
  }
  const withNumbers = `errors.${code}_numbers`;
  const withWait = `errors.${code}_wait`;
  if (needed !== null && available !== null && has(withNumbers)) {
    return tCode(withNumbers, values);
  }
  if (retryAfter !== null && has(withWait)) {
    return tCode(withWait, values);
  }
  const key = `errors.${code}`;
  return has(key) ? tCode(key, values) : error.message;
}

function subject({ code, subject }: WireError): string {
  if (code.startsWith("file") || code === "checksumMismatch") {
    // The folder is seldom news, and makes the sentence unreadable.
    return subject?.split(/[\\/]/).at(-1) || t("errors.theFile");
  }
  if (subject !== null) {
    return subject;
  }
  return code === "modelUnsupported" || code === "needsToken" ? t("errors.theModel") : t("errors.it");
}

/** Why a plan is as it is; codes that this window does not know are said in the program's English. */
export function reasonSentence(reason: Reason, plan: Plan): string {
  const key = `plan.reason_${reason.code}`;
  const values = {
    gpuLayers: plan.gpuLayers,
    layers: plan.layers,
    max: plan.maxGpuLayers,
    apart: plan.expertsApart,
    experts: plan.expertLayers,
    from: number(plan.streamFrom ?? 0),
    context: plan.context,
    contextMax: plan.contextMax,
    needed: bytes(reason.needed ?? 0),
    available: bytes(reason.available ?? 0),
    gpus: plan.gpus
      .filter((gpu) => gpu.layers > 0)
      .map(({ name, layers }) => t("plan.onGpu", { name: cardName(name), n: layers }))
      .join(t("plan.comma")),
  };
  return has(key) ? tCode(key, values) : reason.text;
}

export function gpuReasonSentence(reason: GpuReason): string {
  const key: Key = `plan.gpu_${reason.type}`;
  return tCode(key, { ...reason });
}

/** "GPU 27/33 + RAM" */
export function fitsSentence(plan: Pick<Plan, "fits" | "gpuLayers" | "layers">): string {
  return tCode(`plan.fits_${plan.fits}`, { gpuLayers: plan.gpuLayers, layers: plan.layers });
}

export function recoverySentence(notice: RecoveryNotice): string {
  const text = whatMoved(notice);
  return notice.gpu === null ? text : t("plan.recovery_of", { gpu: cardName(notice.gpu), text });
}

function whatMoved(notice: RecoveryNotice): string {
  const shifted = notice.layersShifted;
  if (shifted > 0 && notice.layersMoved + notice.expertsMoved === 0) {
    return t(notice.duringAnswer ? "plan.recovery_shifted_answer" : "plan.recovery_shifted", { n: shifted });
  }
  const key = `plan.recovery_${notice.cause}${notice.duringAnswer ? "_answer" : ""}`;
  const what = moved(notice);
  const text = has(key) ? tCode(key, { what }) : t("plan.recovery_unknown", { what });
  return shifted > 0 ? t("plan.recovery_besides", { text, n: shifted }) : text;
}

/** "3 layers", "the experts of 2 layers" */
function moved({ layersMoved, expertsMoved }: RecoveryNotice): string {
  if (expertsMoved === 0) {
    return t("plan.moved_layers", { n: layersMoved });
  }
  return layersMoved === 0
    ? t("plan.moved_experts", { n: expertsMoved })
    : t("plan.moved_both", { n: layersMoved, experts: expertsMoved });
}

export function recoveryWhy(notice: RecoveryNotice): string {
  if (notice.cause === "deviceLost") {
    return t("plan.recovery_whyLost");
  }
  if (notice.cause === "vramFree") {
    return t("plan.recovery_whyFree");
  }
  if (notice.cause === "gpuBack") {
    return t("plan.recovery_whyBack");
  }
  return notice.duringAnswer ? t("plan.recovery_whyVram") : t("plan.recovery_whyFull");
}
