import type { Trie } from "../trie.js";
import { CharsMap } from "./chars-map.js";
import type { NormalizerSpec } from "./model-proto.js";

export const SPACE_SYMBOL = "\u2581";

/**
 * What sentencepiece does to a text before it cuts it (normalizer.cc): replacements by the table of the model, one
 * prefix at a time; spaces at the ends and repeated ones dropped; a space put in front; spaces written as U+2581.
 */
export class Normalizer {
  private readonly charsMap: CharsMap | undefined;

  /** @param userDefined symbols that are left as they are. */
  constructor(
    private readonly spec: NormalizerSpec,
    private readonly treatWhitespaceAsSuffix: boolean,
    private readonly userDefined: Trie,
  ) {
    this.charsMap = spec.charsMap.length > 0 ? new CharsMap(spec.charsMap) : undefined;
  }

  /** @param addPrefix false leaves the dummy prefix out, whatever the model says. */
  normalize(text: string, addPrefix: boolean): string {
    const { removeExtraWhitespaces, escapeWhitespaces, addDummyPrefix } = this.spec;
    const space = escapeWhitespaces ? SPACE_SYMBOL : " ";
    const [prefix, suffix] = !(addPrefix && addDummyPrefix)
      ? ["", ""]
      : this.treatWhitespaceAsSuffix
        ? ["", space]
        : [space, ""];
    const replaced = this.replace(text.replace(/\p{Surrogate}/gu, "\uFFFD"));
    const body = removeExtraWhitespaces
      ? withoutTrailing(replaced.replace(/^ +/, ""), " ").replace(/ {2,}/g, " ")
      : replaced;
    // The dummy prefix stays where the table removed the whole text, and goes with texts of nothing but spaces.
    if (text === "" || (body === "" && replaced !== "")) return "";
    let normalized = prefix + (escapeWhitespaces ? body.replaceAll(" ", SPACE_SYMBOL) : body);
    // Not only spaces, but also what was written as the symbol itself.
    if (removeExtraWhitespaces) normalized = withoutTrailing(normalized, space);
    return normalized + suffix;
  }

  private replace(text: string): string {
    if (this.charsMap === undefined) return text;
    const bytes = Buffer.from(text);
    let replaced = "";
    let byte = 0;
    for (let at = 0; at < text.length; ) {
      let end = this.userDefined.longestMatch(text, at);
      const match = end > at ? undefined : this.charsMap.match(bytes, byte);
      if (end === at) end = endOfCharacters(text, at, match === undefined ? 1 : match.end - byte);
      replaced += match === undefined ? text.slice(at, end) : utf8.decode(match.replacement);
      byte += Buffer.byteLength(text.slice(at, end));
      at = end;
    }
    return replaced;
  }
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** End of the characters from `start` that hold the next `count` bytes of the text's UTF-8 form. */
function endOfCharacters(text: string, start: number, count: number): number {
  let end = start;
  for (let bytes = 0; bytes < count && end < text.length; ) {
    const code = text.codePointAt(end) as number;
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    end += code < 0x10000 ? 1 : 2;
  }
  return end;
}

/** By a loop: a regular expression for this takes quadratic time. */
function withoutTrailing(text: string, character: string): string {
  let end = text.length;
  while (end > 0 && text[end - 1] === character) end--;
  return text.slice(0, end);
}
