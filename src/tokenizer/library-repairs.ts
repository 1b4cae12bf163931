/**
 * Repairs of `@huggingface/tokenizers` 0.2.0, where it differs from the Rust library that tokenizer.json files are made
 * with, or takes far longer. Each replaces one method of an object that it built.
 */
import { isRecord } from "../checkpoint/strict-json.js";
import { joinSymbols } from "./byte-pair-encoding.js";
import { graphemes } from "./graphemes.js";
import type { Library, LibraryModel, LibraryPart, Spec } from "./library.js";
import { mendPreTokenizer } from "./pre-tokenizer-repairs.js";
import { CharsMap } from "./sentencepiece/chars-map.js";
import { decodeBytes } from "./sentencepiece/piece-decoder.js";
import { Unigram } from "./unigram.js";

/** @param tokenizer tokenizer.json, from which the library was built. */
export function mendLibrary(library: Library, tokenizer: Spec): void {
  const model = tokenizer.model as Spec;
  mendBytePairs(library.model);
  if (Array.isArray(model.vocab)) mendUnigram(library.model, model);
  forEachPart(library.normalizer, tokenizer.normalizer, mendNormalizer);
  forEachPart(library.pre_tokenizer, tokenizer.pre_tokenizer, mendPreTokenizer);
  forEachPart(library.decoder, tokenizer.decoder, mendDecoder);
}

/** Calls `mend` with every part and the object of tokenizer.json that it was built from. */
function forEachPart(part: LibraryPart | null, spec: unknown, mend: (part: LibraryPart, spec: Spec) => void): void {
  if (part === null || !isRecord(spec)) return;
  mend(part, spec);
  const parts = part.normalizers ?? part.tokenizers ?? part.decoders ?? [];
  const specs = spec.normalizers ?? spec.pretokenizers ?? spec.decoders;
  for (const [index, inner] of parts.entries()) forEachPart(inner, (specs as unknown[])[index], mend);
}

const MAX_CACHED_WORDS = 10_000;
const MAX_CACHED_LENGTH = 64;

/** Long words without spaces took minutes. */
function mendBytePairs(model: LibraryModel): void {
  if (model.bpe === undefined || model.merges === undefined || model.end_of_word_suffix) return;
  const symbols = new Map<string, number>();
  const intern = (symbol: string): number => {
    let index = symbols.get(symbol);
    if (index === undefined) {
      index = symbols.size;
      symbols.set(symbol, index);
    }
    return index;
  };
  const pairs = model.merges.map(([left, right]) => [intern(left), intern(right)] as const);
  const count = symbols.size;
  const ranks = new Map(pairs.map(([left, right], rank) => [left * count + right, rank]));
  model.bpe_ranks?.clear();
  const order = (text: string, start: number, middle: number, end: number): number | undefined => {
    const left = symbols.get(text.slice(start, middle));
    const right = left === undefined ? undefined : symbols.get(text.slice(middle, end));
    return left === undefined || right === undefined ? undefined : ranks.get(left * count + right);
  };
  const cache = new Map<string, string[]>();
  model.bpe = (word) => {
    const cached = cache.get(word);
    if (cached !== undefined) return cached;
    const starts = joinSymbols(word, characterStarts(word), order);
    const pieces = starts.map((start, index) => word.slice(start, starts[index + 1] ?? word.length));
    if (word.length <= MAX_CACHED_LENGTH) {
      if (cache.size >= MAX_CACHED_WORDS) cache.clear();
      cache.set(word, pieces);
    }
    return pieces;
  };
}

function characterStarts(text: string): number[] {
  const starts: number[] = [];
  for (let at = 0; at < text.length; at += (text.codePointAt(at) as number) > 0xffff ? 2 : 1) starts.push(at);
  return starts;
}

/** A character that is not a token costs this much more than the worst token. */
const UNKNOWN_PENALTY = 10;

/** The library has no fallback to bytes, and long texts overflow its stack. */
function mendUnigram(model: LibraryModel, config: Spec): void {
  const entries = (config.vocab as unknown[]).map((entry): [string, number] => {
    const [text, score]: unknown[] = Array.isArray(entry) ? entry : [];
    if (typeof text !== "string" || typeof score !== "number")
      throw new Error("its vocabulary has an entry without score");
    return [text, score];
  });
  const worst = entries.reduce((least, [, score]) => Math.min(least, score), Number.POSITIVE_INFINITY);
  const pieces = entries.map(([text, score], id) => ({ text, id, score }));
  const unigram = new Unigram(pieces, worst - UNKNOWN_PENALTY, (sum) => sum);
  const unknown = model.unk_token ?? "";
  model.encode = (words) => {
    const tokens: string[] = [];
    for (const word of words) {
      let unknownFrom = -1;
      const endUnknown = (end: number): void => {
        if (unknownFrom < 0) return;
        const bytes = config.byte_fallback === true ? byteTokens(word.slice(unknownFrom, end), model) : undefined;
        for (const token of bytes ?? [unknown]) tokens.push(token);
        unknownFrom = -1;
      };
      for (const { id, start, end } of unigram.segment(word)) {
        if (id < 0) {
          if (unknownFrom < 0) unknownFrom = start;
          continue;
        }
        endUnknown(start);
        tokens.push(word.slice(start, end));
      }
      endUnknown(word.length);
    }
    return tokens;
  };
}

function byteTokens(text: string, model: LibraryModel): string[] | undefined {
  const tokens = [...Buffer.from(text)].map((byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  return tokens.every((token) => model.tokens_to_ids.has(token)) ? tokens : undefined;
}

const MAX_GRAPHEME_BYTES = 5;
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** The library approximates the table of replacements by NFKC. */
function mendNormalizer(part: LibraryPart, spec: Spec): void {
  const { type, precompiled_charsmap: table } = spec;
  if (type !== "Precompiled" || typeof table !== "string" || table === "") return;
  const charsMap = new CharsMap(Buffer.from(table, "base64"));
  const replace = (text: string): string | undefined => {
    const replacement = charsMap.shortestMatch(Buffer.from(text));
    return replacement === undefined ? undefined : utf8.decode(replacement);
  };
  part.normalize = (text) => {
    let normalized = "";
    for (const segment of graphemes(text)) {
      const whole = Buffer.byteLength(segment) <= MAX_GRAPHEME_BYTES ? replace(segment) : undefined;
      normalized += whole ?? Array.from(segment, (character) => replace(character) ?? character).join("");
    }
    return normalized;
  };
}

const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

/** The library drops a byte order mark, and takes several bytes of an incomplete character for one. */
function mendDecoder(part: LibraryPart, spec: Spec): void {
  if (spec.type !== "ByteFallback") return;
  part.decode_chain = (tokens) => {
    const texts: string[] = [];
    let bytes: number[] = [];
    const endBytes = (): void => {
      if (bytes.length > 0) texts.push(decodeBytes(bytes));
      bytes = [];
    };
    for (const token of tokens) {
      const match = BYTE_TOKEN.exec(token);
      if (match !== null) {
        bytes.push(Number.parseInt(match[1] as string, 16));
        continue;
      }
      endBytes();
      texts.push(token);
    }
    endBytes();
    return texts;
  };
}
