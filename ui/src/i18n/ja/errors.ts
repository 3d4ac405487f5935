import type { errors as en } from "../en/errors";
import type { Words } from "../types";

export const errors: Words<typeof en> = {
  fileMissing: "{subject}が見つかりません。ファイルを元の場所に戻すか、一覧から削除してください。",
  fileMissing_part:
    "{count}個のファイルに分かれたモデルの{part}番目がありません: {subject}。ほかのファイルと同じフォルダーに置くか、もう一度ダウンロードしてください。",
  archiveInvalid:
    "{subject}はHeadroomが書き出したチャットのファイルではありません。何も読み込みませんでした。",
  fileInvalid: "{subject}は正しいGGUFファイルではありません。もう一度ダウンロードしてください。",
  fileTruncated: "{subject}は途中で切れています。もう一度ダウンロードしてください。",
  fileTruncated_numbers:
    "{subject}は{needed}のうち{available}しかありません。もう一度ダウンロードしてください。",
  fileDamaged:
    "{subject}は壊れています。内容がHugging Faceのものと一致しません。もう一度ダウンロードしてください。",
  fileAccess: "{subject}を開けません。使用中のプログラムを閉じるか、アクセス権を確認してください。",
  fileUnreadable:
    "{subject}を最後まで読み取れませんでした。ディスクが故障しているおそれがあります。ディスクを確認してから、もう一度ダウンロードしてください。",
  fileName:
    "{subject}は使えません。パスに文字として扱えない名前が含まれているか、長すぎます。ファイルかフォルダーの名前を変更してください。",
  folderAccess:
    "{subject}に書き込めません。ディスクの接続とアクセス権を確認するか、設定で別のダウンロード先フォルダーを選んでください。",
  modelUnsupported: "このバージョンでは{subject}を実行できません。別のモデルを選んでください。",
  templateFailed:
    "モデルのチャットテンプレートがこの会話に対応していません。新しいチャットを始めるか、システムプロンプトを変えるか、このモデルの別のファイルを使ってください。({message})",
  draftVocabulary: "ドラフトモデルのトークンがモデルと異なります。同じ系列の小さいモデルを選んでください。",
  draftMissing:
    "ドラフトモデルがライブラリにありません。ファイルを元の場所に戻すか、別のモデルか「なし」を選んでください。",
  ramFull:
    "RAMが足りません。コンテキストを短くするか、小さいモデルを選ぶか、ほかのプログラムを閉じてください。",
  ramFull_numbers:
    "RAMが{needed}必要ですが、空きは{available}です。コンテキストを短くするか、小さいモデルを選ぶか、ほかのプログラムを閉じてください。",
  vramFull: "VRAMが足りません。GPUに置く層を減らしてください。",
  vramFull_numbers: "VRAMが{needed}必要ですが、空きは{available}です。GPUに置く層を減らしてください。",
  diskFull: "ディスクがいっぱいです。空きを作ってから再試行してください。",
  diskFull_numbers:
    "ディスクに{needed}必要ですが、空きは{available}です。空きを作ってから再試行してください。",
  contextFull:
    "会話がコンテキストより長くなりました。コンテキストを広げるか、新しいチャットを始めてください。",
  contextFull_numbers:
    "会話は{needed}トークン、コンテキストは{available}トークンです。コンテキストを広げるか、新しいチャットを始めてください。",
  noModelLoaded: "モデルが読み込まれていません。先にモデルを選んでください。",
  busy: "ほかの処理が実行中です。停止するか、終わるまでお待ちください。",
  cancelled: "キャンセルしました。",
  offline: "Hugging Faceに接続できません。ネットワークを確認して再試行してください。",
  needsToken: "{subject}にはHugging Faceのトークンが必要です。設定で登録してください。",
  tokenRefused:
    "登録済みのトークンがHugging Faceに受け付けられませんでした。設定で新しいトークンに置き換えるか、削除してください。",
  needsTerms: "このモデルはHugging Faceでの利用規約への同意とトークンの登録が必要です。",
  notFound: "{subject}が見つかりません。移動または削除された可能性があります。",
  portTaken: "ポート{subject}はほかのプログラムが使用しています。設定で別のポートを選んでください。",
  rateLimited: "Hugging Faceへのアクセスが制限されています。しばらくしてから再試行してください。",
  rateLimited_wait: "Hugging Faceへのアクセスが制限されています。{wait}後に再試行してください。",
  checksumMismatch: "{subject}は転送中に壊れたため破棄しました。もう一度ダウンロードしてください。",
  hubAnswer: "Hugging Faceから解釈できない応答がありました。後でもう一度お試しください。",
  badArgument: "この値は使えません: {message}",
  formatNotJson:
    "スキーマが正しいJSONではありません(行:桁 {subject})。カンマ、引用符、かっこの抜けを確認してください。",
  formatInvalid: "この回答の形式は使えません: {message}",
  formatTooComplex:
    "回答の形式が複雑すぎます({subject})。選択肢、プロパティ、繰り返しの数を減らしてください。",
  formatStuck: "この形式では回答を続けられません。回答の形式を変えるか、もう一度回答させてください。",
  storage: "チャットを読み書きできません。ディスクの空きを確認してください。({message})",
  internal:
    "Headroomの内部で問題が起きました。もう一度お試しください。続く場合はこの内容を報告してください: {message}",
  theFile: "ファイル",
  theModel: "このモデル",
  it: "対象",
};
