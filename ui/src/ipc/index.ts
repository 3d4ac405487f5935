import type { Api } from "./api";
import { tauriApi } from "./tauri";

export { toWireError, wireError, type Api } from "./api";
export type * from "./bindings";

/** Inside the program: the program. In a plain browser (development): one that plays it. */
export async function connect(): Promise<Api> {
  if ("__TAURI_INTERNALS__" in window) {
    return tauriApi;
  }
  const { fakeApi } = await import("./fake");
  const wanted = new URLSearchParams(location.search);
  return fakeApi({
    empty: wanted.has("empty"),
    gpuReason: wanted.has("nogpu") ? { type: "noDriver" } : null,
  });
}
