const SHOWN_MS = 1500;

/** Copies text and says so for a moment. */
export class Copier {
  done = $state(false);

  async copy(text: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      copyBySelection(text);
    }
    this.done = true;
    setTimeout(() => (this.done = false), SHOWN_MS);
  }
}

/** Where a web view denies the clipboard without a question. */
function copyBySelection(text: string): void {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
