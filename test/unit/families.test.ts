import { describe, expect, it } from "vitest";
import { LayerstreamError } from "../../dist/errors.js";
import type { Architecture, PlanOp } from "../../dist/models/architecture.js";
import { architectureOf, families, familyOf, supportedModelTypes } from "../../dist/models/registry.js";

const sizes = {
  vocab_size: 100,
  hidden_size: 64,
  intermediate_size: 48,
  num_hidden_layers: 3,
  num_attention_heads: 32,
};

function config(modelType: string, changes: Record<string, unknown> = {}): Record<string, unknown> {
  return { ...sizes, model_type: modelType, ...changes };
}

function errorOf(value: unknown): LayerstreamError {
  try {
    architectureOf(value, "dir/config.json");
  } catch (error) {
    if (error instanceof LayerstreamError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

function opsOf<Name extends PlanOp["op"]>(architecture: Architecture, name: Name) {
  const ops = architecture.kinds.flatMap((kind) => kind.plan);
  return ops.filter((op): op is Extract<PlanOp, { op: Name }> => op.op === name);
}

function tensorNames(architecture: Architecture): string[] {
  return architecture.kinds.flatMap((kind) => kind.tensors.map((tensor) => tensor.name));
}

function biases(architecture: Architecture): string[] {
  return tensorNames(architecture)
    .filter((name) => name.endsWith(".bias"))
    .map((name) => name.split(".").at(-2) ?? "");
}

describe("defaults where keys are absent", () => {
  it.each([
    ["llama", { kvHeads: 32, headDim: 2, maxPositionEmbeddings: 2048 }, undefined],
    ["mistral", { kvHeads: 8, headDim: 2, maxPositionEmbeddings: 131072 }, 4096],
    ["qwen2", { kvHeads: 32, headDim: 2, maxPositionEmbeddings: 32768 }, undefined],
    ["qwen3", { kvHeads: 32, headDim: 128, maxPositionEmbeddings: 32768 }, undefined],
  ])("%s has those of its config class", (modelType, expected, window) => {
    const architecture = architectureOf(config(modelType), "config.json");
    expect(architecture).toMatchObject({ ...expected, family: modelType, modelType, tied: false, embeddingScale: 1 });
    expect(architecture.ropes).toEqual([
      { rotaryDim: architecture.headDim, theta: 10000, scaling: { type: "default" } },
    ]);
    expect(opsOf(architecture, "norm").every((op) => op.epsilon === 1e-6)).toBe(true);
    expect(opsOf(architecture, "attention").map((op) => op.window)).toEqual([window]);
  });

  const common = { tied: false, embeddingScale: 1 };
  it.each([
    ["gemma", { kvHeads: 16, headDim: 256, maxPositionEmbeddings: 8192, tied: true, embeddingScale: 32 }, 1e-6, 256],
    ["gemma2", { kvHeads: 4, headDim: 256, maxPositionEmbeddings: 8192, tied: true, embeddingScale: 32 }, 1e-6, 256],
    [
      "gemma3_text",
      { kvHeads: 4, headDim: 256, maxPositionEmbeddings: 131072, tied: true, embeddingScale: 32 },
      1e-6,
      256,
    ],
    ["phi3", { ...common, kvHeads: 32, headDim: 32, maxPositionEmbeddings: 4096 }, 1e-5, 32],
    ["stablelm", { ...common, kvHeads: 32, headDim: 32, maxPositionEmbeddings: 4096 }, 1e-5, 8],
    ["starcoder2", { ...common, kvHeads: 2, headDim: 32, maxPositionEmbeddings: 4096, tied: true }, 1e-5, 32],
    ["olmo2", { ...common, kvHeads: 32, headDim: 32, maxPositionEmbeddings: 2048 }, 1e-5, 32],
    ["granite", { ...common, kvHeads: 32, headDim: 32, maxPositionEmbeddings: 2048 }, 1e-6, 32],
    ["glm", { ...common, kvHeads: 2, headDim: 128, maxPositionEmbeddings: 131072 }, 1.5625e-7, 64],
    ["glm4", { ...common, kvHeads: 2, headDim: 128, maxPositionEmbeddings: 131072 }, 1.5625e-7, 64],
    ["internlm", { ...common, kvHeads: 32, headDim: 32, maxPositionEmbeddings: 2048 }, 1e-6, 32],
    ["internlm2", { ...common, kvHeads: 32, headDim: 32, maxPositionEmbeddings: 2048 }, 1e-6, 32],
  ])("%s has those of its config class, scaled and rotated as it says", (modelType, expected, epsilon, rotaryDim) => {
    const architecture = architectureOf(config(modelType, { hidden_size: 1024 }), "config.json");
    expect(architecture).toMatchObject({ ...expected, modelType });
    expect(new Set(opsOf(architecture, "norm").map((op) => op.epsilon))).toEqual(new Set([epsilon]));
    expect(new Set(architecture.ropes.map((rope) => rope.rotaryDim))).toEqual(new Set([rotaryDim]));
  });

  it("takes null for as many KV heads as heads, and for a derived head size", () => {
    for (const modelType of ["llama", "mistral", "qwen2"]) {
      const architecture = architectureOf(
        config(modelType, { num_key_value_heads: null, head_dim: null }),
        "config.json",
      );
      expect(architecture).toMatchObject({ kvHeads: 32, headDim: 2 });
    }
  });
});

describe("biases and head norms", () => {
  const all = ["q_proj", "k_proj", "v_proj", "o_proj"];

  it.each([
    ["llama", {}, []],
    ["llama", { attention_bias: true }, all],
    ["llama", { mlp_bias: true }, ["gate_proj", "up_proj", "down_proj"]],
    ["mistral", {}, []],
    ["qwen2", {}, ["q_proj", "k_proj", "v_proj"]],
    ["qwen3", {}, []],
    ["qwen3", { attention_bias: true }, all],
    ["gemma", { attention_bias: true }, all],
    ["granite", { attention_bias: true, mlp_bias: true }, [...all, "gate_proj", "up_proj", "down_proj"]],
    ["olmo2", { attention_bias: true }, all],
    ["glm", {}, ["q_proj", "k_proj", "v_proj"]],
    ["glm", { attention_bias: false }, []],
    ["internlm", {}, all],
    ["internlm", { bias: false }, []],
  ])("%s with %j has biases on %j", (modelType, changes, expected) => {
    const architecture = architectureOf(config(modelType, { hidden_size: 1024, ...changes }), "config.json");
    expect(biases(architecture)).toEqual(expected);
  });

  it("normalizes heads of qwen3 before the rotary embedding", () => {
    const attention = architectureOf(config("qwen3"), "config.json").kinds.find((kind) => kind.name === "attention");
    const ops = attention?.plan.map((op) => `${op.op} ${op.op === "norm" ? `${op.input} ${op.width}` : ""}`);
    expect(ops?.indexOf("norm query 128")).toBeLessThan(ops?.indexOf("rope ") ?? -1);
    expect(ops?.filter((op) => op.startsWith("norm"))).toEqual(["norm hidden 64", "norm query 128", "norm key 128"]);
  });
});

describe("gemma3 with a vision part", () => {
  const text = { hidden_size: 64, intermediate_size: 48, num_hidden_layers: 2 };

  it("is its text part, with the defaults that published configs rely on", () => {
    const architecture = architectureOf({ model_type: "gemma3", text_config: text }, "f");
    expect(architecture).toMatchObject({ heads: 8, kvHeads: 4, headDim: 256, vocabSize: 262_208, tied: true });
    const names = tensorNames(architecture);
    expect(names.every((name) => name.startsWith("language_model.model."))).toBe(true);
  });

  it("is refused without one, and names keys in full", () => {
    expect(errorOf({ model_type: "gemma3" }).message).toContain("text_config is missing");
    const error = errorOf({ model_type: "gemma3", text_config: { ...text, hidden_size: -1 } });
    expect(error.message).toContain("text_config.hidden_size is -1");
  });
});

describe("sliding windows", () => {
  const windowsOf = (modelType: string, changes: Record<string, unknown>): (number | undefined)[] => {
    const architecture = architectureOf(config(modelType, changes), "config.json");
    const decoderLayers = architecture.layers.filter(({ file }) => file.startsWith("layer-"));
    return decoderLayers.map(({ stages }) => {
      const op = architecture.kinds[stages[0]?.kind ?? -1]?.plan.find((candidate) => candidate.op === "attention");
      return op?.op === "attention" ? op.window : undefined;
    });
  };

  it("span all layers of mistral unless null", () => {
    expect(windowsOf("mistral", { sliding_window: 7 })).toEqual([7, 7, 7]);
    expect(windowsOf("mistral", { sliding_window: null })).toEqual([undefined, undefined, undefined]);
  });

  it("alternate in gemma2 and come in periods in gemma3", () => {
    const none = undefined;
    expect(windowsOf("gemma2", { sliding_window: 7 })).toEqual([7, none, 7]);
    expect(windowsOf("gemma3_text", { sliding_window: 7 })).toEqual([7, 7, 7]);
    expect(windowsOf("gemma3_text", { sliding_window: 7, sliding_window_pattern: 2 })).toEqual([7, none, 7]);
    const types = { layer_types: ["full_attention", "sliding_attention", "full_attention"], sliding_window: 7 };
    for (const modelType of ["gemma2", "gemma3_text"]) {
      expect(windowsOf(modelType, types)).toEqual([none, 7, none]);
    }
  });

  it("of phi3 and starcoder2 are there when the config has one", () => {
    for (const modelType of ["phi3", "starcoder2"]) {
      expect(windowsOf(modelType, {}).every((window) => window === undefined)).toBe(true);
      expect(windowsOf(modelType, { sliding_window: 9 }).every((window) => window === 9)).toBe(true);
    }
  });

  it.each(["qwen2", "qwen3"])("of %s need use_sliding_window, and start at max_window_layers", (modelType) => {
    const keys = { sliding_window: 7, max_window_layers: 1 };
    expect(windowsOf(modelType, keys)).toEqual([undefined, undefined, undefined]);
    expect(windowsOf(modelType, { ...keys, use_sliding_window: true })).toEqual([undefined, 7, 7]);
    expect(windowsOf(modelType, { use_sliding_window: true, max_window_layers: 2 })).toEqual([
      undefined,
      undefined,
      4096,
    ]);
    expect(windowsOf(modelType, { ...keys, use_sliding_window: true, sliding_window: null })).toEqual(
      Array(3).fill(undefined),
    );
  });
});

describe("unsupported values are refused by name", () => {
  it.each([
    [config("gpt_neox"), ["model_type", '"gpt_neox"', "llama, "]],
    [config("llama", { hidden_act: "relu2" }), ["hidden_act", '"relu2"', "silu"]],
    [config("llama", { rope_scaling: { rope_type: "ntk" } }), ["rope_scaling.rope_type", '"ntk"', "llama3, yarn"]],
    [config("llama", { rope_scaling: { type: "mrope", factor: 2 } }), ["rope_scaling.type", '"mrope"']],
    [
      config("qwen3", { rope_parameters: { rope_type: "proportional" } }),
      ["rope_parameters.rope_type", "proportional"],
    ],
    [config("qwen3", { rope_parameters: { full_attention: { rope_type: "default" } } }), ["rope_parameters"]],
    [config("llama", { partial_rotary_factor: 0.5 }), ["partial_rotary_factor", "0.5"]],
    [config("llama", { rope_parameters: { partial_rotary_factor: 0.25 } }), ["rope_parameters.partial_rotary_factor"]],
    [config("gemma2", { use_bidirectional_attention: true }), ["use_bidirectional_attention"]],
    [config("gemma3_text", { rope_parameters: { rope_type: "default" } }), ["rope_parameters", "an object"]],
    [config("stablelm", { hidden_size: 1024, qk_layernorm: true }), ["qk_layernorm"]],
    [config("internlm", { rotary: { type: "linear", base: 10000 } }), ["rotary.type", '"linear"']],
    [config("phi3", { rope_scaling: { type: "longrope", short_mscale: 1.1 } }), ["rope_scaling.short_mscale"]],
    [config("mistral", { layer_types: ["full_attention"] }), ["layer_types"]],
    [config("qwen3", { layer_types: Array(3).fill("linear_attention") }), ["layer_types", '"linear_attention"']],
    [config("llama", { quantization_config: { quant_method: "hqq" } }), ["quant_method", '"hqq"']],
    [config("llama", { quantization_config: {} }), ["quant_method", "missing"]],
    [config("llama", { architectures: ["LlamaForSequenceClassification"] }), ["LlamaForSequenceClassification"]],
  ])("%#", (value, words) => {
    const error = errorOf(value);
    expect(error.code).toBe("UNSUPPORTED_MODEL");
    expect(error.file).toBe("dir/config.json");
    expect(error.message).toContain("dir/config.json");
    for (const word of words) expect(error.message).toContain(word);
    expect(error.remedy).toBeTruthy();
  });

  it("accepts the other name of silu and a null quantization_config", () => {
    expect(architectureOf(config("llama", { hidden_act: "swish", quantization_config: null }), "f").family).toBe(
      "llama",
    );
  });
});

describe("values that cannot be right", () => {
  const counts = ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads"];
  const absurd = [
    2 ** 53,
    0,
    -1,
    1.5,
    "32",
    null,
    true,
    [],
    {},
    Number.NaN,
    Number.POSITIVE_INFINITY,
    1e300,
    undefined,
  ];

  const chatglm: Record<string, string> = {
    num_hidden_layers: "num_layers",
    intermediate_size: "ffn_hidden_size",
    vocab_size: "padded_vocab_size",
  };

  it.each(counts)("%s must be a whole number in bounds", (standard) => {
    for (const { name, example } of families) {
      const key = name === "chatglm" ? (chatglm[standard] ?? standard) : standard;
      for (const value of absurd) {
        const error = errorOf({ ...example, [key]: value });
        expect(error.code).toBe("CONFIG_INVALID");
        expect(error.message).toContain(key);
      }
      const { [key]: _, ...without } = example;
      expect(errorOf(without).message).toContain(`${key} is missing`);
    }
  });

  it.each([
    [{ num_key_value_heads: 5 }, "num_key_value_heads"],
    [{ num_key_value_heads: 64 }, "num_key_value_heads"],
    [{ num_key_value_heads: 0 }, "num_key_value_heads"],
    [{ hidden_size: 65 }, "hidden_size"],
    [{ hidden_size: 96 }, "hidden_size"],
    [{ head_dim: 7 }, "head_dim"],
    [{ head_dim: 0 }, "head_dim"],
    [{ head_dim: 2 ** 20 }, "head_dim"],
    [{ num_attention_heads: 16384, num_key_value_heads: 1, head_dim: 512 }, "num_attention_heads"],
    [{ rms_norm_eps: 0 }, "rms_norm_eps"],
    [{ rms_norm_eps: "1e-6" }, "rms_norm_eps"],
    [{ rms_norm_eps: null }, "rms_norm_eps"],
    [{ max_position_embeddings: 2 ** 40 }, "max_position_embeddings"],
    [{ tie_word_embeddings: "false" }, "tie_word_embeddings"],
    [{ attention_bias: 1 }, "attention_bias"],
    [{ hidden_act: 3 }, "hidden_act"],
    [{ model_type: 3 }, "model_type"],
    [{ model_type: undefined }, "model_type"],
    [{ architectures: "LlamaForCausalLM" }, "architectures"],
    [{ rope_theta: 0 }, "rope_theta"],
    [{ rope_theta: null }, "rope_theta"],
    [{ rope_scaling: 4 }, "rope_scaling"],
    [{ rope_scaling: { type: 4 } }, "rope_scaling.type"],
    [{ rope_scaling: { type: "linear" } }, "rope_scaling.factor"],
    [{ rope_scaling: { type: "linear", factor: -1 } }, "rope_scaling.factor"],
    [{ rope_scaling: { type: "dynamic", factor: 2 } }, "head_dim"],
    [{ rope_scaling: { type: "llama3", factor: 2, low_freq_factor: 4, high_freq_factor: 4 } }, "high_freq_factor"],
    [{ rope_scaling: { type: "llama3", factor: 2, high_freq_factor: 4 } }, "low_freq_factor"],
    [{ rope_scaling: { type: "yarn", factor: "4" } }, "rope_scaling.factor"],
    [{ rope_theta: 1, rope_scaling: { type: "yarn", factor: 4 } }, "rope_theta"],
    [{ rope_scaling: { type: "yarn", factor: 4, truncate: "no" } }, "rope_scaling.truncate"],
    [{ rope_scaling: { type: "yarn", factor: 4, original_max_position_embeddings: 1.5 } }, "original_max_position"],
    [{ quantization_config: "gptq" }, "quantization_config"],
  ])("%j", (changes, key) => {
    const error = errorOf(config("llama", changes));
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.message).toContain(key);
    expect(error.message).toContain("must be");
  });

  it.each([
    [{ layer_types: ["full_attention"] }, "layer_types"],
    [{ layer_types: [1, 2, 3] }, "layer_types"],
    [{ layer_types: Array(3).fill("sliding_attention") }, "layer_types"],
    [{ use_sliding_window: true, sliding_window: 0 }, "sliding_window"],
    [{ use_sliding_window: true, max_window_layers: -1 }, "max_window_layers"],
    [{ use_sliding_window: 1 }, "use_sliding_window"],
    [{ head_dim: null }, "head_dim"],
  ])("of qwen3: %j", (changes, key) => {
    const error = errorOf(config("qwen3", changes));
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.message).toContain(key);
  });

  it.each([null, undefined, 3, "text", [], [{}]])("a config that is %j", (value) => {
    expect(errorOf(value).code).toBe("CONFIG_INVALID");
  });

  it("never sees inherited keys, and keeps its messages short", () => {
    expect(errorOf(Object.create(config("llama"))).message).toContain("model_type is missing");
    expect(errorOf(config("llama", { hidden_act: "x".repeat(1e6) })).message.length).toBeLessThan(300);
    expect(errorOf(config("constructor")).code).toBe("UNSUPPORTED_MODEL");
  });
});

describe("the registry", () => {
  it("finds each family by its model types, and they do not overlap", () => {
    expect(new Set(supportedModelTypes).size).toBe(supportedModelTypes.length);
    for (const family of families) for (const type of family.modelTypes) expect(familyOf(type)).toBe(family);
    expect(familyOf("bert")).toBeUndefined();
  });
});
