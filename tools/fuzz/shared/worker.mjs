/** Runs the cases of one target, and stops at the first that fails. */
import { parentPort, workerData } from "node:worker_threads";
import { makeCase } from "./mutate.mjs";

/** What a reader may allocate: a constant and a few times the size of the file. */
const FREE_BYTES = 2 * 1024 * 1024;
const TIMES_SIZE = 8;
/** Growth of the whole process, in which garbage counts. */
const MAX_GROWTH_BYTES = 768 * 1024 * 1024;

const { target: targetFile, seed, input, first, cases, end, progress } = workerData;
const target = await import(targetFile);
const { LayerstreamError } = await import("../../../dist/errors.js");

let allocated = 0;
for (const name of ["alloc", "allocUnsafe", "allocUnsafeSlow"]) {
  const original = Buffer[name];
  Buffer[name] = (size, ...others) => {
    allocated += size;
    return original(size, ...others);
  };
}

async function problemOf(bytes) {
  const resident = process.memoryUsage.rss();
  allocated = 0;
  try {
    await target.run(bytes);
  } catch (error) {
    if (!(error instanceof LayerstreamError)) return `fails with ${error?.stack ?? error}`;
    if (error.code === "INTERNAL") return `fails with ${error.stack}`;
  }
  if (allocated > FREE_BYTES + TIMES_SIZE * bytes.length) return `allocates ${allocated} bytes for ${bytes.length}`;
  const growth = process.memoryUsage.rss() - resident;
  return growth > MAX_GROWTH_BYTES ? `takes ${growth} bytes of memory for ${bytes.length}` : undefined;
}

let index = first;
let problem;
const limit = input === undefined ? cases : first + 1;
for (; index < limit && Date.now() < end; index++) {
  Atomics.store(progress, 0, index);
  problem = await problemOf(input === undefined ? makeCase(target, seed, index) : Buffer.from(input));
  if (problem !== undefined) break;
}
parentPort.postMessage({ index: problem === undefined ? index - 1 : index, problem });
