import { readFileSync } from "node:fs";
import { LayerstreamError } from "../errors.js";
import type { QuantizationConfig } from "../quant/methods/method.js";
import type { Checkpoint } from "./checkpoint.js";
import { ioError } from "./file-io.js";
import type { SafeFile } from "./safe-path.js";
import { isRecord, JsonError, parseStrictJson } from "./strict-json.js";

/** What AutoGPTQ and AutoAWQ write beside the weights. */
const FILES: readonly string[] = ["quantize_config.json", "quant_config.json"];

const MAX_BYTES = 1024 * 1024;
const MAX_DEPTH = 16;

/**
 * The settings of a quantized checkpoint: those in config.json, else those in a file of their own. Undefined if there are
 * none.
 * @throws CONFIG_INVALID, IO_ERROR
 */
export function readQuantizationConfig(checkpoint: Checkpoint): QuantizationConfig | undefined {
  const { config, configFile } = checkpoint;
  const values = config.quantization_config ?? config.compression_config;
  if (isRecord(values)) return { values, file: configFile };
  const companion = checkpoint.companions.find(({ name }) => FILES.includes(name));
  if (!companion) return undefined;
  const found = readRecord(companion);
  const usual = companion.name === "quant_config.json" || "w_bit" in found ? "awq" : "gptq";
  return { values: { quant_method: usual, ...found }, file: companion.path };
}

function readRecord({ path, realPath, size }: SafeFile): Record<string, unknown> {
  if (size > MAX_BYTES) throw invalid(path, `has ${size} bytes; at most ${MAX_BYTES} are read`);
  try {
    const value = parseStrictJson(readFileSync(realPath), MAX_DEPTH);
    if (isRecord(value)) return value;
  } catch (error) {
    if (error instanceof JsonError) throw invalid(path, error.message);
    throw ioError(error, "read", path);
  }
  throw invalid(path, "is not a JSON object");
}

function invalid(file: string, what: string): LayerstreamError {
  return new LayerstreamError("CONFIG_INVALID", `${file} ${what}.`, { file, remedy: "Download the file again." });
}
