/** What happens to a model that streams when its files shrink, its caller leaves, or its process ends. */
import { execFile, spawn } from "node:child_process";
import {
  accessSync,
  closeSync,
  constants,
  cpSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decompose, type Residency, type Stats } from "../../dist/index.js";

const run = promisify(execFile);
const MIB = 2 ** 20;
/** A child that is still there after so long has hung. */
const HUNG_MS = 50_000;
const directory = mkdtempSync(path.join(tmpdir(), "layerstream-streaming-"));
const store = path.join(directory, "store");
const script = fileURLToPath(new URL("streaming-child.mjs", import.meta.url));
const memoryFiles = "/dev/shm";

interface Failure {
  code?: string | number;
  name?: string;
  message?: string;
  own?: boolean;
  value?: unknown;
}

interface Outcome {
  exitCode: number | null;
  hung: boolean;
  errors: string;
  result: unknown;
}

interface Counts {
  descriptors: number;
  threads: number;
}

interface Generated {
  tokens: number[];
  stats: Stats;
  residency: Residency;
}

function child(scenario: string, storePath: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const program = spawn(process.execPath, [script, scenario, storePath], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    let hung = false;
    program.stdout.on("data", (data: Buffer) => {
      output += data;
    });
    program.stderr.on("data", (data: Buffer) => {
      errors += data;
    });
    const timer = setTimeout(() => {
      hung = true;
      program.kill("SIGKILL");
    }, HUNG_MS);
    program.on("error", reject);
    program.on("close", (exitCode) => {
      clearTimeout(timer);
      resolve({ exitCode, hung, errors, result: output === "" ? undefined : JSON.parse(output) });
    });
  });
}

/** A scenario that must end by itself, without an error. */
async function complete<Result>(scenario: string, storePath: string): Promise<Result> {
  const outcome = await child(scenario, storePath);
  expect(outcome.hung, `${scenario} hangs`).toBe(false);
  expect(outcome.exitCode, outcome.errors).toBe(0);
  return outcome.result as Result;
}

/** Whether the file system takes direct reads, found out without the code under test. */
function takesDirectReads(file: string): boolean {
  if (constants.O_DIRECT === undefined) return false;
  try {
    closeSync(openSync(file, constants.O_RDONLY | constants.O_DIRECT));
    return true;
  } catch {
    return false;
  }
}

function roomInMemory(): boolean {
  try {
    accessSync(memoryFiles, constants.W_OK);
    const { bavail, bsize } = statfsSync(memoryFiles);
    return bavail * bsize > 2 ** 30;
  } catch {
    return false;
  }
}

let expected: number[] = [];

beforeAll(async () => {
  // 177 MB, ten times the smallest ring; layers of 22 MB do not fit it.
  const shape = "--hidden 1024 --intermediate 2752 --heads 16 --kv-heads 4 --layers 8 --vocab 1999 --dtype bf16";
  const checkpoint = path.join(directory, "checkpoint");
  const tool = fileURLToPath(new URL("../../tools/make-checkpoint.mjs", import.meta.url));
  await run(process.execPath, [tool, checkpoint, ...shape.split(" ")]);
  await decompose({ checkpoint, store, compression: "none" });
  rmSync(checkpoint, { recursive: true });
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

function expectStreamed({ stats, residency }: Generated, file: string): void {
  expect(residency.stages.filter(({ tier }) => tier === "held")).toEqual([]);
  expect(residency.ringBytes).toBeLessThan(20 * MIB);
  expect(stats.bytesStreamed).toBeGreaterThanOrEqual(stats.passes * stats.bytesPerPass);
  expect(stats.bytesPerPass).toBeGreaterThan(150 * MIB);
  // A file system may take the flag and refuse the read.
  if (stats.readMode === "direct") expect(stats.readModeReason).toBeUndefined();
  else expect(stats.readModeReason).toMatch(takesDirectReads(file) ? /a direct read of .* failed/ : /refuses O_DIRECT/);
  if (!takesDirectReads(file)) expect(stats.readMode).toBe("buffered");
}

it("streams every stage in every pass, from disk", async () => {
  const result = await complete<Generated>("generate", store);
  expected = result.tokens;
  expect(expected).toHaveLength(4);
  expectStreamed(result, path.join(store, "layer-000.safetensors"));
});

it.runIf(existsSync(memoryFiles) && roomInMemory())("streams from a file system in memory", async () => {
  const copy = mkdtempSync(path.join(memoryFiles, "layerstream-streaming-"));
  try {
    cpSync(store, copy, { recursive: true });
    const result = await complete<Generated>("generate", copy);
    expect(result.tokens).toEqual(expected);
    expectStreamed(result, path.join(copy, "layer-000.safetensors"));
  } finally {
    rmSync(copy, { recursive: true });
  }
});

it("a layer file that shrinks is named by every pass until it is whole again", async () => {
  const file = path.join(store, "layer-003.safetensors");
  const content = readFileSync(file);
  try {
    const { before, after, failures } = await complete<{
      before: number[];
      after: number[];
      failures: Failure[];
    }>("truncated", store);
    expect(before).toEqual(expected);
    expect(after).toEqual(expected);
    expect(failures).toHaveLength(7);
    for (const { code, message, own } of failures) {
      expect(code, message).toBe("IO_ERROR");
      expect(own).toBe(true);
      expect(message).toContain(file);
      expect(message).toMatch(/at byte \d+/);
    }
  } finally {
    writeFileSync(file, content);
  }
});

it("a store that is short from the start is refused", async () => {
  const copy = path.join(directory, "short");
  cpSync(store, copy, { recursive: true });
  const file = path.join(copy, "layer-005.safetensors");
  truncateSync(file, readFileSync(file).length - 4096);
  const { exitCode, hung, errors } = await child("generate", copy);
  expect(hung).toBe(false);
  expect(exitCode).toBe(1);
  expect(errors).toMatch(/STORE_(CORRUPT|INVALID)/);
  expect(errors).toContain("layer-005.safetensors");
  rmSync(copy, { recursive: true });
});

it("an abort at any moment leaves a model that gives the same tokens as a fresh one", async () => {
  const { fresh, after, seen, finishReason, aborted } = await complete<{
    fresh: number[];
    after: number[];
    seen: number[];
    finishReason: string;
    aborted: Failure[];
  }>("abort", store);
  expect(fresh).toEqual(expected);
  expect(after).toEqual(expected);
  expect(seen).toEqual(expected.slice(0, 3));
  expect(finishReason).toBe("aborted");
  for (const { name, value } of aborted) {
    expect(value).toBeUndefined();
    expect(name).toMatch(/^(Timeout|Abort)Error$/);
  }
});

it("dispose ends what runs and what waits", async () => {
  const { outcomes } = await complete<{ outcomes: Failure[] }>("dispose", store);
  expect(outcomes).toHaveLength(16);
  for (const { code, own } of outcomes) {
    expect(code).toBe("MODEL_DISPOSED");
    expect(own).toBe(true);
  }
});

it.runIf(existsSync("/proc/self/fd"))(
  "thirty models, one after another, leave no descriptor and no thread",
  async () => {
    const { before, after } = await complete<{ before: Counts; after: Counts }>("cycles", store);
    expect(after.descriptors).toBeLessThanOrEqual(before.descriptors);
    expect(after.threads).toBeLessThanOrEqual(before.threads);
  },
);

describe("a process ends although its model was not disposed", () => {
  it.each(["endsAfterGenerate", "endsRightAfterGenerate"])("%s", async (scenario) => {
    expect((await complete<Generated>(scenario, store)).tokens).toEqual(expected);
  });

  it.each(["endsUnused", "endsAfterBreak", "endsAfterAbort"])("%s", async (scenario) => {
    await complete(scenario, store);
  });

  it("by process.exit in the middle of a pass", async () => {
    const { exitCode, hung, errors } = await child("exitsInPass", store);
    expect({ exitCode, hung }, errors).toEqual({ exitCode: 7, hung: false });
  });

  it("by an error that nobody caught in the middle of a pass", async () => {
    const { exitCode, hung, errors } = await child("throwsInPass", store);
    expect({ exitCode, hung }).toEqual({ exitCode: 1, hung: false });
    expect(errors).toContain("a bug elsewhere");
  });
});
