import { ProtobufError, type ProtobufField, readFields } from "./protobuf.js";

/** `ModelProto.SentencePiece.Type`; GGUF files number their token types the same way. */
export const PieceType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

export interface NormalizerSpec {
  /** The compiled table of replacements; empty for none. */
  charsMap: Uint8Array;
  /** Put a space before the text. */
  addDummyPrefix: boolean;
  /** Drop spaces at both ends, and all but one between words. */
  removeExtraWhitespaces: boolean;
  /** Write spaces as U+2581. */
  escapeWhitespaces: boolean;
}

/** What encoding and decoding need of a `tokenizer.model` file. */
export interface SentencePieceModel {
  kind: "unigram" | "bpe";
  /** By token id; all three have the same length. */
  pieces: string[];
  scores: Float32Array;
  /** Values of `PieceType`. */
  types: Uint8Array;
  byteFallback: boolean;
  /** The dummy prefix goes to the end instead. */
  treatWhitespaceAsSuffix: boolean;
  /** What the unknown piece decodes to. */
  unknownSurface: string;
  /** Names of the control pieces; they need not be in the vocabulary. */
  bosPiece: string;
  eosPiece: string;
  normalizer: NormalizerSpec;
}

/** Field numbers of sentencepiece_model.proto (github.com/google/sentencepiece, src/sentencepiece_model.proto). */
export const Fields = {
  model: { pieces: 1, trainerSpec: 2, normalizerSpec: 3, denormalizerSpec: 5 },
  piece: { piece: 1, score: 2, type: 3 },
  trainer: {
    modelType: 3,
    treatWhitespaceAsSuffix: 24,
    byteFallback: 35,
    unknownSurface: 44,
    bosPiece: 46,
    eosPiece: 47,
  },
  normalizer: { charsMap: 2, addDummyPrefix: 3, removeExtraWhitespaces: 4, escapeWhitespaces: 5 },
} as const;

/** `TrainerSpec.ModelType`. */
export const ModelType = { unigram: 1, bpe: 2 } as const;

/** As many as the largest vocabularies, several times over. */
const MAX_PIECES = 2 ** 22;

/**
 * Reads a SentencePiece `ModelProto`.
 * @throws ProtobufError for damaged files, and for models of words, of characters, and with a denormalizer.
 */
export function parseModelProto(bytes: Uint8Array): SentencePieceModel {
  const pieces: string[] = [];
  const scores: number[] = [];
  const types: number[] = [];
  const model = defaults();
  for (const field of readFields(bytes)) {
    if (field.number === Fields.model.pieces) {
      if (pieces.length === MAX_PIECES)
        throw new ProtobufError(`there are more than ${MAX_PIECES} pieces`, field.offset);
      const { piece, score, type } = parsePiece(field);
      pieces.push(piece);
      scores.push(score);
      types.push(type);
    } else if (field.number === Fields.model.trainerSpec) {
      parseTrainerSpec(field, model);
    } else if (field.number === Fields.model.normalizerSpec) {
      parseNormalizerSpec(field, model.normalizer);
    } else if (field.number === Fields.model.denormalizerSpec) {
      const denormalizer = defaults().normalizer;
      parseNormalizerSpec(field, denormalizer);
      if (denormalizer.charsMap.length > 0) {
        throw new ProtobufError("a denormalizer, which is not supported,", field.offset);
      }
    }
  }
  if (pieces.length === 0) throw new ProtobufError("no piece, only other data up to the end", bytes.length);
  return { ...model, pieces, scores: Float32Array.from(scores), types: Uint8Array.from(types) };
}

type Settings = Omit<SentencePieceModel, "pieces" | "scores" | "types">;

/** The defaults of the schema. */
function defaults(): Settings {
  return {
    kind: "unigram",
    byteFallback: false,
    treatWhitespaceAsSuffix: false,
    unknownSurface: " \u2047 ",
    bosPiece: "<s>",
    eosPiece: "</s>",
    normalizer: {
      charsMap: new Uint8Array(0),
      addDummyPrefix: true,
      removeExtraWhitespaces: true,
      escapeWhitespaces: true,
    },
  };
}

function parsePiece(message: ProtobufField): { piece: string; score: number; type: number } {
  let piece = "";
  let score = 0;
  let type: number = PieceType.normal;
  for (const field of fieldsOf(message)) {
    if (field.number === Fields.piece.piece) piece = text(field);
    else if (field.number === Fields.piece.score) score = float(field);
    else if (field.number === Fields.piece.type) type = integer(field);
  }
  if (piece === "") throw new ProtobufError("an empty piece", message.offset);
  if (type < PieceType.normal || type > PieceType.byte) {
    throw new ProtobufError(`a piece of the unknown type ${type}`, message.offset);
  }
  return { piece, score, type };
}

function parseTrainerSpec(message: ProtobufField, model: Settings): void {
  for (const field of fieldsOf(message)) {
    switch (field.number) {
      case Fields.trainer.modelType: {
        const type = integer(field);
        if (type !== ModelType.unigram && type !== ModelType.bpe) {
          throw new ProtobufError(`the model type ${type} (supported: 1, Unigram, and 2, BPE)`, field.offset);
        }
        model.kind = type === ModelType.bpe ? "bpe" : "unigram";
        break;
      }
      case Fields.trainer.treatWhitespaceAsSuffix:
        model.treatWhitespaceAsSuffix = integer(field) !== 0;
        break;
      case Fields.trainer.byteFallback:
        model.byteFallback = integer(field) !== 0;
        break;
      case Fields.trainer.unknownSurface:
        model.unknownSurface = text(field);
        break;
      case Fields.trainer.bosPiece:
        model.bosPiece = text(field);
        break;
      case Fields.trainer.eosPiece:
        model.eosPiece = text(field);
        break;
    }
  }
}

function parseNormalizerSpec(message: ProtobufField, spec: NormalizerSpec): void {
  for (const field of fieldsOf(message)) {
    switch (field.number) {
      case Fields.normalizer.charsMap:
        expectWireType(field, 2);
        spec.charsMap = field.bytes;
        break;
      case Fields.normalizer.addDummyPrefix:
        spec.addDummyPrefix = integer(field) !== 0;
        break;
      case Fields.normalizer.removeExtraWhitespaces:
        spec.removeExtraWhitespaces = integer(field) !== 0;
        break;
      case Fields.normalizer.escapeWhitespaces:
        spec.escapeWhitespaces = integer(field) !== 0;
        break;
    }
  }
}

function fieldsOf(message: ProtobufField): Generator<ProtobufField> {
  expectWireType(message, 2);
  return readFields(message.bytes, message.offset);
}

function integer(field: ProtobufField): number {
  expectWireType(field, 0);
  return field.varint;
}

function float(field: ProtobufField): number {
  expectWireType(field, 5);
  const value = new DataView(field.bytes.buffer, field.bytes.byteOffset, 4).getFloat32(0, true);
  if (!Number.isFinite(value)) throw new ProtobufError(`a score that is ${value}`, field.offset);
  return value;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function text(field: ProtobufField): string {
  expectWireType(field, 2);
  try {
    return utf8.decode(field.bytes);
  } catch {
    throw new ProtobufError("a text that is not valid UTF-8", field.offset);
  }
}

function expectWireType(field: ProtobufField, wireType: number): void {
  if (field.wireType !== wireType) {
    throw new ProtobufError(
      `field ${field.number} has wire type ${field.wireType} instead of ${wireType}`,
      field.offset,
    );
  }
}
