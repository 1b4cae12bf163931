/** Reference cases: a checkpoint with the logits and greedy tokens that transformers gives for it. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import type { Model } from "../../dist/index.js";
import { supportedModelTypes } from "../../dist/models/registry.js";

export interface GoldenCase {
  name: string;
  directory: string;
  inputIds: number[];
  /** What full recomputation at every step gives. */
  greedyRecomputed: number[];
  /** What a key/value cache gives, which for dynamic rotary scaling is not the same. */
  greedy: number[];
  /** [inputIds.length, vocab] */
  logits: Float32Array;
}

const root = fileURLToPath(new URL("../..", import.meta.url));
export const fixtureCases = path.join(root, "test/fixtures/families");
/** Checkpoints that come quantized. */
export const quantizedFixtures = path.join(root, "test/fixtures/quantized");
/** Present where the project is developed, absent for users. */
export const sharedCases = path.join(root, "../shared/golden");

/** Cases of supported families. */
export function goldenCases(directory: string): GoldenCase[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .map((name) => path.join(directory, name))
    .filter(isSupported)
    .map(readCase);
}

function isSupported(directory: string): boolean {
  if (!existsSync(path.join(directory, "expected.json"))) return false;
  const config = readConfig(directory);
  const weights = readdirSync(directory).some((name) => /^(model.*\.safetensors|pytorch_model.*\.bin)$/.test(name));
  return weights && supportedModelTypes.includes(config.model_type as string);
}

export function readCase(directory: string): GoldenCase {
  const expected = readJson(path.join(directory, "expected.json")) as {
    input_ids: number[];
    greedy: number[];
    greedy_cached?: number[];
  };
  return {
    name: path.basename(directory),
    directory,
    inputIds: expected.input_ids,
    greedyRecomputed: expected.greedy,
    greedy: expected.greedy_cached ?? expected.greedy,
    logits: readLogits(path.join(directory, "expected.safetensors")),
  };
}

export function readConfig(directory: string): Record<string, unknown> {
  return readJson(path.join(directory, "config.json"));
}

function readJson(file: string): Record<string, unknown> {
  return JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
}

export function readLogits(file: string): Float32Array {
  const bytes = readFileSync(file);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerBytes)) as Record<string, { data_offsets: number[] }>;
  const [begin, end] = (header.logits as { data_offsets: number[] }).data_offsets as [number, number];
  return new Float32Array(Uint8Array.from(bytes.subarray(8 + headerBytes + begin, 8 + headerBytes + end)).buffer);
}

/** Largest difference over largest expected value: at most 1e-3 passes. */
export function relativeError(got: Float32Array, expected: Float32Array): number {
  if (got.length !== expected.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  let difference = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i] as number));
    const error = Math.abs((got[i] as number) - (expected[i] as number));
    difference = Math.max(difference, Number.isNaN(error) ? Number.POSITIVE_INFINITY : error);
  }
  return difference / largest;
}

/** Logits and greedy tokens of a model that runs the case, which it disposes of. */
export async function expectReference(model: Model, item: GoldenCase): Promise<void> {
  try {
    const { logits } = await model.forward(item.inputIds);
    expect(relativeError(logits, item.logits)).toBeLessThan(1e-3);
    const maxNewTokens = item.greedy.length;
    expect(await model.generate(item.inputIds, { maxNewTokens, ignoreEos: true }).tokens()).toEqual(item.greedy);
  } finally {
    await model.dispose();
  }
}
