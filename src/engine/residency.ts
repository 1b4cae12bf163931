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
/**
 * Half of what a run of neighbouring held chunks may be off the straight line, at most: long runs are multiplied in one
 * go and lie on huge pages, short ones keep the disk busy while they are.
 */
const SWING_BYTES = 4 * MIB;
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
  /** Of its whole extent. */
  bytes: number;
  /** Bytes of its chunks, each with the pages that it shares with its neighbours. */
  chunks: readonly number[];
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
  /** Of all layers, keys and values in the cache's format. */
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
  /** For each stage, a flag for each of its chunks. */
  held: Uint8Array[];
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

/** What a read brings at most, but for two pages. */
export function chunkBytesFor(largestRowBytes: number): number {
  return Math.max(CHUNK_BYTES, largestRowBytes);
}

/**
 * Decides what is held. The fixed needs come first (runtime, vectors, KV cache, activations, ring); what is left holds
 * chunks, spread evenly along the tape so that the disk is busy all through the pass. Experts are held as a whole.
 *
 * @throws MEMORY_BUDGET_TOO_SMALL with the least budget that would work.
 */
export function planResidency(input: ResidencyInput): ResidencyPlan {
  const chunkBytes = chunkBytesFor(input.largestRowBytes);
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

  const held = input.stages.map(({ chunks }) => new Uint8Array(chunks.length));
  if (hold) chooseHeld(input.stages, rest, everything, held);
  const parts = input.stages.map((stage, index) => stageParts(stage, held[index] as Uint8Array));
  return {
    held,
    heldBytes: total(parts.map((part) => part.heldBytes)),
    streamedBytes: Math.round(
      total(
        input.stages.map(({ gathered, share }, index) => (gathered ? 0 : (parts[index]?.streamedBytes ?? 0) * share)),
      ),
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

/** Bytes of a stage that are held, and that a pass which reads it streams. */
export function stageParts(stage: ResidencyStage, held: Uint8Array): { heldBytes: number; streamedBytes: number } {
  const streamedBytes = total(stage.chunks.filter((_, chunk) => !held[chunk]));
  // Chunks share pages, and a stage is never larger than its extent.
  const heldBytes = Math.min(stage.bytes, total(stage.chunks) - streamedBytes);
  return { heldBytes, streamedBytes };
}

/** What is held or not as one: some chunks of a stage. */
interface Unit {
  flags: Uint8Array;
  bytes: number;
}

/**
 * What every pass reads is held first, then experts. Embeddings are held last: gathering a row costs next to nothing.
 */
function chooseHeld(stages: readonly ResidencyStage[], room: number, everything: number, held: Uint8Array[]): void {
  if (everything <= room) {
    for (const flags of held) flags.fill(1);
    return;
  }
  const wholes = (eligible: (stage: ResidencyStage) => boolean): Unit[] =>
    stages.flatMap((stage, index) => (eligible(stage) ? { flags: held[index] as Uint8Array, bytes: stage.bytes } : []));
  const tape = wholes(isOnTape);
  const fits = total(tape.map(({ bytes }) => bytes)) <= room;
  const chunks = stages.flatMap((stage, index) =>
    isOnTape(stage)
      ? stage.chunks.map((bytes, at) => ({ flags: held[index]?.subarray(at, at + 1) as Uint8Array, bytes }))
      : [],
  );
  const left = fits ? spread(tape, room, 0) : spread(chunks, room, SWING_BYTES);
  spread(wholes(isExpert), left, 0);
}

/**
 * Error diffusion along the tape: units are held from when the held bytes so far fall `swing` behind the share that the
 * room allows until they are `swing` ahead of it. Then what still fits fills the rest. Returns the room that is left.
 */
function spread(units: readonly Unit[], room: number, most: number): number {
  const wanted = total(units.map(({ bytes }) => bytes));
  const share = Math.min(1, Math.max(0, room / wanted));
  const swing = Math.min(most, wanted / 32);
  let passed = 0;
  let taken = 0;
  const take = ({ flags, bytes }: Unit) => {
    if (taken + bytes > room) return;
    flags.fill(1);
    taken += bytes;
  };
  let holding = false;
  for (const unit of units) {
    passed += unit.bytes;
    holding = passed * share - taken >= unit.bytes / 2 + (holding ? -swing : swing);
    if (holding) take(unit);
  }
  for (const unit of [...units].sort((a, b) => b.bytes - a.bytes)) if (unit.flags[0] === 0) take(unit);
  return room - taken;
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
