/** What a pass keeps of its tokens beside the KV cache: registers and tables, as the native side lays them out. */
import type { Architecture, PlanOp } from "../models/architecture.js";
import type { ModelDescription } from "./model-description.js";

/** Tokens that a stage works on at once: weights are decoded once for so many. */
export const BLOCK_TOKENS = 512;

export interface ActivationSizes {
  /** For every token of a pass: the hidden state and what belongs to it. */
  passBytesPerToken: number;
  /** Of that, what is in pinned memory beside a device with memory of its own. */
  hostBytesPerToken: number;
  /** For every token of a block that a stage works on at once. */
  blockBytesPerToken: number;
  /** 0: a stage works on all tokens of a pass at once. */
  blockTokens: number;
}

/** Of a pass of so many tokens. */
export function activationBytes(sizes: ActivationSizes, tokens: number): number {
  const { passBytesPerToken, blockBytesPerToken, blockTokens } = sizes;
  return tokens * passBytesPerToken + (blockTokens === 0 ? tokens : Math.min(tokens, blockTokens)) * blockBytesPerToken;
}

/** What of them is in the memory of a device that has its own. */
export function onDevice(sizes: ActivationSizes): ActivationSizes {
  return { ...sizes, passBytesPerToken: sizes.passBytesPerToken - sizes.hostBytesPerToken, hostBytesPerToken: 0 };
}

/** The longest pass whose activations take no more than `bytes`, tokens. */
export function tokensWithin({ passBytesPerToken, blockBytesPerToken, blockTokens }: ActivationSizes, bytes: number) {
  const inOneBlock = Math.floor(bytes / (passBytesPerToken + blockBytesPerToken));
  if (blockTokens === 0 || inOneBlock <= blockTokens) return Math.max(0, inOneBlock);
  return Math.floor((bytes - blockTokens * blockBytesPerToken) / passBytesPerToken);
}

const ATTENTION_REGISTERS = ["query", "key", "value", "latent", "queryNope", "attended"] as const;
const MLP_REGISTERS = ["gate", "up", "router", "expertInput", "expertOutput"] as const;

/**
 * Experts are chosen and read once for all tokens of a pass: these models have no blocks. `ownMemory`: the device has memory of
 * its own, to which a layer of the KV cache may come in parts.
 */
export function activationSizes(
  architecture: Architecture,
  { permutedColumns, adapterRank }: ModelDescription,
  blockTokens: number,
  ownMemory: boolean,
): ActivationSizes {
  const { registers, ropes, experts } = architecture;
  const total = (names: readonly (keyof typeof registers)[]) =>
    names.reduce((floats, name) => floats + (registers[name] ?? 0), 0);
  const normed = registers.normed ?? 0;
  const carried = carriesNormed(architecture) ? normed : 0;
  // Each is copied to the device from pinned memory; logits of routers come from there.
  const tables = ropes.reduce((floats, rope) => floats + rope.rotaryDim, 0) + (experts ? 2 * experts.perToken : 0);
  const routing = experts ? (registers.router ?? 0) : 0;
  const state = ownMemory ? attentionState(architecture) : 0;
  const scratch = Math.max(total(ATTENTION_REGISTERS) + state, total(MLP_REGISTERS));
  return {
    passBytesPerToken: 4 * (total(["hidden"]) + carried + 2 * tables + routing),
    hostBytesPerToken: 4 * (tables + routing),
    blockBytesPerToken: 4 * (normed - carried + scratch + permutedColumns + adapterRank),
    blockTokens: experts ? 0 : blockTokens,
  };
}

/** Floats of a token that go from one part of a layer's KV cache to the next: of each head a maximum, a total and sums of values. */
function attentionState({ kinds }: Architecture): number {
  const widths = kinds.flatMap(({ plan }) =>
    plan.map((op) => (op.op === "attention" ? op.heads * (op.valueDim + 2) : 0)),
  );
  return Math.max(0, ...widths);
}

/** Whether a stage uses what the stage before has left in `normed`, as where one norm serves both halves of a layer. */
export function carriesNormed({ kinds }: Architecture): boolean {
  return kinds.some(({ plan }) => {
    const first = plan.find((op) => reads(op) || writes(op));
    return first !== undefined && reads(first);
  });
}

function reads(op: PlanOp): boolean {
  if ("input" in op && op.input === "normed") return true;
  return "accumulate" in op && op.accumulate === true && writes(op);
}

function writes(op: PlanOp): boolean {
  return "output" in op && op.output === "normed";
}
