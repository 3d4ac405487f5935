/**
 * Whether a key press sends the message: Enter alone. Not the Enter that ends a Japanese composition: WebKit tells that
 * one after `compositionend`, so that only the old key code 229 gives it away.
 */
export function sends(event: KeyboardEvent): boolean {
  const plain = event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
  return plain && !composes(event);
}

/** Whether a key press belongs to an input method. */
export function composes(event: KeyboardEvent): boolean {
  return event.isComposing || event.keyCode === 229;
}
