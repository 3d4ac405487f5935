import type { models as en } from "../en/models";
import type { Words } from "../types";

export const models: Words<typeof en> = {
  title: "モデル",
};
