/** LoRA adapters (Hu et al., 2021) as PEFT saves them: adapter_config.json beside adapter_model.safetensors. */
import { join, resolve } from "node:path";
import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import { compileModulePattern } from "../quant/methods/module-pattern.js";
import { elementFormatOf } from "../quant/registry.js";
import { withFile } from "./byte-source.js";
import { readJsonFile } from "./json-file.js";
import { findFile } from "./safe-path.js";
import { readSafetensorsFrom, type SafetensorsTensor } from "./safetensors.js";
import { isRecord } from "./strict-json.js";

const CONFIG_FILE = "adapter_config.json";
const WEIGHTS_FILE = "adapter_model.safetensors";
const MAX_RANK = 4096;
const PLAIN_NAME = /^[\w.]+$/;
/** PEFT wraps the model in two modules of its own; "default" is the adapter's name in some files. */
const TENSOR_NAME = /^base_model\.model\.(.+)\.lora_(A|B)(?:\.default)?\.weight$/;

/** What one module's product gains: scale * b (a x). */
export interface LowRankUpdate {
  rank: number;
  scale: number;
  /** [rank, columns] */
  a: Float32Array;
  /** [rows, rank] */
  b: Float32Array;
  rows: number;
  columns: number;
}

export interface LoraAdapter {
  /** Absolute. */
  path: string;
  /** Absolute path of the weights. */
  file: string;
  /** By module name as in the base checkpoint, for example "model.layers.0.self_attn.q_proj". */
  updates: ReadonlyMap<string, LowRankUpdate>;
}

/**
 * Reads an adapter. Everything in the file is used or refused: nothing is ignored.
 * @throws LORA_INVALID, SAFETENSORS_INVALID, UNSAFE_PATH, IO_ERROR; UNSUPPORTED_MODEL for a pattern of modules that is not read
 */
export async function readLoraAdapter(directory: string): Promise<LoraAdapter> {
  const path = resolve(directory);
  const config = await readJsonFile(path, CONFIG_FILE, { code: "LORA_INVALID" });
  if (!config)
    throw invalid(path, `there is no ${CONFIG_FILE}`, "Give the directory that PEFT's save_pretrained wrote.");
  const configFile = join(path, CONFIG_FILE);
  checkKind(config, configFile);
  const found = await findFile(path, WEIGHTS_FILE);
  if (!found) throw invalid(path, `there is no ${WEIGHTS_FILE}`, "Save the adapter with safe_serialization.");
  const updates = await withFile(found.realPath, async (source) => {
    const { tensors } = await readSafetensorsFrom({ ...source, file: found.path, read: source.read });
    const read = async (tensor: SafetensorsTensor): Promise<Float32Array> => {
      const format = elementFormatOf(tensor.dtype);
      if (!format)
        throw invalid(found.path, `tensor "${tensor.name}" has dtype ${tensor.dtype}`, "Save it in F32, F16 or BF16.");
      const [rows, columns] = tensor.shape as [number, number];
      const values = new Float32Array(rows * columns);
      const bytes = await source.read(tensor.offset, tensor.byteLength);
      native().dequantize(format, bytes, rows, columns, 0, values);
      if (!values.every(Number.isFinite)) {
        throw invalid(
          found.path,
          `tensor "${tensor.name}" has a value that is not finite`,
          "Train or download it again.",
        );
      }
      return values;
    };
    const result = new Map<string, LowRankUpdate>();
    for (const [module, { a, b }] of pairs(tensors, found.path)) {
      const [rank, columns] = a.shape as [number, number];
      const [rows] = b.shape as [number, number];
      const scale = scaleOf(config, configFile, module, rank);
      result.set(module, { rank, scale, a: await read(a), b: await read(b), rows, columns });
    }
    return result;
  });
  if (updates.size === 0) throw invalid(found.path, "it holds no adapter matrices", "Train or download it again.");
  return { path, file: found.path, updates };
}

/** Only plain LoRA of linear layers: other kinds would give other numbers without a word. */
function checkKind(config: Record<string, unknown>, file: string): void {
  const refuse = (key: string) => {
    const value = JSON.stringify(config[key])?.slice(0, 80);
    throw invalid(file, `${key} is ${value}, which is not supported`, "Merge the adapter into its model with PEFT.");
  };
  if (config.peft_type !== "LORA") refuse("peft_type");
  for (const key of ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"]) if (config[key] === true) refuse(key);
  if (config.bias !== undefined && config.bias !== "none") refuse("bias");
  for (const key of ["modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication"]) {
    const value = config[key] ?? [];
    if (!Array.isArray(value) || value.length > 0) refuse(key);
  }
}

function pairs(
  tensors: ReadonlyMap<string, SafetensorsTensor>,
  file: string,
): Map<string, { a: SafetensorsTensor; b: SafetensorsTensor }> {
  const found = new Map<string, { A?: SafetensorsTensor; B?: SafetensorsTensor }>();
  for (const tensor of tensors.values()) {
    const [, module, side] = TENSOR_NAME.exec(tensor.name) ?? [];
    if (module === undefined || tensor.shape.length !== 2 || tensor.shape.includes(0)) {
      const what = `tensor "${tensor.name}" [${tensor.shape.join(", ")}] is no matrix of a linear layer's adapter`;
      throw invalid(
        file,
        what,
        "Only LoRA of linear layers is supported: merge it into its model with PEFT.",
        tensor.name,
      );
    }
    const pair = found.get(module) ?? {};
    pair[side as "A" | "B"] = tensor;
    found.set(module, pair);
  }
  const complete = new Map<string, { a: SafetensorsTensor; b: SafetensorsTensor }>();
  for (const [module, { A: a, B: b }] of found) {
    if (!a || !b) throw invalid(file, `module "${module}" has only one of lora_A and lora_B`, "Download it again.");
    if (a.shape[0] !== b.shape[1] || (a.shape[0] as number) > MAX_RANK) {
      const what = `module "${module}" has lora_A [${a.shape.join(", ")}] and lora_B [${b.shape.join(", ")}]`;
      throw invalid(file, what, `They must be [rank, inputs] and [outputs, rank] with a rank of at most ${MAX_RANK}.`);
    }
    complete.set(module, { a, b });
  }
  return complete;
}

/** lora_alpha / r, or lora_alpha / sqrt(r) with `use_rslora`; patterns name modules that have values of their own. */
function scaleOf(config: Record<string, unknown>, file: string, module: string, rank: number): number {
  const alpha = patternValue(config.alpha_pattern, module, file) ?? config.lora_alpha;
  const declared = patternValue(config.rank_pattern, module, file) ?? config.r;
  if (typeof alpha !== "number" || !Number.isFinite(alpha)) {
    throw invalid(file, `lora_alpha of "${module}" is ${String(alpha).slice(0, 40)}`, "It must be a finite number.");
  }
  if (declared !== rank) {
    throw invalid(
      file,
      `r of "${module}" is ${String(declared).slice(0, 40)}, but its matrices have rank ${rank}`,
      "Check that both files belong together.",
    );
  }
  return alpha / (config.use_rslora === true ? Math.sqrt(rank) : rank);
}

/** As PEFT matches: the first key that is the module's name or the end of it, from a dot on. Keys may be patterns. */
function patternValue(pattern: unknown, module: string, file: string): unknown {
  if (!isRecord(pattern)) return undefined;
  const key = Object.keys(pattern).find((end) =>
    PLAIN_NAME.test(end)
      ? module === end || module.endsWith(`.${end}`)
      : compileModulePattern(`(.*\\.)?(${end})$`, file)(module),
  );
  return key === undefined ? undefined : pattern[key];
}

function invalid(file: string, what: string, remedy: string, tensor?: string): LayerstreamError {
  return new LayerstreamError("LORA_INVALID", `${file}: ${what}.`, { file, tensor, remedy });
}
