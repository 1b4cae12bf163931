import { LayerstreamError } from "../errors.js";
import type { ElementFormat, QuantizedFormat, WeightFormat } from "../native/types.js";
import type { Format } from "./format.js";
import { fourBit } from "./formats/4bit.js";
import { eightBit } from "./formats/8bit.js";
import { bf16 } from "./formats/bf16.js";
import { bf16Window } from "./formats/bf16_window.js";
import { f16 } from "./formats/f16.js";
import { f32 } from "./formats/f32.js";
import { fp8 } from "./formats/fp8.js";
import { mxfp4 } from "./formats/mxfp4.js";
import { nf4 } from "./formats/nf4.js";
import { q2K } from "./formats/q2_k.js";
import { q3K } from "./formats/q3_k.js";
import { q4Zero } from "./formats/q4_0.js";
import { q4One } from "./formats/q4_1.js";
import { q4K } from "./formats/q4_k.js";
import { q5Zero } from "./formats/q5_0.js";
import { q5One } from "./formats/q5_1.js";
import { q5K } from "./formats/q5_k.js";
import { q6K } from "./formats/q6_k.js";
import { q8Zero } from "./formats/q8_0.js";
import { uint2 } from "./formats/uint2.js";
import { uint3 } from "./formats/uint3.js";
import { uint4 } from "./formats/uint4.js";
import { uint8 } from "./formats/uint8.js";

const FORMATS: readonly Format[] = [
  f32,
  f16,
  bf16,
  eightBit,
  fourBit,
  uint2,
  uint3,
  uint4,
  uint8,
  fp8,
  mxfp4,
  nf4,
  q8Zero,
  q4Zero,
  q4One,
  q5Zero,
  q5One,
  q2K,
  q3K,
  q4K,
  q5K,
  q6K,
  bf16Window,
];

/** Names of all formats, for schemas. */
export const FORMAT_NAMES: readonly WeightFormat[] = FORMATS.map((format) => format.name);

/** What the user asks for: no change, the same weights in fewer bytes, or the name of a quantized format. */
export type Compression = "none" | "lossless" | QuantizedFormat;

export const COMPRESSIONS: readonly Compression[] = ["none", "lossless", "8bit", "4bit"];

/** Whether weights come out other than they were. */
export function isLossy(compression: Compression): compression is QuantizedFormat {
  return compression !== "none" && compression !== "lossless";
}

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

/** Whether weights of this format are plain elements, without scales. */
export function isElementFormat(name: WeightFormat): name is ElementFormat {
  return formatOf(name).block === undefined;
}

/** The format of unquantized weights with this safetensors dtype; undefined if layerstream computes with no such. */
export function elementFormatOf(dtype: string): ElementFormat | undefined {
  const format = FORMATS.find((candidate) => candidate.block === undefined && candidate.dtype === dtype);
  return format?.name as ElementFormat | undefined;
}

/**
 * Fills in the defaults: "none"; embeddings and head "8bit" where matrices are quantized, else as they are.
 * @throws INVALID_ARGUMENT for an unknown compression.
 */
export function compressionSettings(options: Partial<CompressionSettings>): CompressionSettings {
  const compression = options.compression ?? "none";
  const ends = isLossy(compression) ? "8bit" : compression;
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
