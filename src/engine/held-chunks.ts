/** Which chunks fill the memory that is left for weights. Pure. */

/**
 * Half of what a run of neighbouring held chunks may be off the straight line, at most: long runs are multiplied in one
 * go and lie on huge pages, short ones keep the disk busy while they are.
 */
const SWING_BYTES = 4 * 2 ** 20;
/** Where more than this share of the room changes hands, nothing needs to stay as it is. */
const MOST_CHANGE = 1 / 4;

/** Tiers of a chunk that is held: where passes use it, or in the host's memory beside a device with memory of its own. */
export const IN_DEVICE = 1;
export const IN_HOST = 2;

export interface ResidencyStage {
  /** Of its whole extent. */
  bytes: number;
  /** Bytes of its chunks, each with the pages that it shares with its neighbours. */
  chunks: readonly number[];
  /** Bytes that reading each takes where weights are compressed; absent: the same. */
  reads?: readonly number[];
  /** Bytes of the ring that each takes when it is streamed; absent: its own. Held compressed ones pass through the ring, too. */
  staged?: readonly number[];
  /** An embedding, of which a pass reads rows. */
  gathered: boolean;
  /** An expert: read when a router chooses it, never on the tape. */
  routed: boolean;
  /** The part of the passes of one token that reads it. */
  share: number;
}

/** What is held or not as one: some chunks of a stage. */
interface Unit {
  flags: Uint8Array;
  bytes: number;
  /** Held until now. */
  before: boolean;
}

export function isExpert({ routed }: ResidencyStage): boolean {
  return routed;
}

export function isOnTape(stage: ResidencyStage): boolean {
  return !stage.gathered && !isExpert(stage);
}

/** Bytes of a stage that are held, those of them that are where passes use them, and those that a pass which reads it streams. */
export function stageParts(stage: ResidencyStage, held: Uint8Array) {
  const { bytes, chunks, reads = chunks } = stage;
  const bytesIn = (tier: number) => total(chunks.filter((_, chunk) => held[chunk] === tier));
  // Chunks share pages, and there a stage is never larger than its extent; in the host's memory each has its own.
  const deviceHeldBytes = Math.min(bytes, bytesIn(IN_DEVICE));
  const streamedBytes = total(reads.filter((_, chunk) => !held[chunk]));
  return { heldBytes: deviceHeldBytes + bytesIn(IN_HOST), deviceHeldBytes, streamedBytes };
}

/** Bytes that a pass of one token reads from disk. */
export function streamedByToken(stages: readonly ResidencyStage[], held: readonly Uint8Array[]): number {
  const streamed = (stage: ResidencyStage, index: number) =>
    stage.gathered ? 0 : stageParts(stage, held[index] as Uint8Array).streamedBytes * stage.share;
  return Math.round(total(stages.map(streamed)));
}

/**
 * Bytes of the ring that a stage takes while block after block of tokens works with it: all that passes through the ring from
 * the first streamed chunk on.
 */
export function stagedBytes({ chunks, staged = chunks }: ResidencyStage, held: Uint8Array): number {
  const first = held.indexOf(0);
  if (first < 0) return 0;
  return total(staged.map((bytes, chunk) => (chunk < first ? 0 : bytes - (held[chunk] ? (chunks[chunk] ?? 0) : 0))));
}

/**
 * A flag for each chunk of each stage. What every pass reads is held first, chunk by chunk, then experts, each as a whole.
 * Embeddings are held last: gathering a row costs next to nothing.
 *
 * @param before what is held now: chunks change hands only as far as they must
 */
export function chooseHeld(
  stages: readonly ResidencyStage[],
  room: number,
  before?: readonly Uint8Array[],
): Uint8Array[] {
  const held = stages.map(({ chunks }) => new Uint8Array(chunks.length));
  if (total(stages.map(({ bytes }) => bytes)) <= room) {
    for (const flags of held) flags.fill(1);
    return held;
  }
  const heldBefore = total(
    stages.map((stage, index) => stageParts(stage, before?.[index] ?? new Uint8Array()).heldBytes),
  );
  const kept = Math.abs(room - heldBefore) > MOST_CHANGE * room ? undefined : before;
  const unit = (index: number, begin: number, end: number, bytes: number): Unit => ({
    flags: held[index]?.subarray(begin, end) as Uint8Array,
    bytes,
    before: kept?.[index]?.subarray(begin, end).every(Boolean) ?? false,
  });
  const wholes = (eligible: (stage: ResidencyStage) => boolean) =>
    stages.flatMap((stage, index) => (eligible(stage) ? unit(index, 0, stage.chunks.length, stage.bytes) : []));
  const chunks = stages.flatMap((stage, index) =>
    isOnTape(stage) ? stage.chunks.map((bytes, at) => unit(index, at, at + 1, bytes)) : [],
  );
  const tape = wholes(isOnTape);
  const fits = bytesOf(tape) <= room;
  const left = fits ? spread(tape, room, 0) : fill(chunks, room, SWING_BYTES);
  fill(wholes(isExpert), left, 0);
  return held;
}

/** What was held stays as far as it fits; then others are added. Returns the room that is left. */
function fill(units: readonly Unit[], room: number, swing: number): number {
  const old = units.filter(({ before }) => before);
  const left = room - bytesOf(old);
  if (left < 0) return spread(old, room, swing);
  for (const { flags } of old) flags.fill(1);
  const others = units.filter(({ before }) => !before);
  return spread(others, left, swing);
}

/**
 * Error diffusion along the tape: units are held from when the held bytes so far fall `swing` behind the share that the
 * room allows until they are `swing` ahead of it. Then what still fits fills the rest. Returns the room that is left.
 */
function spread(units: readonly Unit[], room: number, most: number): number {
  const wanted = bytesOf(units);
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

function bytesOf(units: readonly Unit[]): number {
  return total(units.map(({ bytes }) => bytes));
}

export function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
