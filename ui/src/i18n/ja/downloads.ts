import type { downloads as en } from "../en/downloads";
import type { Words } from "../types";

export const downloads: Words<typeof en> = {
  title: "ダウンロード",
  queued: "順番待ち",
  starting: "接続中",
  waiting: "{percent}で接続が切れました。自動的に再開します。",
  waitingBusy: "Hugging Faceが混み合っているため{percent}で中断しました。自動的に再開します。",
  paused: "{percent}で一時停止中: {done} / {total}",
  failed: "{percent}で停止しました。再開するともう一度試します。",
  verifying: "データが正しく届いたか確認中",
  done: "完了: {total}",
  cancelled: "キャンセルしました",
  progress: "{name}のダウンロード",
  pause: "{name}を一時停止",
  resume: "{name}を再開",
  cancel: "{name}をキャンセル",
  forget: "{name}をこの一覧から外す",
  load: "読み込んでチャット",
  cancelTitle: "ダウンロードをキャンセルしますか?",
  cancelText: "{name}の取得済み{bytes}を削除します。",
  cancelNothing: "{name}のデータはまだ届いていません。",
  cancelAction: "{bytes}を削除",
  cancelActionNothing: "ダウンロードをキャンセル",
  keep: "ダウンロードを続ける",
};
