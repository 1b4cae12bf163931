/** Where everything lives, as a pure function of sizes and budgets. */
import { activationBytes } from "./activations.js";
import { planDeviceResidency } from "./device-residency.js";
import {
  chooseHeld,
  isOnTape,
  type ResidencyStage,
  stagedBytes,
  stageParts,
  streamedByToken,
  total,
} from "./held-chunks.js";
import {
  choosePass,
  KV_BUFFERS,
  kvMemory,
  LEAST_TOKENS,
  leastKvLayers,
  leastRing,
  leastSequence,
  leastWorking,
  MOST_TOKENS,
  PAGE_BYTES,
  PAGE_POSITIONS,
  PAGE_TABLE_SHARE,
  PROMPT_TOKENS,
  passLengths,
  type ResidencyInput,
  type ResidencyPlan,
  RING_SHARE,
  ringWithin,
  roundedBudget,
  type Sizes,
  sizesOf,
  tooSmall,
  type WorkingMemory,
  wantedWorking,
  wordsFor,
} from "./residency-sizes.js";

/**
 * Decides what is held. The fixed needs come first (runtime, vectors, ring) and what passes touch (KV cache, activations,
 * logits); what is left holds chunks, spread evenly along the tape so that the disk is busy all through the pass. Experts
 * are held as a whole.
 *
 * @throws MEMORY_BUDGET_TOO_SMALL with the least budget that would work.
 */
export function planResidency(input: ResidencyInput): ResidencyPlan {
  if (input.vramBytes !== undefined) return planDeviceResidency(input, input.vramBytes);
  const sizes = sizesOf(input);
  const least = leastBudget(input, sizes, leastWorking(input));
  // A smaller process may have named less.
  const enough = input.runtimeVariationBytes ? leastBytes(input, sizes, leastWorking(input)) : least;
  if (input.budgetBytes < enough) {
    throw tooSmall(
      { name: "memory", bytes: input.budgetBytes, leastBytes: least },
      ` with a context of ${leastSequence(input)} tokens`,
      input.maxSeqLen !== undefined,
    );
  }
  const constant = constantBytes(input, sizes);
  const room = sizes.budgetBytes - constant;
  const ringNeeded = chooseRing(input, sizes);
  const maxSeqLen = chooseSequence(input, sizes, room - ringNeeded - sizes.expertRing);
  const pageCount = Math.ceil(maxSeqLen / PAGE_POSITIONS);
  const wanted = wantedWorking(input, pageCount);
  const needed = { ...wanted, tokens: Math.min(wanted.tokens, LEAST_TOKENS) };
  if (input.budgetBytes < leastBytes(input, sizes, needed)) {
    const leastNow = leastBudget(input, sizes, needed);
    throw tooSmall({ name: "memory", bytes: input.budgetBytes, leastBytes: leastNow }, wordsFor(needed), true);
  }

  const kvLayers = chooseKvLayers(input, sizes, wanted, ringNeeded);
  const kvBytes = kvMemory(input, sizes, wanted.pages, kvLayers);
  const logitsBytes = wanted.logitsRows * input.logitsBytesPerToken;
  let rest = room - kvBytes - logitsBytes;
  const ringRoom = rest - sizes.expertRing - activationBytes(input.activations, needed.tokens);
  const ring = Math.min(ringNeeded, Math.max(leastRing(sizes), Math.floor(ringRoom / PAGE_BYTES) * PAGE_BYTES));
  const ringOfHeld = input.compressed ? ring : 0;
  const hold = input.hold ?? true;
  /** The longest pass for which so many bytes of weights fit beside it. */
  const tokensBeside = (bytes: number) =>
    hold
      ? passLengths(wanted.tokens).find((tokens) => bytes + activationBytes(input.activations, tokens) <= rest)
      : undefined;
  // No ring is needed when what it would carry fits beside passes of a reasonable length.
  const allTokens = tokensBeside(sizes.tapeBytes + sizes.expertBytes + ringOfHeld);
  const expertRingBytes = allTokens !== undefined && !input.compressed ? 0 : sizes.expertRing;
  const residentTokens = allTokens ?? tokensBeside(sizes.tapeBytes + sizes.expertRing + ringOfHeld);
  rest -= expertRingBytes;
  const { tokens, ringBytes } =
    residentTokens === undefined
      ? choosePass(input.stages, sizes.largestRead, {
          activations: input.activations,
          wanted,
          bytes: rest,
          ringBytes: ring,
          held: (bytes) => heldWithin(input, bytes),
          staged: stagedBytes,
        })
      : { tokens: residentTokens, ringBytes: ringOfHeld };
  const passBytes = activationBytes(input.activations, tokens);
  const held = heldWithin(input, rest - ringBytes - passBytes);
  const heldBytes = total(input.stages.map((stage, index) => stageParts(stage, held[index] as Uint8Array).heldBytes));
  return {
    held,
    heldBytes,
    deviceHeldBytes: heldBytes,
    streamedBytes: streamedByToken(input.stages, held),
    chunkBytes: sizes.chunkBytes,
    ringBytes,
    slotBytes: 0,
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
      constant +
      kvBytes +
      ringBytes +
      expertRingBytes +
      passBytes +
      logitsBytes,
    minimumBytes: least,
    deviceFixedBytes: 0,
    minimumVramBytes: 0,
  };
}

/** In memory whatever is decided. */
function constantBytes(input: ResidencyInput, sizes: Sizes): number {
  return input.runtimeBytes + input.vectorBytes + sizes.gatherBytes;
}

/** With one small ring and nothing held. */
function leastBytes(input: ResidencyInput, sizes: Sizes, working: WorkingMemory): number {
  const ring = Math.min(leastRing(sizes), sizes.tapeBytes);
  const bytes = constantBytes(input, sizes) + sizes.expertRing + ring + workingBytes(input, sizes, working);
  return bytes / (1 - PAGE_TABLE_SHARE);
}

/** A budget of so much, rounded up, works in any process of this program. */
function leastBudget(input: ResidencyInput, sizes: Sizes, working: WorkingMemory): number {
  return roundedBudget(input, leastBytes(input, sizes, working));
}

function workingBytes(input: ResidencyInput, sizes: Sizes, { pages, tokens, logitsRows }: WorkingMemory): number {
  const kvBytes = kvMemory(input, sizes, pages, leastKvLayers(input));
  return kvBytes + activationBytes(input.activations, tokens) + logitsRows * input.logitsBytesPerToken;
}

/**
 * How many layers of the KV cache are in memory: all, unless passes would then be shorter than a block. A byte of it is
 * worth as much there as a byte of weights, and needs no buffers.
 */
function chooseKvLayers(input: ResidencyInput, sizes: Sizes, wanted: WorkingMemory, ring: number): number {
  const { kvLayers, activations } = input;
  const least = leastKvLayers(input);
  if (least === kvLayers) return kvLayers;
  const fixed = constantBytes(input, sizes) + sizes.expertRing + wanted.logitsRows * input.logitsBytesPerToken;
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

/** The same for any working memory, so that the ring stays where it is when that changes. */
function chooseRing(input: ResidencyInput, sizes: Sizes): number {
  const spare =
    sizes.budgetBytes -
    constantBytes(input, sizes) -
    sizes.expertRing -
    workingBytes(input, sizes, leastWorking(input));
  return ringWithin(input, { least: leastRing(sizes), wanted: input.budgetBytes * RING_SHARE, spare });
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

function heldWithin({ stages, hold = true, held }: ResidencyInput, room: number): Uint8Array[] {
  return chooseHeld(stages, hold ? room : 0, held);
}
