/** JSON from files that nobody vouches for. */

export class JsonError extends Error {
  override readonly name = "JsonError";
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;

/**
 * `JSON.parse` that also refuses invalid UTF-8, objects with a key twice (JSON.parse would silently keep the last),
 * and nesting deeper than `maxDepth`.
 * @throws JsonError whose message says what is wrong, to be put after the file's name.
 */
export function parseStrictJson(bytes: Uint8Array, maxDepth: number): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new JsonError("is not valid UTF-8");
  }
  try {
    checkKeysAndDepth(text, maxDepth);
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof JsonError) throw error;
    throw new JsonError(`is not valid JSON (${(error as Error).message})`);
  }
}

/** Runs before JSON.parse, so that deep nesting costs nothing; it need not understand text that JSON.parse refuses. */
function checkKeysAndDepth(text: string, maxDepth: number): void {
  const open: (Set<string> | undefined)[] = [];
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === QUOTE) {
      const end = endOfString(text, i);
      const keys = open.at(-1);
      if (keys && isFollowedByColon(text, end + 1)) {
        const key = JSON.parse(text.slice(i, end + 1)) as string;
        if (keys.has(key)) throw new JsonError(`has the key ${JSON.stringify(key)} twice`);
        keys.add(key);
      }
      i = end;
    } else if (code === OPEN_OBJECT || code === OPEN_ARRAY) {
      if (open.length === maxDepth) throw new JsonError(`is nested more than ${maxDepth} levels deep`);
      open.push(code === OPEN_OBJECT ? new Set() : undefined);
    } else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) {
      open.pop();
    }
  }
}

function endOfString(text: string, start: number): number {
  let i = start + 1;
  while (i < text.length && text.charCodeAt(i) !== QUOTE) i += text.charCodeAt(i) === BACKSLASH ? 2 : 1;
  return i;
}

function isFollowedByColon(text: string, start: number): boolean {
  let i = start;
  while (i < text.length && " \t\r\n".includes(text.charAt(i))) i++;
  return text.charCodeAt(i) === COLON;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
