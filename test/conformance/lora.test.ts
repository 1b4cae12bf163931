/** LoRA adapters against transformers with the adapter merged into its weights (tools/make-lora-fixtures.py). */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { AutoModel, LayerstreamError } from "../../dist/index.js";
import { supportedModelTypes } from "../../dist/models/registry.js";
import { encodeSafetensors, randomTensor, type Tensors } from "../helpers/checkpoint.js";
import { fixtureCases, readLogits, relativeError } from "../helpers/golden.js";

const fixtures = path.resolve(import.meta.dirname, "../fixtures/lora");
const directory = mkdtempSync(path.join(tmpdir(), "layerstream-lora-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function readCase(name: string) {
  const lora = path.join(fixtures, name);
  const { model, input_ids: ids } = JSON.parse(readFileSync(path.join(lora, "expected.json"), "utf8")) as {
    model: string;
    input_ids: number[];
  };
  const checkpoint = path.join(fixtureCases, model);
  const config = JSON.parse(readFileSync(path.join(checkpoint, "config.json"), "utf8")) as { model_type: string };
  return {
    lora,
    checkpoint,
    ids,
    modelType: config.model_type,
    logits: readLogits(path.join(lora, "expected.safetensors")),
  };
}

describe.each(readdirSync(fixtures))("%s", (name) => {
  const { lora, checkpoint, ids, modelType, logits: expected } = readCase(name);
  const load = (options: object) => AutoModel.fromPretrained(checkpoint, { cacheDir: directory, ...options });

  it.runIf(supportedModelTypes.includes(modelType)).each([
    ["held", {}],
    ["streamed", { hold: false }],
    ["on a device with memory of its own", { device: "cpu-discrete", hold: false }],
  ])("gives the merged model's logits, %s", async (_, options) => {
    const model = await load({ lora, ...options });
    try {
      const { logits } = await model.forward(ids);
      expect(relativeError(logits, expected)).toBeLessThan(1e-3);
    } finally {
      await model.dispose();
    }
    const plain = await load(options);
    try {
      const { logits } = await plain.forward(ids);
      expect(relativeError(logits, expected)).toBeGreaterThan(0.01);
    } finally {
      await plain.dispose();
    }
  });
});

describe("beside packed weights", () => {
  it("two adapters add up, and 8bit weights stay as they are", async () => {
    const { lora, checkpoint, ids, logits: expected } = readCase("llama_attention");
    const logitsWith = async (adapters: string[]) => {
      const options = { cacheDir: directory, compression: "8bit", lora: adapters } as const;
      const model = await AutoModel.fromPretrained(checkpoint, options);
      const { logits } = await model.forward(ids);
      await model.dispose();
      return logits;
    };
    const twice = await logitsWith([lora, lora]);
    const once = await logitsWith([lora]);
    const base = await logitsWith([]);
    expect(relativeError(once, expected)).toBeLessThan(0.05);
    expect(relativeError(base, expected)).toBeGreaterThan(relativeError(once, expected) * 3);
    expect(relativeError(twice, once)).toBeGreaterThan(0.01);
  });
});

describe("ranks and alphas of modules' own", () => {
  it("are found by patterns too, the first that matches", async () => {
    const { lora, checkpoint, ids, logits: expected } = readCase("qwen3_all_linear");
    const patterned = path.join(directory, "patterned");
    cpSync(lora, patterned, { recursive: true });
    const file = path.join(patterned, "adapter_config.json");
    const config = JSON.parse(readFileSync(file, "utf8")) as { rank_pattern: object; alpha_pattern: object };
    expect([config.rank_pattern, config.alpha_pattern]).toEqual([{ "mlp.down_proj": 2 }, { lm_head: 3 }]);
    const patterns = { rank_pattern: { "mlp.*down_proj": 2 }, alpha_pattern: { "(lm|no)_head": 3, "lm.*": 100 } };
    writeFileSync(file, JSON.stringify({ ...config, ...patterns }));
    const model = await AutoModel.fromPretrained(checkpoint, { cacheDir: directory, lora: patterned });
    const { logits } = await model.forward(ids);
    await model.dispose();
    expect(relativeError(logits, expected)).toBeLessThan(1e-3);
  });
});

describe("adapters that cannot be right are refused", () => {
  const { lora, checkpoint } = readCase("llama_attention");
  let count = 0;
  const copy = (change: { config?: object; tensors?: Tensors }) => {
    const target = path.join(directory, `adapter-${count++}`);
    cpSync(lora, target, { recursive: true });
    const file = path.join(target, "adapter_config.json");
    const config = JSON.parse(readFileSync(file, "utf8")) as object;
    writeFileSync(file, JSON.stringify({ ...config, ...change.config }));
    if (change.tensors)
      writeFileSync(path.join(target, "adapter_model.safetensors"), encodeSafetensors(change.tensors));
    return target;
  };
  const pair = (module: string, a: number[], b: number[]): Tensors =>
    new Map([
      [`base_model.model.${module}.lora_A.weight`, randomTensor("F32", a)],
      [`base_model.model.${module}.lora_B.weight`, randomTensor("F32", b)],
    ]);
  const query = "model.layers.0.self_attn.q_proj";

  it.each([
    ["no directory", () => path.join(directory, "nowhere"), /adapter_config.json/],
    ["another method", () => copy({ config: { peft_type: "IA3" } }), /peft_type is "IA3"/],
    ["DoRA", () => copy({ config: { use_dora: true } }), /use_dora/],
    ["modules saved whole", () => copy({ config: { modules_to_save: ["lm_head"] } }), /modules_to_save/],
    ["a rank unlike the config's", () => copy({ config: { r: 5 } }), /r of .* is 5.*rank 3/],
    ["alpha missing", () => copy({ config: { lora_alpha: null } }), /lora_alpha/],
    [
      "an adapter of an embedding",
      () =>
        copy({
          tensors: new Map([["base_model.model.model.embed_tokens.lora_embedding_A", randomTensor("F32", [3, 8])]]),
        }),
      /lora_embedding_A/,
    ],
    [
      "half a pair",
      () => copy({ tensors: new Map([[`base_model.model.${query}.lora_A.weight`, randomTensor("F32", [3, 8])]]) }),
      /only one of/,
    ],
    [
      "ranks that disagree",
      () => copy({ tensors: pair(query, [3, 8], [8, 2]) }),
      /lora_A \[3, 8\] and lora_B \[8, 2\]/,
    ],
    [
      "another model's shapes",
      () => copy({ tensors: pair(query, [3, 8], [8, 3]) }),
      /matrix of \[8, 8\], but the model's is/,
    ],
    [
      "a module the model lacks",
      () => copy({ tensors: pair("model.layers.9.self_attn.q_proj", [3, 8], [8, 3]) }),
      /no linear layer "model.layers.9/,
    ],
    ["an empty file", () => copy({ tensors: new Map() }), /no adapter matrices/],
  ])("%s", async (_, make, message) => {
    const failure = await AutoModel.fromPretrained(checkpoint, { cacheDir: directory, lora: make() }).catch(
      (error) => error,
    );
    expect(failure).toBeInstanceOf(LayerstreamError);
    expect(failure).toMatchObject({ code: "LORA_INVALID", message: expect.stringMatching(message) });
  });
});
