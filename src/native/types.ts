/** The addon's contract, with `device-types.ts`. `binding.ts` is the only loader. */

export type ElementFormat = "f32" | "f16" | "bf16";
/** Formats that layerstream itself quantizes to. */
export type QuantizedFormat = "8bit" | "4bit";
/** Formats in which checkpoints come quantized; stored and multiplied as they are. */
export type PackedFormat =
  | "uint2"
  | "uint3"
  | "uint4"
  | "uint8"
  | "fp8"
  | "mxfp4"
  | "nf4"
  | "q8_0"
  | "q4_0"
  | "q4_1"
  | "q5_0"
  | "q5_1"
  | "q2_k"
  | "q3_k"
  | "q4_k"
  | "q5_k"
  | "q6_k";
/** In which layerstream stores bfloat16 in less room, exactly. */
export type LosslessFormat = "bf16_window";
/** `native/backend/format.h` describes the bytes of each. */
export type WeightFormat = ElementFormat | QuantizedFormat | PackedFormat | LosslessFormat;

/** How keys and values lie in the KV cache: `native/backend/kv_format.h`. */
export type KvFormat = "f32" | "bf16" | "8bit";

export interface NativeCodec {
  /** CRC-32C (Castagnoli) of `data`. */
  crc32c(data: Uint8Array): number;
  /** Bytes of one row of `columns` weights. */
  rowBytes(format: WeightFormat, columns: number, block: number): number;
  /**
   * Quantizes whole rows, single-threaded. `output` holds rows * rowBytes bytes. False if a value is NaN or
   * infinite or a block's scale does not fit in float16.
   */
  quantize(
    sourceFormat: ElementFormat,
    source: Uint8Array,
    rows: number,
    columns: number,
    format: QuantizedFormat,
    block: number,
    output: Uint8Array,
  ): boolean;
  /** The most escapes in a row of bfloat16: the least `block` of the matrix in bf16_window. */
  mostEscapes(source: Uint8Array, rows: number, columns: number): number;
  /** Rows of bfloat16 in bf16_window, bit for bit. False if a row has more than `block` escapes. */
  encodeWindows(source: Uint8Array, rows: number, columns: number, block: number, output: Uint8Array): boolean;
  /** bfloat16 of float32 that are such in truth. False if one is not: it would lose bits. */
  narrowToBf16(source: Uint8Array, output: Uint8Array): boolean;
  /** `output` is [rows, columns] float32. */
  dequantize(
    format: WeightFormat,
    data: Uint8Array,
    rows: number,
    columns: number,
    block: number,
    output: Float32Array,
  ): void;
}

/** How a checkpoint packs codes; `native/codec/repack.h` says where each one lies. */
export type CodePacking = "stream" | "highNibbles" | "interleaved";

/** Codes of a matrix, one byte each; column c has the scale and zero `c / block`, or `groupOf[c / block]`. */
export interface ScaledCodes {
  /** [rows, columns] */
  codes: Uint8Array;
  rows: number;
  columns: number;
  block: number;
  /** [rows, groups] */
  scales: Float32Array;
  /** [rows, groups]; absent: codes are numbers of levels. */
  zeros?: Uint8Array;
  groups: number;
  groupOf?: Uint32Array;
}

export interface NativeRepack {
  /**
   * One byte a code, [rows, columns]. `rowBytes` and `first` (codes before column 0) are those of the packings with
   * rows; `interleaved` has words [rows / 8, columns].
   */
  unpackCodes(
    packing: CodePacking,
    bits: number,
    data: Uint8Array,
    rows: number,
    columns: number,
    rowBytes: number,
    first: number,
    output: Uint8Array,
  ): void;
  /**
   * Rows of uint2 to uint8 (with zeros), fp8, mxfp4 or nf4. Stored column c is column `columnOrder[c]`. False if the
   * format does not hold a scale exactly.
   */
  packRows(codes: ScaledCodes, format: PackedFormat, columnOrder: Uint32Array | undefined, output: Uint8Array): boolean;
  /** [rows, columns] of `(levels ? levels[code] : code - zero) * scale`. `levels` holds 256 numbers. */
  expandRows(codes: ScaledCodes, levels: Float32Array | undefined, output: Float32Array): void;
}

/**
 * Steps of a plan in native terms: a matrix or a vector is named by its place among the stage's matrices or vectors.
 * Widths, offsets and strides count floats within a token's row of a register. Each matrix is used once, in order.
 */
export type NativeStep =
  /** output = (input - mean if centered) / root mean square * weight + bias, over `groups` groups of `width` floats. */
  | {
      op: "norm";
      input: string;
      output: string;
      weightVector?: number;
      biasVector?: number;
      groups: number;
      width: number;
      epsilon: number;
      centered: boolean;
      /** Every group has a weight and a bias of its own. */
      groupWeights: boolean;
      accumulate: boolean;
    }
  /** value = (row . input * rowScale + bias) * scale; output = value, or += value if `accumulate`. */
  | {
      op: "matmul";
      input: string;
      output: string;
      matrix: number;
      biasVector?: number;
      rowScaleVector?: number;
      accumulate: boolean;
      scale: number;
      inputOffset: number;
      outputOffset: number;
      /** Row r of group g = floor(r / rows) reads at inputOffset + g * inputStride, writes at outputOffset + g * outputStride + r % rows. */
      groups?: { rows: number; inputStride: number; outputStride: number };
    }
  | {
      op: "rope";
      target: string;
      heads: number;
      headDim: number;
      rotaryDim: number;
      /** First rotated float of each head. */
      offset: number;
      /** Pairs are (2i, 2i + 1), else (i, i + rotaryDim / 2). */
      interleaved: boolean;
      table: number;
    }
  /** `headDim` and `kvHeads` are the cache's. Without `value`, values are the first `valueDim` floats of each key. */
  | {
      op: "attention";
      query: string;
      key: string;
      value?: string;
      output: string;
      heads: number;
      kvHeads: number;
      headDim: number;
      valueDim: number;
      scale: number;
      /** 0: unlimited. */
      window: number;
      /** 0: none. */
      softCap: number;
      sinksVector?: number;
      /** One a head. */
      alibiSlopes?: readonly number[];
      /** 0: none. */
      lognLength: number;
    }
  | {
      op: "activation";
      gate: string;
      up?: string;
      width: number;
      activation: "silu" | "gelu" | "geluTanh" | "clampedSwiglu";
      alpha: number;
      limit: number;
    }
  | { op: "scaleTokens"; target: string; factor: string; width: number }
  | { op: "softCap"; target: string; width: number; cap: number }
  /** Chooses experts; the stages of the chosen ones run when the other steps of this stage have. `input` and `output`: hidden or normed. */
  | {
      op: "route";
      logits: string;
      input: string;
      output: string;
      experts: number;
      perToken: number;
      scoring: "softmax" | "sigmoid";
      correctionVector?: number;
      groupCount: number;
      groupsKept: number;
      groupScore: "max" | "topTwoSum";
      normalize: boolean;
      scale: number;
    };

export interface NativeMatrix {
  format: WeightFormat;
  block: number;
  rows: number;
  columns: number;
  rowBytes: number;
  /** In the stage's file. */
  offset: number;
  /** Rows of a compressed block, and the bytes of each: see `StoredTensor.lz4`. */
  lz4?: { rows: number; bytes: Uint32Array };
  /** Where in the file `columns` uint32 lie: stored column c multiplies input column order[c]. */
  columnOrder?: number;
  /** Low-rank additions: the product grows by scale * b (a x). a is [rank, columns], b [rows, rank]. */
  adapters?: { rank: number; scale: number; a: Float32Array; b: Float32Array }[];
}

export interface NativeVector {
  format: ElementFormat;
  length: number;
  offset: number;
  /** Added to every element when loaded. */
  add?: number;
}

export interface NativeStage {
  /** Index in `plans`. */
  kind: number;
  /** Index in `files`. */
  file: number;
  /** Index in the KV cache; absent for embed and head. */
  layer?: number;
  /** An expert of the stage with the `route` step, which its experts follow in order. Never on the tape. */
  routed?: { expert: number };
  /**
   * Of each of the stage's chunks (see `stageChunks`): 0 streamed, 1 held in device memory, 2 held in pinned host memory. Absent:
   * nothing is held. Experts: all alike.
   */
  heldChunks?: Uint8Array;
  /** In passes of few tokens, the processor computes it; nothing of it is held in device memory then. */
  onProcessor?: boolean;
  matrices: NativeMatrix[];
  vectors: NativeVector[];
}

export interface NativeModelDescription {
  device: string;
  /** Where the device keeps the kernels that it compiles; absent: nowhere. */
  kernelDirectory?: string;
  threads: number;
  precision: "exact" | "fast";
  files: { path: string; size: number }[];
  plans: NativeStep[][];
  stages: NativeStage[];
  embedding: { stage: number; matrix: number; scale: number };
  registers: Record<string, number>;
  ropeDims: number[];
  chunkBytes: number;
  ringBytes: number;
  /** Device memory for chunks that are not held there; devices that share the host's memory need none. */
  slotBytes: number;
  /** Read on between passes, until the ring is full. */
  readAhead: boolean;
  /** For chunks of experts that are not held; 0 if there are none. */
  expertRingBytes: number;
  maxTokens: number;
  /** Tokens that a stage works on at once; 0: all of a pass. */
  blockTokens: number;
  /** A stage may use what the stage before has left in `normed`. */
  normedCarried: boolean;
  vocabSize: number;
  kvLayers: number;
  kvHeads: number;
  keyDim: number;
  /** 0: values live in keys. */
  valueDim: number;
  pageCount: number;
  pagePositions: number;
  /** Pages of a layer of the KV cache that come at once to a device with memory of its own; 0: others have none to come. */
  kvPartPages: number;
  /** Spans that the trace keeps, 40 bytes each; absent or 0: no trace. */
  traceSpans?: number;
  kvFormat: KvFormat;
  /** Where layers of the KV cache go that do not fit in memory; absent: they must fit. */
  spillDirectory?: string;
}

export interface NativePassRequest {
  /** Absent with `ends`. */
  tokens?: Uint32Array;
  /**
   * The pass follows another, whose choice is its one token. It does not run if that pass failed, found nothing to choose, or
   * chose one of these.
   */
  ends?: Uint32Array;
  segments: { tokens: number; firstPosition: number; pages: Uint32Array }[];
  /** Absent: those of the request before. */
  ropes?: { inverseFrequencies: Float32Array; attentionFactor: number }[];
  /** The tokens are a prompt or what is new of one. */
  prompt: boolean;
  /** Of the request whose tokens, or some of them, this pass carries: products of many take another way than those of a few. */
  requestTokens: number;
  /** Logits of every token, else of the last token of each segment. */
  allLogits: boolean;
  /** [rows, vocabSize]; absent: the head is not executed. */
  logits?: Float32Array;
  /** The promise is of the token with the greatest logit. For one segment, without allLogits. */
  choose?: boolean;
}

export interface NativeModelStats {
  /** Over all passes. The device was executing. */
  computeSeconds: number;
  /** The pass waited for the disk and the device was not executing. */
  waitSeconds: number;
  /** Of weights, wherever they lay. */
  /** Of weights, to a device with memory of its own. */
  bytesCopied: number;
  bytesMultiplied: number;
  bytesRead: number;
  /** Time in which at least one read was in flight. */
  readSeconds: number;
  /** Processor time of the thread that reads the tape. */
  readCpuSeconds: number;
  /** Of the KV cache, from its temporary file (part of `bytesRead`) and to it. */
  kvBytesRead: number;
  kvReadSeconds: number;
  kvBytesWritten: number;
  kvWriteSeconds: number;
  kernels: string;
  reader: "io_uring" | "pread";
  /** Why io_uring is not in use, else empty. */
  readerReason: string;
  /** Why reads go through the page cache, else empty. */
  bufferedReason: string;
}

/** Sums over all spans of one activity in one kind of stage. */
export interface NativeSum {
  /** Index in `plans`, or their number for what belongs to no stage. */
  kind: number;
  /** Index in `activityNames`. */
  activity: number;
  count: number;
  /** Of reads: time in which at least one was in flight. */
  seconds: number;
  bytes: number;
  operations: number;
}

export interface NativeSpans {
  /** Number of the first span, counted from the model's creation: later than asked if older ones were overwritten. */
  first: number;
  /** Spans so far. */
  recorded: number;
  /** Eight numbers a span: track, lane, activity, stage (-1: none), begin and end (nanoseconds), bytes, operations. */
  fields: Float64Array;
}

/** What JavaScript does, for the trace: nothing; waiting for a pass; layerstream's own work; the caller's. */
export const TRACE_IDLE = 0;
export const TRACE_PASS = 1;
export const TRACE_ENGINE = 2;
export const TRACE_CALLER = 3;
export type TraceActivity = 0 | 1 | 2 | 3;

/** What `readTape` came to. */
export const READ_DONE = 0;
export const READ_PAUSED = 1;
export const READ_CANCELLED = 2;

/** Models are named by number, which any thread of the process may use. */
export interface NativeEngine {
  /**
   * Of each chunk into which native code cuts the stage: bytes in memory, those that reading it takes, and those of the ring
   * that it takes when it is streamed. Pure.
   */
  stageChunks(stage: NativeStage, chunkBytes: number): { chunks: number[]; reads: number[]; staged: number[] };
  /** Beside JavaScript: opens the device, has it checked, allocates. A description that contradicts itself is thrown at once. */
  createModel(description: NativeModelDescription): Promise<number>;
  /** Cancels everything; memory is freed when the last call on the model returns. */
  destroyModel(model: number): void;
  /**
   * Reads the tape, pass after pass, until the ring is full and no pass runs (READ_PAUSED), the tape is cancelled or a
   * read fails, of which passes tell (READ_CANCELLED), or nothing is left to read (READ_DONE). Blocks the calling thread:
   * for one worker at a time.
   */
  readTape(model: number): number;
  /**
   * One at a time, and one more that follows it. Resolves to the chosen token, the lowest of several with the greatest logit; -1
   * if a logit is NaN, the greatest is not finite, or none was to be chosen; undefined if the pass did not run.
   */
  runPass(model: number, request: NativePassRequest): Promise<number | undefined>;
  /** The first of the greatest; -1 if one is NaN, or the greatest is not finite. */
  firstMaximum(values: Float32Array): number;
  /**
   * Writes the ascending indices of all values from some bound on, which is no greater than the `count`-th greatest value, and
   * returns their number. Without NaN.
   */
  topCandidates(values: Float32Array, count: number, indices: Uint32Array): number;
  cancelModel(model: number): void;
  /**
   * Changes what is held, as in `heldChunks` of each stage. Memory of chunks that are held no longer is given back
   * at once; new ones are read by the next pass. Between cancelModel and resetTape, when no readTape and no runPass is
   * running. Rings are made anew if their size changes.
   */
  setHeld(
    model: number,
    held: readonly (Uint8Array | undefined)[],
    ringBytes: number,
    expertRingBytes: number,
    slotBytes: number,
  ): void;
  /**
   * How much of the KV cache (a flag a page) and of the registers (tokens of a pass) is in use; what is left out loses
   * its content and gives its memory back at once. `kvLayers` layers of the cache are where passes use them, the others in a file,
   * or beside a device with memory of its own in pinned host memory.
   * Nothing at first. When no runPass is running.
   */
  setWorkingMemory(model: number, tokens: number, pages: Uint8Array, kvLayers: number): void;
  /** After cancelModel or a failed pass, when no readTape and no runPass is running. */
  resetTape(model: number): void;
  setTapeIdle(model: number, idle: boolean): void;
  /** Gives back what the page cache holds of a file and no program has mapped, where the system can do that. */
  dropFileCache(path: string): void;
  modelStats(model: number): NativeModelStats;
  /** What activities of sums and spans are called. */
  activityNames(): string[];
  /** Of passes that carried a prompt, or of the others. These three need a model with a trace. */
  phaseSums(model: number, prompt: boolean): { tokens: number; sums: NativeSum[] };
  /** At most `limit` spans from number `first` on, as far as the ring still has them. */
  traceSpans(model: number, first: number, limit: number): NativeSpans;
  traceActivity(model: number, activity: TraceActivity): void;
}

/** Memory, and a thread that fills it from files or writes it to them beside the caller's work. One transfer at a time. */
export interface NativeTransfer {
  /** Start on a page, as direct reads and writes need it; on huge pages where granted, which doubles their speed. */
  readonly buffers: readonly Uint8Array[];
  /** One system call on `length` bytes of a buffer from `begin` on, at `position` of the file. */
  start(write: boolean, descriptor: number, buffer: number, begin: number, length: number, position: number): void;
  /** Waits for it: bytes, or a negative number of an error, as `util.getSystemErrorName` knows them. */
  finish(): number;
}

export interface NativeTransfers {
  /** `bytes` of each buffer, at most 1 GiB. */
  createTransfer(buffers: number, bytes: number): NativeTransfer;
}
