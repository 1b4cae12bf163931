/** Repairs of the pre-tokenizers of `@huggingface/tokenizers`: how a text is cut before its words are looked up. */
import type { LibraryPart, Spec } from "./library.js";

/** GPT-2's words. `\s` of JavaScript has U+FEFF and lacks U+0085. */
const BYTE_LEVEL_WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** Runs of what the Rust library's `\w` has, and of what is neither that nor white space. */
const WORDS =
  /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\p{White_Space}]+/gu;

export function mendPreTokenizer(part: LibraryPart, spec: Spec): void {
  switch (spec.type) {
    case "ByteLevel":
      part.pattern = BYTE_LEVEL_WORDS;
      break;
    case "Digits":
      // Digits are all numeric characters, such as superscripts and fractions.
      part.pattern = spec.individual_digits === true ? /\P{N}+|\p{N}/gu : /\P{N}+|\p{N}+/gu;
      break;
    case "Whitespace":
      part.pre_tokenize_text = (text) => text.match(WORDS) ?? [];
      break;
    case "WhitespaceSplit":
      part.pre_tokenize_text = (text) => text.match(/\P{White_Space}+/gu) ?? [];
      break;
    case "Split":
      mendSplit(part, spec);
      break;
    case "Metaspace":
      mendMetaspace(part, spec);
      break;
  }
}

/** The library does not know `split`: by default words begin at spaces. */
function mendMetaspace(part: LibraryPart, spec: Spec): void {
  const { split, replacement } = spec;
  if (split === false || part.pre_tokenize_text === undefined) return;
  const space = typeof replacement === "string" ? replacement : "\u2581";
  const whole = part.pre_tokenize_text.bind(part);
  part.pre_tokenize_text = (text, options) => whole(text, options).flatMap((word) => splitBefore(word, space));
}

function splitBefore(text: string, separator: string): string[] {
  const words: string[] = [];
  let start = 0;
  for (let at = text.indexOf(separator, 1); at > 0; at = text.indexOf(separator, at + separator.length)) {
    words.push(text.slice(start, at));
    start = at;
  }
  words.push(text.slice(start));
  return words.filter((word) => word !== "");
}

/** A piece of text between two of its indices, and whether it counts as a separator. */
interface Piece {
  start: number;
  end: number;
  isSeparator: boolean;
}

/** The library keeps separators apart whatever `behavior` says, and loses what lies between them with `invert`. */
function mendSplit(part: LibraryPart, spec: Spec): void {
  const { pattern } = part;
  if (!pattern) return;
  const behavior = String(spec.behavior ?? "removed").toLowerCase();
  part.pre_tokenize_text = (text) =>
    joinPieces(piecesOf(text, pattern, spec.invert === true), behavior).map(({ start, end }) => text.slice(start, end));
}

function piecesOf(text: string, pattern: RegExp, isInverted: boolean): Piece[] {
  const pieces: Piece[] = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > end) pieces.push({ start: end, end: match.index, isSeparator: isInverted });
    end = match.index + match[0].length;
    if (match[0] !== "") pieces.push({ start: match.index, end, isSeparator: !isInverted });
  }
  if (end < text.length) pieces.push({ start: end, end: text.length, isSeparator: isInverted });
  return pieces;
}

function joinPieces(pieces: readonly Piece[], behavior: string): readonly Piece[] {
  switch (behavior) {
    case "removed":
      return pieces.filter(({ isSeparator }) => !isSeparator);
    case "contiguous":
      return joinWhere(pieces, (before, after) => before.isSeparator === after.isSeparator);
    case "mergedwithprevious":
      return joinWhere(pieces, (before, after) => after.isSeparator && !before.isSeparator);
    case "mergedwithnext":
      return joinWhere(pieces, (before, after) => before.isSeparator && !after.isSeparator);
    default:
      return pieces;
  }
}

/** Joins neighbours; `together` sees the two pieces that meet. */
function joinWhere(pieces: readonly Piece[], together: (before: Piece, after: Piece) => boolean): Piece[] {
  const joined: Piece[] = [];
  for (const [index, piece] of pieces.entries()) {
    const before = pieces[index - 1];
    const last = joined.at(-1);
    if (before && last && together(before, piece)) last.end = piece.end;
    else joined.push({ ...piece });
  }
  return joined;
}
