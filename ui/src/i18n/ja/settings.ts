import type { settings as en } from "../en/settings";
import type { Words } from "../types";

export const settings: Words<typeof en> = {
  title: "設定",
};
