/**
 * Where everything lives beside a device with memory of its own, as a pure function of sizes and two budgets. What passes
 * touch is on the device; weights are held there first, then in pinned host memory, from where each pass copies them, and the
 * rest is streamed.
 */
import { type ActivationSizes, activationBytes, onDevice } from "./activations.js";
import { chooseHeld, IN_DEVICE, IN_HOST, stageParts, streamedByToken, total } from "./held-chunks.js";
import {
  choosePass,
  kvRing,
  LEAST_TOKENS,
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

const MIB = 2 ** 20;
/** Reads in flight, and as many that wait for their copy to the device: with fewer, the disk waits for copies. */
const RING_CHUNKS = 8;
/** Chunks that ops work on, that arrive, and that are given back. */
const SLOT_CHUNKS_MIN = 3;

/** @throws MEMORY_BUDGET_TOO_SMALL with the budget that is too small and the least that would work. */
export function planDeviceResidency(input: ResidencyInput, vramBytes: number): ResidencyPlan {
  return new DevicePlanner(input, vramBytes).plan();
}

class DevicePlanner {
  private readonly sizes: Sizes;
  private readonly activations: ActivationSizes;
  private readonly slotChunk: number;
  private readonly leastSlots: number;

  constructor(
    private readonly input: ResidencyInput,
    private readonly vramBytes: number,
  ) {
    this.sizes = sizesOf(input);
    this.activations = onDevice(input.activations);
    this.slotChunk = this.sizes.chunkBytes + 2 * PAGE_BYTES;
    this.leastSlots = Math.min(SLOT_CHUNKS_MIN * this.slotChunk, this.sizes.tapeBytes);
  }

  plan(): ResidencyPlan {
    const { input, sizes, vramBytes } = this;
    const least = leastWorking(input);
    this.check(least, ` with a context of ${leastSequence(input)} tokens`, input.maxSeqLen !== undefined);
    const ringWanted = ringWithin(input, {
      least: leastRing(sizes),
      wanted: Math.max(input.budgetBytes * RING_SHARE, RING_CHUNKS * sizes.largestRead),
      spare: this.spare(least),
    });
    const maxSeqLen = this.chooseSequence(ringWanted);
    const asked = wantedWorking(input, Math.ceil(maxSeqLen / PAGE_POSITIONS));
    const needed = { ...asked, tokens: Math.min(asked.tokens, LEAST_TOKENS) };
    this.check(needed, wordsFor(needed), true);
    const ring = Math.min(ringWanted, Math.max(leastRing(sizes), this.spare(needed)));
    const wanted = this.within(asked, ring);

    const kvLayers = this.chooseKvLayers(wanted, ring);
    const rest = vramBytes - this.deviceConstant(wanted) - this.kvOnDevice(wanted, kvLayers);
    const { tokens, slotBytes } = this.chooseSlots(wanted, rest);
    const working = { ...wanted, tokens };
    const passBytes = activationBytes(this.activations, tokens);
    const inDevice = this.heldInDevice(rest - slotBytes - passBytes);
    const fixedBytes = this.hostFixed(working, ring, kvLayers);
    const hostRoom = sizes.budgetBytes - fixedBytes;
    const held = this.addHeldInHost(inDevice, hostRoom);
    const parts = input.stages.map((stage, index) => stageParts(stage, held[index] as Uint8Array));
    return {
      held,
      heldBytes: total(parts.map(({ heldBytes }) => heldBytes)),
      deviceHeldBytes: total(parts.map(({ deviceHeldBytes }) => deviceHeldBytes)),
      streamedBytes: streamedByToken(input.stages, held),
      chunkBytes: sizes.chunkBytes,
      ringBytes: ring,
      slotBytes,
      expertRingBytes: sizes.expertRing,
      maxSeqLen,
      pageCount: Math.ceil(maxSeqLen / PAGE_POSITIONS),
      working,
      kvLayers,
      kvBytes: this.kvOnDevice(wanted, kvLayers),
      kvSpilledBytes: this.kvInHost(wanted, kvLayers),
      activationBytes: passBytes,
      logitsBytes: this.logits(wanted),
      fixedBytes: input.budgetBytes - sizes.budgetBytes + fixedBytes,
      minimumBytes: roundedBudget(
        input,
        this.hostFixed(least, leastRing(sizes), this.leastKvLayers(least)) / (1 - PAGE_TABLE_SHARE),
      ),
      deviceFixedBytes: vramBytes - rest + slotBytes + passBytes,
      minimumVramBytes: this.leastVram(least),
    };
  }

  /** What a plan for so much takes at least fits in both budgets, or the one that is too small is named. */
  private check(working: WorkingMemory, what: string, sequenceHelps: boolean): void {
    const { input, vramBytes } = this;
    const vramNeeded = this.leastVram(working);
    if (vramBytes < vramNeeded) {
      throw tooSmall({ name: "vram", bytes: vramBytes, leastBytes: vramNeeded }, what, sequenceHelps);
    }
    const hostNeeded = this.hostFixed(working) / (1 - PAGE_TABLE_SHARE);
    const leastBytes = roundedBudget(input, hostNeeded);
    // A smaller process may have named less.
    const enough = input.runtimeVariationBytes ? hostNeeded : leastBytes;
    if (input.budgetBytes < enough) {
      throw tooSmall({ name: "memory", bytes: input.budgetBytes, leastBytes }, what, sequenceHelps);
    }
  }

  /** In whole MiB. */
  private leastVram(working: WorkingMemory): number {
    const bytes =
      this.deviceConstant(working) +
      this.leastSlots +
      activationBytes(this.activations, working.tokens) +
      this.kvOnDevice(working, this.leastKvLayers(working));
    return Math.ceil(bytes / MIB) * MIB;
  }

  /** On the device whatever is held there: constants, scratch, logits, and what experts and rows of the embedding pass through. */
  private deviceConstant(working: WorkingMemory): number {
    const { gatherBytes, expertRing } = this.sizes;
    const { vectorBytes, deviceScratchBytes = 0 } = this.input;
    return vectorBytes + deviceScratchBytes + gatherBytes + expertRing + this.logits(working);
  }

  private logits({ logitsRows }: WorkingMemory): number {
    return logitsRows * this.input.logitsBytesPerToken;
  }

  /** In the host's memory beside held weights, without page tables; with as few layers of the KV cache as can be. */
  private hostFixed(
    working: WorkingMemory,
    ring = leastRing(this.sizes),
    kvLayers = this.kvLayersBeside(working, LEAST_TOKENS),
  ): number {
    const { gatherBytes, expertRing } = this.sizes;
    const tables = working.tokens * this.input.activations.hostBytesPerToken;
    return (
      this.input.runtimeBytes +
      gatherBytes +
      expertRing +
      ring +
      tables +
      this.logits(working) +
      this.kvInHost(working, kvLayers)
    );
  }

  /** Of the host's memory, for a ring and held weights. */
  private spare(working: WorkingMemory): number {
    const bytes = this.sizes.budgetBytes - this.hostFixed(working, 0);
    return Math.floor(bytes / PAGE_BYTES) * PAGE_BYTES;
  }

  /** Layers that are in the host's memory pass through a ring in parts, however long they are. */
  private kvOnDevice({ pages }: WorkingMemory, layers: number): number {
    const { input, sizes } = this;
    const ring = layers < input.kvLayers ? kvRing(input, sizes, pages) : 0;
    return (pages * sizes.pageBytes * layers) / input.kvLayers + ring;
  }

  /** All where a ring would take no less. */
  private leastKvLayers({ pages }: WorkingMemory): number {
    const { input, sizes } = this;
    return input.kvSpill && kvRing(input, sizes, pages) < pages * sizes.pageBytes ? 0 : input.kvLayers;
  }

  private kvInHost({ pages }: WorkingMemory, layers: number): number {
    const { kvLayers } = this.input;
    return (pages * this.sizes.pageBytes * (kvLayers - layers)) / kvLayers;
  }

  /** No more tokens in a pass than their tables have room for in the host's memory. */
  private within(wanted: WorkingMemory, ring: number): WorkingMemory {
    const { hostBytesPerToken } = this.input.activations;
    const kvLayers = this.kvLayersBeside(wanted, LEAST_TOKENS);
    const room = this.sizes.budgetBytes - this.hostFixed({ ...wanted, tokens: 0 }, ring, kvLayers);
    const most = hostBytesPerToken > 0 ? Math.floor(Math.max(0, room) / hostBytesPerToken) : wanted.tokens;
    return { ...wanted, tokens: Math.max(Math.min(wanted.tokens, LEAST_TOKENS), Math.min(wanted.tokens, most)) };
  }

  /** As long as the model is made for, or as the cache can be when it takes what would hold weights in both memories. */
  private chooseSequence(stagingRing: number): number {
    const { input, sizes, vramBytes } = this;
    if (input.maxSeqLen !== undefined) return input.maxSeqLen;
    const least = leastWorking(input);
    const pass = this.leastSlots + activationBytes(this.activations, least.tokens);
    const deviceRoom = vramBytes - this.deviceConstant(least) - pass;
    const hostRoom = sizes.budgetBytes - this.hostFixed(least, stagingRing, input.kvLayers);
    const allOnDevice = deviceRoom / sizes.pageBytes;
    const ring = kvRing(input, sizes, Number.POSITIVE_INFINITY);
    // Layers are whole: of one, a part may fit nowhere.
    const together = (deviceRoom - ring + hostRoom) / (sizes.pageBytes * (1 + 1 / input.kvLayers));
    const inHost = Math.min(hostRoom / sizes.pageBytes, deviceRoom / kvRing(input, sizes, 1));
    const spilled = !input.kvSpill ? 0 : deviceRoom < ring ? inHost : together;
    const pages = Math.floor(Math.max(allOnDevice, spilled));
    return Math.max(Math.min(input.contextLimit, MOST_TOKENS, pages * PAGE_POSITIONS), leastSequence(input));
  }

  /** All layers on the device unless passes would then be shorter than a block; more than that where the host has no room. */
  private chooseKvLayers(wanted: WorkingMemory, ring: number): number {
    const { kvLayers } = this.input;
    const hostRoom = this.sizes.budgetBytes - this.hostFixed(wanted, ring, kvLayers);
    const layerBytes = (wanted.pages * this.sizes.pageBytes) / kvLayers;
    return Math.max(this.kvLayersBeside(wanted, PROMPT_TOKENS), kvLayers - Math.floor(hostRoom / layerBytes));
  }

  /** Layers of the cache that fit on the device beside slots and passes of so many tokens. */
  private kvLayersBeside(wanted: WorkingMemory, tokens: number): number {
    const { input, sizes } = this;
    const pass = activationBytes(this.activations, Math.min(wanted.tokens, tokens));
    const room = this.vramBytes - this.deviceConstant(wanted) - this.leastSlots - pass;
    const least = this.leastKvLayers(wanted);
    if (least === input.kvLayers || this.kvOnDevice(wanted, input.kvLayers) <= room) return input.kvLayers;
    const layerBytes = (wanted.pages * sizes.pageBytes) / input.kvLayers;
    const whole = Math.floor((room - kvRing(input, sizes, wanted.pages)) / layerBytes);
    return Math.min(input.kvLayers - 1, Math.max(least, whole));
  }

  /** None where everything is held on the device beside passes of a reasonable length. */
  private chooseSlots(wanted: WorkingMemory, rest: number): { tokens: number; slotBytes: number } {
    const { input, sizes, activations } = this;
    const weights = sizes.tapeBytes + sizes.expertBytes;
    const beside = (tokens: number) => weights + activationBytes(activations, tokens) <= rest;
    const resident = (input.hold ?? true) ? passLengths(wanted.tokens).find(beside) : undefined;
    if (resident !== undefined) return { tokens: resident, slotBytes: 0 };
    const spare = rest - activationBytes(activations, Math.min(wanted.tokens, LEAST_TOKENS));
    const wantedSlots = this.vramBytes * RING_SHARE;
    const slots = Math.min(ringWithin(input, { least: this.leastSlots, wanted: wantedSlots, spare }), spare);
    const { tokens, ringBytes } = choosePass(input.stages, this.slotChunk, {
      activations,
      wanted,
      bytes: rest,
      ringBytes: Math.floor(slots / PAGE_BYTES) * PAGE_BYTES,
      held: (bytes) => this.heldInDevice(bytes),
      staged: (stage, held) => total(stage.chunks.filter((_, chunk) => held[chunk] !== IN_DEVICE)),
    });
    return { tokens, slotBytes: ringBytes };
  }

  private heldInDevice(room: number): Uint8Array[] {
    const { stages, hold = true, held, onProcessor } = this.input;
    const before = held?.map((tiers) => tiers.map((tier) => Number(tier === IN_DEVICE)));
    const here = stages.map((stage, index) => (onProcessor?.[index] ? { ...stage, bytes: 0, chunks: [] } : stage));
    const chosen = chooseHeld(here, hold ? room : 0, before);
    return stages.map(({ chunks }, index) =>
      onProcessor?.[index] ? new Uint8Array(chunks.length) : (chosen[index] as Uint8Array),
    );
  }

  /** Among what is not held on the device, as evenly as that. Each chunk is in memory of its own. */
  private addHeldInHost(inDevice: readonly Uint8Array[], room: number): Uint8Array[] {
    const { stages, hold = true, held } = this.input;
    const left = inDevice.map((tiers) => [...tiers.keys()].filter((chunk) => tiers[chunk] !== IN_DEVICE));
    const rest = stages.map((stage, index) => {
      const chunks = (left[index] ?? []).map((chunk) => stage.chunks[chunk] ?? 0);
      return { ...stage, chunks, bytes: total(chunks) };
    });
    const before = held?.map((tiers, index) =>
      Uint8Array.from(left[index] ?? [], (chunk) => Number(tiers[chunk] === IN_HOST)),
    );
    const inHost = chooseHeld(rest, hold ? Math.max(0, room) : 0, before);
    return inDevice.map((tiers, index) => {
      const both = tiers.slice();
      for (const [at, chunk] of (left[index] ?? []).entries()) if (inHost[index]?.[at]) both[chunk] = IN_HOST;
      return both;
    });
  }
}
