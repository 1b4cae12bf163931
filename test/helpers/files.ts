import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { onTestFinished } from "vitest";

/** A directory that is removed when the test ends. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(path.join(tmpdir(), "layerstream-test-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Name to hash of every file in a directory. */
export function hashFiles(directory: string): Record<string, string> {
  const names = readdirSync(directory).sort();
  const hash = (name: string) =>
    createHash("sha256")
      .update(readFileSync(path.join(directory, name)))
      .digest("hex");
  return Object.fromEntries(names.map((name) => [name, hash(name)]));
}
