import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { readEosTokenIds } from "./checkpoint/generation-config.js";
import { defaultCacheDirectory, isLayerStore, type LayerStore, openLayerStore } from "./checkpoint/layer-store.js";
import { type LoraAdapter, readLoraAdapter } from "./checkpoint/lora-adapter.js";
import type { GenerateOptions, Generation, LoadOptions, Model, Prompt, TokenizerLike } from "./engine/contract.js";
import { chooseBudgets, type ResolvedDevice, resolveDevices, withFirstDevice } from "./engine/device.js";
import { Engine } from "./engine/engine.js";
import { checkTokens, startGeneration } from "./engine/generation.js";
import { PLACEMENTS } from "./engine/placement.js";
import { LayerstreamError } from "./errors.js";
import { KV_FORMATS } from "./models/kv-format.js";
import { architectureOf } from "./models/registry.js";
import { native } from "./native/binding.js";
import { TRACE_IDLE } from "./native/types.js";
import { AutoTokenizer } from "./tokenizer/tokenizer.js";
import { parseBytes } from "./units.js";

export const AutoModel = {
  /**
   * Loads a model from the directory of a layer store, or of a checkpoint, which is decomposed on first use.
   *
   * @throws LayerstreamError; before any weight is read for unsupported models, bad options and budgets that cannot work
   */
  async fromPretrained(path: string, options: LoadOptions = {}): Promise<Model> {
    const { budgetsOf, ...settings } = checkOptions(options);
    native();
    // Before a long decompose: wrong budgets are known at once, and devices that cannot be opened.
    const { devices } = await withFirstDevice(resolveDevices(options.device ?? "auto"), budgetsOf);
    // A wrong path, too.
    const adapters: LoraAdapter[] = [];
    for (const directory of [options.lora ?? []].flat()) adapters.push(await readLoraAdapter(directory));
    const store = await openStore(path, options);
    options.signal?.throwIfAborted();
    const architecture = architectureOf(store.manifest.config, store.filePath("config.json"));
    const vocabulary = await openTokenizer(store.path);
    const ends = vocabulary instanceof LayerstreamError ? undefined : vocabulary?.eosTokenIds;
    const eosTokenIds = ends ?? (await readEosTokenIds(store.path));
    const { result: engine } = await withFirstDevice(devices, async (device) => {
      // Plans ask it for its memory and its rates before the model opens it.
      const release = native().holdDevice(device.name);
      try {
        return await Engine.open(store, architecture, {
          ...settings,
          ...budgetsOf(device),
          device: device.name,
          adapters,
          kernelDirectory: join(options.cacheDir ?? defaultCacheDirectory(), "kernels"),
          spillDirectory: options.cacheDir ?? dirname(store.path),
        });
      } finally {
        release();
      }
    });
    return new LoadedModel(engine, vocabulary, eosTokenIds);
  },
};

/** A layer store needs nothing of what writes one: not loading that lets the first read start earlier. */
async function openStore(path: string, options: LoadOptions): Promise<LayerStore> {
  if (await isLayerStore(path)) return openLayerStore(path);
  const { openDecomposed } = await import("./decompose/open-decomposed.js");
  return openDecomposed(path, options);
}

/** A model without a tokenizer works with token ids, and so does one whose tokenizer cannot be used: the error waits. */
async function openTokenizer(directory: string): Promise<TokenizerLike | LayerstreamError | undefined> {
  try {
    return await AutoTokenizer.fromPretrained(directory);
  } catch (error) {
    if (!(error instanceof LayerstreamError)) throw error;
    if (error.code === "TOKENIZER_MISSING") return undefined;
    if (error.code === "TOKENIZER_INVALID") return error;
    throw error;
  }
}

class LoadedModel implements Model {
  constructor(
    private readonly engine: Engine,
    private readonly vocabulary: TokenizerLike | LayerstreamError | undefined,
    private readonly eosTokenIds: readonly number[],
  ) {}

  get tokenizer(): TokenizerLike | undefined {
    if (this.vocabulary instanceof LayerstreamError) throw this.vocabulary;
    return this.vocabulary;
  }

  get vocabSize(): number {
    return this.engine.architecture.vocabSize;
  }

  get maxSeqLen(): number {
    return this.engine.plan.maxSeqLen;
  }

  get store(): string {
    return this.engine.store.path;
  }

  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    return startGeneration(
      { engine: this.engine, vocabulary: this.vocabulary, eosTokenIds: this.eosTokenIds },
      prompt,
      options,
    );
  }

  async forward(tokens: readonly number[] | Int32Array | Uint32Array, options: { signal?: AbortSignal } = {}) {
    const { engine } = this;
    engine.checkAlive();
    checkTokens(tokens, this.vocabSize);
    if (tokens.length > this.maxSeqLen) {
      throw new LayerstreamError(
        "PROMPT_TOO_LONG",
        `${tokens.length} tokens exceed maxSeqLen, which is ${this.maxSeqLen}.`,
        {
          remedy: "Pass fewer, or load the model with a larger maxSeqLen.",
        },
      );
    }
    await engine.reserveLogits(tokens.length);
    const logits = new Float32Array(tokens.length * this.vocabSize);
    const sequence = await engine.kvCache.acquire([], tokens.length, options.signal);
    try {
      await engine.run(sequence, Array.from(tokens), logits, {
        allLogits: true,
        prompt: true,
        signal: options.signal,
      });
    } finally {
      engine.kvCache.release(sequence, false);
      engine.mark(TRACE_IDLE);
    }
    return { logits, vocabSize: this.vocabSize };
  }

  async setMemory(budget: string | number) {
    await this.engine.setBudget(parseBytes(budget, "memory"));
  }

  stats() {
    return this.engine.stats();
  }

  residency() {
    return this.engine.residency();
  }

  profile() {
    return this.engine.profile();
  }

  writeTrace(file: string) {
    return this.engine.writeTrace(file);
  }

  dispose() {
    return this.engine.dispose();
  }
}

/** Every option there is; a misspelled one is refused instead of ignored. */
const optionNames = {
  cacheDir: true,
  compression: true,
  deleteOriginal: true,
  device: true,
  embeddingCompression: true,
  headCompression: true,
  hfToken: true,
  hold: true,
  kvDtype: true,
  layerShardsSavingPath: true,
  localFilesOnly: true,
  lora: true,
  maxSeqLen: true,
  memory: true,
  onProgress: true,
  placement: true,
  precision: true,
  prefetching: true,
  profilingMode: true,
  requantize: true,
  revision: true,
  signal: true,
  threads: true,
  trustRemoteCode: true,
  vram: true,
} satisfies Record<keyof LoadOptions, true>;

function checkOptions(options: LoadOptions) {
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(optionNames, name)) continue;
    throw new LayerstreamError("INVALID_ARGUMENT", `There is no option ${JSON.stringify(name)}.`, {
      remedy: `Options: ${Object.keys(optionNames).join(", ")}.`,
    });
  }
  if (options.trustRemoteCode) {
    throw new LayerstreamError(
      "INVALID_ARGUMENT",
      "trustRemoteCode is refused: code from a checkpoint never runs here.",
      {
        remedy: "Supported families need none; leave the option out.",
      },
    );
  }
  const { maxSeqLen, threads, precision = "fast", kvDtype = "f32" } = options;
  if (!["fast", "exact"].includes(precision)) {
    throw new LayerstreamError("INVALID_ARGUMENT", `precision is ${JSON.stringify(precision)}.`, {
      remedy: 'Use "fast" or "exact".',
    });
  }
  if (!KV_FORMATS.includes(kvDtype)) {
    throw new LayerstreamError("INVALID_ARGUMENT", `kvDtype is ${JSON.stringify(kvDtype)}.`, {
      remedy: `Use ${KV_FORMATS.join(", ")}.`,
    });
  }
  const { placement = "auto" } = options;
  if (!PLACEMENTS.includes(placement)) {
    throw new LayerstreamError("INVALID_ARGUMENT", `placement is ${JSON.stringify(placement)}.`, {
      remedy: `Use ${PLACEMENTS.join(", ")}.`,
    });
  }
  for (const [name, value, most] of [
    ["maxSeqLen", maxSeqLen, 2 ** 24],
    ["threads", threads, 1024],
  ] as const) {
    if (value === undefined || (Number.isInteger(value) && value >= 1 && value <= most)) continue;
    throw new LayerstreamError("INVALID_ARGUMENT", `${name} is ${value}.`, {
      remedy: `Give a whole number from 1 to ${most}.`,
    });
  }
  const asked = {
    memory: options.memory === undefined ? undefined : parseBytes(options.memory, "memory"),
    vram: options.vram === undefined ? undefined : parseBytes(options.vram, "vram"),
  };
  return {
    budgetsOf(device: ResolvedDevice) {
      if (device.memory !== undefined || placement === "auto") return chooseBudgets(device, asked);
      const message = `The device ${device.name} uses the host's memory: nothing is placed.`;
      throw new LayerstreamError("INVALID_ARGUMENT", message, {
        remedy: "Leave the option placement out, or choose another device.",
      });
    },
    placement,
    threads: threads ?? availableParallelism(),
    precision,
    maxSeqLen,
    kvFormat: kvDtype,
    hold: options.hold,
    prefetching: options.prefetching,
    profiling: options.profilingMode,
  };
}
