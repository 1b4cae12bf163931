/** The config.json that a GGUF file's metadata amounts to, in Hugging Face keys. */
import { LayerstreamError } from "../../errors.js";
import { type Config, type GgufContents, HyperParameters, shortest } from "./hyper-parameters.js";
import type { NameTraits } from "./tensor-names.js";

export interface GgufModel {
  config: Config;
  names: NameTraits;
}

const ARCHITECTURES: Readonly<Record<string, (reader: HyperParameters) => GgufModel>> = {
  llama: llamaModel,
  qwen2: (reader) => qwenModel(reader, "qwen2", "Qwen2ForCausalLM"),
  qwen3: (reader) => qwenModel(reader, "qwen3", "Qwen3ForCausalLM"),
  qwen2moe: (reader) => qwenExpertsModel(reader, "qwen2_moe", "Qwen2MoeForCausalLM", false),
  qwen3moe: (reader) => qwenExpertsModel(reader, "qwen3_moe", "Qwen3MoeForCausalLM", true),
  gemma: gemmaModel,
  gemma2: gemma2Model,
  gemma3: gemma3Model,
};

/**
 * @throws UNSUPPORTED_MODEL for architectures and settings that layerstream does not read; GGUF_INVALID for values that
 * cannot be right
 */
export function ggufModel(contents: GgufContents): GgufModel {
  const { metadata } = contents;
  const key = "general.architecture";
  const architecture = metadata.required(key, metadata.string(key));
  const make = Object.hasOwn(ARCHITECTURES, architecture) ? ARCHITECTURES[architecture] : undefined;
  if (make === undefined) {
    throw new LayerstreamError(
      "UNSUPPORTED_MODEL",
      `${metadata.file}: ${key} is ${JSON.stringify(architecture.slice(0, 60))}, which is not read from GGUF files.`,
      { file: metadata.file, remedy: `Supported: ${Object.keys(ARCHITECTURES).join(", ")}.` },
    );
  }
  return make(new HyperParameters(contents, architecture));
}

function llamaModel(reader: HyperParameters): GgufModel {
  const experts = reader.count("expert_count") ?? 0;
  const window = reader.count("attention.sliding_window") ?? 0;
  const names: NameTraits = {
    sandwichNorms: false,
    rotatedNeighbours: { queryHeads: reader.heads, keyHeads: reader.kvHeads },
  };
  refuseScale(reader);
  if (experts > 0) {
    const config = {
      ...reader.common("mixtral", "MixtralForCausalLM"),
      num_local_experts: experts,
      num_experts_per_tok: reader.needed("expert_used_count"),
      sliding_window: window > 0 ? window : null,
    };
    const parts = {
      prefix: "block_sparse_moe.experts",
      router: "block_sparse_moe.gate",
      gate: "w1",
      down: "w2",
      up: "w3",
    };
    return { config, names: { ...names, experts: parts } };
  }
  if (window > 0) {
    return { config: { ...reader.common("mistral", "MistralForCausalLM"), sliding_window: window }, names };
  }
  const config = {
    ...reader.common("llama", "LlamaForCausalLM"),
    attention_bias: reader.has("blk.0.attn_q.bias"),
    mlp_bias: reader.has("blk.0.ffn_gate.bias"),
  };
  return { config, names };
}

function qwenModel(reader: HyperParameters, modelType: string, architecture: string): GgufModel {
  refuseScale(reader);
  const config = { ...reader.common(modelType, architecture), use_sliding_window: false };
  return { config, names: { sandwichNorms: false } };
}

/** The files do not say whether the weights of chosen experts are divided by their sum; the architecture does. */
function qwenExpertsModel(
  reader: HyperParameters,
  modelType: string,
  architecture: string,
  normalize: boolean,
): GgufModel {
  const { config } = qwenModel(reader, modelType, architecture);
  config.num_experts = reader.needed("expert_count");
  config.num_experts_per_tok = reader.needed("expert_used_count");
  config.moe_intermediate_size = reader.needed("expert_feed_forward_length");
  config.norm_topk_prob = normalize;
  const shared = reader.count("expert_shared_feed_forward_length");
  if (shared) config.shared_expert_intermediate_size = shared;
  const parts = { prefix: "mlp.experts", router: "mlp.gate", gate: "gate_proj", down: "down_proj", up: "up_proj" };
  return { config, names: { sandwichNorms: false, experts: parts } };
}

function refuseScale(reader: HyperParameters): void {
  const scale = reader.number("attention.scale") ?? 0;
  if (scale !== 0 && Math.fround(scale) !== Math.fround(reader.headDim ** -0.5)) {
    reader.unsupported("attention.scale", "only 1 / sqrt(head width) is");
  }
}

/** Keys that the three Gemmas share. The file's norms hold 1 + w where the checkpoint's hold w. */
function gemmaCommon(reader: HyperParameters, modelType: string, architecture: string): Config {
  return {
    ...reader.common(modelType, architecture),
    hidden_act: "gelu_pytorch_tanh",
    hidden_activation: "gelu_pytorch_tanh",
    norm_weights_include_one: true,
  };
}

function gemmaModel(reader: HyperParameters): GgufModel {
  refuseScale(reader);
  return { config: gemmaCommon(reader, "gemma", "GemmaForCausalLM"), names: { sandwichNorms: false } };
}

/** Every second layer sees a window only, unless the file says otherwise. */
function gemma2Model(reader: HyperParameters): GgufModel {
  const config = {
    ...gemmaCommon(reader, "gemma2", "Gemma2ForCausalLM"),
    ...slidingLayers(reader, 2),
    query_pre_attn_scalar: queryScalar(reader, 46),
    attn_logit_softcapping: reader.number("attn_logit_softcapping") ?? 50,
    final_logit_softcapping: reader.number("final_logit_softcapping") ?? 30,
  };
  return { config, names: { sandwichNorms: true } };
}

/** Five layers with a window, then one without; the scaling of positions is for the latter only. */
function gemma3Model(reader: HyperParameters): GgufModel {
  const config = {
    ...gemmaCommon(reader, "gemma3_text", "Gemma3ForCausalLM"),
    ...slidingLayers(reader, 6),
    rope_local_base_freq: shortest(reader.number("rope.freq_base_swa") ?? 10_000),
    query_pre_attn_scalar: queryScalar(reader, 62),
    attn_logit_softcapping: null,
    final_logit_softcapping: reader.number("final_logit_softcapping") || null,
  };
  return { config, names: { sandwichNorms: true } };
}

function slidingLayers(reader: HyperParameters, defaultPeriod: number): Config {
  const pattern = reader.metadata.counts(reader.key("attention.sliding_window_pattern")) ?? defaultPeriod;
  if (typeof pattern !== "number" && pattern.length !== reader.layers) {
    reader.unsupported("attention.sliding_window_pattern", `a list of ${reader.layers} is`);
  }
  const slides = (layer: number) => (typeof pattern === "number" ? (layer + 1) % pattern !== 0 : pattern[layer] !== 0);
  return {
    sliding_window: reader.needed("attention.sliding_window"),
    layer_types: Array.from({ length: reader.layers }, (_, layer) =>
      slides(layer) ? "sliding_attention" : "full_attention",
    ),
  };
}

/**
 * Scores are divided by the root of this. Files do not hold it: the published models of 27B parameters, known by their
 * number of layers, take hidden / heads, the others the width of a head.
 */
function queryScalar(reader: HyperParameters, layersOf27B: number): number {
  const scale = reader.number("attention.scale");
  if (scale) return scale ** -2;
  return reader.layers === layersOf27B ? reader.hidden / reader.heads : reader.headDim;
}
