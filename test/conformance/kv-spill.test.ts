/** A KV cache that does not fit in the budget: part of it in a file, the same bits, and what happens on a full disk. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import { decompose, type LoadOptions } from "../../dist/index.js";
import { makeCheckpoint, outcomeOf, runChild, scatteredTokens } from "../helpers/random-models.js";

const MIB = 2 ** 20;
const directory = mkdtempSync(path.join(tmpdir(), "layerstream-kv-spill-"));
const store = path.join(directory, "store");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const prompt = scatteredTokens(1400, 499);

const outcome = (load: LoadOptions, trace?: string) =>
  outcomeOf({ path: store, load: { maxSeqLen: 1500, ...load }, prompt, newTokens: 4, trace });

beforeAll(async () => {
  // 2 KiB a token and layer: 64 MB at 1500 tokens, 8 MB in the two layers that must be in memory.
  const checkpoint = path.join(directory, "checkpoint");
  const shape = "--hidden 256 --intermediate 320 --heads 8 --kv-heads 8 --layers 22 --vocab 499 --dtype bf16";
  await makeCheckpoint(checkpoint, shape);
  await decompose({ checkpoint, store });
});

it("keeps the bits and the budget, and leaves no file behind", async () => {
  const held = await outcome({ memory: "2GiB" });
  expect(held.code, held.message).toBeUndefined();
  expect(held.stats).toMatchObject({ kvSpilledBytes: 0, kvBytesRead: 0, kvBytesWritten: 0 });
  const memory = held.residency.minimumBytes;
  const cacheDir = path.join(directory, "cache");
  mkdirSync(cacheDir);
  for (const load of [{ memory }, { memory, threads: 1, hold: false }, { memory: memory + 8 * MIB }]) {
    const spilled = await outcome({ ...load, cacheDir });
    expect(spilled.code, spilled.message).toBeUndefined();
    expect(spilled.stats.kvSpilledBytes).toBeGreaterThan(0);
    // Room for up to two pages more than the prompt needs. Each of the three passes after it reads it all.
    const written = 0.9 * spilled.stats.kvSpilledBytes;
    expect(spilled.stats.kvBytesWritten).toBeGreaterThan(written);
    expect(spilled.stats.kvBytesRead).toBeGreaterThan(3 * written);
    expect(spilled.stats.bytesStreamed).toBeGreaterThan(spilled.stats.kvBytesRead);
    expect(spilled.hash).toBe(held.hash);
    expect(spilled.tokens).toEqual(held.tokens);
    expect(spilled.peakBytes).toBeLessThan(load.memory);
  }
  expect(readdirSync(cacheDir)).toEqual([]);
});

it("reads the cache of a layer while layers before it compute", async () => {
  const { minimumBytes } = (await outcome({ memory: "2GiB" })).residency;
  const trace = path.join(directory, "trace.json");
  const memory = minimumBytes + 48 * MIB;
  const spilled = await outcome({ memory, hold: false, profilingMode: true }, trace);
  expect(spilled.code, spilled.message).toBeUndefined();
  const { traceEvents } = JSON.parse(readFileSync(trace, "utf8"));
  const spans = (traceEvents as { name: string; ts: number; dur: number; args: { stage?: string } }[])
    .filter(({ args }) => args.stage?.endsWith(".attention"))
    .map(({ name, ts, dur, args }) => ({ name, begin: ts, end: ts + dur, layer: Number(args.stage?.split(".")[1]) }));
  const attention = spans.filter(({ name }) => name === "attention").sort((a, b) => a.begin - b.begin);
  const ahead = ({ begin, layer }: (typeof spans)[number]) => {
    const own = attention.find((op) => op.layer === layer && op.begin > begin);
    return attention.some((op) => op.layer === layer - 1 && op.end > begin && own && op.end <= own.begin);
  };
  const reads = spans.filter(({ name }) => name === "read KV");
  expect(reads.length).toBeGreaterThan(0);
  expect(reads.some(ahead)).toBe(true);
  expect(spans.some(({ name }) => name === "write KV")).toBe(true);
});

const canMount = process.platform === "linux" && process.getuid?.() === 0;

it.skipIf(!canMount)(
  "a full disk fails the prompt, by name, and not the model (needs root on Linux)",
  async ({ skip }) => {
    const cacheDir = path.join(directory, "mount");
    mkdirSync(cacheDir);
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${4 * MIB}`, "tmpfs", cacheDir], { stdio: "ignore" });
    } catch {
      return skip("mounting is not permitted here");
    }
    onTestFinished(() => void execFileSync("umount", [cacheDir]));
    const { minimumBytes } = (await outcome({ memory: "2GiB" })).residency;
    const short = { promptTokens: 40, newTokens: 4 };
    const long = { promptTokens: 1400, newTokens: 4 };
    const { outcomes } = (await runChild("elastic-child.mjs", {
      path: store,
      load: { memory: minimumBytes, cacheDir, maxSeqLen: 1500 },
      steps: [short, long, short, long, short],
    })) as { outcomes: { tokens?: number[]; code?: string; message?: string }[] };
    const expected = outcomes[0]?.tokens;
    expect(expected, outcomes[0]?.message).toHaveLength(4);
    for (const failed of [1, 3]) {
      const message = expect.stringContaining(cacheDir);
      expect(outcomes[failed]).toMatchObject({ code: "KV_SPILL_FAILED", message });
      expect(outcomes[failed + 1]?.tokens).toEqual(expected);
    }
  },
);
