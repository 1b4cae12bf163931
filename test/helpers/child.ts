import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";

export interface ChildResult {
  signal: NodeJS.Signals | null;
  steps?: number;
  peakKiB?: number;
  code?: string;
  message?: string;
}

const script = path.join(import.meta.dirname, "decompose-child.mjs");

/** See decompose-child.mjs. */
export function startDecompose(
  options: object,
  faults: object = {},
): { process: ChildProcess; result: Promise<ChildResult> } {
  const child = spawn(process.execPath, [script, JSON.stringify(options), JSON.stringify(faults)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  const result = new Promise<ChildResult>((resolve) => {
    child.on("close", (_, signal) => resolve({ signal, ...JSON.parse(output || "{}") }));
  });
  return { process: child, result };
}
