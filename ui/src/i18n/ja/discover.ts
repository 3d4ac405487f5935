import type { discover as en } from "../en/discover";
import type { Words } from "../types";

export const discover: Words<typeof en> = {
  title: "探す",
};
