/** What plans of residency are made from and come to, and the sizes that follow from a model alone. Pure. */
import { LayerstreamError } from "../errors.js";
import { formatBytes } from "../units.js";
import { type ActivationSizes, activationBytes, tokensWithin } from "./activations.js";
import { isExpert, isOnTape, type ResidencyStage, total } from "./held-chunks.js";

const MIB = 2 ** 20;

/** What a read brings at most, unless one row of a matrix is larger. */
const CHUNK_BYTES = 4 * MIB;
export const PAGE_BYTES = 4096;
/** Page tables, an entry of 8 bytes for each page: cgroups count them. */
export const PAGE_TABLE_SHARE = 8 / PAGE_BYTES;
/** Reads in flight plus one chunk being multiplied: with fewer, disk and compute take turns. */
const RING_CHUNKS_MIN = 3;
const RING_BYTES_MAX = 64 * MIB;
/** Of a budget, for a ring. */
export const RING_SHARE = 1 / 32;
/** Of what could be spared, at most. */
const RING_SPARE_SHARE = 1 / 4;
/** Experts are read one after the other: reads in flight plus the chunk being multiplied. */
const EXPERT_RING_CHUNKS = 4;
/** A layer of the KV cache that attention works on, and the next one on its way from a file. */
export const KV_BUFFERS = 2;
/** Of a layer of the KV cache in the host's memory, what comes to a device at once: much less would not be copied at full rate. */
const KV_PART_BYTES = 2 * MIB;
/** Parts on a device: one that attention works on, one that is there, and one on its way. As `kKvBuffers` in native/stream/kv_host.h. */
const KV_PARTS = 3;
/** Parts end at multiples of this: `kAttentionPartPositions` in native/backend/ops.h. */
const KV_PART_POSITIONS = 128;
/** Positions in a page of the KV cache. */
export const PAGE_POSITIONS = 64;
/** Passes of a prompt are not cut shorter than this so that weights stay held. */
export const PROMPT_TOKENS = 512;
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
  /** Of the host's memory. */
  budgetBytes: number;
  /** Of the device's own memory; absent where it uses the host's. */
  vramBytes?: number;
  /** Of the device's own memory, what ops take beside what they are given. */
  deviceScratchBytes?: number;
  /** All of the device's own memory: address space for what may be committed. */
  deviceMemoryBytes?: number;
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
  /** Layers of the KV cache that do not fit in memory may be in a file, those that do not fit on a device in the host's memory. */
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
  /** For each stage, whether the processor computes it beside a device: never held there. Absent: none. */
  onProcessor?: readonly boolean[];
  /** Some weights are stored compressed: they go through the ring even when they are held. */
  compressed?: boolean;
}

export interface ResidencyPlan {
  /** For each stage, the tier of each of its chunks: 0 streamed, 1 held where passes use it, 2 held in the host's memory. */
  held: Uint8Array[];
  /** In all tiers. */
  heldBytes: number;
  /** Of them where passes use them: in a device's own memory, or where it has none, in the host's. */
  deviceHeldBytes: number;
  streamedBytes: number;
  chunkBytes: number;
  /** 0 when nothing is streamed. */
  ringBytes: number;
  /** Of a device's own memory, for chunks that are not held there. */
  slotBytes: number;
  /** Where experts are read to; 0 when there are none or all are held. */
  expertRingBytes: number;
  /** Tokens of prompt and answer together, at most. */
  maxSeqLen: number;
  /** Of the KV cache that sequences may have together. */
  pageCount: number;
  /** Pages, tokens of one pass and rows of logits that are counted. */
  working: WorkingMemory;
  /** Layers of the KV cache that are where passes use them. */
  kvLayers: number;
  /** Of the KV cache there: those layers, and what others pass through, as a whole or beside a device with memory of its own in parts. */
  kvBytes: number;
  /** Of the KV cache in a file, or beside a device with memory of its own in the host's. */
  kvSpilledBytes: number;
  activationBytes: number;
  logitsBytes: number;
  /** Everything in the host's memory but held bytes. */
  fixedBytes: number;
  minimumBytes: number;
  /** Everything in a device's own memory but held bytes. */
  deviceFixedBytes: number;
  /** The least that would work there. */
  minimumVramBytes: number;
}

/** What a read brings at most, but for two pages. */
export function chunkBytesFor(largestRowBytes: number): number {
  return Math.max(CHUNK_BYTES, largestRowBytes);
}

/** What follows from the model alone. */
export interface Sizes {
  /** Without what page tables take of it. */
  budgetBytes: number;
  chunkBytes: number;
  largestRead: number;
  /** Where rows of the embedding are gathered. */
  gatherBytes: number;
  tapeBytes: number;
  expertBytes: number;
  /** The ring that experts need, unless all are held. */
  expertRing: number;
  /** Of the KV cache, all layers. */
  pageBytes: number;
}

export function sizesOf(input: ResidencyInput): Sizes {
  const chunkBytes = chunkBytesFor(input.largestRowBytes);
  // Compressed bytes are read beside the place of what they become.
  const largestRead = (input.compressed ? 2 : 1) * (chunkBytes + 2 * PAGE_BYTES);
  const gatherBytes = 64 * (Math.ceil(input.largestRowBytes / PAGE_BYTES) + 1) * PAGE_BYTES;
  const expertBytes = total(input.stages.filter(isExpert).map((stage) => stage.bytes));
  return {
    budgetBytes: input.budgetBytes * (1 - PAGE_TABLE_SHARE),
    chunkBytes,
    largestRead,
    gatherBytes,
    tapeBytes: total(input.stages.filter(isOnTape).map((stage) => stage.bytes)),
    expertBytes,
    expertRing: expertBytes > 0 ? EXPERT_RING_CHUNKS * largestRead : 0,
    pageBytes: PAGE_POSITIONS * input.kvBytesPerPosition,
  };
}

/** That the least of a budget is not there. */
export function tooSmall(
  budget: { name: "memory" | "vram"; bytes: number; leastBytes: number },
  what: string,
  sequenceHelps: boolean,
): LayerstreamError {
  const { name, bytes, leastBytes } = budget;
  return new LayerstreamError(
    "MEMORY_BUDGET_TOO_SMALL",
    `A ${name} budget of ${formatBytes(bytes)} cannot work: this model needs at least ${formatBytes(leastBytes)}${what}.`,
    { remedy: `Give it ${Math.ceil(leastBytes / MIB)}MiB or more${sequenceHelps ? ", or lower maxSeqLen" : ""}.` },
  );
}

/** The shortest context and passes of few tokens. */
export function leastWorking(input: ResidencyInput): WorkingMemory {
  const sequence = leastSequence(input);
  return {
    pages: Math.ceil(sequence / PAGE_POSITIONS),
    tokens: Math.min(sequence, LEAST_TOKENS),
    logitsRows: Math.min(sequence, LEAST_TOKENS),
  };
}

/** What a plan is made for where nobody says more: a short sequence, decoded. */
export function wantedWorking({ working }: ResidencyInput, pageCount: number): WorkingMemory {
  return working ?? { pages: Math.min(pageCount, FIRST_PAGES), tokens: LEAST_TOKENS, logitsRows: LOGITS_ROWS };
}

/** Budgets in which so much cannot be had are refused with this said. */
export function wordsFor({ pages, logitsRows }: WorkingMemory): string {
  return ` with ${pages * PAGE_POSITIONS} tokens in the KV cache and logits of ${logitsRows}`;
}

/** A budget of the host's memory, rounded up: it works in any process of this program where `bytes` are needed in this one. */
export function roundedBudget({ runtimeVariationBytes = 0 }: ResidencyInput, bytes: number): number {
  return Math.ceil((bytes + runtimeVariationBytes + 8 * MIB) / (16 * MIB)) * 16 * MIB;
}

/** Of the KV cache, in memory: layers that are in a file pass through buffers of one layer. */
export function kvMemory({ kvLayers }: ResidencyInput, { pageBytes }: Sizes, pages: number, layers: number): number {
  const inMemory = layers < kvLayers ? Math.min(layers + KV_BUFFERS, kvLayers) : kvLayers;
  return Math.ceil((pages * pageBytes * inMemory) / kvLayers);
}

/** Pages of a layer of the KV cache that come at once from the host's memory to a device with memory of its own. */
export function kvPartPages({ kvBytesPerPosition, kvLayers }: ResidencyInput): number {
  const unitBytes = (KV_PART_POSITIONS * kvBytesPerPosition) / kvLayers;
  return Math.ceil(KV_PART_BYTES / unitBytes) * (KV_PART_POSITIONS / PAGE_POSITIONS);
}

/** On a device, what layers of the KV cache pass through that are in the host's memory. */
export function kvRing(input: ResidencyInput, { pageBytes }: Sizes, pages: number): number {
  return Math.ceil((KV_PARTS * Math.min(kvPartPages(input), pages) * pageBytes) / input.kvLayers);
}

export function leastKvLayers({ kvLayers, kvSpill = false }: ResidencyInput): number {
  return kvSpill && kvLayers > KV_BUFFERS ? 0 : kvLayers;
}

export function leastSequence(input: ResidencyInput): number {
  return input.maxSeqLen ?? Math.min(input.contextLimit, 256);
}

export function leastRing({ largestRead }: Sizes): number {
  return RING_CHUNKS_MIN * largestRead;
}

/** Bytes of a ring, or of slots: as many as are wanted, of which `spare` bytes could be spared; at least `least`. */
export function ringWithin(
  { prefetching }: ResidencyInput,
  { least, wanted, spare }: { least: number; wanted: number; spare: number },
): number {
  if (prefetching === false) return least;
  const bytes = Math.min(RING_BYTES_MAX, wanted, spare * RING_SPARE_SHARE);
  return Math.ceil(Math.max(bytes, least) / PAGE_BYTES) * PAGE_BYTES;
}

/** What a pass in which weights are streamed has to share. */
export interface PassRoom {
  activations: ActivationSizes;
  wanted: WorkingMemory;
  /** For held weights, a ring or slots, and activations. */
  bytes: number;
  /** Of the ring or the slots, at least. */
  ringBytes: number;
  /** Weights that are held in so many bytes. */
  held: (bytes: number) => readonly Uint8Array[];
  /** Bytes that a stage takes while block after block of tokens works with it. */
  staged: (stage: ResidencyStage, held: Uint8Array) => number;
}

/**
 * A pass in which weights are streamed. One trip of the tape takes all tokens if the ring (or slots) can hold what is not held of
 * any stage while block after block of them works with it; otherwise a pass carries one block. Another trip costs more than
 * what a longer pass leaves of held weights.
 */
export function choosePass(stages: readonly ResidencyStage[], largestRead: number, room: PassRoom) {
  const { activations, wanted, ringBytes: ring } = room;
  const most = (ringBytes: number) => Math.min(wanted.tokens, tokensWithin(activations, room.bytes - ringBytes));
  if (activations.blockTokens === 0) return { tokens: most(ring), ringBytes: ring };
  // A larger ring leaves less to hold, so that more of each stage is streamed.
  for (let ringBytes = ring, tokens = most(ring); tokens > activations.blockTokens; tokens = most(ringBytes)) {
    const held = room.held(room.bytes - ringBytes - activationBytes(activations, tokens));
    // The head sees only tokens whose logits are asked for.
    const inBlocks = wanted.logitsRows > activations.blockTokens ? stages : stages.slice(0, -1);
    const staged = inBlocks.map((stage, index) =>
      isOnTape(stage) ? room.staged(stage, held[index] as Uint8Array) : 0,
    );
    const needed = Math.max(...staged) + 2 * largestRead;
    if (needed <= ringBytes) return { tokens, ringBytes };
    ringBytes = Math.ceil(needed / PAGE_BYTES) * PAGE_BYTES;
  }
  return { tokens: Math.min(most(ring), activations.blockTokens), ringBytes: ring };
}

/** All tokens in one pass, or halves of them down to PROMPT_TOKENS. */
export function passLengths(wanted: number): number[] {
  const lengths = [wanted];
  for (let tokens = wanted; tokens / 2 >= PROMPT_TOKENS; tokens = Math.floor(tokens / 2))
    lengths.push(Math.floor(tokens / 2));
  return lengths;
}
