import { type AddedToken, AddedTokens } from "../added-tokens.js";
import type { TextCodec } from "../text-codec.js";
import { Trie } from "../trie.js";
import { PieceType, type SentencePieceModel } from "./model-proto.js";
import { Normalizer, SPACE_SYMBOL } from "./normalizer.js";
import { decodeBytes } from "./piece-decoder.js";
import { createSegmenter, type Segmenter } from "./segmenter.js";

export interface SentencePieceSettings {
  /** Besides the control pieces of the model. One with the id of a piece takes its place. */
  addedTokens: readonly AddedToken[];
  /** Ids that `encode` puts before and after, if asked for special tokens. */
  prefix: readonly number[];
  suffix: readonly number[];
  /** Text after an added token gets the dummy prefix too, not only text at the beginning. */
  prefixesEveryText: boolean;
  /** `clean_up_tokenization_spaces` of tokenizer_config.json; byte pair encoding ignores it, as in transformers. */
  cleansUpSpaces: boolean;
}

/** Encodes and decodes as the `sentencepiece` library does with the same model. */
export class SentencePieceCodec implements TextCodec {
  readonly specialIds: ReadonlySet<number>;
  readonly cleansUpSpaces: boolean;
  private readonly normalizer: Normalizer;
  private readonly segment: Segmenter;
  private readonly added: AddedTokens;
  private readonly unknownId: number;
  /** By value of the byte; empty if the model does not fall back to bytes. */
  private readonly byteIds: number[] = [];
  private readonly byteValues = new Map<number, number>();
  /** Names of control pieces and added tokens, which decode to themselves. */
  private readonly addedNames = new Map<number, string>();
  private readonly ids = new Map<string, number>();

  /** @throws Error if the model has no unknown piece, or falls back to bytes that it does not have. */
  constructor(
    private readonly model: SentencePieceModel,
    private readonly settings: SentencePieceSettings,
  ) {
    const { pieces, types } = model;
    const userDefined = new Trie();
    const tokens: AddedToken[] = [...settings.addedTokens];
    const replaced = new Set(tokens.flatMap(({ ids }) => ids));
    const special = new Set<number>();
    for (const [id, piece] of pieces.entries()) {
      if (!this.ids.has(piece)) this.ids.set(piece, id);
      if (types[id] === PieceType.userDefined) userDefined.add(piece, id);
      if (types[id] === PieceType.byte) this.addByte(piece, id);
      if (types[id] !== PieceType.control) continue;
      special.add(id);
      this.addedNames.set(id, piece);
      if (!replaced.has(id)) tokens.push({ content: piece, ids: [id], special: true });
    }
    for (const { content, ids, special: isSpecial } of tokens) {
      const [id] = ids;
      if (ids.length !== 1 || id === undefined) continue;
      this.ids.set(content, id);
      if (types[id] !== PieceType.unknown) this.addedNames.set(id, content);
      if (isSpecial) special.add(id);
    }
    this.unknownId = types.indexOf(PieceType.unknown);
    if (this.unknownId < 0) throw new Error("it has no unknown piece");
    if (model.byteFallback && this.byteIds.filter((id) => id !== undefined).length !== 256) {
      throw new Error("it falls back to bytes but does not have all 256 of them");
    }
    this.specialIds = special;
    this.cleansUpSpaces = settings.cleansUpSpaces && model.kind !== "bpe";
    this.normalizer = new Normalizer(model.normalizer, model.treatWhitespaceAsSuffix, userDefined);
    this.segment = createSegmenter(model, userDefined);
    this.added = new AddedTokens(tokens);
  }

  encode(text: string, addSpecialTokens: boolean): number[] {
    const ids = addSpecialTokens ? [...this.settings.prefix] : [];
    for (const [index, part] of this.added.split(text).entries()) {
      if (typeof part === "string") this.encodeText(part, index === 0 || this.settings.prefixesEveryText, ids);
      else ids.push(...part.ids);
    }
    if (addSpecialTokens) ids.push(...this.settings.suffix);
    return ids;
  }

  decode(ids: readonly number[]): string {
    const { pieces, types, normalizer, unknownSurface } = this.model;
    const stripsSpace = normalizer.addDummyPrefix || normalizer.removeExtraWhitespaces;
    let text = "";
    let bytes: number[] = [];
    let isStart = true;
    for (const id of ids) {
      const byte = this.byteValues.get(id);
      if (byte !== undefined) {
        bytes.push(byte);
        continue;
      }
      text += decodeBytes(bytes);
      bytes = [];
      if (text !== "") isStart = false;
      const name = this.addedNames.get(id);
      if (name !== undefined) text += name;
      else if (types[id] === PieceType.unknown) text += unknownSurface;
      else {
        let piece = pieces[id] ?? "";
        if (isStart && stripsSpace && piece.startsWith(SPACE_SYMBOL)) {
          piece = piece.slice(SPACE_SYMBOL.length);
          // Spaces that the model itself removes are dropped as long as there are any.
          isStart = normalizer.removeExtraWhitespaces;
        }
        text += piece.replaceAll(SPACE_SYMBOL, " ");
      }
    }
    return text + decodeBytes(bytes);
  }

  tokenOf(id: number): string | undefined {
    return this.addedNames.get(id) ?? this.model.pieces[id];
  }

  idOf(token: string): number | undefined {
    return this.ids.get(token);
  }

  private encodeText(text: string, addPrefix: boolean, ids: number[]): void {
    let wasUnknown = false;
    for (const segment of this.segment(this.normalizer.normalize(text, addPrefix))) {
      if (segment.id >= 0) ids.push(segment.id);
      else if (this.model.byteFallback) {
        for (const byte of Buffer.from(segment.text)) ids.push(this.byteIds[byte] as number);
      } else if (!wasUnknown) ids.push(this.unknownId);
      wasUnknown = segment.id < 0;
    }
  }

  private addByte(piece: string, id: number): void {
    const match = /^<0x([0-9A-F]{2})>$/.exec(piece);
    if (match === null)
      throw new Error(`its piece ${id} is a byte with the name ${JSON.stringify(piece.slice(0, 20))}`);
    const value = Number.parseInt(match[1] as string, 16);
    this.byteIds[value] ??= id;
    this.byteValues.set(id, value);
  }
}
