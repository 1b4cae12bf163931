import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { decompose } from "../../dist/decompose/decompose.js";
import { inspect } from "../../dist/models/inspect.js";
import { renderInspection } from "../../dist/models/inspection-text.js";
import { randomTensor, writeCheckpoint } from "../helpers/checkpoint.js";
import { temporaryDirectory } from "../helpers/files.js";
import { fixtureCases, quantizedFixtures } from "../helpers/golden.js";

function checkpointDirectory(options: Parameters<typeof writeCheckpoint>[1] = {}): string {
  const directory = path.join(temporaryDirectory(), "tiny");
  writeCheckpoint(directory, options);
  return directory;
}

// hidden 64, MLP 96, 4 heads of 16, 2 KV heads, vocabulary 131
const LAYER_PARAMETERS = 2 * 64 + 64 * 64 * 2 + 32 * 64 * 2 + 96 * 64 * 3;
const EMBEDDING_PARAMETERS = 131 * 64;

describe("inspect", () => {
  it("says which quantized matrices become float32, and why", async () => {
    const packed = await inspect(path.join(quantizedFixtures, "gptq_actorder"));
    expect(Object.keys(packed.formats).sort()).toEqual(["f16", "uint4"]);
    expect(packed.expanded).toEqual({});
    const uneven = await inspect(path.join(quantizedFixtures, "gptq_uneven_groups"));
    expect(uneven.expanded).toEqual({ "groups that are not multiples of 16 columns": 7 });
    expect(renderInspection(uneven)).toMatch(/to be f32 +7 quantized matrices: groups that are not/);
  });

  it("describes a checkpoint, without its weights", async () => {
    const directory = checkpointDirectory({
      layers: 3,
      edit: (tensors) => tensors.set("extra", randomTensor("F32", [5])),
    });
    const shard = path.join(directory, "model.safetensors");
    const bytes = readFileSync(shard);
    const headerEnd = 8 + Number(bytes.readBigUInt64LE());
    writeFileSync(shard, Buffer.concat([bytes.subarray(0, headerEnd), Buffer.alloc(bytes.length - headerEnd, 0xff)]));

    const inspection = await inspect(directory);
    const parameters = 3 * LAYER_PARAMETERS + 2 * EMBEDDING_PARAMETERS + 64;
    expect(inspection).toMatchObject({
      path: directory,
      kind: "checkpoint",
      family: "llama",
      modelType: "llama",
      layerCount: 3,
      hiddenSize: 64,
      intermediateSize: 96,
      heads: 4,
      kvHeads: 2,
      headDim: 16,
      attention: "grouped",
      normPlacement: "pre",
      kvCacheBytesPerToken: 3 * 2 * 2 * 16 * 4,
      ropes: [{ rotaryDim: 16, theta: 10000, scaling: { type: "default" } }],
      experts: undefined,
      vocabSize: 131,
      maxPositionEmbeddings: 128,
      tied: false,
      parameters,
      bytes: parameters * 2,
      formats: { bf16: { parameters, bytes: parameters * 2, bitsPerWeight: 16 } },
      dropped: ["extra"],
    });
    expect(inspection.compression).toBeUndefined();
    expect(inspection.layers.map(({ file, bytes: size }) => [file, size])).toEqual([
      ["embed.safetensors", EMBEDDING_PARAMETERS * 2],
      ["layer-000.safetensors", LAYER_PARAMETERS * 2],
      ["layer-001.safetensors", LAYER_PARAMETERS * 2],
      ["layer-002.safetensors", LAYER_PARAMETERS * 2],
      ["head.safetensors", (EMBEDDING_PARAMETERS + 64) * 2],
    ]);
    const mlpBytes = (64 + 96 * 64 * 3) * 2;
    expect(inspection.layers[1]?.stages).toEqual([
      { name: "attention", count: 1, bytes: LAYER_PARAMETERS * 2 - mlpBytes },
      { name: "mlp", count: 1, bytes: mlpBytes },
    ]);
    expect(inspection.layers.map(({ rope }) => rope)).toEqual([undefined, 0, 0, 0, undefined]);
  });

  it("tells windows, rotary embeddings and experts of each layer", async () => {
    const gemma = await inspect(path.join(fixtureCases, "gemma3_text_v5"));
    expect(gemma.normPlacement).toBe("sandwich");
    expect(gemma.layers.map(({ window, rope }) => [window, rope])).toEqual([
      [6, 0],
      [undefined, 1],
      [undefined, 1],
      [6, 0],
      [undefined, undefined],
    ]);
    expect(renderInspection(gemma)).toMatch(/layer-001\.safetensors to layer-002\.safetensors .* full, rope 1 /);

    const deepseek = await inspect(path.join(fixtureCases, "deepseek_v2_groups"));
    expect(deepseek.attention).toBe("latent");
    expect(deepseek.experts).toEqual({ count: 9, perToken: 4, intermediateSize: 11, sharedIntermediateSize: 11 });
    expect(deepseek.kvCacheBytesPerToken).toBe(3 * (22 + 8) * 4);
    expect(deepseek.layers.map(({ stages }) => stages.map(({ name, count }) => `${count} ${name}`).join())).toEqual([
      "1 embed",
      "1 attention,1 mlp",
      "1 attention,1 moe,9 expert",
      "1 attention,1 moe,9 expert",
      "1 head",
    ]);
    const text = renderInspection(deepseek);
    expect(text).toMatch(/^experts +9, 4 a token, MLP 11 each, shared MLP 11$/m);
    expect(text).toMatch(/ 9 experts /);
  });

  it("describes a store, with bits per weight", async () => {
    const checkpoint = checkpointDirectory({ tied: true });
    const store = path.join(temporaryDirectory(), "store");
    await decompose({ checkpoint, store, compression: "4bit" });
    for (const name of readdirSync(store)) {
      const file = path.join(store, name);
      if (name.endsWith(".safetensors")) writeFileSync(file, Buffer.alloc(readFileSync(file).length));
    }
    const { kind, tied, compression, formats, layers, parameters } = await inspect(store);
    expect({ kind, tied, compression }).toEqual({
      kind: "store",
      tied: true,
      compression: { compression: "4bit", embeddingCompression: "8bit", headCompression: "8bit" },
    });
    expect(parameters).toBe(2 * LAYER_PARAMETERS + EMBEDDING_PARAMETERS + 64);
    // Rows of 64 columns are one block: 4 or 8 bits and a float16 scale; those of 96 columns are two, padded.
    const { bitsPerWeight } = formats["8bit"] ?? { bitsPerWeight: 0 };
    expect(bitsPerWeight).toBe(8.25);
    expect(formats["4bit"]?.bytes).toBe(2 * ((64 * 2 + 32 * 2 + 96 * 2) * 34 + 64 * 68));
    expect(layers[0]?.formats.bf16).toEqual({ parameters: 128, bytes: 256, bitsPerWeight: 16 });
  });

  it("is rendered as a table in which equal layers share a line", async () => {
    const text = renderInspection(await inspect(checkpointDirectory({ layers: 5 })));
    const lines = text.split("\n").map((line) => line.replaceAll(/ {2,}/g, "  "));
    expect(lines).toContain("family  llama (model_type llama)");
    expect(lines).toContain("attention  4 heads of 16, KV heads 2");
    expect(lines.filter((line) => line.includes("layer-"))).toEqual([
      expect.stringMatching(
        /^layer-000\.safetensors to layer-004\.safetensors {2}30,848 {2}60\.3 KiB {2}attention .* {2}full {2}bf16/,
      ),
    ]);
    expect(text).not.toMatch(/ \n|undefined|NaN/);
  });

  it("fails as opening does", async () => {
    const directory = checkpointDirectory();
    rmSync(path.join(directory, "model.safetensors"));
    await expect(inspect(directory)).rejects.toMatchObject({ code: "CHECKPOINT_NOT_FOUND" });
    await expect(inspect(path.join(directory, "gone"))).rejects.toMatchObject({ code: "CHECKPOINT_NOT_FOUND" });
  });
});
