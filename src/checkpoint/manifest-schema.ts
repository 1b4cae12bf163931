/** The shape of `layerstream.json`. `layer-store.ts` checks what the parts must say about one another. */
import { z } from "zod";
import { COMPRESSIONS, FORMAT_NAMES } from "../quant/registry.js";
import type { Manifest } from "./manifest.js";
import { isPlainFileName } from "./safe-path.js";

const size = z.number().int().nonnegative();
const positive = z.number().int().positive();
const fileName = z.string().refine(isPlainFileName, "is not a plain file name");
const compression = z.enum(COMPRESSIONS);

const tensor = z.strictObject({
  name: z.string().min(1),
  format: z.enum(FORMAT_NAMES),
  shape: z.array(positive).min(1).max(2),
  offset: size,
  byteLength: positive,
  rowBytes: positive,
  block: positive.optional(),
  lz4: z.strictObject({ rows: positive, bytes: z.array(positive).min(1) }).optional(),
  columnOrder: positive.optional(),
});

const stage = z.strictObject({
  name: z.enum(["embed", "attention", "mlp", "moe", "expert", "head"]),
  layer: z.number().int().min(-1),
  expert: size.optional(),
  offset: size,
  length: positive,
  tensors: z.array(tensor).min(1),
});

const file = z.strictObject({
  name: fileName,
  size,
  checksums: z.string().regex(/^([0-9a-f]{8})*$/),
  stages: z.array(stage),
});

const sourceFile = z.strictObject({ name: fileName, size, modifiedMs: z.number(), headerHash: z.string() });

export const manifestSchema: z.ZodType<Manifest> = z.strictObject({
  formatVersion: positive,
  generator: z.string(),
  source: z.strictObject({ path: z.string(), identity: z.string().min(1), files: z.array(sourceFile) }),
  compression,
  embeddingCompression: compression,
  headCompression: compression,
  config: z.record(z.string(), z.unknown()),
  files: z.array(file).min(1),
  tied: z.record(z.string(), z.string()),
  dropped: z.array(z.string()),
  checksum: z.string(),
});
