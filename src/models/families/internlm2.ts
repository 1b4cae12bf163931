import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";

/** InternLM2 in the format of its modeling_internlm2.py. */
export const internlm2: ModelFamily = {
  name: "internlm2",
  modelTypes: ["internlm2"],
  spec(config) {
    const bias = config.boolean("bias", true);
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 2048,
      inputBias: bias,
      outputBias: bias,
      mlpBias: false,
    });
    return {
      ...spec,
      names: {
        embedding: "model.tok_embeddings",
        attentionNorm: "attention_norm",
        queryKeyValue: { name: "attention.wqkv", order: "grouped" },
        output: "attention.wo",
        feedForwardNorm: "ffn_norm",
        gate: "feed_forward.w1",
        up: "feed_forward.w3",
        down: "feed_forward.w2",
        head: "output",
      },
    };
  },
  example: {
    architectures: ["InternLM2ForCausalLM"],
    model_type: "internlm2",
    vocab_size: 109,
    hidden_size: 36,
    intermediate_size: 50,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    bias: true,
    rope_theta: 1000000,
    rope_scaling: { type: "dynamic", factor: 2 },
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    tie_word_embeddings: false,
  },
};
