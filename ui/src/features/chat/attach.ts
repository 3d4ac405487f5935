/** Bytes of a file that is put into a message: more than most contexts hold. */
export const LARGEST = 512 * 1024;

/** A file as text: UTF-8, UTF-16 with its mark, or Shift-JIS, as Japanese programs of old write it; null: it is none. */
export function textOf(bytes: Uint8Array): string | null {
  const [a, b] = bytes;
  const utf16 = a === 0xff && b === 0xfe ? "utf-16le" : a === 0xfe && b === 0xff ? "utf-16be" : null;
  for (const encoding of utf16 ? [utf16] : ["utf-8", "shift_jis"]) {
    try {
      const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
      // Control characters are in no text.
      if (!/[\u0000-\u0008\u000e-\u001a\u001c-\u001f]/.test(text)) {
        return text.replace(/\r\n?/g, "\n");
      }
    } catch {
      // The next one.
    }
  }
  return null;
}

/** A message with a file at its end, within marks that are in none of its lines. */
export function withFile(draft: string, name: string, text: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/^\s*(`+)/gm)].map(([, marks]) => marks?.length ?? 0));
  const fence = "`".repeat(longest + 1);
  const before = draft.trimEnd();
  return `${before}${before ? "\n\n" : ""}${name}:\n${fence}\n${text.replace(/\n$/, "")}\n${fence}\n`;
}
