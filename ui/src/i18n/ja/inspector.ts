import type { inspector as en } from "../en/inspector";
import type { Words } from "../types";

export const inspector: Words<typeof en> = {
  title: "モデル",
};
