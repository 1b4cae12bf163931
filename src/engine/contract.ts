/** Types of the public API that `AutoModel.fromPretrained` returns (see index.ts for what is exported). */

import type { KvFormat } from "../native/types.js";
import type { Placement } from "./placement.js";
import type { Profile } from "./profile.js";

export interface ChatMessage {
  role: string;
  content: string;
}

/** A prompt: text, chat messages, or token ids (which need no tokenizer). */
export type Prompt = string | readonly ChatMessage[] | readonly number[] | Int32Array | Uint32Array;

export interface SamplingOptions {
  /** 0 (the default) is greedy. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  /** 1 is none. Divides positive and multiplies negative logits of tokens seen in the prompt or the output. */
  repetitionPenalty?: number;
  /** Same seed, same model, same options: same tokens. Random when absent. */
  seed?: number;
}

export interface GenerateOptions extends SamplingOptions {
  /** Default 256, and never past maxSeqLen. */
  maxNewTokens?: number;
  /** Generation ends before the first of these appears in the text. Needs a tokenizer. */
  stop?: string | readonly string[];
  /** Go on after an end-of-sequence token. */
  ignoreEos?: boolean;
  signal?: AbortSignal;
}

export interface GeneratedToken {
  /** Text that this token completed; may be empty (token-id prompts, half a character, a possible stop string). */
  text: string;
  token: number;
}

export type FinishReason = "stop" | "eos" | "length" | "aborted";

/** Iterate once, or call one of the methods once. Work starts with the first of them. */
export interface Generation extends AsyncIterable<GeneratedToken> {
  text(): Promise<string>;
  tokens(): Promise<number[]>;
  /** Set when the generation has ended. */
  readonly finishReason: FinishReason | undefined;
  /** Tokens of the prompt, once known. */
  readonly promptTokens: number | undefined;
}

export interface Stats {
  /** Passes of the tape since load, and how many tokens went in and came out. */
  passes: number;
  promptTokens: number;
  generatedTokens: number;
  prefillSeconds: number;
  decodeSeconds: number;
  /**
   * Since load: bytes of weights read from disk and of the KV cache from its file, and the seconds that reading them took
   * (overlapped reads count once).
   */
  bytesStreamed: number;
  readSeconds: number;
  /** Processor time that reading took. */
  readCpuSeconds: number;
  /** Bytes that a pass of one token streams: everything on the tape, and the experts that its routers choose. */
  bytesPerPass: number;
  heldBytes: number;
  /** Of these, in the memory of a device that has its own, and in the host's. */
  deviceHeldBytes: number;
  hostHeldBytes: number;
  /** Bytes that pass through the compute in one pass, held or streamed. */
  weightBytes: number;
  ringBytes: number;
  /** Of a device's own memory, for weights that are not held there while they are multiplied. */
  slotBytes: number;
  kvBytes: number;
  /** Of the KV cache, in a temporary file, or beside a device with memory of its own in the host's: every pass reads it. */
  kvSpilledBytes: number;
  /** Since load: bytes of the KV cache that came from its file and went there, and the seconds that took. */
  kvBytesRead: number;
  kvReadSeconds: number;
  kvBytesWritten: number;
  kvWriteSeconds: number;
  kvDtype: KvFormat;
  activationBytes: number;
  memoryBudgetBytes: number;
  /** Of a device's own memory; 0 where it uses the host's. */
  vramBudgetBytes: number;
  /** Seconds in which the compute stream waited for the disk, and in which it computed. */
  ioWaitSeconds: number;
  computeSeconds: number;
  /** Bytes of weights that were copied to a device with memory of its own. */
  bytesCopied: number;
  /** Bytes of weights that went through products, wherever they lay. */
  bytesMultiplied: number;
  peakMemoryBytes: number;
  threads: number;
  /** "cpu", "cuda", "opencl:1": where the model runs. */
  device: string;
  /** "avx512-vnni", "avx512", "avx2", "neon" or "scalar". */
  kernels: string;
  /** How reads are submitted, and why not by io_uring. */
  reader: "io_uring" | "pread" | "";
  readerReason: string | undefined;
  /** "direct", or "buffered" with the reason beside it. */
  readMode: "direct" | "buffered";
  readModeReason: string | undefined;
}

export interface ResidencyEntry {
  /** For example "layers.3.mlp" or "head". */
  stage: string;
  /** Mixed: some of its chunks are held. Routed: an expert that is read when the router chooses it. */
  tier: "held" | "mixed" | "streamed" | "gathered" | "routed";
  /** Of its whole extent on disk. */
  bytes: number;
  heldBytes: number;
  /** Of these, in the memory of a device that has its own, and in the host's. */
  deviceHeldBytes: number;
  hostHeldBytes: number;
  /** Bytes that a pass which uses all of it reads. */
  streamedBytes: number;
  /** What computes it in passes of few tokens; the CPU only beside a device with memory of its own. */
  placement: "device" | "cpu";
}

export interface Residency {
  memoryBudgetBytes: number;
  /** Of a device's own memory; 0 where it uses the host's. */
  vramBudgetBytes: number;
  heldBytes: number;
  /** Of these, in the memory of a device that has its own, and in the host's. */
  deviceHeldBytes: number;
  hostHeldBytes: number;
  streamedBytes: number;
  ringBytes: number;
  /** Of a device's own memory, for weights that are not held there while they are multiplied. */
  slotBytes: number;
  kvBytes: number;
  /** Of the KV cache, in a temporary file, or beside a device with memory of its own in the host's. */
  kvSpilledBytes: number;
  activationBytes: number;
  /** What the process needs besides: Node, the addon, worker threads. */
  runtimeBytes: number;
  /** The least budget that this model, maxSeqLen and store can run in. */
  minimumBytes: number;
  /** The least vram that they can run in; 0 where the device uses the host's memory. */
  minimumVramBytes: number;
  maxSeqLen: number;
  /** Why stages are placed as they are, a sentence; undefined where the device uses the host's memory. */
  placementReason: string | undefined;
  stages: ResidencyEntry[];
}

export interface Model {
  /** One pass over `tokens`, no cache kept. logits is [tokens, vocab], row-major. */
  forward(
    tokens: readonly number[] | Int32Array | Uint32Array,
    options?: { signal?: AbortSignal },
  ): Promise<{ logits: Float32Array; vocabSize: number }>;
  generate(prompt: Prompt, options?: GenerateOptions): Generation;
  /**
   * A new hard budget for the whole process, kept from the next pass on: bytes, or "4GiB". When this resolves, memory
   * beyond it has been given back. @throws MEMORY_BUDGET_TOO_SMALL with the least that works; the old one stays in force
   */
  setMemory(budget: string | number): Promise<void>;
  stats(): Stats;
  residency(): Residency;
  /** Where time has gone since load. @throws INVALID_ARGUMENT without profilingMode */
  profile(): Profile;
  /**
   * Writes the latest spans of time (reads, copies, ops, waits, JavaScript) as Chrome trace JSON, which ui.perfetto.dev shows.
   * Returns how many, and how many older ones had been overwritten. @throws INVALID_ARGUMENT without profilingMode; IO_ERROR
   */
  writeTrace(file: string): Promise<{ spans: number; dropped: number }>;
  /** Stops reads and frees everything. Running generations fail with MODEL_DISPOSED. Safe to call twice. */
  dispose(): Promise<void>;
  /** Undefined without tokenizer files. @throws TOKENIZER_INVALID if there are some that cannot be used */
  readonly tokenizer: TokenizerLike | undefined;
  readonly vocabSize: number;
  readonly maxSeqLen: number;
  /** Directory of the layer store in use. */
  readonly store: string;
}

/** What the engine needs of a tokenizer; `tokenizer/tokenizer.ts` implements it. */
export interface TokenizerLike {
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[];
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  /** Text of the conversation with the prompt for the assistant's turn at its end. */
  applyChatTemplate(messages: readonly ChatMessage[], options?: { addGenerationPrompt?: boolean }): string;
  /** Incremental decoding: never half a character, and the pieces concatenate to `decode` of all ids. */
  createDecoder(options?: { skipSpecialTokens?: boolean }): { push(id: number): string; flush(): string };
  readonly hasChatTemplate: boolean;
  readonly eosTokenIds: readonly number[];
}

export interface LoadProgress {
  phase: "decompose" | "load";
  bytesDone: number;
  bytesTotal: number;
}

/** How activations enter products with weights. */
export type Precision = "fast" | "exact";

export interface LoadOptions {
  /** How a checkpoint is stored when it is decomposed on first use. A store keeps what it has. Default "none". */
  compression?: "none" | "lossless" | "8bit" | "4bit";
  embeddingCompression?: "none" | "lossless" | "8bit" | "4bit";
  headCompression?: "none" | "lossless" | "8bit" | "4bit";
  /** Let compression quantize a checkpoint that comes quantized, which is refused otherwise. Default false. */
  requantize?: boolean;
  /** Hard budget for the whole process: bytes, or "4GiB", "900MB". Default: what cgroup and free memory allow. */
  memory?: string | number;
  /** How keys and values are kept: bf16 takes half of f32, 8bit about a quarter, both rounded. Default "f32". */
  kvDtype?: KvFormat;
  /** False streams every stage in every pass, even what the budget could hold: to measure the disk. Default true. */
  hold?: boolean;
  /** Directories of LoRA adapters (PEFT), applied in this order beside the store's weights, which stay as they are. */
  lora?: string | readonly string[];
  /**
   * "cpu", "cuda", "hip", "opencl", or with an index, as "opencl:1". Default "auto": the first GPU through CUDA, HIP or
   * OpenCL, in this order, else the processor. What does not work, or computes wrongly, is left out with a warning of the process.
   */
  device?: string;
  /**
   * "fast" rounds activations to 13 bits or more of the largest of their group where the processor multiplies integers
   * or bfloat16 faster than float32; "exact" keeps float32. Default "fast".
   */
  precision?: Precision;
  /** Where layer stores of checkpoints go. Default: cacheDir, else ~/.cache/layerstream. */
  layerShardsSavingPath?: string;
  cacheDir?: string;
  /** False keeps read-ahead to the least that works, within a pass. Default true. */
  prefetching?: boolean;
  /** Delete the checkpoint's shards once its store has been written and verified. Default false. */
  deleteOriginal?: boolean;
  /** Tokens of prompt and answer together; room for them is part of the budget. */
  maxSeqLen?: number;
  /** Threads that compute. Default: as many as the process may use. */
  threads?: number;
  /**
   * Hard budget of device memory: bytes, or "4GiB"; what the driver itself takes is beside it. Default: what is free, less a
   * tenth. For devices with memory of their own.
   */
  vram?: string | number;
  /**
   * Beside a device with memory of its own: "device" copies to it what it does not hold, "cpu" has the processor compute
   * MLPs of layers that it does not hold, a few tokens at a time. Default "auto": what is faster by measurement.
   */
  placement?: Placement;
  /** Records what every stage spends its time on: `profile()` and `writeTrace()`. Takes 21 MiB of the budget. Default false. */
  profilingMode?: boolean;
  /** Refused if true: code from a checkpoint never runs. */
  trustRemoteCode?: boolean;
  /** These concern downloads, which are not in this version; directories need none of them. */
  localFilesOnly?: boolean;
  hfToken?: string;
  revision?: string;
  onProgress?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
}
