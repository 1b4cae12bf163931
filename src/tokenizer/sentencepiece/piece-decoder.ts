const REPLACEMENT = "\uFFFD";
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of byte pieces as sentencepiece gives it: U+FFFD for every single byte that is not part of a character. */
export function decodeBytes(bytes: readonly number[]): string {
  const all = Uint8Array.from(bytes);
  let text = "";
  for (let at = 0; at < all.length; ) {
    const length = characterLength(all[at] as number);
    const character = tryDecode(all.subarray(at, at + length));
    text += character ?? REPLACEMENT;
    at += character === undefined ? 1 : length;
  }
  return text;
}

function characterLength(firstByte: number): number {
  if (firstByte < 0x80) return 1;
  if (firstByte < 0xe0) return 2;
  return firstByte < 0xf0 ? 3 : 4;
}

function tryDecode(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
}
