import type { ConfigReader } from "./config.js";
import { type DenseDecoderTraits, readDenseDecoder, readWindow } from "./dense-decoder.js";
import type { DecoderSpec } from "./family.js";

/** What all Gemmas share: norms by 1 + w, embeddings scaled by the root of their width, a tied head. */
export function readGemmaDecoder(
  config: ConfigReader,
  traits: Pick<
    DenseDecoderTraits,
    "maxPositionEmbeddings" | "kvHeads" | "activation" | "attention" | "headNorm" | "rope" | "window"
  >,
): DecoderSpec {
  if (!config.isNull("use_bidirectional_attention") && config.boolean("use_bidirectional_attention", false)) {
    config.unsupported("use_bidirectional_attention", "Only causal attention is supported.");
  }
  const bias = config.boolean("attention_bias", false);
  const spec = readDenseDecoder(config, {
    ...traits,
    headDim: 256,
    tied: true,
    inputBias: bias,
    outputBias: bias,
    mlpBias: false,
    norm: {
      kind: "rms",
      epsilon: config.positive("rms_norm_eps", 1e-6),
      // Of GGUF files, whose norms hold the sum.
      plusOne: !config.boolean("norm_weights_include_one", false),
    },
  });
  return { ...spec, embeddingScale: Math.sqrt(spec.hiddenSize) };
}

/** The window of layers that slide: a config that has such layers must state it. */
export function readGemmaWindow(
  config: ConfigReader,
  slides: (layer: number) => boolean,
): (layer: number) => number | undefined {
  const window = readWindow(config, 4096);
  return (layer) => (slides(layer) ? (window ?? config.refuse("sliding_window", "a number of tokens")) : undefined);
}

/** A cap of scores or logits: null means none. */
export function readSoftCap(config: ConfigReader, key: string, fallback?: number): number | undefined {
  if (config.isNull(key) && (config.has(key) || fallback === undefined)) return undefined;
  return config.positive(key, fallback);
}
