import type { RopeSpec } from "../architecture.js";
import { type ConfigReader, LIMITS } from "../config.js";
import { readActivation, readLayerCount } from "../dense-decoder.js";
import type { DecoderSpec, ModelFamily } from "../family.js";
import { readGemmaDecoder, readGemmaWindow, readSoftCap } from "../gemma-decoder.js";
import { readSlidingLayers } from "../layer-types.js";
import { type RotatedHeads, readRopeParameters } from "../rope-config.js";

/** What published configs of the models with a vision part leave out. */
const TEXT_DEFAULTS = { num_attention_heads: 8, vocab_size: 262_208 };

/** Gemma 3; of the models that also take images (`gemma3`), the part that takes text. */
export const gemma3: ModelFamily = {
  name: "gemma3_text",
  modelTypes: ["gemma3_text", "gemma3"],
  architectures: ["Gemma3ForConditionalGeneration"],
  spec(config) {
    if (config.string("model_type") === "gemma3_text") return readText(config);
    const text = config.object("text_config") ?? config.refuse("text_config", "an object");
    const names = {
      embedding: "language_model.model.embed_tokens",
      layer: "language_model.model.layers.{layer}.",
      finalNorm: "language_model.model.norm",
      head: "language_model.lm_head",
    };
    return { ...readText(text.withDefaults(TEXT_DEFAULTS)), names };
  },
  example: {
    architectures: ["Gemma3ForCausalLM"],
    model_type: "gemma3_text",
    vocab_size: 109,
    hidden_size: 36,
    intermediate_size: 52,
    num_hidden_layers: 4,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    head_dim: 14,
    query_pre_attn_scalar: 9,
    sliding_window: 5,
    sliding_window_pattern: 3,
    rope_local_base_freq: 500,
    rope_theta: 20000,
    rope_scaling: { rope_type: "linear", factor: 4 },
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
  },
};

function readText(config: ConfigReader): DecoderSpec {
  const sliding = readSlidingLayers(config, readLayerCount(config));
  const period = config.integer("sliding_window_pattern", 1, LIMITS.layers, 6);
  const slides = (layer: number) => sliding?.[layer] ?? (layer + 1) % period !== 0;
  const logitCap = readSoftCap(config, "final_logit_softcapping");
  const spec = readGemmaDecoder(config, {
    maxPositionEmbeddings: 131_072,
    kvHeads: 4,
    headNorm: "head",
    activation: readActivation(config, "hidden_activation", "gelu_pytorch_tanh"),
    attention: { scale: config.positive("query_pre_attn_scalar", 256) ** -0.5 },
    rope: (heads, layer) => (slides(layer) ? readLocalRope(config, heads) : readGlobalRope(config, heads)),
    window: readGemmaWindow(config, slides),
  });
  return { ...spec, placement: "sandwich", head: logitCap === undefined ? {} : { softCap: logitCap } };
}

/** Of layers without a window: `rope_scaling` applies to these only. */
function readGlobalRope(config: ConfigReader, heads: RotatedHeads): RopeSpec {
  const parameters = config.object("rope_scaling") ?? perKind(config, "full_attention");
  return readRopeParameters(config, parameters, { ...heads, theta: 1_000_000 });
}

function readLocalRope(config: ConfigReader, heads: RotatedHeads): RopeSpec {
  const local = config.spelled({ rope_theta: "rope_local_base_freq" });
  return readRopeParameters(local, perKind(config, "sliding_attention"), heads);
}

/** Newer configs have the parameters of each kind of layer apart. */
function perKind(config: ConfigReader, kind: string): ConfigReader | undefined {
  const parameters = config.object("rope_parameters");
  if (parameters && !parameters.isEmpty && !parameters.has("full_attention") && !parameters.has("sliding_attention")) {
    config.unsupported("rope_parameters", "It must hold full_attention and sliding_attention.");
  }
  return parameters?.object(kind);
}
