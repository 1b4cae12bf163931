import type { AddedToken } from "./added-tokens.js";
import { LibraryCodec } from "./library-codec.js";
import { chatGlmTokens, GLM4_PATTERN, QWEN_PATTERN, qwenTokens } from "./original-tokenizers.js";
import { SentencePieceCodec } from "./sentencepiece/codec.js";
import { PieceType, parseModelProto, type SentencePieceModel } from "./sentencepiece/model-proto.js";
import type { TextCodec } from "./text-codec.js";
import { parseTiktokenRanks, TiktokenCodec } from "./tiktoken.js";
import type { TokenizerSettings, VocabularyFile } from "./tokenizer-files.js";

/** Builds what encodes and decodes from a vocabulary file. Throws Error for what cannot be used. */
export function createCodec(vocabulary: VocabularyFile, settings: TokenizerSettings): TextCodec {
  switch (vocabulary.name) {
    case "tokenizer.json":
      return new LibraryCodec(vocabulary.tokenizer, settings.config, Object.values(settings.specialTokens));
    case "qwen.tiktoken":
      return qwenCodec(vocabulary.bytes, settings);
    default:
      return startsLikeText(vocabulary.bytes)
        ? glm4Codec(vocabulary.bytes, settings)
        : sentencePieceCodec(parseModelProto(vocabulary.bytes), settings);
  }
}

/** GLM-4 calls a tiktoken vocabulary tokenizer.model. A ModelProto begins with a field number below any letter. */
function startsLikeText(bytes: Uint8Array): boolean {
  return /^[A-Za-z0-9+/]{2,}={0,2} \d/.test(Buffer.from(bytes.subarray(0, 200)).toString("latin1"));
}

function sentencePieceCodec(model: SentencePieceModel, settings: TokenizerSettings): SentencePieceCodec {
  const { config, identity, originalFormat, specialTokens } = settings;
  const family = identity.modelType === "chatglm" ? chatGlmTokens(model.pieces.length, identity) : undefined;
  const fixed = Object.entries(originalFormat?.tokens ?? {})
    .filter(([, id]) => id < model.pieces.length)
    .map(([content, id]): AddedToken => ({ content, ids: [id], special: true }));
  const known = new Set([...(family?.added ?? []), ...fixed].map(({ content }) => content));
  const declared = settings.addedTokens.filter(({ content }) => !known.has(content));
  const addedTokens = [...(family?.added ?? []), ...fixed, ...declared];

  const idOf = (content: string): number[] => {
    const added = addedTokens.find((token) => token.content === content && token.ids.length === 1);
    const id = added?.ids[0] ?? model.pieces.indexOf(content);
    return id < 0 ? [] : [id];
  };
  for (const content of new Set(Object.values(specialTokens))) {
    const [id] = idOf(content);
    const isKnown = addedTokens.some((token) => token.content === content);
    if (id !== undefined && !isKnown) addedTokens.push({ content, ids: [id], special: true });
  }
  // Gemma's <start_of_turn> is text to its tokenizer.model; that it is none shows where the template writes it.
  for (const [id, piece] of model.pieces.entries()) {
    const isMarkup = model.types[id] === PieceType.userDefined && /^<[^<>]+>$/.test(piece);
    if (!isMarkup || addedTokens.some(({ ids }) => ids[0] === id)) continue;
    if (settings.chatTemplate?.mentions(piece)) addedTokens.push({ content: piece, ids: [id], special: true });
  }
  const { bos_token: bos = model.bosPiece, eos_token: eos = model.eosPiece } = specialTokens;
  const hasBos = specialTokens.bos_token !== undefined || model.types[model.pieces.indexOf(bos)] === PieceType.control;
  const addsBos = config.add_bos_token ?? hasBos;
  return new SentencePieceCodec(model, {
    addedTokens,
    prefix: family?.prefix ?? (addsBos === true ? idOf(bos) : []),
    suffix: config.add_eos_token === true ? idOf(eos) : [],
    prefixesEveryText: config.legacy !== false,
    cleansUpSpaces: config.clean_up_tokenization_spaces === true,
  });
}

function qwenCodec(bytes: Uint8Array, settings: TokenizerSettings): TiktokenCodec {
  const ranks = parseTiktokenRanks(Buffer.from(bytes).toString("latin1"));
  const addedTokens = [...qwenTokens(firstFreeId(ranks)), ...settings.addedTokens];
  return new TiktokenCodec(ranks, { pattern: QWEN_PATTERN, addedTokens, prefix: [], normalizesNfc: true });
}

/** Source: as GLM4_PATTERN; its special tokens are those of tokenizer_config.json. */
function glm4Codec(bytes: Uint8Array, settings: TokenizerSettings): TiktokenCodec {
  const ranks = parseTiktokenRanks(Buffer.from(bytes).toString("latin1"));
  const { addedTokens } = settings;
  const prefix = ["[gMASK]", "<sop>"].flatMap((name) => addedTokens.find(({ content }) => content === name)?.ids ?? []);
  return new TiktokenCodec(ranks, { pattern: GLM4_PATTERN, addedTokens, prefix, normalizesNfc: false });
}

function firstFreeId(ranks: ReadonlyMap<string, number>): number {
  let most = 0;
  for (const rank of ranks.values()) most = Math.max(most, rank);
  return most + 1;
}
