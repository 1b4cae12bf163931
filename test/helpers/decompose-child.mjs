/**
 * Runs decompose in a process of its own, and prints one line of JSON: steps (changes to the file system by the main
 * thread), peakKiB (resident memory), and the error's code and message.
 *
 *   node decompose-child.mjs OPTIONS [FAULTS]
 *
 * OPTIONS and FAULTS are JSON. FAULTS: killAtStep kills this process, as by kill -9, just before that step; freeBytes
 * is what statfs is made to say.
 */
import { existsSync, readFileSync } from "node:fs";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

const options = JSON.parse(process.argv[2] ?? "{}");
const faults = JSON.parse(process.argv[3] ?? "{}");
let steps = 0;

for (const name of ["mkdir", "open", "rename", "rm"]) {
  const original = fs[name];
  fs[name] = (...args) => {
    const reads = name === "open" && args[1] === "r";
    if (!reads && ++steps === faults.killAtStep) process.kill(process.pid, "SIGKILL");
    return original(...args);
  };
}
if (faults.freeBytes) fs.statfs = async () => ({ bavail: faults.freeBytes, bsize: 1 });
syncBuiltinESMExports();

const { decompose } = await import("../../dist/decompose/decompose.js");
const failure = await decompose(options).then(
  () => ({}),
  ({ code, message }) => ({ code, message }),
);

/** getrusage counts the memory of the parent too, from between fork and exec. */
function peakMemory() {
  const file = "/proc/self/status";
  if (!existsSync(file)) return process.resourceUsage().maxRSS;
  return Number(/VmHWM:\s*(\d+) kB/.exec(readFileSync(file, "utf8"))[1]);
}

console.log(JSON.stringify({ steps, peakKiB: peakMemory(), ...failure }));
