/** Families whose checkpoints come with modeling code of their own: what their configs mean, and where tensors lie. */
import { describe, expect, it } from "vitest";
import { LayerstreamError } from "../../dist/errors.js";
import type { Architecture, PlanOp, TensorSpec } from "../../dist/models/architecture.js";
import { architectureOf, familyOf } from "../../dist/models/registry.js";

function build(modelType: string, changes: Record<string, unknown> = {}): Architecture {
  return architectureOf({ ...familyOf(modelType)?.example, ...changes }, "config.json");
}

function refusal(modelType: string, changes: Record<string, unknown>): LayerstreamError {
  try {
    build(modelType, changes);
  } catch (error) {
    if (error instanceof LayerstreamError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

function opOf<Name extends PlanOp["op"]>(architecture: Architecture, name: Name) {
  const op = architecture.kinds.flatMap(({ plan }) => plan).find((candidate) => candidate.op === name);
  if (op === undefined) throw new Error(`no ${name}`);
  return op as Extract<PlanOp, { op: Name }>;
}

function tensorsOf(architecture: Architecture, pattern: RegExp): TensorSpec[] {
  return architecture.kinds.flatMap(({ tensors }) => tensors).filter(({ name }) => pattern.test(name));
}

function sourcesOf(architecture: Architecture, pattern: RegExp) {
  return tensorsOf(architecture, pattern).flatMap(({ sources = [] }) =>
    sources.map(({ rows, shape }) => ({ rows, shape })),
  );
}

describe("baichuan", () => {
  const rotary = { max_position_embeddings: 64, model_max_length: 64 };

  it("rotates positions if the config has max_position_embeddings, and has ALiBi otherwise", () => {
    expect(build("baichuan", rotary).ropes.length).toBe(1);
    expect(opOf(build("baichuan", rotary), "attention").alibiSlopes).toBeUndefined();
    const alibi = build("baichuan");
    expect(alibi.ropes).toEqual([]);
    expect(alibi.maxPositionEmbeddings).toBe(128);
    expect(alibi.kinds.flatMap(({ plan }) => plan).some(({ op }) => op === "rope")).toBe(false);
  });

  it("has slopes of a geometric sequence, and between them for heads beyond a power of two", () => {
    expect(opOf(build("baichuan", { num_attention_heads: 2 }), "attention").alibiSlopes).toEqual([2 ** -4, 2 ** -8]);
    const six = opOf(build("baichuan"), "attention").alibiSlopes;
    expect(six).toEqual([2 ** -2, 2 ** -4, 2 ** -6, 2 ** -8, 2 ** -1, 2 ** -3]);
  });

  it("divides rows of the head by their length in Baichuan2 only", () => {
    const { z_loss_weight: _, ...first } = familyOf("baichuan")?.example ?? {};
    const scaled = (architecture: Architecture) =>
      tensorsOf(architecture, /^lm_head/).find(({ derive }) => derive === "inverseRowNorm");
    expect(scaled(architectureOf(first, "f"))).toBeUndefined();
    expect(scaled(architectureOf({ ...first, vocab_size: 125_696 }, "f"))?.shape).toEqual([125_696]);
    expect(scaled(build("baichuan"))?.sources).toEqual([{ name: "lm_head.weight", shape: [109, 36] }]);
  });

  it("stacks query, key and value", () => {
    expect(sourcesOf(build("baichuan"), /[qkv]_proj\.weight/)).toEqual(
      [0, 36, 72].map((offset) => ({ rows: { offset, dims: [[36, 1]] }, shape: [108, 36] })),
    );
  });
});

describe("internlm2", () => {
  it("has query heads, key and value of each group in turn", () => {
    const group = 5 * 6;
    expect(sourcesOf(build("internlm2"), /[qkv]_proj\.weight/)).toEqual(
      [
        [0, 18],
        [18, 6],
        [24, 6],
      ].map(([offset, count]) => ({
        rows: {
          offset,
          dims: [
            [2, group],
            [count, 1],
          ],
        },
        shape: [2 * group, 36],
      })),
    );
  });
});

describe("internlm", () => {
  it("has a rotary embedding that grows with the sequence, unless the config says origin", () => {
    const dynamic = { type: "dynamic", factor: 1, originalMaxPositionEmbeddings: 128 };
    const { rotary: _, ...without } = familyOf("internlm")?.example ?? {};
    expect(architectureOf(without, "f").ropes).toEqual([{ rotaryDim: 6, theta: 10000, scaling: dynamic }]);
    const origin = { rotary: { type: "origin", base: 500 } };
    expect(build("internlm", origin).ropes).toEqual([{ rotaryDim: 6, theta: 500, scaling: { type: "default" } }]);
    const factor = { rotary: { type: "dynamic", base: 500, scaling_factor: 2 } };
    expect(build("internlm", factor).ropes[0]?.scaling).toEqual({ ...dynamic, factor: 2 });
  });
});

describe("qwen", () => {
  it("has dynamic scaling and scaled queries unless they are off, and half of intermediate_size", () => {
    const on = build("qwen");
    expect(on.intermediateSize).toBe(26);
    expect(on.ropes[0]?.scaling).toEqual({ type: "qwenDynamic", trainedLength: 16 });
    expect(opOf(on, "attention").lognLength).toBe(16);
    const off = build("qwen", { use_dynamic_ntk: false, use_logn_attn: false, seq_length: undefined });
    expect(off.ropes[0]?.scaling).toEqual({ type: "default" });
    expect(opOf(off, "attention").lognLength).toBeUndefined();
    const { use_dynamic_ntk: _, use_logn_attn: __, ...absent } = familyOf("qwen")?.example ?? {};
    expect(architectureOf(absent, "f")).toEqual(on);
  });

  it("always has biases on query, key and value, and elsewhere unless no_bias", () => {
    const biases = (changes: object) => tensorsOf(build("qwen", { ...changes }), /layer.*bias$/).length;
    expect(biases({})).toBe(3);
    expect(biases({ no_bias: false })).toBe(7);
  });

  it("rotates a part of each head if rotary_pct says so", () => {
    expect(build("qwen", { rotary_pct: 0.5 }).ropes[0]?.rotaryDim).toBe(6);
  });

  it.each([
    [{ kv_channels: 8 }, "CONFIG_INVALID", "kv_channels"],
    [{ intermediate_size: 51 }, "CONFIG_INVALID", "intermediate_size"],
    [{ seq_length: undefined }, "CONFIG_INVALID", "seq_length"],
    [{ rotary_emb_base: -1 }, "CONFIG_INVALID", "rotary_emb_base"],
    [{ layer_norm_epsilon: "tiny" }, "CONFIG_INVALID", "layer_norm_epsilon"],
    [{ scale_attn_weights: false }, "UNSUPPORTED_MODEL", "scale_attn_weights"],
  ])("refuses %j", (changes, code, key) => {
    const error = refusal("qwen", changes);
    expect(error.code).toBe(code);
    expect(error.message).toContain(key);
  });
});

describe("chatglm", () => {
  it("stacks the queries of all heads before their groups, or has each head's query, key and value in turn", () => {
    const pattern = /[qkv]_proj\.weight/;
    const stacked = sourcesOf(build("chatglm"), pattern).map(({ rows }) => [rows?.offset, rows?.dims]);
    expect(stacked).toEqual([
      [0, [[72, 1]]],
      [72, [[24, 1]]],
      [96, [[24, 1]]],
    ]);
    const inTurn = sourcesOf(build("chatglm", { multi_query_attention: false }), pattern).map(({ rows }) => rows?.dims);
    expect(inTurn).toEqual(
      Array(3).fill([
        [6, 36],
        [12, 1],
      ]),
    );
  });

  it("rotates half of each head in adjacent pairs, with a scaled base", () => {
    expect(build("chatglm").ropes).toEqual([{ rotaryDim: 6, theta: 200_000, scaling: { type: "default" } }]);
    expect(opOf(build("chatglm"), "rope").interleaved).toBe(true);
  });

  it("has layer norms, biases and no final norm where the config says so", () => {
    expect(
      build("chatglm")
        .kinds.flatMap(({ tensors }) => tensors)
        .filter(({ name }) => /bias$/.test(name)).length,
    ).toBe(3);
    const all = build("chatglm", { rmsnorm: false, add_bias_linear: true, post_layer_norm: false });
    expect(opOf(all, "norm").centered).toBe(true);
    expect(tensorsOf(all, /_layernorm\.bias$/).length).toBe(2);
    expect(tensorsOf(all, /(proj|dense|4h|to_h)\.bias$/).length).toBe(7);
    expect(tensorsOf(all, /final_layernorm/)).toEqual([]);
    expect(all.kinds.find(({ name }) => name === "head")?.plan).toEqual([
      { op: "matmul", input: "hidden", output: "logits", weight: 0 },
    ]);
  });

  it("is a language model by the names of its classes", () => {
    expect(build("chatglm", { architectures: ["ChatGLMForConditionalGeneration"] }).family).toBe("chatglm");
    expect(refusal("chatglm", { architectures: ["ChatGLMForSequenceClassification"] }).code).toBe("UNSUPPORTED_MODEL");
    expect(refusal("llama", { architectures: ["ChatGLMModel"] }).code).toBe("UNSUPPORTED_MODEL");
  });

  it.each([
    [{ position_encoding_2d: true }, "UNSUPPORTED_MODEL", "position_encoding_2d"],
    [{ apply_residual_connection_post_layernorm: true }, "UNSUPPORTED_MODEL", "apply_residual_connection"],
    [{ pre_seq_len: 128 }, "UNSUPPORTED_MODEL", "pre_seq_len"],
    [{ quantization_bit: 4 }, "UNSUPPORTED_MODEL", "quantization_bit"],
    [{ kv_channels: 10 }, "CONFIG_INVALID", "kv_channels"],
    [{ multi_query_group_num: 4 }, "CONFIG_INVALID", "multi_query_group_num"],
    [{ rope_ratio: 0 }, "CONFIG_INVALID", "rope_ratio"],
  ])("refuses %j", (changes, code, key) => {
    const error = refusal("chatglm", changes);
    expect(error.code).toBe(code);
    expect(error.message).toContain(key);
  });
});
