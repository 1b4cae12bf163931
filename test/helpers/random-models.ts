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

/** Runs a program of this directory in a process of its own. Returns what it prints. */
export async function runChild(program: string, request: object): Promise<unknown> {
  const { stdout } = await run(process.execPath, [path.join(import.meta.dirname, program), JSON.stringify(request)]);
  return JSON.parse(stdout);
}

/** Loads a model in a process of its own: logits of the prompt, then tokens. See engine-child.mjs. */
export async function outcomeOf(request: Request): Promise<Outcome> {
  return (await runChild("engine-child.mjs", request)) as Outcome;
}

/** Token ids below `vocab`, scattered and the same every time. */
export function scatteredTokens(length: number, vocab: number): number[] {
  return Array.from({ length }, (_, index) => (index * 7919) % vocab);
}
