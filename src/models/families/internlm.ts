import type { RopeSpec } from "../architecture.js";
import type { ConfigReader } from "../config.js";
import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";
import type { RotatedHeads } from "../rope-config.js";

/** InternLM in the format of its modeling_internlm.py. */
export const internlm: ModelFamily = {
  name: "internlm",
  modelTypes: ["internlm"],
  spec(config) {
    const bias = config.boolean("bias", true);
    return readDenseDecoder(config, {
      maxPositionEmbeddings: 2048,
      inputBias: bias,
      outputBias: bias,
      mlpBias: false,
      rope: (heads) => readRotary(config, heads),
    });
  },
  example: {
    architectures: ["InternLMForCausalLM"],
    model_type: "internlm",
    vocab_size: 109,
    hidden_size: 36,
    intermediate_size: 50,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    bias: true,
    rotary: { base: 10000, type: "dynamic" },
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    tie_word_embeddings: false,
  },
};

/** Without the key, as with { base: 10000, type: "dynamic" }. */
function readRotary(config: ConfigReader, { headDim, maxPositionEmbeddings }: RotatedHeads): RopeSpec {
  const rotary = config.object("rotary");
  const theta = rotary?.positive("base", 10_000) ?? 10_000;
  const type = rotary?.string("type", "dynamic") ?? "dynamic";
  if (type === "origin") return { rotaryDim: headDim, theta, scaling: { type: "default" } };
  if (type !== "dynamic") rotary?.unsupported("type", "Supported: origin, dynamic.");
  if (headDim <= 2) config.refuse("num_attention_heads", "such that heads are wider than 2 with dynamic scaling");
  const factor = rotary?.positive("scaling_factor", 1) ?? 1;
  const scaling = { type: "dynamic", factor, originalMaxPositionEmbeddings: maxPositionEmbeddings } as const;
  return { rotaryDim: headDim, theta, scaling };
}
