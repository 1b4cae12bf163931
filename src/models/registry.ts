import { LayerstreamError } from "../errors.js";
import { quantMethodOf } from "../quant/methods/registry.js";
import type { Architecture } from "./architecture.js";
import { ConfigReader } from "./config.js";
import { compileDecoder } from "./decoder.js";
import { baichuan } from "./families/baichuan.js";
import { chatglm } from "./families/chatglm.js";
import { deepseekV2 } from "./families/deepseek-v2.js";
import { deepseekV3 } from "./families/deepseek-v3.js";
import { gemma } from "./families/gemma.js";
import { gemma2 } from "./families/gemma2.js";
import { gemma3 } from "./families/gemma3.js";
import { glm, glm4 } from "./families/glm.js";
import { gptOss } from "./families/gpt-oss.js";
import { granite } from "./families/granite.js";
import { internlm } from "./families/internlm.js";
import { internlm2 } from "./families/internlm2.js";
import { llama } from "./families/llama.js";
import { mistral } from "./families/mistral.js";
import { mixtral } from "./families/mixtral.js";
import { olmo2 } from "./families/olmo2.js";
import { phi3 } from "./families/phi3.js";
import { qwen } from "./families/qwen.js";
import { qwen2 } from "./families/qwen2.js";
import { qwen2Moe } from "./families/qwen2-moe.js";
import { qwen3 } from "./families/qwen3.js";
import { qwen3Moe } from "./families/qwen3-moe.js";
import { stablelm } from "./families/stablelm.js";
import { starcoder2 } from "./families/starcoder2.js";
import type { ModelFamily } from "./family.js";

export const families: readonly ModelFamily[] = [
  baichuan,
  chatglm,
  deepseekV2,
  deepseekV3,
  gemma,
  gemma2,
  gemma3,
  glm,
  glm4,
  gptOss,
  granite,
  internlm,
  internlm2,
  llama,
  mistral,
  mixtral,
  olmo2,
  phi3,
  qwen,
  qwen2,
  qwen2Moe,
  qwen3,
  qwen3Moe,
  stablelm,
  starcoder2,
];

/** Values of `model_type` that load. */
export const supportedModelTypes: readonly string[] = families.flatMap((family) => family.modelTypes);

/** Undefined when no family has this `model_type`. */
export function familyOf(modelType: string): ModelFamily | undefined {
  return families.find((family) => family.modelTypes.includes(modelType));
}

/**
 * The model that a parsed config.json describes. Reads nothing else. `file` is named in errors.
 * Raises CONFIG_INVALID for values that cannot be right, UNSUPPORTED_MODEL for those that layerstream lacks.
 */
export function architectureOf(config: unknown, file: string): Architecture {
  const reader = ConfigReader.of(config, file);
  const modelType = reader.string("model_type");
  const family = familyOf(modelType);
  if (family === undefined) {
    return reader.unsupported("model_type", `Supported model types: ${supportedModelTypes.join(", ")}.`);
  }
  checkQuantization(reader);
  refuseOtherTasks(reader, family);
  return compileDecoder(family.name, modelType, family.spec(reader));
}

/** Settings that cannot be read are refused before any shard is opened. */
function checkQuantization(config: ConfigReader): void {
  const values = config.raw("quantization_config");
  if (config.object("quantization_config"))
    quantMethodOf({ values: values as Record<string, unknown>, file: config.file });
}

/** A classifier or a bare encoder has the same model_type and no language-model head. */
function refuseOtherTasks(config: ConfigReader, { architectures }: ModelFamily): void {
  const names = config.strings("architectures");
  if (names === undefined || names.length === 0) return;
  if (names.some((name) => name.endsWith("ForCausalLM") || architectures?.includes(name))) return;
  throw new LayerstreamError(
    "UNSUPPORTED_MODEL",
    `${config.file}: architectures names ${JSON.stringify(names[0])}, which is not a language model with a head.`,
    {
      file: config.file,
      remedy: `Supported architectures: ${["...ForCausalLM", ...(architectures ?? [])].join(", ")}.`,
    },
  );
}
