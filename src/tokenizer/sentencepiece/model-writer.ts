import { Fields, ModelType, type NormalizerSpec, type SentencePieceModel } from "./model-proto.js";

/** The `ModelProto` of `model`: what `parseModelProto` reads back, and sentencepiece itself too. */
export function writeModelProto(model: SentencePieceModel): Uint8Array {
  const message = new MessageWriter();
  for (const [id, piece] of model.pieces.entries()) {
    const entry = new MessageWriter();
    entry.bytes(Fields.piece.piece, Buffer.from(piece));
    entry.float(Fields.piece.score, model.scores[id] as number);
    entry.varint(Fields.piece.type, model.types[id] as number);
    message.bytes(Fields.model.pieces, entry.finish());
  }
  message.bytes(Fields.model.trainerSpec, trainerSpec(model));
  message.bytes(Fields.model.normalizerSpec, normalizerSpec(model.normalizer));
  return message.finish();
}

function trainerSpec(model: SentencePieceModel): Uint8Array {
  const spec = new MessageWriter();
  spec.varint(Fields.trainer.modelType, ModelType[model.kind]);
  spec.varint(Fields.trainer.treatWhitespaceAsSuffix, Number(model.treatWhitespaceAsSuffix));
  spec.varint(Fields.trainer.byteFallback, Number(model.byteFallback));
  spec.bytes(Fields.trainer.unknownSurface, Buffer.from(model.unknownSurface));
  spec.bytes(Fields.trainer.bosPiece, Buffer.from(model.bosPiece));
  spec.bytes(Fields.trainer.eosPiece, Buffer.from(model.eosPiece));
  return spec.finish();
}

function normalizerSpec(normalizer: NormalizerSpec): Uint8Array {
  const spec = new MessageWriter();
  spec.bytes(Fields.normalizer.charsMap, normalizer.charsMap);
  spec.varint(Fields.normalizer.addDummyPrefix, Number(normalizer.addDummyPrefix));
  spec.varint(Fields.normalizer.removeExtraWhitespaces, Number(normalizer.removeExtraWhitespaces));
  spec.varint(Fields.normalizer.escapeWhitespaces, Number(normalizer.escapeWhitespaces));
  return spec.finish();
}

/** Appends fields; all numbers here are small and not negative. */
class MessageWriter {
  private readonly parts: Uint8Array[] = [];

  varint(field: number, value: number): void {
    this.parts.push(encodeVarint(field << 3), encodeVarint(value));
  }

  float(field: number, value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeFloatLE(value);
    this.parts.push(encodeVarint((field << 3) | 5), bytes);
  }

  bytes(field: number, value: Uint8Array): void {
    this.parts.push(encodeVarint((field << 3) | 2), encodeVarint(value.length), value);
  }

  finish(): Uint8Array {
    return Buffer.concat(this.parts);
  }
}

function encodeVarint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}
