import { joinSymbols } from "../byte-pair-encoding.js";
import type { Trie } from "../trie.js";
import { Unigram, type UnigramPiece } from "../unigram.js";
import { PieceType, type SentencePieceModel } from "./model-proto.js";

/** Cuts a normalized text into pieces: their ids, or -1 with the characters that no piece covers. */
export type Segmenter = (text: string) => { id: number; text: string }[];

/** A character that is not a piece costs this much more than the worst piece (unigram_model.cc). */
const UNKNOWN_PENALTY = 10;

export function createSegmenter(model: SentencePieceModel, userDefined: Trie): Segmenter {
  return model.kind === "bpe" ? bpeSegmenter(model, userDefined) : unigramSegmenter(model);
}

/** Ids of the pieces that text may consist of; where two pieces are the same the first counts. */
function textPieces(model: SentencePieceModel): Map<string, number> {
  const ids = new Map<string, number>();
  for (const [id, piece] of model.pieces.entries()) {
    const type = model.types[id];
    const isText = type === PieceType.normal || type === PieceType.userDefined || type === PieceType.unused;
    if (isText && !ids.has(piece)) ids.set(piece, id);
  }
  return ids;
}

/** bpe_model.cc: joins the pair that makes the piece of the highest score, and takes unused pieces apart again. */
function bpeSegmenter(model: SentencePieceModel, userDefined: Trie): Segmenter {
  const ids = textPieces(model);
  return (text) => {
    const starts: number[] = [];
    const frozen: boolean[] = [];
    for (let at = 0; at < text.length; ) {
      starts.push(at);
      const end = userDefined.longestMatch(text, at);
      frozen.push(end > at);
      at = end > at ? end : at + ((text.codePointAt(at) as number) > 0xffff ? 2 : 1);
    }
    /** How long the left half of an unused piece was when it was made. */
    const halves = new Map<string, number>();
    const joined = joinSymbols(
      text,
      starts,
      (_, start, middle, end) => {
        const piece = text.slice(start, end);
        const id = ids.get(piece);
        if (id === undefined) return undefined;
        if (model.types[id] === PieceType.unused) halves.set(piece, middle - start);
        return -(model.scores[id] as number);
      },
      frozen,
    );

    const segments: { id: number; text: string }[] = [];
    for (const [index, start] of joined.entries()) {
      const open = [text.slice(start, joined[index + 1] ?? text.length)];
      for (let piece = open.pop(); piece !== undefined; piece = open.pop()) {
        const id = ids.get(piece) ?? -1;
        const half = id >= 0 && model.types[id] === PieceType.unused ? halves.get(piece) : undefined;
        if (half === undefined) segments.push({ id, text: piece });
        else open.push(piece.slice(half), piece.slice(0, half));
      }
    }
    return segments;
  };
}

/** unigram_model.cc: the best path; user-defined pieces score so that they always win. */
function unigramSegmenter(model: SentencePieceModel): Segmenter {
  const isNormal = (_: number, id: number) => model.types[id] === PieceType.normal;
  const normal = model.scores.filter(isNormal);
  const worst = normal.reduce((least, score) => Math.min(least, score), normal[0] ?? 0);
  const best = normal.reduce((most, score) => Math.max(most, score), normal[0] ?? 0);
  const pieces = [...textPieces(model)]
    .filter(([, id]) => model.types[id] !== PieceType.unused)
    .map(([text, id]): UnigramPiece => {
      const isUserDefined = model.types[id] === PieceType.userDefined;
      const score = isUserDefined ? Buffer.byteLength(text) * best - 0.1 : (model.scores[id] as number);
      return { text, id, score };
    });
  const unigram = new Unigram(pieces, Math.fround(worst - UNKNOWN_PENALTY), Math.fround);
  return (text) => unigram.segment(text).map(({ id, start, end }) => ({ id, text: text.slice(start, end) }));
}
