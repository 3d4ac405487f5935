const FOCUSABLE =
  "a[href], button:enabled, input:enabled, select:enabled, textarea:enabled, summary, [tabindex='0']";

/**
 * Where what has the focus goes away, what stands beside it gets it: who uses keys goes on there, not at the window's
 * beginning.
 */
export function keepFocus(root: HTMLElement): () => void {
  let last: Node | null = null;
  const take = ({ target }: FocusEvent) => (last = target as Node);
  // A click into nothing gives the focus up.
  const leave = () => (last = null);
  const observer = new MutationObserver((records) => {
    if (!last || last.isConnected || document.activeElement !== document.body) {
      return;
    }
    const lost = last;
    const gone = records.find(
      ({ target, removedNodes }) =>
        target.isConnected && [...removedNodes].some((node) => node.contains(lost)),
    );
    if (gone) {
      beside(gone, root)?.focus({ preventScroll: true });
    }
  });
  root.addEventListener("focusin", take);
  root.addEventListener("pointerdown", leave);
  observer.observe(root, { childList: true, subtree: true });
  return () => {
    root.removeEventListener("focusin", take);
    root.removeEventListener("pointerdown", leave);
    observer.disconnect();
  };
}

/** The nearest that can have the focus: after it, before it, then around it. */
function beside({ target, nextSibling, previousSibling }: MutationRecord, root: Node): HTMLElement | null {
  for (let node = nextSibling; node?.isConnected; node = node.nextSibling) {
    const [first] = focusable(node);
    if (first) {
      return first;
    }
  }
  for (let node = previousSibling; node?.isConnected; node = node.previousSibling) {
    const found = focusable(node).at(-1);
    if (found) {
      return found;
    }
  }
  for (let node: Node | null = target; node && node !== root; node = node.parentNode) {
    const [first] = focusable(node);
    if (first) {
      return first;
    }
  }
  return null;
}

function focusable(node: Node): HTMLElement[] {
  if (!(node instanceof HTMLElement)) {
    return [];
  }
  const all = [node, ...node.querySelectorAll<HTMLElement>("*")];
  return all.filter((element) => element.matches(FOCUSABLE) && element.checkVisibility?.() !== false);
}
