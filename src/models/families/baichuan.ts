import { LIMITS } from "../config.js";
import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";

const BAICHUAN2_VOCABULARY = 125_696;

/** Baichuan and Baichuan2 in the format of their modeling_baichuan.py. */
export const baichuan: ModelFamily = {
  name: "baichuan",
  modelTypes: ["baichuan"],
  spec(config) {
    // The 7B models rotate positions and state their maximum; the 13B models have ALiBi and state model_max_length.
    const alibi = !config.has("max_position_embeddings");
    const reader = alibi ? config.spelled({ max_position_embeddings: "model_max_length" }) : config;
    const heads = config.integer("num_attention_heads", 1, LIMITS.heads);
    const spec = readDenseDecoder(reader, {
      maxPositionEmbeddings: 4096,
      inputBias: false,
      outputBias: false,
      mlpBias: false,
      ...(alibi ? { attention: { alibiSlopes: alibiSlopes(heads) } } : {}),
      rope: ({ headDim }) => (alibi ? undefined : { rotaryDim: headDim, theta: 10_000, scaling: { type: "default" } }),
    });
    return {
      ...spec,
      head: { normalized: spec.vocabSize === BAICHUAN2_VOCABULARY || config.has("z_loss_weight") },
      names: { queryKeyValue: { name: "self_attn.W_pack", order: "stacked" } },
    };
  },
  example: {
    architectures: ["BaichuanForCausalLM"],
    model_type: "baichuan",
    vocab_size: 109,
    hidden_size: 36,
    intermediate_size: 50,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    model_max_length: 128,
    rms_norm_eps: 1e-6,
    z_loss_weight: 0,
    tie_word_embeddings: false,
  },
};

/**
 * Slopes of attention with linear biases (Press et al., 2022): a geometric sequence for the next lower power of two, and
 * for the heads beyond it every other slope of the next sequence.
 */
function alibiSlopes(heads: number): number[] {
  const powers = (count: number) => Array.from({ length: count }, (_, i) => 2 ** ((-8 * (i + 1)) / count));
  const whole = 2 ** Math.floor(Math.log2(heads));
  const between = powers(2 * whole).filter((_, i) => i % 2 === 0);
  return [...powers(whole), ...between.slice(0, heads - whole)];
}
