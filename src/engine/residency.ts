/** Where everything lives, as a pure function of sizes and a budget. */
import { LayerstreamError } from "../errors.js";
import { formatBytes } from "../units.js";
import { type ActivationSizes, activationBytes, tokensWithin } from "./activations.js";
import { chooseHeld, isExpert, isOnTape, type ResidencyStage, stagedBytes, stageParts, total } from "./held-chunks.js";

const MIB = 2 ** 20;

/** What a read brings at most, unless one row of a matrix is larger. */
const CHUNK_BYTES = 4 * MIB;
const PAGE_BYTES = 4096;
/** Page tables, an entry of 8 bytes for each page: cgroups count them. */
const PAGE_TABLE_SHARE = 8 / PAGE_BYTES;
/** Reads in flight plus one chunk being multiplied: with fewer, disk and compute take turns. */
const RING_CHUNKS_MIN = 3;
const RING_BYTES_MAX = 64 * MIB;
/** Experts are read one after the other: reads in flight plus the chunk being multiplied. */
const EXPERT_RING_CHUNKS = 4;
/** A layer of the KV cache that attention works on, and the next one on its way from a file. */
const KV_BUFFERS = 2;
/** Positions in a page of the KV cache. */
export const PAGE_POSITIONS = 64;
/** Passes of a prompt are not cut shorter than this so that weights stay held. */
const PROMPT_TOKENS = 512;
/** Provided for before a longer prompt comes. */
export const LEAST_TOKENS = 16;
/** Rows of logits that are provided for before anybody asks for more. */
const LOGITS_ROWS = 4;
/** The longest sequence that is provided for where the model stretches to any length and nobody asks for more. */
export const MOST_TOKENS = 2 ** 20;
/** What the cache is given before a longer sequence comes. */
const FIRST_PAGES = 512 / PAGE_POSITIONS;

/**
 * What passes touch at once, counted beside the weights: it is taken from what holds weights when it grows, and holds
 * weights when it shrinks.
 */
export interface WorkingMemory {
  /** Of the KV cache. */
  pages: number;
  /** That one request brings: a pass carries as many of them as fit. */
  tokens: number;
  /** Of logits, in JavaScript's hands. */
  logitsRows: number;
}

export interface ResidencyInput {
  budgetBytes: number;
  /** Node, the addon, workers, and room for the JavaScript heap to breathe. */
  runtimeBytes: number;
  /** By how much that may be more in another process, in which the least budget named here must work. */
  runtimeVariationBytes?: number;
  /** In execution order. */
  stages: readonly ResidencyStage[];
  vectorBytes: number;
  largestRowBytes: number;
  /** Of all layers, keys and values in the cache's format. */
  kvBytesPerPosition: number;
  kvLayers: number;
  /** Layers of the KV cache that do not fit in memory may be in a file. */
  kvSpill?: boolean;
  activations: ActivationSizes;
  logitsBytesPerToken: number;
  /** Longest sequence that the model is made for, tokens; Infinity if it stretches. */
  contextLimit: number;
  /** As the user asked, if they did. */
  maxSeqLen?: number;
  /** Default: a short sequence, decoded. */
  working?: WorkingMemory;
  /** False: the smallest ring. */
  prefetching?: boolean;
  /** False: hold nothing, stream everything. */
  hold?: boolean;
  /** What is held now, as `ResidencyPlan.held`: chunks change hands only as far as they must. */
  held?: readonly Uint8Array[];
  /** Weights go through the ring even when they are held: to memory that is not the host's, or compressed. */
  alwaysStaged?: boolean;
  /** The device has memory of its own. */
  ownMemory?: boolean;
  /** Some weights are stored compressed. */
  compressed?: boolean;
}

export interface ResidencyPlan {
  /** For each stage, a flag for each of its chunks. */
  held: Uint8Array[];
  heldBytes: number;
  streamedBytes: number;
  chunkBytes: number;
  /** 0 when nothing is streamed. */
  ringBytes: number;
  /** Of device memory, for chunks that are not held there; 0 on devices that share the host's. */
  slotBytes: number;
  /** Where experts are read to; 0 when there are none or all are held. */
  expertRingBytes: number;
  /** Tokens of prompt and answer together, at most. */
  maxSeqLen: number;
  /** Of the KV cache that sequences may have together. */
  pageCount: number;
  /** Pages, tokens of one pass and rows of logits that are counted. */
  working: WorkingMemory;
  /** Layers of the KV cache that are in memory. */
  kvLayers: number;
  /** Of the KV cache in memory: those layers, and what others pass through. */
  kvBytes: number;
  /** Of the KV cache in a file. */
  kvSpilledBytes: number;
  activationBytes: number;
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
 * Decides what is held. The fixed needs come first (runtime, vectors, ring) and what passes touch (KV cache, activations,
 * logits); what is left holds chunks, spread evenly along the tape so that the disk is busy all through the pass. Experts
 * are held as a whole.
 *
 * @throws MEMORY_BUDGET_TOO_SMALL with the least budget that would work.
 */
export function planResidency(input: ResidencyInput): ResidencyPlan {
  const sizes = sizesOf(input);
  const least = leastBudget(input, sizes, leastWorking(input));
  // A smaller process may have named less.
  const enough = input.runtimeVariationBytes ? leastBytes(input, sizes, leastWorking(input)) : least;
  if (input.budgetBytes < enough) {
    throw tooSmall(input, least, ` with a context of ${leastSequence(input)} tokens`, input.maxSeqLen !== undefined);
  }
  const room = sizes.budgetBytes - sizes.constantBytes;
  const ringNeeded = chooseRing(input, sizes);
  const maxSeqLen = chooseSequence(input, sizes, room - ringNeeded - sizes.expertRing);
  const pageCount = Math.ceil(maxSeqLen / PAGE_POSITIONS);
  const wanted = input.working ?? {
    pages: Math.min(pageCount, FIRST_PAGES),
    tokens: LEAST_TOKENS,
    logitsRows: LOGITS_ROWS,
  };
  const needed = { ...wanted, tokens: Math.min(wanted.tokens, LEAST_TOKENS) };
  if (input.budgetBytes < leastBytes(input, sizes, needed)) {
    const { pages, logitsRows } = needed;
    const what = ` with ${pages * PAGE_POSITIONS} tokens in the KV cache and logits of ${logitsRows}`;
    throw tooSmall(input, leastBudget(input, sizes, needed), what, true);
  }

  const kvLayers = chooseKvLayers(input, sizes, wanted, ringNeeded);
  const kvBytes = kvMemory(input, sizes, wanted.pages, kvLayers);
  const logitsBytes = wanted.logitsRows * input.logitsBytesPerToken;
  let rest = room - kvBytes - logitsBytes;
  const ringRoom = rest - sizes.expertRing - activationBytes(input.activations, needed.tokens);
  const ring = Math.min(ringNeeded, Math.max(leastRing(sizes), Math.floor(ringRoom / PAGE_BYTES) * PAGE_BYTES));
  const stagedBytes = input.alwaysStaged ? ring : 0;
  const hold = input.hold ?? true;
  /** The longest pass for which so many bytes of weights fit beside it. */
  const tokensBeside = (bytes: number) =>
    hold
      ? passLengths(wanted.tokens).find((tokens) => bytes + activationBytes(input.activations, tokens) <= rest)
      : undefined;
  // No ring is needed when what it would carry fits beside passes of a reasonable length.
  const allTokens = tokensBeside(sizes.tapeBytes + sizes.expertBytes + stagedBytes);
  const expertRingBytes = allTokens !== undefined && !input.alwaysStaged ? 0 : sizes.expertRing;
  const residentTokens = allTokens ?? tokensBeside(sizes.tapeBytes + sizes.expertRing + stagedBytes);
  rest -= expertRingBytes;
  const { tokens, ringBytes } =
    residentTokens === undefined
      ? choosePass(input, sizes, wanted, ring, rest)
      : { tokens: residentTokens, ringBytes: stagedBytes };
  const passBytes = activationBytes(input.activations, tokens);
  const held = heldWithin(input, rest - ringBytes - passBytes);
  const parts = input.stages.map((stage, index) => stageParts(stage, held[index] as Uint8Array));
  return {
    held,
    heldBytes: total(parts.map((part) => part.heldBytes)),
    streamedBytes: Math.round(
      total(
        input.stages.map(({ gathered, share }, index) => (gathered ? 0 : (parts[index]?.streamedBytes ?? 0) * share)),
      ),
    ),
    chunkBytes: sizes.chunkBytes,
    ringBytes,
    slotBytes: input.ownMemory ? ringBytes : 0,
    expertRingBytes,
    maxSeqLen,
    pageCount,
    working: { ...wanted, tokens },
    kvLayers,
    kvBytes,
    kvSpilledBytes: (wanted.pages * sizes.pageBytes * (input.kvLayers - kvLayers)) / input.kvLayers,
    activationBytes: passBytes,
    logitsBytes,
    fixedBytes:
      input.budgetBytes -
      sizes.budgetBytes +
      sizes.constantBytes +
      kvBytes +
      ringBytes +
      expertRingBytes +
      passBytes +
      logitsBytes,
    minimumBytes: least,
  };
}

/** What follows from the model alone. */
interface Sizes {
  /** Without what page tables take of it. */
  budgetBytes: number;
  chunkBytes: number;
  largestRead: number;
  /** In memory whatever is decided. */
  constantBytes: number;
  tapeBytes: number;
  expertBytes: number;
  /** The ring that experts need, unless all are held. */
  expertRing: number;
  /** Of the KV cache, all layers. */
  pageBytes: number;
}

function sizesOf(input: ResidencyInput): Sizes {
  const chunkBytes = chunkBytesFor(input.largestRowBytes);
  // Compressed bytes are read beside the place of what they become.
  const largestRead = (input.compressed ? 2 : 1) * (chunkBytes + 2 * PAGE_BYTES);
  const gatherBytes = 64 * (Math.ceil(input.largestRowBytes / PAGE_BYTES) + 1) * PAGE_BYTES;
  const expertBytes = total(input.stages.filter(isExpert).map((stage) => stage.bytes));
  return {
    budgetBytes: input.budgetBytes * (1 - PAGE_TABLE_SHARE),
    chunkBytes,
    largestRead,
    constantBytes: input.runtimeBytes + input.vectorBytes + gatherBytes,
    tapeBytes: total(input.stages.filter(isOnTape).map((stage) => stage.bytes)),
    expertBytes,
    expertRing: expertBytes > 0 ? EXPERT_RING_CHUNKS * largestRead : 0,
    pageBytes: PAGE_POSITIONS * input.kvBytesPerPosition,
  };
}

function tooSmall(input: ResidencyInput, least: number, what: string, sequenceHelps: boolean): LayerstreamError {
  return new LayerstreamError(
    "MEMORY_BUDGET_TOO_SMALL",
    `A memory budget of ${formatBytes(input.budgetBytes)} cannot work: this model needs at least ${formatBytes(least)}${what}.`,
    { remedy: `Give it ${Math.ceil(least / MIB)}MiB or more${sequenceHelps ? ", or lower maxSeqLen" : ""}.` },
  );
}

/** With one small ring and nothing held. */
function leastBytes(input: ResidencyInput, sizes: Sizes, working: WorkingMemory): number {
  const ring = Math.min(leastRing(sizes), sizes.tapeBytes);
  const bytes = sizes.constantBytes + sizes.expertRing + ring + workingBytes(input, sizes, working);
  return bytes / (1 - PAGE_TABLE_SHARE);
}

/** A budget of so much, rounded up, works in any process of this program. */
function leastBudget(input: ResidencyInput, sizes: Sizes, working: WorkingMemory): number {
  const bytes = leastBytes(input, sizes, working) + (input.runtimeVariationBytes ?? 0) + 8 * MIB;
  return Math.ceil(bytes / (16 * MIB)) * 16 * MIB;
}

/** The shortest context and passes of few tokens. */
function leastWorking(input: ResidencyInput): WorkingMemory {
  const sequence = leastSequence(input);
  return {
    pages: Math.ceil(sequence / PAGE_POSITIONS),
    tokens: Math.min(sequence, LEAST_TOKENS),
    logitsRows: Math.min(sequence, LEAST_TOKENS),
  };
}

function workingBytes(input: ResidencyInput, sizes: Sizes, { pages, tokens, logitsRows }: WorkingMemory): number {
  const kvBytes = kvMemory(input, sizes, pages, leastKvLayers(input));
  return kvBytes + activationBytes(input.activations, tokens) + logitsRows * input.logitsBytesPerToken;
}

/** Of the KV cache, in memory: layers that are in a file pass through buffers of one layer. */
function kvMemory({ kvLayers }: ResidencyInput, { pageBytes }: Sizes, pages: number, layers: number): number {
  const inMemory = layers < kvLayers ? Math.min(layers + KV_BUFFERS, kvLayers) : kvLayers;
  return Math.ceil((pages * pageBytes * inMemory) / kvLayers);
}

function leastKvLayers({ kvLayers, kvSpill = false }: ResidencyInput): number {
  return kvSpill && kvLayers > KV_BUFFERS ? 0 : kvLayers;
}

/**
 * How many layers of the KV cache are in memory: all, unless passes would then be shorter than a block. A byte of it is
 * worth as much there as a byte of weights, and needs no buffers.
 */
function chooseKvLayers(input: ResidencyInput, sizes: Sizes, wanted: WorkingMemory, ring: number): number {
  const { kvLayers, activations } = input;
  const least = leastKvLayers(input);
  if (least === kvLayers) return kvLayers;
  const fixed = sizes.constantBytes + sizes.expertRing + wanted.logitsRows * input.logitsBytesPerToken;
  const room = (tokens: number, ringBytes: number) =>
    sizes.budgetBytes - fixed - ringBytes - activationBytes(activations, Math.min(tokens, wanted.tokens));
  if (kvMemory(input, sizes, wanted.pages, kvLayers) <= room(PROMPT_TOKENS, ring)) return kvLayers;
  // Where it is spilled, room is left for one trip of the tape, which is then one trip of the cache too.
  const staged = (stage: ResidencyStage) => stagedBytes(stage, new Uint8Array(stage.chunks.length));
  const largest = Math.max(...input.stages.slice(0, -1).map((stage) => (isOnTape(stage) ? staged(stage) : 0)));
  const oneTrip = wanted.tokens > activations.blockTokens && activations.blockTokens > 0;
  const left = room(Number.POSITIVE_INFINITY, oneTrip ? Math.max(ring, largest + 3 * sizes.largestRead) : ring);
  const layerBytes = (wanted.pages * sizes.pageBytes) / kvLayers;
  return Math.min(kvLayers - 1, Math.max(least, Math.floor(left / layerBytes) - KV_BUFFERS));
}

function leastSequence(input: ResidencyInput): number {
  return input.maxSeqLen ?? Math.min(input.contextLimit, 256);
}

/**
 * As long as the model is made for, or as the cache can be when it takes what would hold weights and, where it may be spilled,
 * all of it is in a file but the layers that pass through memory.
 */
function chooseSequence(input: ResidencyInput, sizes: Sizes, room: number): number {
  if (input.maxSeqLen !== undefined) return input.maxSeqLen;
  const { tokens, logitsRows } = leastWorking(input);
  const pass = activationBytes(input.activations, tokens) + logitsRows * input.logitsBytesPerToken;
  const pageBytes = kvMemory(input, sizes, 1, leastKvLayers(input));
  const pages = Math.floor((room - pass) / pageBytes);
  return Math.max(Math.min(input.contextLimit, MOST_TOKENS, pages * PAGE_POSITIONS), leastSequence(input));
}

function leastRing({ largestRead }: Sizes): number {
  return RING_CHUNKS_MIN * largestRead;
}

/** The same for any working memory, so that the ring stays where it is when that changes. */
function chooseRing(input: ResidencyInput, sizes: Sizes): number {
  const least = leastRing(sizes);
  if (input.prefetching === false) return least;
  const wanted = Math.min(RING_BYTES_MAX, Math.max(input.budgetBytes / 32, least));
  const spare =
    sizes.budgetBytes - sizes.constantBytes - sizes.expertRing - workingBytes(input, sizes, leastWorking(input));
  return Math.ceil(Math.max(Math.min(wanted, spare / 4), least) / PAGE_BYTES) * PAGE_BYTES;
}

/**
 * A pass in which weights are streamed. One trip of the tape takes all tokens if the ring can hold what is streamed of any
 * stage while block after block of them works with it; otherwise a pass carries one block. Another trip costs more than
 * what a longer pass leaves of held weights.
 */
function choosePass(input: ResidencyInput, sizes: Sizes, wanted: WorkingMemory, ring: number, rest: number) {
  const { activations, stages } = input;
  const most = (ringBytes: number) => Math.min(wanted.tokens, tokensWithin(activations, rest - ringBytes));
  if (activations.blockTokens === 0) return { tokens: most(ring), ringBytes: ring };
  // A larger ring leaves less to hold, so that more of each stage is streamed.
  for (let ringBytes = ring, tokens = most(ring); tokens > activations.blockTokens; tokens = most(ringBytes)) {
    const held = heldWithin(input, rest - ringBytes - activationBytes(activations, tokens));
    // The head sees only tokens whose logits are asked for.
    const inBlocks = wanted.logitsRows > activations.blockTokens ? stages : stages.slice(0, -1);
    const staged = inBlocks.map((stage, index) =>
      isOnTape(stage) ? stagedBytes(stage, held[index] as Uint8Array) : 0,
    );
    const needed = Math.max(...staged) + 2 * sizes.largestRead;
    if (needed <= ringBytes) return { tokens, ringBytes };
    ringBytes = Math.ceil(needed / PAGE_BYTES) * PAGE_BYTES;
  }
  return { tokens: Math.min(most(ring), activations.blockTokens), ringBytes: ring };
}

/** All tokens in one pass, or halves of them down to PROMPT_TOKENS. */
function passLengths(wanted: number): number[] {
  const lengths = [wanted];
  for (let tokens = wanted; tokens / 2 >= PROMPT_TOKENS; tokens = Math.floor(tokens / 2))
    lengths.push(Math.floor(tokens / 2));
  return lengths;
}

function heldWithin({ stages, hold = true, held }: ResidencyInput, room: number): Uint8Array[] {
  return chooseHeld(stages, hold ? room : 0, held);
}
