import { render } from "@testing-library/svelte";
import type { Component } from "svelte";
import { fakeApi, type FakeOptions } from "../ipc/fake";
import type { Api } from "../ipc";
import { App } from "../state/app.svelte";
import Provide from "./Provide.svelte";

/** The app on the fake program, started. `change` replaces single commands. */
export async function startApp(
  options: FakeOptions = {},
  change: (api: Api) => Partial<Api> = () => ({}),
): Promise<App> {
  const api = fakeApi({ pace: 0, ...options });
  const app = new App({ ...api, ...change(api) });
  await app.start();
  await settled();
  return app;
}

/** Renders a component that calls `useApp()`. */
export function renderWith<P extends Record<string, unknown>>(app: App, view: Component<P>, props: P) {
  return render(Provide, {
    props: { app, view: view as unknown as Component<Record<string, unknown>>, props },
  });
}

/** Lets everything happen that waits for nothing but its turn. */
export async function settled(turns = 10): Promise<void> {
  for (let i = 0; i < turns; i++) {
    await new Promise((done) => setTimeout(done, 0));
  }
}

/** Waits until something is true. */
export async function until(test: () => boolean, what = "the condition"): Promise<void> {
  const start = Date.now();
  while (!test()) {
    if (Date.now() - start > 3000) {
      throw new Error(`waited in vain for ${what}`);
    }
    await settled(1);
  }
}
