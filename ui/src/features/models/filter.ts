import type { InstalledModel } from "../../ipc";

/** Whether a model has all the words in what the list shows of it. */
export function matches(model: InstalledModel, words: string): boolean {
  const text = [model.name, model.repo, model.quant, model.architecture, model.path].join(" ").toLowerCase();
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}
