import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../dist/checkpoint/checkpoint.js";
import type { LayerstreamError } from "../../dist/errors.js";
import { AutoTokenizer, decompose } from "../../dist/index.js";
import { inspect } from "../../dist/models/inspect.js";
import { architectureOf } from "../../dist/models/registry.js";
import { writeCheckpoint } from "../helpers/checkpoint.js";
import { hashFiles, temporaryDirectory } from "../helpers/files.js";
import {
  encodeGguf,
  F32,
  f32,
  type Gguf,
  llamaTensors,
  modelMetadata,
  type Tensor,
  type Value,
} from "../helpers/gguf.js";

function write(gguf: Gguf, name = "model.gguf"): string {
  const file = path.join(temporaryDirectory(), name);
  writeFileSync(file, encodeGguf(gguf));
  return file;
}

const llama = (...values: [string, Value][]): Gguf => ({
  metadata: new Map([...modelMetadata("llama"), ...values]),
  tensors: llamaTensors(),
});

async function failure(work: Promise<unknown>): Promise<LayerstreamError> {
  return work.then(
    () => expect.unreachable("it was accepted"),
    (error: LayerstreamError) => error,
  );
}

/** GGUF name, ending with the suffix, of each module of the helper's Llama. */
const NAMES: Record<string, string> = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  lm_head: "output",
  input_layernorm: "attn_norm",
  post_attention_layernorm: "ffn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

/** Row 2i + half of each head is row half * headDim / 2 + i of `bytes`. */
function interleave(bytes: Buffer, rows: number, heads: number): Buffer {
  const rowBytes = bytes.length / rows;
  const headDim = rows / heads;
  const order = Array.from({ length: rows }, (_, row) => {
    const within = row % headDim;
    return row - within + (within % 2) * (headDim / 2) + Math.floor(within / 2);
  });
  return Buffer.concat(order.map((row) => bytes.subarray(row * rowBytes, (row + 1) * rowBytes)));
}

it("a Llama gives the same layer files as the checkpoint that it was converted from", async () => {
  const directory = temporaryDirectory();
  const tensors = writeCheckpoint(path.join(directory, "checkpoint"), { dtype: "F32", config: { rms_norm_eps: 1e-5 } });
  const shape = { hidden: 64, intermediate: 96, heads: 4, kvHeads: 2, layers: 2, vocab: 131 };
  const converted = [...tensors].map(([name, { shape: sizes, bytes }]): Tensor => {
    const [, layer, module = ""] = /^(?:model\.layers\.(\d+)\.)?(.*)\.weight$/.exec(name) ?? [];
    const heads = { "self_attn.q_proj": 4, "self_attn.k_proj": 2 }[module];
    return {
      name: `${layer === undefined ? "" : `blk.${layer}.`}${NAMES[module]}.weight`,
      type: F32,
      dimensions: [...sizes].reverse(),
      bytes: heads ? interleave(bytes, sizes[0] as number, heads) : bytes,
    };
  });
  const file = write({ metadata: modelMetadata("llama", shape), tensors: converted });
  const stores = ["from-checkpoint", "from-gguf"].map((name) => path.join(directory, name));
  for (const [index, checkpoint] of [path.join(directory, "checkpoint"), file].entries()) {
    const { manifest } = await decompose({ checkpoint, store: stores[index] });
    expect(manifest.dropped).toEqual([]);
  }
  const [expected, actual] = stores.map((store) =>
    Object.fromEntries(Object.entries(hashFiles(store)).filter(([name]) => name.endsWith(".safetensors"))),
  );
  expect(Object.keys(expected as object)).toHaveLength(4);
  expect(actual).toEqual(expected);
});

describe("the config", () => {
  const configOf = async (gguf: Gguf) => (await openCheckpoint(write(gguf))).config;

  it("of a Llama", async () => {
    expect(await configOf(llama())).toEqual({
      architectures: ["LlamaForCausalLM"],
      model_type: "llama",
      vocab_size: 40,
      hidden_size: 32,
      intermediate_size: 64,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      head_dim: 8,
      max_position_embeddings: 128,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      tie_word_embeddings: false,
      attention_bias: false,
      mlp_bias: false,
    });
  });

  it("without an output tensor is tied", async () => {
    const gguf = { ...llama(), tensors: llamaTensors().filter(({ name }) => name !== "output.weight") };
    expect(await configOf(gguf)).toMatchObject({ tie_word_embeddings: true });
  });

  it("of a Llama with a window is a Mistral's", async () => {
    expect(await configOf(llama(["llama.attention.sliding_window", { u32: 17 }]))).toMatchObject({
      model_type: "mistral",
      sliding_window: 17,
    });
  });

  it("has the rotary scaling", async () => {
    const linear = llama(["llama.rope.scaling.type", { string: "linear" }], ["llama.rope.scaling.factor", { f32: 4 }]);
    expect(await configOf(linear)).toMatchObject({ rope_scaling: { rope_type: "linear", factor: 4 } });
    const yarn = llama(
      ["llama.rope.scaling.type", { string: "yarn" }],
      ["llama.rope.scaling.factor", { f32: 8 }],
      ["llama.rope.scaling.original_context_length", { u32: 16 }],
    );
    expect(await configOf(yarn)).toMatchObject({
      rope_scaling: { rope_type: "yarn", factor: 8, original_max_position_embeddings: 16 },
    });
    const none = llama(["llama.rope.scaling.type", { string: "none" }], ["llama.rope.scaling.factor", { f32: 4 }]);
    expect(await configOf(none)).not.toHaveProperty("rope_scaling");
  });

  it("has frequency factors as LongRoPE", async () => {
    const factors = {
      name: "rope_freqs.weight",
      type: F32,
      dimensions: [4],
      bytes: Buffer.concat([1, 1, 2, 8].map(f32)),
    };
    const gguf = { ...llama(), tensors: [...llamaTensors(), factors] };
    expect(await configOf(gguf)).toMatchObject({
      rope_scaling: {
        rope_type: "longrope",
        short_factor: [1, 1, 2, 8],
        long_factor: [1, 1, 2, 8],
        attention_factor: 1,
      },
    });
    const broken = { ...factors, bytes: Buffer.concat([1, 0, 2, 8].map(f32)) };
    const error = await failure(configOf({ ...llama(), tensors: [...llamaTensors(), broken] }));
    expect(error.message).toMatch(/rope_freqs\.weight.*not above 0/);
  });

  it("of Gemma 2 and 3 says which layers have windows", async () => {
    const gemma = (name: string, layers: number, ...values: [string, Value][]): Gguf => ({
      metadata: new Map([
        ...modelMetadata(name, { layers }),
        [`${name}.attention.sliding_window`, { u32: 9 }],
        [`${name}.attention.key_length`, { u32: 16 }],
        ...values,
      ]),
      tensors: [{ name: "token_embd.weight", type: F32, dimensions: [32, 40], bytes: Buffer.alloc(5120) }],
    });
    expect(await configOf(gemma("gemma2", 3))).toMatchObject({
      model_type: "gemma2",
      head_dim: 16,
      query_pre_attn_scalar: 16,
      attn_logit_softcapping: 50,
      final_logit_softcapping: 30,
      layer_types: ["sliding_attention", "full_attention", "sliding_attention"],
      tie_word_embeddings: true,
    });
    const gemma3 = await configOf(gemma("gemma3", 7, ["gemma3.rope.freq_base", { f32: 1e6 }]));
    expect(gemma3).toMatchObject({ model_type: "gemma3_text", rope_theta: 1e6, rope_local_base_freq: 1e4 });
    expect((gemma3.layer_types as string[]).indexOf("full_attention")).toBe(5);
    const largest = await configOf(gemma("gemma3", 62));
    expect(largest.query_pre_attn_scalar).toBe(8);
    const listed = gemma("gemma2", 2, ["gemma2.attention.sliding_window_pattern", { booleans: [false, true] }]);
    expect((await configOf(listed)).layer_types).toEqual(["full_attention", "sliding_attention"]);
  });

  it("of a Gemma keeps 1 from being added to its norms again", async () => {
    const config = await configOf({
      metadata: modelMetadata("gemma"),
      tensors: llamaTensors().filter(({ name }) => name !== "output.weight"),
    });
    const added = (keys: object) =>
      architectureOf({ ...config, ...keys }, "config.json").kinds.flatMap(({ tensors }) =>
        tensors.flatMap(({ add }) => (add === undefined ? [] : [add])),
      );
    expect(added({})).toEqual([]);
    expect(added({ norm_weights_include_one: false })).toEqual([1, 1, 1]);
  });

  it.each<[string, [string, Value][], RegExp]>([
    ["another architecture", [["general.architecture", { string: "mamba" }]], /"mamba".*Supported: llama/],
    ["an inherited name", [["general.architecture", { string: "constructor" }]], /"constructor"/],
    ["part of each head rotated", [["llama.rope.dimension_count", { u32: 4 }]], /llama\.rope\.dimension_count/],
    [
      "other scaling",
      [
        ["llama.rope.scaling.type", { string: "longrope" }],
        ["llama.rope.scaling.factor", { f32: 2 }],
      ],
      /rope\.scaling\.type/,
    ],
    ["layers that differ", [["llama.attention.head_count_kv", { i32s: [2, 1] }]], /head_count_kv.*equal numbers/],
    ["a scale of its own", [["llama.attention.scale", { f32: 0.5 }]], /llama\.attention\.scale/],
    ["scaled residuals", [["llama.residual_scale", { f32: 0.5 }]], /llama\.residual_scale/],
  ])("with %s is refused", async (_, values, message) => {
    const error = await failure(configOf(llama(...values)));
    expect(error.code).toBe("UNSUPPORTED_MODEL");
    expect(error.message).toMatch(message);
  });

  it.each<[string, [string, Value][], RegExp]>([
    ["a billion layers", [["llama.block_count", { u32: 1e9 }]], /1000000000 layers/],
    ["a text for a number", [["llama.embedding_length", { string: "x" }]], /embedding_length/],
    ["half a layer", [["llama.block_count", { f32: 1.5 }]], /1\.5/],
  ])("with %s is invalid", async (_, values, message) => {
    const error = await failure(configOf(llama(...values)));
    expect(error.code).toBe("GGUF_INVALID");
    expect(error.message).toMatch(message);
  });
});

describe("tensors", () => {
  const experts = (): Tensor[] => {
    const stack = (name: string, dimensions: number[]): Tensor => {
      const count = dimensions.reduce((product, size) => product * size, 1);
      const bytes = Buffer.concat([0, 1, 2].map((expert) => Buffer.alloc((count / 3) * 4, expert)));
      return { name: `blk.0.${name}.weight`, type: F32, dimensions, bytes };
    };
    const dense = llamaTensors({ layers: 1 }).filter(({ name }) => !/ffn_(gate|up|down)/.test(name));
    const router = { name: "blk.0.ffn_gate_inp.weight", type: F32, dimensions: [32, 3], bytes: Buffer.alloc(384) };
    return [
      ...dense,
      router,
      stack("ffn_gate_exps", [32, 64, 3]),
      stack("ffn_down_exps", [64, 32, 3]),
      stack("ffn_up_exps", [32, 64, 3]),
    ];
  };
  const mixtral = (tensors: Tensor[]): Gguf => ({
    metadata: new Map<string, Value>([
      ...modelMetadata("llama", { layers: 1 }),
      ["llama.expert_count", { u32: 3 }],
      ["llama.expert_used_count", { u32: 2 }],
    ]),
    tensors,
  });

  it("of stacked experts are taken apart", async () => {
    const file = write(mixtral(experts()));
    const checkpoint = await openCheckpoint(file);
    expect(checkpoint.config).toMatchObject({ model_type: "mixtral", num_local_experts: 3, num_experts_per_tok: 2 });
    const bytes = readFileSync(file);
    for (const [part, rows, columns] of [
      ["w1", 64, 32],
      ["w2", 32, 64],
      ["w3", 64, 32],
    ] as const) {
      for (const expert of [0, 1, 2]) {
        const tensor = checkpoint.tensors.get(`model.layers.0.block_sparse_moe.experts.${expert}.${part}.weight`);
        expect(tensor?.shape).toEqual([rows, columns]);
        const { offset = 0, byteLength = 0 } = tensor ?? {};
        expect(bytes.subarray(offset, offset + byteLength).every((byte) => byte === expert)).toBe(true);
        expect(byteLength).toBe(rows * columns * 4);
      }
    }
    expect(checkpoint.tensors.get("model.layers.0.block_sparse_moe.gate.weight")?.shape).toEqual([3, 32]);
  });

  it("of experts one by one have the same names", async () => {
    const single = experts().flatMap((tensor) =>
      tensor.dimensions.length < 3
        ? [tensor]
        : [0, 1, 2].map((expert) => ({
            ...tensor,
            name: tensor.name.replace("_exps", `.${expert}`),
            dimensions: tensor.dimensions.slice(0, 2),
            bytes: tensor.bytes.subarray(0, tensor.bytes.length / 3),
          })),
    );
    const [stacked, apart] = await Promise.all([experts(), single].map((list) => openCheckpoint(write(mixtral(list)))));
    expect([...(apart?.tensors.keys() ?? [])].sort()).toEqual([...(stacked?.tensors.keys() ?? [])].sort());
  });

  it.each<[string, (tensors: Tensor[]) => void, RegExp]>([
    [
      "of an unknown name",
      (list) => list.push({ ...(list[1] as Tensor), name: "blk.0.attn_sinks.weight" }),
      /"blk\.0\.attn_sinks\.weight"/,
    ],
    [
      "of an inherited name",
      (list) => list.push({ ...(list[1] as Tensor), name: "blk.0.constructor.weight" }),
      /constructor/,
    ],
  ])("%s are refused", async (_, edit, message) => {
    const tensors = llamaTensors();
    edit(tensors);
    const error = await failure(openCheckpoint(write({ ...llama(), tensors })));
    expect(error.code).toBe("UNSUPPORTED_MODEL");
    expect(error.message).toMatch(message);
  });

  it("of more experts than any model has are refused", async () => {
    const dimensions = [1, 1, 2 ** 18];
    const stack = { name: "blk.0.ffn_up_exps.weight", type: F32, dimensions, bytes: Buffer.alloc(2 ** 20) };
    const error = await failure(openCheckpoint(write(mixtral([...llamaTensors({ layers: 1 }), stack]))));
    expect(error.code).toBe("GGUF_INVALID");
    expect(error.message).toMatch(/262156 matrices/);
  });

  it("that mean the same are refused", async () => {
    const list = experts();
    const one = {
      ...(list.at(-1) as Tensor),
      name: "blk.0.ffn_up.1.weight",
      dimensions: [32, 64],
      bytes: Buffer.alloc(8192),
    };
    const error = await failure(openCheckpoint(write(mixtral([...list, one]))));
    expect(error.code).toBe("GGUF_INVALID");
    expect(error.message).toMatch(/two tensors that mean .*experts\.1\.w3/);
  });

  it("whose shape is not the config's are refused before anything is written", async () => {
    const tensors = llamaTensors().map((tensor) =>
      tensor.name === "blk.1.ffn_up.weight" ? { ...tensor, dimensions: [64, 32] } : tensor,
    );
    const store = path.join(temporaryDirectory(), "store");
    const error = await failure(decompose({ checkpoint: write({ ...llama(), tensors }), store }));
    expect(error.code).toBe("TENSOR_MISMATCH");
    expect(error.message).toMatch(/model\.layers\.1\.mlp\.up_proj/);
  });

  it("of a query that heads cannot share are refused", async () => {
    const tensors = llamaTensors().map((tensor) =>
      tensor.name === "blk.0.attn_k.weight" ? { ...tensor, dimensions: [32, 3], bytes: Buffer.alloc(384) } : tensor,
    );
    const error = await failure(openCheckpoint(write({ ...llama(), tensors })));
    expect(error.message).toMatch(/3 rows, which 2 heads cannot share/);
  });
});

describe("files", () => {
  it("a directory stands for the only model in it", async () => {
    const file = write(llama());
    const directory = path.dirname(file);
    expect((await openCheckpoint(directory)).identity).toBe((await openCheckpoint(file)).identity);
    expect((await inspect(directory)).family).toBe("llama");
    writeFileSync(path.join(directory, "other.gguf"), encodeGguf(llama()));
    const error = await failure(openCheckpoint(directory));
    expect(error.message).toMatch(/2 GGUF models.*model\.gguf, other\.gguf/);
  });

  it("a file without the extension is known by its start", async () => {
    const file = write(llama(), "sha256-0123");
    expect(await openCheckpoint(file)).toMatchObject({ name: "sha256-0123", config: { model_type: "llama" } });
    writeFileSync(file, "neither");
    expect((await failure(openCheckpoint(file))).message).toMatch(/is not a directory/);
  });

  it("the identity changes with the header and with the data", async () => {
    const identity = async (gguf: Gguf) => (await openCheckpoint(write(gguf))).sourceFiles[0]?.headerHash;
    const other = llamaTensors();
    other[0]?.bytes.writeFloatLE(7);
    const all = await Promise.all(
      [llama(), llama(["general.name", { string: "x" }]), { ...llama(), tensors: other }].map(identity),
    );
    expect(new Set(all).size).toBe(3);
  });

  const split = (): string => {
    const directory = temporaryDirectory();
    const tensors = llamaTensors();
    [tensors.slice(0, 8), tensors.slice(8, 12), tensors.slice(12)].forEach((part, index) => {
      const place: [string, Value][] = [
        ["split.no", { u32: index }],
        ["split.count", { u32: 3 }],
      ];
      const metadata = new Map([...(index === 0 ? modelMetadata("llama") : []), ...place]);
      const file = path.join(directory, `big-0000${index + 1}-of-00003.gguf`);
      writeFileSync(file, encodeGguf({ metadata, tensors: part }));
    });
    return directory;
  };

  it("a set of files is one model", async () => {
    const directory = split();
    const set = await openCheckpoint(path.join(directory, "big-00001-of-00003.gguf"));
    expect(set.name).toBe("big");
    expect(set.shards).toHaveLength(3);
    expect([...set.tensors.keys()].sort()).toEqual([...(await openCheckpoint(write(llama()))).tensors.keys()].sort());
    const store = path.join(directory, "store");
    await decompose({ checkpoint: directory, store });
    expect((await inspect(store)).parameters).toBe((await inspect(write(llama()))).parameters);
  });

  it("a set that is not whole is refused", async () => {
    const directory = split();
    const [first, second, third] = [1, 2, 3].map((n) => path.join(directory, `big-0000${n}-of-00003.gguf`)) as [
      string,
      string,
      string,
    ];
    expect((await failure(openCheckpoint(second))).message).toMatch(/part 2 of a set.*big-00001-of-00003/);
    renameSync(third, `${third}.away`);
    expect((await failure(openCheckpoint(first))).message).toMatch(/big-00003-of-00003\.gguf does not exist/);
    writeFileSync(third, readFileSync(second));
    expect((await failure(openCheckpoint(first))).message).toMatch(/not part 3 of 3/);
    const alone = path.join(directory, "alone", "big.gguf");
    mkdirSync(path.dirname(alone));
    writeFileSync(alone, readFileSync(first));
    expect((await failure(openCheckpoint(alone))).message).toMatch(/not part 1 of 1/);
  });
});

describe("the tokenizer", () => {
  const tokens = ["<unk>", "<s>", "</s>", "▁a", "b", "a", "▁"];
  const vocabulary: [string, Value][] = [
    ["tokenizer.ggml.model", { string: "llama" }],
    ["tokenizer.ggml.tokens", { strings: tokens }],
    ["tokenizer.ggml.scores", { f32s: [0, 0, 0, -1, -2, -3, -4] }],
    ["tokenizer.ggml.token_type", { i32s: [2, 3, 3, 1, 1, 1, 1] }],
    ["tokenizer.ggml.bos_token_id", { u32: 1 }],
    ["tokenizer.ggml.eos_token_id", { u32: 2 }],
    ["tokenizer.chat_template", { string: "{{ messages[0].content }}!" }],
  ];

  it("goes into the store with the chat template and the ends", async () => {
    const store = path.join(temporaryDirectory(), "store");
    await decompose({ checkpoint: write(llama(...vocabulary)), store });
    const json = (name: string): unknown => JSON.parse(readFileSync(path.join(store, name), "utf8"));
    expect(json("generation_config.json")).toMatchObject({ eos_token_id: [2] });
    expect(json("tokenizer_config.json")).toMatchObject({
      chat_template: "{{ messages[0].content }}!",
      bos_token: "<s>",
    });
    const tokenizer = await AutoTokenizer.fromPretrained(store);
    expect(tokenizer.encode("ab a")).toEqual([1, 3, 4, 3]);
    expect(tokenizer.decode([1, 3, 4, 3], { skipSpecialTokens: true })).toBe("ab a");
    expect(tokenizer.eosTokenIds).toEqual([2]);
    expect(tokenizer.applyChatTemplate([{ role: "user", content: "Hi" }])).toBe("Hi!");
    expect(json("config.json")).toMatchObject({
      model_type: "llama",
      bos_token_id: 1,
      eos_token_id: 2,
    });
  });

  it("has every chat template by its name", async () => {
    const named: [string, Value][] = [
      ["tokenizer.chat_templates", { strings: ["tool_use", "absent"] }],
      ["tokenizer.chat_template.tool_use", { string: "tools!" }],
    ];
    const store = path.join(temporaryDirectory(), "store");
    await decompose({ checkpoint: write(llama(...vocabulary, ...named)), store });
    const tokenizer = await AutoTokenizer.fromPretrained(store);
    const messages = [{ role: "user", content: "Hi" }];
    expect(tokenizer.applyChatTemplate(messages)).toBe("Hi!");
    expect(tokenizer.applyChatTemplate(messages, { tools: [{}] })).toBe("tools!");
  });

  it("with lists that are not as long as the vocabulary is refused", async () => {
    const short = new Map([...vocabulary, ["tokenizer.ggml.scores", { f32s: [1] }] as [string, Value]]);
    const error = await failure(openCheckpoint(write(llama(...short))));
    expect(error.message).toMatch(/1 elements in "tokenizer\.ggml\.scores" for 7 tokens/);
  });
});
