/** Models of random weights, and what comes out of them in processes of their own. */
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import type { LoadOptions, Residency, Stats } from "../../dist/index.js";

const run = promisify(execFile);
const tool = (name: string) => path.join(import.meta.dirname, "..", "..", "tools", name);

/** Runs tools/make-checkpoint.mjs; `options` are its options. */
export async function makeCheckpoint(directory: string, options: string): Promise<void> {
  await run(process.execPath, [tool("make-checkpoint.mjs"), directory, ...options.split(" ")]);
}

/** Runs tools/make-store.mjs; `options` are its options. */
export async function makeStore(directory: string, options: string): Promise<void> {
  await run(process.execPath, [tool("make-store.mjs"), directory, ...options.split(" ")]);
}

export interface Request {
  path: string;
  load: LoadOptions;
  prompt: readonly number[];
  newTokens: number;
  /** A file for the trace; with `profilingMode`. */
  trace?: string;
}

export interface Outcome {
  /** Of the logits of the whole prompt. */
  hash: string;
  tokens: number[];
  stats: Stats;
  residency: Residency;
  peakBytes: number;
  code?: string;
  message?: string;
}

/** Loads a model in a process of its own: logits of the prompt, then tokens. See engine-child.mjs. */
export async function outcomeOf(request: Request): Promise<Outcome> {
  const child = path.join(import.meta.dirname, "engine-child.mjs");
  const { stdout } = await run(process.execPath, [child, JSON.stringify(request)]);
  return JSON.parse(stdout) as Outcome;
}

/** Token ids below `vocab`, scattered and the same every time. */
export function scatteredTokens(length: number, vocab: number): number[] {
  return Array.from({ length }, (_, index) => (index * 7919) % vocab);
}
