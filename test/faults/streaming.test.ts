/** What happens to a model that streams when its files shrink, its caller leaves, or its process ends. */
import { spawn } from "node:child_process";
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
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decompose, type Residency, type Stats } from "../../dist/index.js";
import { makeCheckpoint } from "../helpers/random-models.js";

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
  residentBytes: number;
  descriptors: number;
  threads: number;
}

interface Generated {
  tokens: number[];
  stats: Stats;
  residency: Residency;
}

function child(scenario: string, storePath: string, nodeOptions: string[] = [], hungMs = HUNG_MS): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const program = spawn(process.execPath, [...nodeOptions, script, scenario, storePath], {
      stdio: ["ignore", "pipe", "pipe"],
    });
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
    }, hungMs);
    program.on("error", reject);
    program.on("close", (exitCode) => {
      clearTimeout(timer);
      resolve({ exitCode, hung, errors, result: output === "" ? undefined : JSON.parse(output) });
    });
  });
}

/** A scenario that must end by itself, without an error. */
async function complete<Result>(
  scenario: string,
  storePath: string,
  nodeOptions?: string[],
  hungMs?: number,
): Promise<Result> {
  const outcome = await child(scenario, storePath, nodeOptions, hungMs);
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

async function makePlainStore(destination: string, shape: string): Promise<void> {
  const checkpoint = path.join(directory, "checkpoint");
  await makeCheckpoint(checkpoint, shape);
  await decompose({ checkpoint, store: destination, compression: "none" });
  rmSync(checkpoint, { recursive: true });
}

// 177 MB, ten times the smallest ring; layers of 22 MB do not fit it.
beforeAll(() =>
  makePlainStore(
    store,
    "--hidden 1024 --intermediate 2752 --heads 16 --kv-heads 4 --layers 8 --vocab 1999 --dtype bf16",
  ),
);

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
    const { before, after, changed, failures } = await complete<{
      before: number[];
      after: number[];
      changed: Failure;
      failures: Failure[];
    }>("truncated", store);
    expect(before).toEqual(expected);
    // Nobody knows what was read while it was short: the model is loaded again.
    expect(changed).toMatchObject({ code: "STORE_CORRUPT", own: true });
    expect(changed.message).toContain(`${file} has changed since the model was loaded`);
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

it("a layer file that is replaced stays as it was for an open model; one that is written to is an error", async () => {
  const copy = path.join(directory, "replaced");
  cpSync(store, copy, { recursive: true });
  const { before, after, changed } = await complete<{ before: number[]; after: number[]; changed: Failure }>(
    "replaced",
    copy,
  );
  expect(before).toEqual(expected);
  expect(after).toEqual(expected);
  expect(changed).toMatchObject({ code: "STORE_CORRUPT", own: true });
  expect(changed.message).toContain(path.join(copy, "layer-004.safetensors"));
  rmSync(copy, { recursive: true });
});

it("a worker thread that dies fails its pass by name, and the next call has another", async () => {
  const killer = fileURLToPath(new URL("dying-worker.mjs", import.meta.url));
  const { died, after } = await complete<{ died: Failure; after: number[] }>("workerDies", store, ["--import", killer]);
  expect(died).toMatchObject({ code: "IO_ERROR", own: true });
  expect(died.message).toContain(`The thread that reads ${store} has died`);
  expect(after).toEqual(expected);
});

it("a read that stalls for five seconds costs patience, not processors; an abort does not wait for it", async () => {
  const gate = fileURLToPath(new URL("stalling-worker.mjs", import.meta.url));
  const seen = await complete<{
    before: number[];
    afterStall: number[];
    cpuSeconds: number;
    outcomes: Failure[];
    abortedInStall: boolean;
    afterAbort: number[];
    budget: number;
    disposed: Failure;
  }>("stalls", store, ["--import", gate]);
  expect(seen.before).toEqual(expected);
  expect(seen.afterStall).toEqual(expected);
  // Whoever looks again and again would have used five.
  expect(seen.cpuSeconds).toBeLessThan(1);
  for (const { name, value } of seen.outcomes) {
    expect(value).toBeUndefined();
    expect(name).toBe("AbortError");
  }
  expect(seen.abortedInStall).toBe(true);
  expect(seen.afterAbort).toEqual(expected);
  expect(seen.budget).toBe(400 * MIB);
  expect(seen.disposed).toMatchObject({ code: "MODEL_DISPOSED", own: true });
});

it("a budget below what is held gives it back; one that is too small is refused and changes nothing", async () => {
  const seen = await complete<{
    heldAtFirst: number;
    residentAtFirst: number;
    lowered: Residency;
    residentLowered: number;
    refused: Failure[];
    unchanged: Residency;
    heldAtLast: number;
    afterDispose: Failure;
    tokens: number[][];
  }>("budgets", store);
  for (const tokens of seen.tokens) expect(tokens).toEqual(expected);
  expect(seen.heldAtFirst).toBeGreaterThan(150 * MIB);
  expect(seen.lowered.heldBytes).toBeLessThan(seen.heldAtFirst / 2);
  expect(seen.residentAtFirst - seen.residentLowered).toBeGreaterThan(
    0.8 * (seen.heldAtFirst - seen.lowered.heldBytes - seen.lowered.ringBytes),
  );
  expect(seen.refused.map(({ code }) => code)).toEqual([
    ...Array(3).fill("MEMORY_BUDGET_TOO_SMALL"),
    ...Array(4).fill("INVALID_ARGUMENT"),
  ]);
  for (const { own, message } of seen.refused) {
    expect(own).toBe(true);
    expect(message).toMatch(/MiB|memory/);
  }
  expect(seen.unchanged).toEqual(seen.lowered);
  expect(seen.heldAtLast).toBe(seen.heldAtFirst);
  expect(seen.afterDispose).toMatchObject({ code: "MODEL_DISPOSED", own: true });
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
  "two hundred models, one after another, leave no descriptor, no thread and no memory",
  async () => {
    const small = path.join(directory, "small");
    await makePlainStore(
      small,
      "--hidden 64 --intermediate 128 --heads 4 --kv-heads 2 --layers 2 --vocab 1999 --dtype bf16",
    );
    const { before, after } = await complete<{ before: Counts; after: Counts }>(
      "cycles",
      small,
      ["--expose-gc"],
      5 * HUNG_MS,
    );
    expect(after.descriptors).toBeLessThanOrEqual(before.descriptors);
    expect(after.threads).toBeLessThanOrEqual(before.threads);
    // A model's ring alone is 12 MiB.
    expect(after.residentBytes - before.residentBytes).toBeLessThan(48 * MIB);
  },
  6 * HUNG_MS,
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
