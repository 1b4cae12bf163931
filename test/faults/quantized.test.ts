/** Quantized checkpoints whose parts disagree, or that nobody can read: refused by name before anything is written. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { isLayerStore, openLayerStore } from "../../dist/checkpoint/layer-store.js";
import { BlockReader } from "../../dist/decompose/block-reader.js";
import { decompose } from "../../dist/decompose/decompose.js";
import { openRows } from "../../dist/decompose/open-rows.js";
import { Scratch } from "../../dist/decompose/scratch.js";
import { AutoModel, LayerstreamError } from "../../dist/index.js";
import { withPlainRows } from "../../dist/models/assignment.js";
import { native } from "../../dist/native/binding.js";
import type { TensorData, Tensors } from "../helpers/checkpoint.js";
import { temporaryDirectory } from "../helpers/files.js";
import { quantizedFixtures } from "../helpers/golden.js";
import { assignedTensors, editFixture } from "../helpers/quantized.js";

type Json = Record<string, unknown>;

const UP = "model.layers.0.mlp.up_proj";

async function failureOf(checkpoint: string, options: { compression?: "4bit" } = {}): Promise<LayerstreamError> {
  const store = path.join(path.dirname(checkpoint), "store");
  const error = await decompose({ checkpoint, store, ...options }).catch((failure: unknown) => failure);
  expect(error).toBeInstanceOf(LayerstreamError);
  expect(existsSync(store)).toBe(false);
  return error as LayerstreamError;
}

function tensorOf(tensors: Tensors, name: string): TensorData {
  const tensor = tensors.get(name);
  if (!tensor) throw new Error(`The fixture has no ${name}.`);
  return tensor;
}

/** The tensor with fewer elements along an axis, and as many bytes as that takes. */
function shorten(name: string, axis: number, by = 1) {
  return (tensors: Tensors) => {
    const tensor = tensorOf(tensors, name);
    const shape = tensor.shape.map((size, i) => (i === axis ? size - by : size));
    const before = tensor.shape.reduce((product, size) => product * size, 1);
    const count = shape.reduce((product, size) => product * size, 1);
    tensors.set(name, { ...tensor, shape, bytes: tensor.bytes.subarray(0, (tensor.bytes.length / before) * count) });
  };
}

const remove = (name: string) => (tensors: Tensors) => void tensors.delete(name);

const retype = (name: string, dtype: string) => (tensors: Tensors) =>
  void tensors.set(name, { ...tensorOf(tensors, name), dtype });

const writeInt = (name: string, index: number, value: number) => (tensors: Tensors) =>
  void tensorOf(tensors, name).bytes.writeInt32LE(value, 4 * index);

const setting = (changes: Json) => (_: Tensors, config: Json) => {
  config.quantization_config = { ...(config.quantization_config as Json), ...changes };
};

const STATE = `${UP}.weight.quant_state.bitsandbytes__nf4`;

const withState = (text: string) => (tensors: Tensors) => {
  const bytes = Buffer.from(text);
  tensors.set(STATE, { dtype: "U8", shape: [bytes.length], bytes });
};

const changeState = (changes: Json) => (tensors: Tensors) => {
  const state = JSON.parse(tensorOf(tensors, STATE).bytes.toString()) as Json;
  withState(JSON.stringify({ ...state, ...changes }))(tensors);
};

type Edit = (tensors: Tensors, config: Json) => void;

const SHAPES: [fixture: string, tensor: string, edit: Edit][] = [
  ["gptq_2bit", `${UP}.qweight`, shorten(`${UP}.qweight`, 0)],
  ["gptq_2bit", `${UP}.qzeros`, shorten(`${UP}.qzeros`, 0)],
  ["gptq_3bit", `${UP}.qzeros`, shorten(`${UP}.qzeros`, 1)],
  ["gptq_3bit", `${UP}.scales`, shorten(`${UP}.scales`, 1)],
  ["gptq_2bit", `${UP}.scales`, shorten(`${UP}.scales`, 0)],
  ["gptq_actorder", `${UP}.qweight`, shorten(`${UP}.g_idx`, 0, 16)],
  ["gptq_actorder", `${UP}.g_idx`, retype(`${UP}.g_idx`, "F32")],
  ["gptq_actorder", `${UP}.qweight`, retype(`${UP}.qweight`, "F32")],
  ["awq_quant_config", `${UP}.qzeros`, shorten(`${UP}.qzeros`, 1)],
  ["awq_quant_config", `${UP}.scales`, shorten(`${UP}.scales`, 1, 8)],
  ["awq_small_groups_bf16", `${UP}.scales`, shorten(`${UP}.scales`, 0)],
  ["awq_small_groups_bf16", `${UP}.scales`, retype(`${UP}.scales`, "I16")],
  ["compressed_pack_symmetric", `${UP}.weight_packed`, shorten(`${UP}.weight_packed`, 1)],
  ["compressed_pack_symmetric", `${UP}.weight_packed`, shorten(`${UP}.weight_packed`, 0)],
  ["compressed_pack_symmetric", `${UP}.weight_scale`, shorten(`${UP}.weight_scale`, 1)],
  ["compressed_pack_symmetric", `${UP}.weight_shape`, writeInt(`${UP}.weight_shape`, 1, -1)],
  ["compressed_pack_asymmetric", `${UP}.weight_zero_point`, shorten(`${UP}.weight_zero_point`, 0)],
  ["compressed_int8", `${UP}.weight_scale`, shorten(`${UP}.weight_scale`, 0)],
  ["compressed_fp8_channel", `${UP}.weight_scale`, shorten(`${UP}.weight_scale`, 0)],
  ["compressed_fp8_block", `${UP}.weight_scale`, shorten(`${UP}.weight_scale`, 1)],
  ["compressed_fp8_block", `${UP}.weight_scale`, retype(`${UP}.weight_scale`, "I32")],
  ["nf4_nested", `${UP}.weight`, shorten(`${UP}.weight`, 0)],
  ["nf4_nested", `${UP}.weight.absmax`, shorten(`${UP}.weight.absmax`, 0)],
  ["nf4_nested", `${UP}.weight.quant_map`, shorten(`${UP}.weight.quant_map`, 0)],
  ["nf4_nested", `${UP}.weight.nested_absmax`, shorten(`${UP}.weight.nested_absmax`, 0)],
  ["nf4_nested", `${UP}.weight.nested_quant_map`, shorten(`${UP}.weight.nested_quant_map`, 0)],
  [
    "gpt_oss_mxfp4",
    "model.layers.0.mlp.experts.down_proj_scales",
    shorten("model.layers.0.mlp.experts.down_proj_scales", 1),
  ],
  [
    "gpt_oss_mxfp4",
    "model.layers.0.mlp.experts.down_proj_scales",
    shorten("model.layers.0.mlp.experts.down_proj_blocks", 0),
  ],
  [
    "gpt_oss_mxfp4",
    "model.layers.0.mlp.experts.down_proj_blocks",
    shorten("model.layers.0.mlp.experts.down_proj_blocks", 3),
  ],
];

describe("parts that disagree", () => {
  it.each(SHAPES)("%s: %s (%#)", async (fixture, tensor, edit) => {
    const error = await failureOf(editFixture(fixture, temporaryDirectory(), edit));
    expect(error.code).toBe("TENSOR_MISMATCH");
    expect(error.tensor).toBe(tensor);
    expect(error.message).toContain("model.safetensors");
    expect(error.remedy).toBeTruthy();
  });

  it.each([
    ["gptq_2bit", `${UP}.qzeros`],
    ["gptq_2bit", `${UP}.scales`],
    ["awq_small_groups_bf16", `${UP}.qzeros`],
    ["compressed_pack_symmetric", `${UP}.weight_shape`],
    ["compressed_pack_symmetric", `${UP}.weight_scale`],
    ["compressed_pack_asymmetric", `${UP}.weight_zero_point`],
    ["nf4_nested", STATE],
    ["nf4_nested", `${UP}.weight.nested_absmax`],
    ["gpt_oss_mxfp4", "model.layers.0.mlp.experts.down_proj_scales"],
    ["gptq_2bit", `${UP}.weight`, `${UP}.qweight`],
    ["gpt_oss_mxfp4", "model.layers.0.mlp.experts.down_proj", "model.layers.0.mlp.experts.down_proj_blocks"],
  ])("%s without %s", async (fixture, missing, removed = missing) => {
    const error = await failureOf(editFixture(fixture, temporaryDirectory(), remove(removed)));
    expect([error.code, error.tensor]).toEqual(["TENSOR_MISSING", missing]);
  });

  it.each([-1, 4, 2 ** 31 - 1])("a column in group %d of four", async (group) => {
    for (const [fixture, tensor] of [
      ["gptq_actorder", "model.layers.0.mlp.down_proj.g_idx"],
      ["compressed_pack_asymmetric", "model.layers.0.mlp.down_proj.weight_g_idx"],
    ] as const) {
      const error = await failureOf(editFixture(fixture, temporaryDirectory(), writeInt(tensor, 7, group)));
      expect([error.code, error.tensor]).toEqual(["TENSOR_MISMATCH", tensor]);
      expect(error.message).toContain(`column 7 in group ${group}`);
    }
  });
});

describe("quant_state of NF4", () => {
  it.each<[string, Edit]>([
    ["no JSON", withState("{")],
    ["a list", withState("[1, 2]")],
    ["deep nesting", withState("[".repeat(60_000))],
    ["another kind", changeState({ quant_type: "fp4" })],
    ["no shape", changeState({ shape: undefined })],
    ["a vector", changeState({ shape: [4096] })],
    ["an absurd shape", changeState({ shape: [2 ** 52, 2 ** 52] })],
    ["a shape of strings", changeState({ shape: ["64", "64"] })],
    ["blocks of nothing", changeState({ blocksize: 0 })],
    ["half a block", changeState({ blocksize: 63.5 })],
    ["blocks of 2^40", changeState({ blocksize: 2 ** 40 })],
    ["other blocks", changeState({ blocksize: 32 })],
    ["nested blocks of nothing", changeState({ nested_blocksize: 0 })],
    ["no nested blocks", changeState({ nested_blocksize: undefined })],
    ["no offset", changeState({ nested_offset: undefined })],
    ["a text of 100 KB", withState(" ".repeat(100_000))],
  ])("%s", async (_, edit) => {
    const error = await failureOf(editFixture("nf4_nested", temporaryDirectory(), edit));
    expect(error.code).toBe("TENSOR_MISMATCH");
    expect(error.message).toContain(UP);
  });
});

describe("settings", () => {
  it.each<[fixture: string, code: string, words: string, edit: Edit]>([
    ["gptq_2bit", "UNSUPPORTED_MODEL", '"hqq"', setting({ quant_method: "hqq" })],
    ["gptq_2bit", "UNSUPPORTED_MODEL", "missing", setting({ quant_method: undefined })],
    ["gptq_2bit", "UNSUPPORTED_MODEL", "constructor", setting({ quant_method: "constructor" })],
    ["gptq_2bit", "CONFIG_INVALID", "bits is 5", setting({ bits: 5 })],
    ["gptq_2bit", "CONFIG_INVALID", "group_size is 0", setting({ group_size: 0 })],
    ["gptq_2bit", "CONFIG_INVALID", "group_size is -2", setting({ group_size: -2 })],
    ["gptq_2bit", "CONFIG_INVALID", "group_size", setting({ group_size: 2 ** 60 })],
    ["gptq_2bit", "CONFIG_INVALID", "group_size is 0.5", setting({ group_size: 0.5 })],
    ["gptq_2bit", "CONFIG_INVALID", 'group_size is "16"', setting({ group_size: "16" })],
    ["gptq_2bit", "TENSOR_MISMATCH", "groups of 1", setting({ group_size: 1 })],
    ["gptq_2bit", "TENSOR_MISMATCH", "3 bits", setting({ bits: 3 })],
    ["gptq_2bit", "UNSUPPORTED_MODEL", "marlin", setting({ checkpoint_format: "marlin" })],
    ["gptq_2bit", "UNSUPPORTED_MODEL", "int64", setting({ pack_dtype: "int64" })],
    ["gptq_dynamic", "UNSUPPORTED_MODEL", "(?=", setting({ dynamic: { "+:(?=a)": { bits: 8 } } })],
    ["gptq_dynamic", "CONFIG_INVALID", "bits is 7", setting({ dynamic: { "+:.*": { bits: 7 } } })],
    ["awq_small_groups_bf16", "UNSUPPORTED_MODEL", "gemv_fast", setting({ version: "gemv_fast" })],
    ["awq_small_groups_bf16", "CONFIG_INVALID", "bits is 8", setting({ bits: 8 })],
    ["nf4_nested", "UNSUPPORTED_MODEL", "fp4", setting({ bnb_4bit_quant_type: "fp4" })],
    ["nf4_nested", "UNSUPPORTED_MODEL", "int8", setting({ load_in_8bit: true, load_in_4bit: false })],
    ["fp8_tensor", "UNSUPPORTED_MODEL", "e5m2", setting({ fmt: "e5m2" })],
    ["fp8_tensor", "CONFIG_INVALID", "weight_block_size", setting({ weight_block_size: [0, 128] })],
    ["fp8_tensor", "TENSOR_MISMATCH", "blocks of 16 rows", setting({ weight_block_size: [16, 16] })],
    ["compressed_int8", "UNSUPPORTED_MODEL", "nvfp4", setting({ format: "nvfp4-pack-quantized" })],
    ["compressed_int8", "UNSUPPORTED_MODEL", "sparse", setting({ sparsity_config: { format: "sparse-24-bitmask" } })],
    ["compressed_int8", "TENSOR_MISMATCH", "no group", setting({ config_groups: {} })],
    ["compressed_int8", "CONFIG_INVALID", "config_groups", setting({ config_groups: undefined })],
  ])("%s: %s for %s", async (fixture, code, words, edit) => {
    const error = await failureOf(editFixture(fixture, temporaryDirectory(), edit));
    expect(error.code).toBe(code);
    expect(error.message).toContain(words);
    expect(error.remedy).toBeTruthy();
  });

  it("quantize_config.json that is no object", async () => {
    const checkpoint = editFixture("gptq_head_channel", temporaryDirectory(), () => undefined);
    writeFileSync(path.join(checkpoint, "quantize_config.json"), "[]");
    const error = await failureOf(checkpoint);
    expect([error.code, error.file]).toEqual(["CONFIG_INVALID", path.join(checkpoint, "quantize_config.json")]);
  });
});

describe("what comes quantized is quantized again on request only", () => {
  const checkpoint = path.join(quantizedFixtures, "gptq_actorder");

  it("compression of a quantized checkpoint is refused, with the way to ask for it", async () => {
    const error = await failureOf(
      editFixture("gptq_actorder", temporaryDirectory(), () => undefined),
      {
        compression: "4bit",
      },
    );
    expect(error.code).toBe("INVALID_ARGUMENT");
    expect(error.message).toContain("--requantize");
    expect(error.message).toContain("7 matrices");
    const loading = AutoModel.fromPretrained(checkpoint, { compression: "8bit", cacheDir: temporaryDirectory() });
    await expect(loading).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("an unquantized head may be quantized", async () => {
    const store = path.join(temporaryDirectory(), "store");
    const { manifest } = await decompose({ checkpoint, store, headCompression: "8bit" });
    const head = manifest.files.flatMap(({ stages }) => stages).find(({ name }) => name === "head");
    expect(head?.tensors.map(({ format }) => format)).toContain("8bit");
  });

  it("asked for, it gives what quantizing the dequantized weights gives", async () => {
    const store = path.join(temporaryDirectory(), "store");
    await decompose({ checkpoint, store, compression: "4bit", requantize: true });
    const { tensors } = await openLayerStore(store);
    const workspace = { reader: new BlockReader(1024 * 1024), scratch: new Scratch() };
    const quantized = (await assignedTensors(checkpoint)).filter(({ source }) => source.kind === "packed");
    expect(quantized.length).toBe(7);
    for (const tensor of quantized) {
      const location = tensors.get(tensor.name);
      expect(location?.tensor).toMatchObject({ format: "4bit", block: 64 });
      expect(location?.tensor.columnOrder).toBeUndefined();
      const [rows = 0, columns = 0] = tensor.shape;
      const plain = openRows(withPlainRows(tensor).source, workspace).read(0, rows);
      const expected = new Uint8Array(rows * native().rowBytes("4bit", columns, 64));
      expect(native().quantize("f32", plain, rows, columns, "4bit", 64, expected)).toBe(true);
      const { offset = 0 } = location?.tensor ?? {};
      const bytes = readFileSync(path.join(store, location?.file.name ?? ""));
      expect(Uint8Array.from(bytes.subarray(offset, offset + expected.length))).toEqual(expected);
    }
  });
});

it("an exponent of MXFP4 that is no number ends the run, and no store is there", async () => {
  const name = "model.layers.0.mlp.experts.down_proj";
  const checkpoint = editFixture("gpt_oss_mxfp4", temporaryDirectory(), (tensors) => {
    tensorOf(tensors, `${name}_scales`).bytes[3] = 255;
  });
  const store = path.join(path.dirname(checkpoint), "store");
  const writing = decompose({ checkpoint, store });
  await expect(writing).rejects.toMatchObject({ code: "QUANTIZATION_FAILED", tensor: name });
  expect(await isLayerStore(store)).toBe(false);
});
