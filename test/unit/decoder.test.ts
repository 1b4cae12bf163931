import { describe, expect, it } from "vitest";
import type { Architecture, PlanOp, Register, StageKind } from "../../dist/models/architecture.js";
import { architectureOf, families } from "../../dist/models/registry.js";

function kindOf(architecture: Architecture, name: StageKind["name"]): StageKind {
  const kind = architecture.kinds.find((candidate) => candidate.name === name);
  if (kind === undefined) throw new Error(`no kind ${name}`);
  return kind;
}

const llama = {
  model_type: "llama",
  vocab_size: 100,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
};

describe("the plan of a plain llama", () => {
  const architecture = architectureOf(llama, "config.json");
  const sizes = { groups: 1, width: 32, epsilon: 1e-6, centered: false };
  const norm = { op: "norm", input: "hidden", output: "normed", weight: 0, ...sizes };
  const rope = { headDim: 8, rotaryDim: 8, offset: 0, interleaved: false, table: 0 };

  it("has an attention stage whose ops use its tensors in the order of the file", () => {
    const attention = kindOf(architecture, "attention");
    expect(attention.tensors).toEqual([
      { name: "model.layers.{layer}.input_layernorm.weight", shape: [32], role: "vector" },
      { name: "model.layers.{layer}.self_attn.q_proj.weight", shape: [32, 32], role: "matrix" },
      { name: "model.layers.{layer}.self_attn.k_proj.weight", shape: [16, 32], role: "matrix" },
      { name: "model.layers.{layer}.self_attn.v_proj.weight", shape: [16, 32], role: "matrix" },
      { name: "model.layers.{layer}.self_attn.o_proj.weight", shape: [32, 32], role: "matrix" },
    ]);
    expect(attention.plan).toEqual([
      norm,
      { op: "matmul", input: "normed", output: "query", weight: 1 },
      { op: "matmul", input: "normed", output: "key", weight: 2 },
      { op: "matmul", input: "normed", output: "value", weight: 3 },
      { op: "rope", target: "query", heads: 4, ...rope },
      { op: "rope", target: "key", heads: 2, ...rope },
      {
        op: "attention",
        query: "query",
        key: "key",
        value: "value",
        output: "query",
        heads: 4,
        kvHeads: 2,
        headDim: 8,
        valueDim: 8,
        scale: 8 ** -0.5,
      },
      { op: "matmul", input: "query", output: "hidden", weight: 4, accumulate: true },
    ]);
  });

  it("has an MLP and a head stage", () => {
    expect(kindOf(architecture, "mlp").plan).toEqual([
      norm,
      { op: "matmul", input: "normed", output: "gate", weight: 1 },
      { op: "matmul", input: "normed", output: "up", weight: 2 },
      { op: "activation", gate: "gate", up: "up", width: 48, activation: "silu" },
      { op: "matmul", input: "gate", output: "hidden", weight: 3, accumulate: true },
    ]);
    expect(kindOf(architecture, "head")).toEqual({
      name: "head",
      tensors: [
        { name: "model.norm.weight", shape: [32], role: "vector" },
        { name: "lm_head.weight", shape: [100, 32], role: "head" },
      ],
      plan: [norm, { op: "matmul", input: "normed", output: "logits", weight: 1 }],
    });
  });

  it("lays one file a layer between the embedding and the head", () => {
    expect(architecture.layers.map((layer) => layer.file)).toEqual([
      "embed.safetensors",
      "layer-000.safetensors",
      "layer-001.safetensors",
      "layer-002.safetensors",
      "head.safetensors",
    ]);
    expect(architecture.layers[2]?.stages).toEqual([
      { kind: 1, layer: 1 },
      { kind: 2, layer: 1 },
    ]);
    expect(architecture.kinds.map((kind) => kind.name)).toEqual(["embed", "attention", "mlp", "head"]);
    expect(kindOf(architecture, "embed")).toEqual({
      name: "embed",
      tensors: [{ name: "model.embed_tokens.weight", shape: [100, 32], role: "embedding" }],
      plan: [],
    });
  });

  it("keeps only the head where the head is tied to the embedding", () => {
    const tied = architectureOf({ ...llama, tie_word_embeddings: true }, "config.json");
    expect(tied.layers[0]?.file).toBe("layer-000.safetensors");
    expect(tied.kinds.map((kind) => kind.name)).toEqual(["attention", "mlp", "head"]);
    expect(kindOf(tied, "head").tensors[1]).toEqual({
      name: "model.embed_tokens.weight",
      shape: [100, 32],
      role: "head",
    });
    expect(tied.embeddingTensor).toBe("model.embed_tokens.weight");
  });

  it("numbers more than a thousand layers with more digits", () => {
    const deep = architectureOf({ ...llama, num_hidden_layers: 1001 }, "config.json");
    expect(deep.layers[1]?.file).toBe("layer-0000.safetensors");
    expect(deep.layers.at(-2)?.file).toBe("layer-1000.safetensors");
    expect(deep.kinds.length).toBe(4);
  });
});

describe("kinds of layers", () => {
  const windowed = { ...llama, model_type: "qwen2", num_hidden_layers: 6, use_sliding_window: true, sliding_window: 5 };
  const attentionKinds = (architecture: Architecture) =>
    architecture.layers.slice(1, -1).map((layer) => layer.stages[0]?.kind);

  it("are shared by equal layers, and the MLP by all", () => {
    const architecture = architectureOf({ ...windowed, max_window_layers: 4 }, "config.json");
    const kinds = attentionKinds(architecture);
    expect(new Set(kinds.slice(0, 4)).size).toBe(1);
    expect(new Set(kinds.slice(4)).size).toBe(1);
    expect(kinds[0]).not.toBe(kinds[5]);
    expect(architecture.kinds.filter((kind) => kind.name === "mlp").length).toBe(1);
    expect(architecture.ropes.length).toBe(1);
  });

  it("follow layer_types", () => {
    const types = ["sliding_attention", "full_attention", "full_attention"].flatMap((type) => [type, type]);
    const architecture = architectureOf({ ...windowed, layer_types: types }, "config.json");
    const windows = attentionKinds(architecture).map((kind) =>
      architecture.kinds[kind ?? -1]?.plan.find((op) => op.op === "attention"),
    );
    expect(windows.map((op) => op?.window)).toEqual([5, 5, undefined, undefined, undefined, undefined]);
  });
});

describe.each(families.map((family) => ({ name: family.name, example: family.example })))(
  "example of $name",
  (family) => {
    const architecture = architectureOf(family.example, "config.json");

    it("uses every tensor of a stage once, in order, with registers that have a width", () => {
      for (const kind of architecture.kinds) {
        const used = kind.plan.flatMap(tensorsOf);
        if (kind.name !== "embed") expect(used.sort((a, b) => a - b)).toEqual(kind.tensors.map((_, index) => index));
        for (const register of kind.plan.flatMap(registersOf))
          expect(architecture.registers[register]).toBeGreaterThan(0);
      }
    });

    it("reads and writes within registers, and gives every bias as many elements as its matrix has rows", () => {
      const { registers } = architecture;
      for (const kind of architecture.kinds) {
        for (const op of kind.plan) {
          if (op.op !== "matmul") continue;
          const [rows = 0, columns = 0] = kind.tensors[op.weight]?.shape ?? [];
          const { inputOffset = 0, outputOffset = 0, groups = { rows, inputStride: 0, outputStride: 0 } } = op;
          const last = rows / groups.rows - 1;
          expect(Number.isInteger(last)).toBe(true);
          expect(registers[op.input]).toBeGreaterThanOrEqual(inputOffset + last * groups.inputStride + columns);
          const end = outputOffset + last * groups.outputStride + groups.rows;
          expect(registers[op.output]).toBeGreaterThanOrEqual(end);
          if (op.bias !== undefined) expect(kind.tensors[op.bias]?.shape).toEqual([rows]);
        }
      }
    });

    it("is plain data", () => {
      expect(JSON.parse(JSON.stringify(architecture))).toEqual(architecture);
    });
  },
);

/** In execution order, which is that on disk. */
function tensorsOf(op: PlanOp): number[] {
  switch (op.op) {
    case "norm":
      return given(op.weight, op.bias);
    case "matmul":
      return given(op.weight, op.bias, op.rowScale);
    case "attention":
      return given(op.sinks);
    case "route":
      return given(op.correction);
    default:
      return [];
  }
}

function registersOf(op: PlanOp): Register[] {
  switch (op.op) {
    case "rope":
    case "softCap":
      return [op.target];
    case "attention":
      return given(op.query, op.key, op.value, op.output);
    case "activation":
      return given(op.gate, op.up);
    case "scaleTokens":
      return [op.target, op.factor];
    case "route":
      return [op.logits, op.input, op.output, "expertInput", "expertOutput"];
    default:
      return [op.input, op.output];
  }
}

function given<Value>(...values: (Value | undefined)[]): Value[] {
  return values.filter((value) => value !== undefined);
}
