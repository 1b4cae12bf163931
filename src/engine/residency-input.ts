/** What an engine is made with, and what residency is decided from: sizes of the model, the process and the options. */
import type { LoraAdapter } from "../checkpoint/lora-adapter.js";
import type { Architecture } from "../models/architecture.js";
import { kvPageBytes } from "../models/kv-format.js";
import { native } from "../native/binding.js";
import type { KvFormat } from "../native/types.js";
import { activationSizes, BLOCK_TOKENS } from "./activations.js";
import type { Precision } from "./contract.js";
import { runtimeMemory } from "./memory.js";
import type { ModelDescription } from "./model-description.js";
import type { Placement } from "./placement.js";
import { productScratchBytes } from "./product-scratch.js";
import { chunkBytesFor, PAGE_POSITIONS, type ResidencyInput } from "./residency-sizes.js";
import { TRACE_BYTES } from "./trace-file.js";

/** Growth of the JavaScript heap, thread stacks and kernel scratch after the plan is made. */
const RUNTIME_RESERVE_BYTES = 40 * 2 ** 20;

export interface EngineOptions {
  budgetBytes: number;
  /** Of the device's own memory, and how much that is; absent where it uses the host's. */
  vram?: { budgetBytes: number; memoryBytes: number };
  device: string;
  placement?: Placement;
  threads: number;
  precision: Precision;
  maxSeqLen?: number;
  kvFormat: KvFormat;
  hold?: boolean;
  prefetching?: boolean;
  /** Tokens of a pass that a stage works on at once. */
  blockTokens?: number;
  /** Where a device keeps the kernels that it compiles. Without it, they are compiled each time. */
  kernelDirectory?: string;
  /** Where layers of the KV cache go that do not fit in memory. Without it, they must fit. */
  spillDirectory?: string;
  adapters?: readonly LoraAdapter[];
  profiling?: boolean;
}

/** Reads what the process has in memory: as late as can be. */
export function residencyInputOf(
  architecture: Architecture,
  description: ModelDescription,
  options: EngineOptions,
): ResidencyInput {
  const chunkBytes = chunkBytesFor(description.largestRowBytes);
  const stages = description.stages.map((stage, index) => ({
    bytes: stage.extentBytes,
    ...native().stageChunks(stage.native, chunkBytes),
    gathered: isGathered(architecture, description, index),
    routed: stage.native.routed !== undefined,
    share: stage.share,
  }));
  // Other devices have their own.
  const cpuKernels = options.device.startsWith("cpu");
  const fastProducts = cpuKernels && options.precision === "fast" && native().cpuKernels().includes("vnni");
  const runtime = runtimeMemory();
  const runtimeBytes =
    runtime.bytes +
    (fastProducts ? productScratchBytes(description.widestColumns, options.threads) : 0) +
    RUNTIME_RESERVE_BYTES +
    (options.profiling ? TRACE_BYTES : 0);
  return {
    budgetBytes: options.budgetBytes,
    vramBytes: options.vram?.budgetBytes,
    deviceMemoryBytes: options.vram?.memoryBytes,
    deviceScratchBytes: options.vram && native().deviceScratchBytes(options.device, description.widestColumns),
    runtimeBytes,
    runtimeVariationBytes: runtime.mostBytes - runtime.bytes,
    stages,
    vectorBytes: description.vectorBytes,
    largestRowBytes: description.largestRowBytes,
    kvBytesPerPosition:
      (architecture.layerCount * kvPageBytes(options.kvFormat, architecture.kvCache, PAGE_POSITIONS)) / PAGE_POSITIONS,
    kvLayers: architecture.layerCount,
    kvSpill: options.vram !== undefined || options.spillDirectory !== undefined,
    activations: activationSizes(
      architecture,
      description,
      options.blockTokens ?? BLOCK_TOKENS,
      options.vram !== undefined,
    ),
    logitsBytesPerToken: architecture.vocabSize * 4,
    contextLimit: contextLimit(architecture),
    maxSeqLen: options.maxSeqLen,
    hold: options.hold,
    prefetching: options.prefetching,
    compressed: description.compressed,
  };
}

/** Embeddings of their own are read row by row; a tied one is the head and is streamed as such. */
function isGathered(architecture: Architecture, description: ModelDescription, stage: number): boolean {
  return stage === description.embedding.stage && !architecture.tied;
}

/** Dynamic NTK scaling stretches to any length; the other kinds end where the model was made to end. */
function contextLimit(architecture: Architecture): number {
  const stretches = architecture.ropes.some(
    ({ scaling }) => scaling.type === "dynamic" || scaling.type === "qwenDynamic",
  );
  return stretches ? Number.POSITIVE_INFINITY : architecture.maxPositionEmbeddings;
}
