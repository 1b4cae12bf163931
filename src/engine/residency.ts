/** Where everything lives, as a pure function of sizes and a budget. */
import { LayerstreamError } from "../errors.js";
import { formatBytes } from "../units.js";

const MIB = 2 ** 20;

/** What a read brings at most, unless one row of a matrix is larger. */
const CHUNK_BYTES = 4 * MIB;
const PAGE_BYTES = 4096;
/** Reads in flight plus one chunk being multiplied: with fewer, disk and compute take turns. */
const RING_CHUNKS_MIN = 3;
const RING_BYTES_MAX = 64 * MIB;
/** Experts are read one after the other: reads in flight plus the chunk being multiplied. */
const EXPERT_RING_CHUNKS = 4;
/** Positions in a page of the KV cache. */
export const PAGE_POSITIONS = 64;
/** Without maxSeqLen, the cache has room for at most this many tokens. */
const DEFAULT_SEQUENCE = 4096;
/** A prompt up to this length should take one pass even when memory is tight. */
const PROMPT_TOKENS = 512;
/** Passes shorter than this are not worth planning for. */
const LEAST_TOKENS = 16;
/** Tokens whose logits `forward` may always return. */
const LOGITS_TOKENS = 32;

export interface ResidencyStage {
  bytes: number;
  /** An embedding, of which a pass reads rows. */
  gathered: boolean;
  /** An expert: read when a router chooses it, never on the tape. */
  routed: boolean;
  /** The part of the passes of one token that reads it. */
  share: number;
}

export interface ResidencyInput {
  budgetBytes: number;
  /** Node, the addon, workers, and room for the JavaScript heap to breathe. */
  runtimeBytes: number;
  /** In execution order. */
  stages: readonly ResidencyStage[];
  vectorBytes: number;
  largestRowBytes: number;
  /** Of all layers, keys and values. */
  kvBytesPerPosition: number;
  activationBytesPerToken: number;
  logitsBytesPerToken: number;
  /** Longest sequence that the model is made for, tokens; Infinity if it stretches. */
  contextLimit: number;
  /** As the user asked, if they did. */
  maxSeqLen?: number;
  /** False: the smallest ring. */
  prefetching?: boolean;
  /** False: hold nothing, stream everything. */
  hold?: boolean;
  /** Weights reach the device through the ring even when they are held there: its memory is not host memory. */
  alwaysStaged?: boolean;
}

export interface ResidencyPlan {
  /** A flag for each stage. */
  held: boolean[];
  heldBytes: number;
  streamedBytes: number;
  chunkBytes: number;
  /** 0 when nothing is streamed. */
  ringBytes: number;
  /** Where experts are read to; 0 when there are none or all are held. */
  expertRingBytes: number;
  maxSeqLen: number;
  pageCount: number;
  kvBytes: number;
  /** Tokens that one pass carries at most. */
  maxTokens: number;
  activationBytes: number;
  /** Room for logits in JavaScript's hands. */
  logitsBytes: number;
  /** Everything but held bytes. */
  fixedBytes: number;
  minimumBytes: number;
}

/**
 * Decides what is held. The fixed needs come first (runtime, vectors, KV cache, activations, ring); what is left holds
 * stages, spread evenly along the tape so that the disk is busy all through the pass.
 *
 * @throws MEMORY_BUDGET_TOO_SMALL with the least budget that would work.
 */
export function planResidency(input: ResidencyInput): ResidencyPlan {
  const chunkBytes = Math.max(CHUNK_BYTES, input.largestRowBytes);
  const largestRead = chunkBytes + 2 * PAGE_BYTES;
  const gatherBytes = 64 * (Math.ceil(input.largestRowBytes / PAGE_BYTES) + 1) * PAGE_BYTES;
  const constantBytes = input.runtimeBytes + input.vectorBytes + gatherBytes;
  const tapeBytes = total(input.stages.filter(isOnTape).map((stage) => stage.bytes));
  const expertBytes = total(input.stages.filter(isExpert).map((stage) => stage.bytes));
  const expertRing = expertBytes > 0 ? EXPERT_RING_CHUNKS * largestRead : 0;

  const least = leastFootprint(input, constantBytes + expertRing, largestRead, tapeBytes);
  if (input.budgetBytes < least) {
    throw new LayerstreamError(
      "MEMORY_BUDGET_TOO_SMALL",
      `A memory budget of ${formatBytes(input.budgetBytes)} cannot work: this model needs at least ${formatBytes(least)}` +
        ` with a context of ${leastSequence(input)} tokens.`,
      { remedy: `Give it ${Math.ceil(least / MIB)}MiB or more${input.maxSeqLen ? ", or lower maxSeqLen" : ""}.` },
    );
  }

  let rest = input.budgetBytes - constantBytes;
  const maxSeqLen = chooseSequence(input, rest);
  const pageCount = Math.ceil(maxSeqLen / PAGE_POSITIONS);
  const kvBytes = pageCount * PAGE_POSITIONS * input.kvBytesPerPosition;
  rest -= kvBytes;

  const everything = total(input.stages.map((stage) => stage.bytes));
  const ringNeeded =
    input.prefetching === false ? RING_CHUNKS_MIN * largestRead : chooseRing(input.budgetBytes, largestRead, rest);
  const stagedBytes = input.alwaysStaged ? ringNeeded : 0;
  const hold = input.hold ?? true;
  /** The longest pass for which so many bytes of weights fit beside it. */
  const tokensBeside = (bytes: number) =>
    hold ? passLengths(maxSeqLen).find((tokens) => bytes + passBytes(input, tokens) <= rest) : undefined;
  // No ring is needed when what it would carry fits beside passes of a reasonable length.
  const allTokens = tokensBeside(tapeBytes + expertBytes + stagedBytes);
  const expertRingBytes = allTokens !== undefined && !input.alwaysStaged ? 0 : expertRing;
  const residentTokens = allTokens ?? tokensBeside(tapeBytes + expertRing + stagedBytes);
  const ringBytes = residentTokens === undefined ? ringNeeded : stagedBytes;
  rest -= ringBytes + expertRingBytes;
  const maxTokens = residentTokens ?? chooseTokens(input, maxSeqLen, rest);
  const activationBytes = maxTokens * input.activationBytesPerToken;
  const logitsBytes = logitsRoom(input, maxTokens);
  rest -= activationBytes + logitsBytes;

  const held = hold ? chooseHeld(input.stages, rest, everything) : input.stages.map(() => false);
  const heldBytes = total(input.stages.filter((_, index) => held[index]).map((stage) => stage.bytes));
  return {
    held,
    heldBytes,
    streamedBytes: Math.round(
      total(input.stages.map(({ bytes, gathered, share }, index) => (held[index] || gathered ? 0 : bytes * share))),
    ),
    chunkBytes,
    ringBytes,
    expertRingBytes,
    maxSeqLen,
    pageCount,
    kvBytes,
    maxTokens,
    activationBytes,
    logitsBytes,
    fixedBytes: constantBytes + kvBytes + ringBytes + expertRingBytes + activationBytes + logitsBytes,
    minimumBytes: least,
  };
}

/** With one small ring, the shortest context and passes of few tokens. Rounded up, so that the figure works when used. */
function leastFootprint(input: ResidencyInput, constant: number, largestRead: number, tapeBytes: number): number {
  const sequence = leastSequence(input);
  const kv = Math.ceil(sequence / PAGE_POSITIONS) * PAGE_POSITIONS * input.kvBytesPerPosition;
  const ring = Math.min(RING_CHUNKS_MIN * largestRead, tapeBytes);
  const bytes = constant + kv + ring + passBytes(input, Math.min(sequence, LEAST_TOKENS));
  return Math.ceil((bytes + 8 * MIB) / (16 * MIB)) * 16 * MIB;
}

function leastSequence(input: ResidencyInput): number {
  return input.maxSeqLen ?? Math.min(input.contextLimit, 256);
}

function passBytes(input: ResidencyInput, tokens: number): number {
  return tokens * input.activationBytesPerToken + logitsRoom(input, tokens);
}

/** `forward` returns logits of every token; a few dozen are provided for, more need room that happens to be free. */
function logitsRoom(input: ResidencyInput, tokens: number): number {
  return Math.min(tokens, LOGITS_TOKENS) * input.logitsBytesPerToken;
}

/** Room for the cache, and for a prompt that fills it in one pass, may take a quarter of what there is. */
function chooseSequence(input: ResidencyInput, rest: number): number {
  if (input.maxSeqLen !== undefined) return input.maxSeqLen;
  const bytesPerToken = input.kvBytesPerPosition + input.activationBytesPerToken;
  const affordable = Math.floor(rest / 4 / bytesPerToken / PAGE_POSITIONS) * PAGE_POSITIONS;
  const wanted = Math.min(input.contextLimit, DEFAULT_SEQUENCE);
  return Math.max(Math.min(wanted, affordable), leastSequence(input));
}

function chooseRing(budget: number, largestRead: number, rest: number): number {
  const wanted = Math.min(RING_BYTES_MAX, Math.max(budget / 32, RING_CHUNKS_MIN * largestRead));
  const bytes = Math.max(Math.min(wanted, rest / 4), RING_CHUNKS_MIN * largestRead);
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

/** The whole context in one pass, or halves of it down to PROMPT_TOKENS. */
function passLengths(maxSeqLen: number): number[] {
  const lengths = [maxSeqLen];
  for (let tokens = maxSeqLen; tokens / 2 >= PROMPT_TOKENS; tokens = Math.floor(tokens / 2))
    lengths.push(Math.floor(tokens / 2));
  return lengths;
}

/** As many tokens a pass as a third of the room allows; PROMPT_TOKENS even if they take half of it. */
function chooseTokens(input: ResidencyInput, maxSeqLen: number, rest: number): number {
  const affordable = (share: number) => {
    const few = Math.floor((rest * share) / passBytes(input, 1));
    if (few <= LOGITS_TOKENS) return few;
    return Math.floor((rest * share - logitsRoom(input, LOGITS_TOKENS)) / input.activationBytesPerToken);
  };
  const tokens = Math.max(affordable(1 / 3), Math.min(PROMPT_TOKENS, affordable(1 / 2)));
  return Math.max(1, Math.min(maxSeqLen, Math.max(tokens, LEAST_TOKENS)));
}

function isExpert({ routed }: ResidencyStage): boolean {
  return routed;
}

function isOnTape(stage: ResidencyStage): boolean {
  return !stage.gathered && !isExpert(stage);
}

/**
 * What every pass reads is held first, then experts. Embeddings are held last: gathering a row costs next to nothing.
 */
function chooseHeld(stages: readonly ResidencyStage[], room: number, everything: number): boolean[] {
  const held = stages.map(() => false);
  if (everything <= room) return held.fill(true);
  const left = spread(stages, isOnTape, room, held);
  spread(stages, isExpert, left, held);
  return held;
}

/**
 * Error diffusion along the tape: a stage is held when the held bytes so far fall behind the share that the room
 * allows. Then what still fits fills the rest. Returns the room that is left.
 */
function spread(
  stages: readonly ResidencyStage[],
  eligible: (stage: ResidencyStage) => boolean,
  room: number,
  held: boolean[],
): number {
  const wanted = total(stages.filter(eligible).map((stage) => stage.bytes));
  const share = Math.min(1, Math.max(0, room / wanted));
  let passed = 0;
  let taken = 0;
  const take = (index: number, bytes: number) => {
    if (taken + bytes > room) return;
    held[index] = true;
    taken += bytes;
  };
  stages.forEach((stage, index) => {
    if (!eligible(stage)) return;
    passed += stage.bytes;
    if (passed * share - taken >= stage.bytes / 2) take(index, stage.bytes);
  });
  const bySize = stages.map((stage, index) => ({ stage, index })).sort((a, b) => b.stage.bytes - a.stage.bytes);
  for (const { stage, index } of bySize) if (eligible(stage) && !held[index]) take(index, stage.bytes);
  return room - taken;
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
