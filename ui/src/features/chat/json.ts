import type { AnswerFormat } from "../../ipc";

/** Where somebody who writes a schema for the first time can begin. */
export const EXAMPLE_SCHEMA = `{
  "type": "object",
  "properties": {
    "title": { "type": "string" },
    "tags": { "type": "array", "items": { "type": "string" } }
  },
  "required": ["title", "tags"],
  "additionalProperties": false
}`;

/** Whether an answer is JSON, or is going to be: then it is shown as code. */
export function isJson(text: string, format: AnswerFormat["type"] | undefined): boolean {
  if (!/^\s*[[{]/.test(text)) {
    return false;
  }
  if (format === "json" || format === "schema") {
    return true;
  }
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** JSON on lines of its own, also when it is not whole yet. Every value stays as it was written. */
export function indented(text: string): string {
  let depth = 0;
  let out = "";
  const line = () => `\n${"  ".repeat(Math.min(depth, 32))}`;
  for (const [part] of text.matchAll(/"(?:[^"\\]|\\.)*(?:"|\\?$)|[{[]\s*[\]}]|[{}[\],:]|[^\s"{}[\],:]+/gs)) {
    if (part === "{" || part === "[") {
      depth += 1;
      out += part + line();
    } else if (part === "}" || part === "]") {
      depth = Math.max(0, depth - 1);
      out += line() + part;
    } else if (part === ",") {
      out += part + line();
    } else if (part === ":") {
      out += ": ";
    } else {
      out += /^[{[]/.test(part) ? part.replace(/\s/g, "") : part;
    }
  }
  return out.trimEnd();
}
