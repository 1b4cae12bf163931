import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";

const main = path.resolve(import.meta.dirname, "../../dist/cli/main.js");

export interface CliResult {
  exitCode: number | null;
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  input?: string;
  env?: Record<string, string>;
  /** Called once the process runs, for example to send it a signal. */
  onStart?: (child: ChildProcess) => void;
}

/** Runs the built command line, as a program of its own, with its streams piped. */
export function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, ...options.env } });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      output[name] += text;
    });
  }
  child.stdin.on("error", () => {});
  child.stdin.end(options.input ?? "");
  options.onStart?.(child);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (exitCode) => resolve({ exitCode, ...output }));
  });
}

/** A new directory, and the function that removes it with all it holds. */
export function temporaryDirectory(): { directory: string; remove: () => void } {
  const directory = mkdtempSync(path.join(os.tmpdir(), "layerstream-test-"));
  return { directory, remove: () => rmSync(directory, { recursive: true, force: true }) };
}
