import { LayerstreamError } from "../../errors.js";
import { ggufInvalid } from "./byte-cursor.js";
import type { GgufTensor } from "./gguf-file.js";
import type { GgufMetadata } from "./metadata.js";

/** Keys of config.json. */
export type Config = Record<string, unknown>;

/** What the config depends on besides metadata. */
export interface GgufContents {
  metadata: GgufMetadata;
  tensors: ReadonlyMap<string, GgufTensor>;
  /** Values of the rope_freqs tensor: each divides the frequency of its pair. */
  ropeFactors: Float32Array | undefined;
}

const MAX_LAYERS = 10_000;
/** Present only in models that compute otherwise than the architecture's name says. */
const FOREIGN_KEYS = [
  "attention.clamp_kqv",
  "attention.max_alibi_bias",
  "embedding_scale",
  "residual_scale",
  "logit_scale",
  "expert_shared_count",
  "expert_weights_scale",
  "attention.key_length_mla",
];

/** Metadata under the architecture's prefix, and what all architectures share. */
export class HyperParameters {
  readonly metadata: GgufMetadata;
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly context: number;

  constructor(
    readonly contents: GgufContents,
    private readonly architecture: string,
  ) {
    this.metadata = contents.metadata;
    this.layers = this.needed("block_count");
    if (this.layers > MAX_LAYERS) {
      throw ggufInvalid(this.metadata.file, `has ${this.layers} layers; the limit is ${MAX_LAYERS}`);
    }
    this.hidden = this.needed("embedding_length");
    this.heads = this.needed("attention.head_count");
    this.kvHeads = this.uniform("attention.head_count_kv") ?? this.heads;
    this.headDim = this.count("attention.key_length") ?? this.hidden / this.heads;
    this.context = this.needed("context_length");
    if (!Number.isInteger(this.headDim)) this.unsupported("attention.key_length", "heads must divide the embedding");
    for (const key of ["attention.value_length", "rope.dimension_count"]) {
      if ((this.count(key) ?? this.headDim) !== this.headDim) this.unsupported(key, `only ${this.headDim} is`);
    }
    for (const key of FOREIGN_KEYS) if (this.number(key)) this.unsupported(key, "only files without it are");
    if (this.boolean("attention.causal") === false) this.unsupported("attention.causal", "only true is");
  }

  key(name: string): string {
    return `${this.architecture}.${name}`;
  }

  count(name: string): number | undefined {
    return this.metadata.count(this.key(name));
  }

  number(name: string): number | undefined {
    return this.metadata.number(this.key(name));
  }

  boolean(name: string): boolean | undefined {
    return this.metadata.boolean(this.key(name));
  }

  /** A whole number that all layers share. */
  uniform(name: string): number | undefined {
    const value = this.metadata.counts(this.key(name));
    if (value === undefined || typeof value === "number") return value;
    if (value.every((other) => other === value[0])) return value[0];
    return this.unsupported(name, "only equal numbers for all layers are");
  }

  needed(name: string): number {
    return this.metadata.required(this.key(name), this.uniform(name));
  }

  has(tensor: string): boolean {
    return this.contents.tensors.has(tensor);
  }

  unsupported(name: string, supported: string): never {
    const { file } = this.metadata;
    throw new LayerstreamError("UNSUPPORTED_MODEL", `${file}: the value of ${this.key(name)} is not supported.`, {
      file,
      remedy: `Of this setting, ${supported} supported.`,
    });
  }

  /** Keys that all families have. */
  common(modelType: string, architecture: string): Config {
    return {
      architectures: [architecture],
      model_type: modelType,
      vocab_size: this.vocabulary(),
      hidden_size: this.hidden,
      intermediate_size: this.needed("feed_forward_length"),
      num_hidden_layers: this.layers,
      num_attention_heads: this.heads,
      num_key_value_heads: this.kvHeads,
      head_dim: this.headDim,
      max_position_embeddings: this.context,
      rms_norm_eps: this.epsilon(),
      tie_word_embeddings: !this.has("output.weight"),
      ...this.rope(),
    };
  }

  /** Rows of the embedding: the file's list of tokens may be shorter. */
  private vocabulary(): number {
    const embedding = this.contents.tensors.get("token_embd.weight");
    if (embedding === undefined) throw ggufInvalid(this.metadata.file, 'has no tensor "token_embd.weight"');
    return embedding.dimensions[1] ?? 0;
  }

  private epsilon(): number {
    const name = "attention.layer_norm_rms_epsilon";
    return shortest(this.metadata.required(this.key(name), this.number(name)));
  }

  private rope(): Config {
    const theta = shortest(this.number("rope.freq_base") ?? 10_000);
    const scaling = this.ropeScaling();
    return scaling === undefined ? { rope_theta: theta } : { rope_theta: theta, rope_scaling: scaling };
  }

  private ropeScaling(): Config | undefined {
    const { ropeFactors } = this.contents;
    const type = this.metadata.string(this.key("rope.scaling.type")) ?? "linear";
    const factor = this.number("rope.scaling.factor") ?? this.number("rope.scale_linear") ?? 1;
    const isScaled = type !== "none" && factor !== 1 && factor !== 0;
    if (ropeFactors !== undefined) {
      if (isScaled) this.unsupported("rope.scaling.type", "none beside a rope_freqs tensor is");
      return this.factorScaling(ropeFactors);
    }
    if (!isScaled) return undefined;
    if (type === "linear") return { rope_type: "linear", factor };
    if (type === "yarn") return this.yarnScaling(factor);
    return this.unsupported("rope.scaling.type", "none, linear and yarn are");
  }

  /** Llama 3's scaling, which the file holds as its result: LongRoPE with one list expresses just that. */
  private factorScaling(ropeFactors: Float32Array): Config {
    const factors = Array.from(ropeFactors);
    return {
      rope_type: "longrope",
      short_factor: factors,
      long_factor: factors,
      factor: 1,
      attention_factor: 1,
      original_max_position_embeddings: this.context,
    };
  }

  private yarnScaling(factor: number): Config {
    const original = this.count("rope.scaling.original_context_length");
    const scaling: Config = { rope_type: "yarn", factor };
    if (original) scaling.original_max_position_embeddings = original;
    const fast = this.number("rope.scaling.yarn_beta_fast");
    const slow = this.number("rope.scaling.yarn_beta_slow");
    const attention = this.number("rope.scaling.yarn_attn_factor") ?? this.number("rope.scaling.attn_factor");
    if ((this.number("rope.scaling.yarn_ext_factor") ?? 1) !== 1) {
      this.unsupported("rope.scaling.yarn_ext_factor", "only 1 is");
    }
    if (fast) scaling.beta_fast = fast;
    if (slow) scaling.beta_slow = slow;
    if (attention && attention !== 1) scaling.attention_factor = attention * (0.1 * Math.log(factor) + 1);
    return scaling;
  }
}

/** The shortest decimal that is the same float32, as config.json would have it. */
export function shortest(value: number): number {
  const digits = [1, 2, 3, 4, 5, 6, 7, 8].find((count) => Math.fround(Number(value.toPrecision(count))) === value);
  return Number(value.toPrecision(digits ?? 9));
}
