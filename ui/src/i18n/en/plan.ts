/** Memory, plans, GPUs: words that more than one view uses. */
export const plan = {
  ram: "RAM",
  vram: "VRAM",
  weights: "Weights",
  kv: "KV cache",
  kvK: "KV cache, keys",
  kvV: "KV cache, values",
  kv_f16: "f16 (usual)",
  kv_q8_0: "q8_0 (half the memory)",
  kv_q5_1: "q5_1 (38 % of the memory)",
  kv_q5_0: "q5_0 (34 % of the memory)",
  kv_q4_1: "q4_1 (31 % of the memory)",
  kv_q4_0: "q4_0 (28 % of the memory, less exact)",
  kv_iq4_nl: "iq4_nl (28 % of the memory, less exact)",
  kv_bf16: "bf16 (as large as f16, less exact)",
  kv_f32: "f32 (twice the memory, exact)",
  compute: "Compute",
  other: "Other",
  real: "In use now",
  free: "Free",
  over: "{bytes} over",
  fromDisk: "{bytes} from disk",
  gpuBar: "{name}, {n} {n|layer|layers}",
  onGpu: "{n} on {name}",
  comma: ", ",
  barOf: "{used} of {available}",
  barLabel: "{name}: {used} of {available} available",
  fits_gpu: "All on the GPU",
  fits_split: "GPU {gpuLayers}/{layers} + RAM",
  fits_ram: "In RAM (CPU)",
  fits_disk: "Partly read from disk",
  fits_no: "Does not fit",
  speedUnknown: "Speed known after the hardware is measured",
  reason_noAccelerator: "No GPU can take layers: everything runs on the CPU.",
  reason_allOnAccelerator: "All {layers} layers fit into video memory.",
  reason_acceleratorHolds: "{gpuLayers} of {layers} layers run on the GPU, the rest on the CPU.",
  reason_acceleratorTooSmall:
    "Video memory is too small for even one layer: needs {needed}, {available} is free.",
  reason_beyondAccelerator:
    "{gpuLayers} layers need {needed} of video memory, {available} is free. At most {max} layers fit.",
  reason_acceleratorLacks:
    "The GPU cannot compute a format of this model or of the KV cache yet: at most {max} of {layers} layers can go there, the rest run on the CPU.",
  reason_expertsInRam:
    "The experts of {apart} of {experts} layers ({needed}) are computed on the CPU. With everything else on the GPU, that is faster than fewer whole layers.",
  reason_promptsStreamed:
    "Prompts of {from} or more tokens are computed on the GPU as a whole: copying the layers in RAM there is faster than computing them on the CPU. {needed} of video memory is kept for that.",
  reason_severalAccelerators: "No single GPU holds these layers: {gpus}.",
  reason_contextReduced: "The context was set to {context} tokens, because more does not fit into RAM.",
  reason_contextBeyondTraining:
    "The model was trained for {contextMax} tokens; answers get worse beyond that.",
  reason_weightsFromDisk:
    "Needs {needed}, {available} is free. The rest is read from disk again and again, which is slow.",
  reason_ramShort:
    "Needs {needed} of RAM, {available} is free. Lower the context or choose q8_0 for the KV cache.",
  reason_kvLarge: "The KV cache takes {needed}. q8_0 halves it, a shorter context too.",
  reason_draftModel: "The draft model takes {needed} of that.",
  gpu_noDriver: "No NVIDIA driver found: everything runs on the CPU.",
  gpu_driverTooOld:
    "The NVIDIA driver {found} is too old: {needed} or newer is needed. Update the driver to use the GPU.",
  gpu_noDevice: "No NVIDIA GPU found: everything runs on the CPU.",
  gpu_badState: "The GPU does not respond ({detail}). Restart the PC to use it again.",
  gpu_deviceTooOld:
    "The GPU is too old: its compute capability is {found}, {needed} or newer is needed. Everything runs on the CPU.",
  gpu_noneChosen: "No GPU is switched on in Settings: everything runs on the CPU.",
  gpu_turnedOff: "The GPU is turned off for this run: everything runs on the CPU.",
  recovery_vramFull: "VRAM is full: {what} stayed in RAM.",
  recovery_vramFull_answer: "VRAM ran out: {what} moved to RAM, the answer went on.",
  recovery_deviceLost: "The GPU was lost: {what} moved to RAM.",
  recovery_deviceLost_answer: "The GPU was lost: {what} moved to RAM, the answer went on.",
  recovery_vramFree: "Video memory is free again: {what} can go back to the GPU.",
  recovery_gpuBack: "The GPU works again: {what} can go back to it.",
  recovery_whyBack:
    "Layers had been moved to RAM because the GPU was lost. It answers again; moved back, answers get faster. If it is lost once more, the answer goes on in RAM as before.",
  recovery_whyFree:
    "Layers had been moved to RAM because video memory was short. There is room for them now; moved back, answers get faster.",
  recovery_of: "{gpu}: {text}",
  recovery_shifted: "VRAM is full: {n} {n|layer|layers} went to another GPU.",
  recovery_shifted_answer: "VRAM ran out: {n} {n|layer|layers} moved to another GPU, the answer went on.",
  recovery_besides: "{text} {n} {n|layer|layers} moved to another GPU.",
  recovery_unknown: "Moved to RAM: {what}.",
  moved_layers: "{n} {n|layer|layers}",
  moved_experts: "the experts of {n} {n|layer|layers}",
  moved_both: "{n} {n|layer|layers} and the experts of {experts} more",
  recovery_now: "{gpuLayers} of {layers} layers are on the GPU now.",
  recovery_why: "Why",
  recovery_back: "Move back",
  recovery_whyFull:
    "These layers need more video memory than is free. Close programs that use the GPU, or load the model with a shorter context or q8_0 for the KV cache.",
  recovery_whyVram:
    "Another program took video memory, or the context grew. Headroom moved layers to RAM instead of failing; answers get slower. Close programs that use the GPU, then move the layers back.",
  recovery_whyLost:
    "The graphics driver reset the GPU. Headroom continued on the CPU with the same conversation. If it happens again, update the driver.",
} as const;
