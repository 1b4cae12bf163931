import type { ConfigReader } from "../config.js";
import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily, NormSpec } from "../family.js";

const SPELLINGS = {
  num_hidden_layers: "num_layers",
  vocab_size: "padded_vocab_size",
  intermediate_size: "ffn_hidden_size",
  head_dim: "kv_channels",
  max_position_embeddings: "seq_length",
};

/** ChatGLM2, ChatGLM3 and GLM-4 in the format of their modeling_chatglm.py. */
export const chatglm: ModelFamily = {
  name: "chatglm",
  modelTypes: ["chatglm"],
  architectures: ["ChatGLMModel", "ChatGLMForConditionalGeneration"],
  spec(original) {
    refuseVariants(original);
    const multiQuery = original.boolean("multi_query_attention", false);
    const config = original.spelled(
      multiQuery ? { ...SPELLINGS, num_key_value_heads: "multi_query_group_num" } : SPELLINGS,
    );
    const bias = config.boolean("add_bias_linear", false);
    const theta = 10_000 * config.positive("rope_ratio", 1);
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 2048,
      kvHeads: multiQuery ? 1 : "heads",
      headDim: 128,
      activation: { name: "silu" },
      inputBias: bias || config.boolean("add_qkv_bias", false),
      outputBias: bias,
      mlpBias: bias,
      norm: readNorm(config),
      attention: { interleaved: true },
      rope: ({ headDim }) => {
        if (headDim % 4 !== 0) config.refuse("head_dim", "a multiple of 4: an even half of each head rotates");
        return { rotaryDim: headDim / 2, theta, scaling: { type: "default" } };
      },
    });
    return {
      ...spec,
      tied: false,
      head: { norm: config.boolean("post_layer_norm", true) },
      names: {
        embedding: "transformer.embedding.word_embeddings",
        layer: "transformer.encoder.layers.{layer}.",
        queryKeyValue: { name: "self_attention.query_key_value", order: multiQuery ? "stacked" : "grouped" },
        output: "self_attention.dense",
        gateUp: "mlp.dense_h_to_4h",
        down: "mlp.dense_4h_to_h",
        finalNorm: "transformer.encoder.final_layernorm",
        head: "transformer.output_layer",
      },
    };
  },
  example: {
    architectures: ["ChatGLMModel"],
    model_type: "chatglm",
    padded_vocab_size: 109,
    hidden_size: 36,
    ffn_hidden_size: 50,
    num_layers: 2,
    num_attention_heads: 6,
    kv_channels: 12,
    multi_query_attention: true,
    multi_query_group_num: 2,
    add_qkv_bias: true,
    add_bias_linear: false,
    rmsnorm: true,
    layernorm_epsilon: 1e-5,
    post_layer_norm: true,
    rope_ratio: 20,
    seq_length: 128,
    tie_word_embeddings: false,
  },
};

function readNorm(config: ConfigReader): NormSpec {
  const epsilon = config.positive("layernorm_epsilon", 1e-5);
  return config.boolean("rmsnorm", true) ? { kind: "rms", epsilon } : { kind: "layer", epsilon, bias: true };
}

function refuseVariants(config: ConfigReader): void {
  if (config.has("position_encoding_2d")) {
    config.unsupported("position_encoding_2d", "ChatGLM2 and its successors are supported.");
  }
  const key = "apply_residual_connection_post_layernorm";
  if (config.boolean(key, false)) config.unsupported(key, "Only false is supported.");
  if (!config.isNull("pre_seq_len")) config.unsupported("pre_seq_len", "Prefixes of p-tuning are not supported.");
  if (config.integer("quantization_bit", 0, 32, 0) > 0) {
    config.unsupported("quantization_bit", "Use the original checkpoint, which is not quantized.");
  }
}
