import { LayerstreamError } from "../errors.js";
import type { ElementFormat, QuantizedFormat, WeightFormat } from "../native/types.js";
import type { Format } from "./format.js";
import { fourBit } from "./formats/4bit.js";
import { eightBit } from "./formats/8bit.js";
import { bf16 } from "./formats/bf16.js";
import { f16 } from "./formats/f16.js";
import { f32 } from "./formats/f32.js";

const FORMATS: readonly Format[] = [f32, f16, bf16, eightBit, fourBit];

/** Names of all formats, for schemas. */
export const FORMAT_NAMES: readonly WeightFormat[] = FORMATS.map((format) => format.name);

/** What the user asks for: no change, or the name of a quantized format. */
export type Compression = "none" | QuantizedFormat;

export const COMPRESSIONS: readonly Compression[] = ["none", "8bit", "4bit"];

/** How each role of tensor is stored. Vectors keep the dtype that they have in the checkpoint. */
export interface CompressionSettings {
  compression: Compression;
  embeddingCompression: Compression;
  headCompression: Compression;
}

export function formatOf(name: WeightFormat): Format {
  const format = FORMATS.find((candidate) => candidate.name === name);
  if (!format) throw new LayerstreamError("INTERNAL", `Weight format "${name}" is not registered.`);
  return format;
}

/** The format of unquantized weights with this safetensors dtype; undefined if layerstream computes with no such. */
export function elementFormatOf(dtype: string): ElementFormat | undefined {
  const format = FORMATS.find((candidate) => candidate.block === undefined && candidate.dtype === dtype);
  return format?.name as ElementFormat | undefined;
}

/**
 * Fills in the defaults: "none"; embeddings and head "8bit" under any compression.
 * @throws INVALID_ARGUMENT for an unknown compression.
 */
export function compressionSettings(options: Partial<CompressionSettings>): CompressionSettings {
  const compression = options.compression ?? "none";
  const ends = compression === "none" ? "none" : "8bit";
  const settings = {
    compression,
    embeddingCompression: options.embeddingCompression ?? ends,
    headCompression: options.headCompression ?? ends,
  };
  for (const [option, value] of Object.entries(settings)) {
    if (!COMPRESSIONS.includes(value)) {
      throw new LayerstreamError("INVALID_ARGUMENT", `${option} is ${JSON.stringify(value)}, which is not known.`, {
        remedy: `Use one of ${COMPRESSIONS.join(", ")}.`,
      });
    }
  }
  return settings;
}
