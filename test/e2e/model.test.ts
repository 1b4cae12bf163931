/** The public API on a small model: what users of `AutoModel` rely on. */
import { cpSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AutoModel, decompose, type GenerateOptions, LayerstreamError, type Model } from "../../dist/index.js";
import { fixtureCases, goldenCases } from "../helpers/golden.js";

const cacheDir = mkdtempSync(path.join(tmpdir(), "layerstream-model-"));
const golden = goldenCases(fixtureCases).find(({ name }) => name === "llama");
if (!golden) throw new Error("test/fixtures/families/llama is missing");
const { directory, inputIds, greedy } = golden;
let model: Model;

beforeAll(async () => {
  model = await AutoModel.fromPretrained(directory, { cacheDir });
});
afterAll(async () => {
  await model.dispose();
  rmSync(cacheDir, { recursive: true, force: true });
});

const tokens = (options: GenerateOptions = {}, prompt: readonly number[] = inputIds) =>
  model.generate(prompt, { maxNewTokens: 12, ignoreEos: true, ...options }).tokens();

async function codeOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof LayerstreamError) return error.code;
    throw error;
  }
  return "no error";
}

describe("generate", () => {
  it("streams tokens; without a tokenizer the text is empty", async () => {
    const seen: number[] = [];
    for await (const { text, token } of model.generate(inputIds, { maxNewTokens: 12, ignoreEos: true })) {
      expect(text).toBe("");
      seen.push(token);
    }
    expect(seen).toEqual(greedy);
  });

  it("a tokenizer that cannot be used is an error once text needs it, not before", async () => {
    const checkpoint = path.join(cacheDir, "bad-tokenizer");
    cpSync(directory, checkpoint, { recursive: true });
    writeFileSync(path.join(checkpoint, "tokenizer.json"), "{}");
    const damaged = await AutoModel.fromPretrained(checkpoint, { cacheDir });
    try {
      expect(await damaged.generate(inputIds, { maxNewTokens: 12, ignoreEos: true }).tokens()).toEqual(greedy);
      expect(await codeOf(() => damaged.generate("text").tokens())).toBe("TOKENIZER_INVALID");
      expect(await codeOf(() => damaged.generate(inputIds, { stop: "x" }).tokens())).toBe("TOKENIZER_INVALID");
      expect(() => damaged.tokenizer).toThrow("tokenizer.json");
    } finally {
      await damaged.dispose();
    }
  });

  it("two generations at once are both right, interleaved or not", async () => {
    const other = inputIds.slice(0, 5);
    const alone = await tokens({}, other);
    expect(await Promise.all([tokens(), tokens({}, other), tokens()])).toEqual([greedy, alone, greedy]);

    const first = model.generate(inputIds, { maxNewTokens: 12, ignoreEos: true })[Symbol.asyncIterator]();
    const second = model.generate(other, { maxNewTokens: 12, ignoreEos: true })[Symbol.asyncIterator]();
    const taken: [number[], number[]] = [[], []];
    for (let step = 0; step < 12; step++) {
      taken[0].push((await first.next()).value.token);
      taken[1].push((await second.next()).value.token);
    }
    expect(taken).toEqual([greedy, alone]);
  });

  it("same seed, same tokens; another seed, others", async () => {
    const sample = (seed: number) => tokens({ temperature: 2, seed, maxNewTokens: 20 });
    expect(await sample(5)).toEqual(await sample(5));
    expect(await sample(5)).not.toEqual(await sample(6));
  });

  it("continues a prefix that is in the cache with the same result", async () => {
    const before = model.stats().promptTokens;
    const longer = [...inputIds, ...greedy.slice(0, 6)];
    await tokens();
    expect(await tokens({ maxNewTokens: 6 }, longer)).toEqual(greedy.slice(6));
    // Only what the cache lacks has been run.
    expect(model.stats().promptTokens - before).toBeLessThan(inputIds.length + longer.length);
  });

  it("ends at the tokens of generation_config.json unless told otherwise", async () => {
    const copy = path.join(cacheDir, "eos");
    cpSync(directory, copy, { recursive: true });
    writeFileSync(path.join(copy, "generation_config.json"), JSON.stringify({ eos_token_id: [greedy[4], 1] }));
    const ending = await AutoModel.fromPretrained(copy, { cacheDir });
    const generation = ending.generate(inputIds, { maxNewTokens: 12 });
    expect(await generation.tokens()).toEqual(greedy.slice(0, greedy.indexOf(greedy[4] as number) + 1));
    expect(generation.finishReason).toBe("eos");
    expect(await ending.generate(inputIds, { maxNewTokens: 12, ignoreEos: true }).tokens()).toEqual(greedy);
    await ending.dispose();
  });

  it("an abort ends it, and the next generation is as if nothing had happened", async () => {
    const controller = new AbortController();
    const generation = model.generate(inputIds, { maxNewTokens: 50, ignoreEos: true, signal: controller.signal });
    const seen: number[] = [];
    await expect(async () => {
      for await (const { token } of generation) {
        seen.push(token);
        if (seen.length === 3) controller.abort();
      }
    }).rejects.toThrow();
    expect(seen).toEqual(greedy.slice(0, 3));
    expect(generation.finishReason).toBe("aborted");
    expect(await tokens()).toEqual(greedy);
  });

  it("a loop that breaks off leaves the model usable", async () => {
    for await (const _ of model.generate(inputIds, { ignoreEos: true })) break;
    expect(await tokens()).toEqual(greedy);
  });

  it("can be started once", async () => {
    const generation = model.generate(inputIds, { maxNewTokens: 1 });
    await generation.text();
    await expect(generation.text()).rejects.toThrow(/started already/);
  });

  it.each([
    ["TOKEN_OUT_OF_RANGE", { prompt: [1, 100_000] }],
    ["TOKEN_OUT_OF_RANGE", { prompt: [-1] }],
    ["TOKEN_OUT_OF_RANGE", { prompt: [1.5] }],
    ["INVALID_ARGUMENT", { prompt: [] }],
    ["PROMPT_TOO_LONG", { prompt: new Array<number>(300).fill(1) }],
    ["TOKENIZER_MISSING", { prompt: "hello" }],
    ["TOKENIZER_MISSING", { prompt: [{ role: "user", content: "hello" }] }],
    ["TOKENIZER_MISSING", { prompt: [1], options: { stop: "x" } }],
    ["INVALID_ARGUMENT", { prompt: [1], options: { maxNewTokens: 0 } }],
    ["INVALID_ARGUMENT", { prompt: [1], options: { temperature: -1 } }],
  ] as const)("%s for %j", async (code, request) => {
    const { prompt, options = {} } = request as { prompt: number[]; options?: GenerateOptions };
    expect(await codeOf(() => model.generate(prompt, options).tokens())).toBe(code);
  });
});

describe("forward", () => {
  it("refuses what generate refuses", async () => {
    expect(await codeOf(() => model.forward([]))).toBe("INVALID_ARGUMENT");
    expect(await codeOf(() => model.forward([113]))).toBe("TOKEN_OUT_OF_RANGE");
    expect(await codeOf(() => model.forward(new Array<number>(300).fill(1)))).toBe("PROMPT_TOO_LONG");
  });

  it("a prompt takes one trip of the tape", async () => {
    const passes = model.stats().passes;
    await model.forward(new Array<number>(200).fill(7));
    expect(model.stats().passes).toBe(passes + 1);
  });
});

describe("fromPretrained", () => {
  it("lets loads of one checkpoint at the same time share its store, also when the first is aborted", async () => {
    const together = path.join(cacheDir, "together");
    const models = await Promise.all([1, 2, 3].map(() => AutoModel.fromPretrained(directory, { cacheDir: together })));
    expect(new Set(models.map(({ store }) => store)).size).toBe(1);
    await Promise.all(models.map((loaded) => loaded.dispose()));

    const aborted = path.join(cacheDir, "aborted");
    const control = new AbortController();
    const onProgress = () => control.abort();
    const [first, second] = await Promise.allSettled([
      AutoModel.fromPretrained(directory, { cacheDir: aborted, signal: control.signal, onProgress }),
      AutoModel.fromPretrained(directory, { cacheDir: aborted }),
    ]);
    // The abort may come too late for the first; the second must not feel it.
    if (first.status === "fulfilled") await first.value.dispose();
    if (second.status === "rejected") throw second.reason;
    await second.value.dispose();
  });

  it("decomposes once, and again when the checkpoint has changed", async () => {
    const copy = path.join(cacheDir, "changing");
    cpSync(directory, copy, { recursive: true });
    const first = await AutoModel.fromPretrained(copy, { cacheDir });
    const second = await AutoModel.fromPretrained(copy, { cacheDir });
    expect(second.store).toBe(first.store);

    // Same size, same header, other weights.
    const file = path.join(copy, "model.safetensors");
    const bytes = readFileSync(file);
    for (let at = bytes.length - 4000; at < bytes.length; at += 4) bytes.writeFloatLE(0.25, at);
    writeFileSync(file, bytes);
    utimesSync(file, new Date(), new Date(Date.now() + 5000));
    const changed = await AutoModel.fromPretrained(copy, { cacheDir });
    expect(changed.store).not.toBe(first.store);
    const [before, after] = [await first.forward([1, 2, 3]), await changed.forward([1, 2, 3])];
    expect(after.logits).not.toEqual(before.logits);
    await Promise.all([first, second, changed].map((loaded) => loaded.dispose()));
  });

  it("says that a repository cannot be downloaded", async () => {
    await expect(AutoModel.fromPretrained("someone/some-model")).rejects.toThrow(/this version does not download/);
  });

  it.each([{ hold: false }, { hold: false, prefetching: false }])("streams everything with %j", async (options) => {
    const streaming = await AutoModel.fromPretrained(directory, { cacheDir, ...options });
    expect(await streaming.generate(inputIds, { maxNewTokens: 12, ignoreEos: true }).tokens()).toEqual(greedy);
    const stats = streaming.stats();
    expect(stats.heldBytes).toBe(0);
    expect(stats.bytesStreamed).toBeGreaterThanOrEqual(12 * stats.bytesPerPass);
    await streaming.dispose();
  });

  it("takes a layer store as well", async () => {
    const store = path.join(cacheDir, "store");
    await decompose({ checkpoint: directory, store });
    const loaded = await AutoModel.fromPretrained(store);
    expect(loaded.store).toBe(store);
    expect(await loaded.generate(inputIds, { maxNewTokens: 12, ignoreEos: true }).tokens()).toEqual(greedy);
    await loaded.dispose();
  });

  it.each([
    ["INVALID_ARGUMENT", { trustRemoteCode: true }],
    ["INVALID_ARGUMENT", { memroy: "4GiB" }],
    ["INVALID_ARGUMENT", { memory: "lots" }],
    ["INVALID_ARGUMENT", { maxSeqLen: 0 }],
    ["INVALID_ARGUMENT", { threads: 1.5 }],
    ["INVALID_ARGUMENT", { precision: "double" as "fast" }],
    ["INVALID_ARGUMENT", { device: "gpu" }],
    ["MEMORY_BUDGET_TOO_SMALL", { memory: "10MiB" }],
  ] as const)("%s for %j", async (code, options) => {
    expect(await codeOf(() => AutoModel.fromPretrained(directory, { cacheDir, ...options }))).toBe(code);
  });
});

describe("dispose", () => {
  it("fails what is running and what comes after, and can be called twice", async () => {
    const doomed = await AutoModel.fromPretrained(directory, { cacheDir });
    const running = codeOf(() => doomed.generate(inputIds, { maxNewTokens: 200, ignoreEos: true }).tokens());
    await doomed.dispose();
    await doomed.dispose();
    expect(await running).toBe("MODEL_DISPOSED");
    expect(await codeOf(() => doomed.forward([1]))).toBe("MODEL_DISPOSED");
    expect(await codeOf(() => doomed.generate([1]).tokens())).toBe("MODEL_DISPOSED");
  });
});
