import type { plan as en } from "../en/plan";
import type { Words } from "../types";

export const plan: Words<typeof en> = {
  ram: "RAM",
  vram: "VRAM",
  weights: "重み",
  kv: "KVキャッシュ",
  kvK: "KVキャッシュ(キー)",
  kvV: "KVキャッシュ(値)",
  kv_f16: "f16(標準)",
  kv_q8_0: "q8_0(メモリ半分)",
  kv_q5_1: "q5_1(メモリ38%)",
  kv_q5_0: "q5_0(メモリ34%)",
  kv_q4_1: "q4_1(メモリ31%)",
  kv_q4_0: "q4_0(メモリ28%、精度は下がります)",
  kv_iq4_nl: "iq4_nl(メモリ28%、精度は下がります)",
  kv_bf16: "bf16(f16と同じメモリ、精度は下がります)",
  kv_f32: "f32(メモリ2倍、高精度)",
  compute: "計算用",
  other: "その他",
  real: "現在の使用量",
  free: "空き",
  over: "{bytes}超過",
  fromDisk: "{bytes}はディスク",
  gpuBar: "{name}({n}層)",
  onGpu: "{name}に{n}層",
  comma: "、",
  barOf: "{used} / {available}",
  barLabel: "{name}: 使用可能{available}のうち{used}",
  fits_gpu: "すべてGPU",
  fits_split: "GPU {gpuLayers}/{layers} + RAM",
  fits_ram: "RAM(CPUで実行)",
  fits_disk: "一部はディスクから",
  fits_no: "収まりません",
  speedUnknown: "速度はハードウェアの計測後に表示します",
  reason_noAccelerator: "層を置けるGPUがありません。すべてCPUで実行します。",
  reason_allOnAccelerator: "全{layers}層がVRAMに収まります。",
  reason_acceleratorHolds: "{layers}層のうち{gpuLayers}層をGPU、残りをCPUで実行します。",
  reason_acceleratorTooSmall: "VRAMが1層分にも足りません。必要{needed}、空き{available}。",
  reason_beyondAccelerator:
    "{gpuLayers}層にはVRAMが{needed}必要ですが、空きは{available}です。収まるのは{max}層までです。",
  reason_acceleratorLacks:
    "このモデルまたはKVキャッシュの形式に、まだGPUで計算できないものがあります。GPUに置けるのは{layers}層のうち{max}層までで、残りはCPUで実行します。",
  reason_expertsInRam:
    "{experts}層のうち{apart}層のエキスパート({needed})はCPUで計算します。残りをすべてGPUに置けるため、層ごとRAMに移すより速くなります。",
  reason_promptsStreamed:
    "{from}トークン以上のプロンプトは、RAMにある層もGPUへ送って計算します。CPUで計算するより速いためで、VRAMの{needed}をそのために使います。",
  reason_severalAccelerators: "1枚のGPUには収まらないため、分けて置きます({gpus})。",
  reason_contextReduced: "RAMに収まるよう、コンテキストを{context}トークンにしました。",
  reason_contextBeyondTraining:
    "このモデルの学習時の長さは{contextMax}トークンです。それを超えると回答の質が下がります。",
  reason_weightsFromDisk: "必要{needed}、空き{available}。残りはディスクから繰り返し読むため遅くなります。",
  reason_ramShort:
    "RAMが{needed}必要ですが、空きは{available}です。コンテキストを短くするか、KVキャッシュをq8_0にしてください。",
  reason_kvLarge: "KVキャッシュが{needed}を占めます。q8_0またはコンテキストの短縮で半分になります。",
  reason_draftModel: "そのうち{needed}はドラフトモデルの分です。",
  gpu_noDriver: "NVIDIAドライバーが見つかりません。すべてCPUで実行します。",
  gpu_driverTooOld:
    "NVIDIAドライバー{found}は古すぎます。{needed}以降が必要です。GPUを使うには更新してください。",
  gpu_noDevice: "NVIDIA GPUが見つかりません。すべてCPUで実行します。",
  gpu_badState: "GPUが応答しません({detail})。PCを再起動すると再び使えるようになります。",
  gpu_deviceTooOld:
    "GPUが古すぎます。Compute Capabilityは{found}ですが、{needed}以降が必要です。すべてCPUで実行します。",
  gpu_noneChosen: "設定でGPUがすべてオフになっています。すべてCPUで実行します。",
  gpu_turnedOff: "今回の起動ではGPUを使わない設定です。すべてCPUで実行します。",
  recovery_vramFull: "VRAMに空きがないため、{what}はRAMに置いたままです。",
  recovery_vramFull_answer: "VRAMが不足したため{what}をRAMに移し、回答を続けました。",
  recovery_deviceLost: "GPUが使えなくなったため{what}をRAMに移しました。",
  recovery_deviceLost_answer: "GPUが使えなくなったため{what}をRAMに移し、回答を続けました。",
  recovery_vramFree: "VRAMに空きができました。{what}をGPUに戻せます。",
  recovery_gpuBack: "GPUが再び使えるようになりました。{what}をGPUに戻せます。",
  recovery_whyBack:
    "GPUが使えなくなったため層をRAMに移していました。今は応答しています。GPUに戻すと回答が速くなります。再び使えなくなっても、回答はRAMで続きます。",
  recovery_whyFree:
    "VRAMの不足により層をRAMに移していました。今は空きがあります。GPUに戻すと回答が速くなります。",
  recovery_of: "{gpu}: {text}",
  recovery_shifted: "VRAMに空きがないため、{n}層を別のGPUに置きました。",
  recovery_shifted_answer: "VRAMが不足したため{n}層を別のGPUに移し、回答を続けました。",
  recovery_besides: "{text}ほかに{n}層を別のGPUに移しました。",
  recovery_unknown: "{what}をRAMに移しました。",
  moved_layers: "{n}層",
  moved_experts: "{n}層分のエキスパート",
  moved_both: "{n}層と、ほか{experts}層分のエキスパート",
  recovery_now: "現在、{layers}層のうち{gpuLayers}層がGPUにあります。",
  recovery_why: "理由",
  recovery_back: "GPUに戻す",
  recovery_whyFull:
    "これらの層に必要なVRAMが足りません。GPUを使うプログラムを閉じるか、コンテキストを短くする、またはKVキャッシュをq8_0にして読み込み直してください。",
  recovery_whyVram:
    "ほかのプログラムがVRAMを使ったか、コンテキストが増えました。処理を止めずに層をRAMへ移したため、回答は遅くなります。GPUを使うプログラムを閉じてから戻してください。",
  recovery_whyLost:
    "グラフィックスドライバーがGPUをリセットしました。同じ会話のままCPUで続けています。繰り返す場合はドライバーを更新してください。",
};
