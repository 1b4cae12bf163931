import { CommanderError } from "commander";
import { LayerstreamError } from "../errors.js";

const failed = 1;
const usage = 2;

/** Prints what went wrong as one line on stderr (a stack only with LAYERSTREAM_DEBUG=1); returns the exit code. */
export function reportFailure(error: unknown): number {
  // Commander has printed its message, or the help that was asked for.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : usage;
  const code = error instanceof LayerstreamError ? error.code : "INTERNAL";
  const message = error instanceof Error ? error.message : String(error);
  printFailure(code, message);
  if (process.env.LAYERSTREAM_DEBUG === "1") console.error(error);
  return code === "INVALID_ARGUMENT" ? usage : failed;
}

/** `layerstream: CODE: message`, on one line whatever the message holds. */
export function printFailure(code: string, message: string): void {
  process.stderr.write(`layerstream: ${code}: ${message.trim().replace(/\s*\n\s*/g, " ")}\n`);
}

/** True for the errors that an aborted signal causes. */
export function isAbort(error: unknown): boolean {
  if (error instanceof LayerstreamError) return error.code === "ABORTED";
  return error instanceof Error && error.name === "AbortError";
}
