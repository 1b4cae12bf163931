/** `layerstream.partial.json`: which files of an unfinished store are done. It makes decompose resumable. */
import { createHash } from "node:crypto";
import { lstat, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { errnoOf, ioError, writeFileAtomic } from "../checkpoint/file-io.js";
import { MANIFEST_VERSION, type Manifest } from "../checkpoint/manifest.js";
import { JsonError, parseStrictJson } from "../checkpoint/strict-json.js";
import type { FileLayout } from "./layout.js";

export const JOURNAL_FILE = "layerstream.partial.json";

const positive = z.number().int().positive();

const schema = z.strictObject({
  /** Of source, settings and layout: files are kept only for a run that would write the same ones. */
  plan: z.string(),
  /** Checksums of finished files, as in the manifest. */
  finished: z.record(z.string(), z.string().regex(/^([0-9a-f]{8})*$/)),
  /** What the survey of a lossless store found, so that it need not be made again. */
  encodings: z
    .record(
      z.string(),
      z.discriminatedUnion("format", [
        z.strictObject({ format: z.literal("bf16_window"), block: positive }),
        z.strictObject({ format: z.literal("lz4"), rows: positive, bytes: z.array(positive) }),
      ]),
    )
    .default({}),
});

export type Journal = z.infer<typeof schema>;

/** Identifies everything that decides the content of the store's files. `layouts` are those without encodings. */
export function planHash(identity: string, settings: Partial<Manifest>, layouts: readonly FileLayout[]): string {
  const files = layouts.map(({ name, size, stages }) => ({ name, size, stages }));
  return createHash("sha256")
    .update(JSON.stringify({ version: MANIFEST_VERSION, identity, settings, files }))
    .digest("hex");
}

/** Undefined if there is none; "damaged" if it cannot be read as one. */
export async function readJournal(directory: string): Promise<Journal | "damaged" | undefined> {
  const file = join(directory, JOURNAL_FILE);
  try {
    return schema.parse(parseStrictJson(await readFile(file), 4));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    if (error instanceof JsonError || error instanceof z.ZodError) return "damaged";
    throw ioError(error, "read", file);
  }
}

export async function writeJournal(directory: string, journal: Journal): Promise<void> {
  await writeFileAtomic(join(directory, JOURNAL_FILE), `${JSON.stringify(journal)}\n`);
}

export async function removeJournal(directory: string): Promise<void> {
  await rm(join(directory, JOURNAL_FILE), { force: true });
}

/** Drops the entries whose file is not there with the right size. */
export async function keepIntact(
  directory: string,
  journal: Journal,
  layouts: readonly FileLayout[],
): Promise<Journal> {
  const finished: Record<string, string> = {};
  for (const { name, size } of layouts) {
    const checksums = journal.finished[name];
    if (checksums === undefined) continue;
    const stats = await lstat(join(directory, name)).catch(() => undefined);
    if (stats?.isFile() && stats.size === size) finished[name] = checksums;
  }
  return { ...journal, finished };
}
