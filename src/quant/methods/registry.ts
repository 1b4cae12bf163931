import { awq } from "./awq.js";
import { bitsandbytes } from "./bitsandbytes.js";
import { compressedTensors } from "./compressed-tensors.js";
import { fp8 } from "./fp8.js";
import { gptq } from "./gptq.js";
import { type QuantizationConfig, type QuantMethod, unsupported } from "./method.js";
import { mxfp4 } from "./mxfp4.js";

/** By `quant_method`. FBGEMM's FP8 has a scale a row, and the names of the other. */
const METHODS: Readonly<Record<string, (config: QuantizationConfig) => QuantMethod>> = {
  awq,
  gptq,
  bitsandbytes,
  fp8,
  fbgemm_fp8: fp8,
  "compressed-tensors": compressedTensors,
  mxfp4,
};

/** @throws UNSUPPORTED_MODEL for a method that is not read, or a variant of one; CONFIG_INVALID */
export function quantMethodOf(config: QuantizationConfig): QuantMethod {
  const { values, file } = config;
  const name = values.quant_method ?? (values.load_in_4bit || values.load_in_8bit ? "bitsandbytes" : undefined);
  if (typeof name === "string" && Object.hasOwn(METHODS, name)) {
    return (METHODS[name] as (typeof METHODS)[string])(config);
  }
  const described = typeof name === "string" ? JSON.stringify(name.slice(0, 60)) : "missing";
  return unsupported(
    file,
    `the checkpoint is quantized, and its quant_method is ${described}`,
    `layerstream reads ${Object.keys(METHODS).join(", ")}.`,
  );
}
