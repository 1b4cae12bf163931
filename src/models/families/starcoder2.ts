import { readActivation, readDenseDecoder, readWindow } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";

export const starcoder2: ModelFamily = {
  name: "starcoder2",
  modelTypes: ["starcoder2"],
  spec(config) {
    const bias = config.boolean("use_bias", true);
    const window = readWindow(config);
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 4096,
      kvHeads: 2,
      tied: true,
      inputBias: bias,
      outputBias: bias,
      mlpBias: bias,
      gated: false,
      activation: readActivation(config, "hidden_act", "gelu_pytorch_tanh"),
      norm: { kind: "layer", epsilon: config.positive("norm_epsilon", 1e-5), bias: true },
      window: () => window,
    });
    return { ...spec, names: { up: "mlp.c_fc", down: "mlp.c_proj" } };
  },
  example: {
    architectures: ["Starcoder2ForCausalLM"],
    model_type: "starcoder2",
    vocab_size: 111,
    hidden_size: 36,
    intermediate_size: 50,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 3,
    hidden_act: "gelu_pytorch_tanh",
    norm_epsilon: 1e-5,
    sliding_window: 6,
    use_bias: true,
    max_position_embeddings: 128,
    rope_theta: 10000,
  },
};
