import type { hardware as en } from "../en/hardware";
import type { Words } from "../types";

export const hardware: Words<typeof en> = {
  title: "ハードウェア",
};
