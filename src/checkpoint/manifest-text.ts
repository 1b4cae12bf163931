/** `layerstream.json` as text: its checksum covers every byte of it. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { LayerstreamError } from "../errors.js";
import { checksumOf } from "./checksum.js";
import { errnoOf, ioError } from "./file-io.js";
import { MANIFEST_FILE, MANIFEST_VERSION, type Manifest } from "./manifest.js";
import { checkManifest } from "./manifest-check.js";
import { isRecord, JsonError, parseStrictJson } from "./strict-json.js";

const MAX_MANIFEST_BYTES = 512 * 1024 * 1024;
const MAX_MANIFEST_DEPTH = 64;
const CHECKSUM_AT_END = /"checksum": "([0-9a-f]{8})"\n\}\n$/;
const NO_CHECKSUM_AT_END = '"checksum": ""\n}\n';

/** The text to write for `manifest`, with its checksum filled in. */
export function encodeManifest(manifest: Omit<Manifest, "checksum">): string {
  const text = `${JSON.stringify({ ...manifest, checksum: "" }, null, 2)}\n`;
  return text.replace(/""\n\}\n$/, `"${checksumOf(Buffer.from(text))}"\n}\n`);
}

/**
 * Reads and checks the manifest of the store in `directory`; looks at no other file.
 * @throws STORE_INVALID if there is none or it contradicts itself, STORE_OUTDATED if a newer layerstream wrote it,
 * STORE_CORRUPT if its checksum is wrong.
 */
export async function readManifest(directory: string): Promise<Manifest> {
  const file = join(directory, MANIFEST_FILE);
  const bytes = await readManifestBytes(directory, file);
  const corrupt = (what: string) =>
    new LayerstreamError("STORE_CORRUPT", `${file} ${what}.`, {
      file,
      remedy: `Delete ${directory} and decompose the checkpoint again.`,
    });
  let value: unknown;
  try {
    value = parseStrictJson(bytes, MAX_MANIFEST_DEPTH);
  } catch (error) {
    throw error instanceof JsonError ? corrupt(error.message) : error;
  }
  const version = isRecord(value) ? value.formatVersion : undefined;
  if (Number.isSafeInteger(version) && (version as number) > MANIFEST_VERSION) {
    throw new LayerstreamError(
      "STORE_OUTDATED",
      `${file} has format version ${version}; this layerstream reads versions up to ${MANIFEST_VERSION}.`,
      { file, remedy: "Update layerstream, or decompose the checkpoint again with this version." },
    );
  }
  const text = Buffer.from(bytes).toString("utf8");
  const checksum = CHECKSUM_AT_END.exec(text)?.[1];
  if (checksum === undefined) throw corrupt("does not end with its checksum");
  const covered = Buffer.from(text.replace(CHECKSUM_AT_END, NO_CHECKSUM_AT_END));
  const actual = checksumOf(covered);
  if (actual !== checksum) throw corrupt(`has been changed: its checksum is ${actual}, not ${checksum}`);
  return checkManifest(value, file);
}

async function readManifestBytes(directory: string, file: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(file);
    if (size <= MAX_MANIFEST_BYTES) return await readFile(file);
    throw new LayerstreamError("STORE_INVALID", `${file} has ${size} bytes, more than a manifest can need.`, { file });
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== "ENOENT" && errno !== "ENOTDIR") throw ioError(error, "read", file);
    throw new LayerstreamError("STORE_INVALID", `${directory} is not a layer store: it has no ${MANIFEST_FILE}.`, {
      file,
      remedy: "If decompose was interrupted, run it again: it goes on where it stopped.",
    });
  }
}
