/** Hugging Face names and shapes for the tensors of GGUF files (names: gguf-py/gguf/constants.py of llama.cpp). */
import { LayerstreamError } from "../../errors.js";
import type { RowDimensions } from "../row-source.js";
import { ggufInvalid } from "./byte-cursor.js";
import type { GgufHeader, GgufTensor } from "./gguf-file.js";

/** A tensor as the rest of layerstream expects it in a checkpoint. */
export interface MappedTensor {
  /** Hugging Face name. */
  name: string;
  dtype: string;
  shape: number[];
  /** From the start of the file. */
  offset: number;
  byteLength: number;
  /** Where row r of the Hugging Face tensor lies, in rows of the file's, if not at r. */
  rowDims?: RowDimensions;
}

export interface NameTraits {
  /** Norms stand before and after both halves of a layer (Gemma 2 and 3). */
  sandwichNorms: boolean;
  /** Prefix of a layer's experts: `<prefix>.<expert>.<name of gate, down, up>`. */
  experts?: { prefix: string; router: string; gate: string; down: string; up: string };
  /** Rows of query and key are ordered for a rotation of neighbours: heads of each, as llama.cpp's converter has them. */
  rotatedNeighbours?: { queryHeads: number; keyHeads: number };
}

const MODEL_TENSORS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
  }),
);

/** Six times what the largest published models have. */
const MAX_TENSORS = 1 << 18;

/** Frequency factors: they are part of the config. */
export const ROPE_FACTORS = "rope_freqs.weight";

const LAYER_MODULES: ReadonlyMap<string, string> = new Map(
  Object.entries({
    attn_norm: "input_layernorm",
    attn_q: "self_attn.q_proj",
    attn_k: "self_attn.k_proj",
    attn_v: "self_attn.v_proj",
    attn_output: "self_attn.o_proj",
    attn_q_norm: "self_attn.q_norm",
    attn_k_norm: "self_attn.k_norm",
    ffn_norm: "post_attention_layernorm",
    ffn_gate: "mlp.gate_proj",
    ffn_up: "mlp.up_proj",
    ffn_down: "mlp.down_proj",
    ffn_gate_shexp: "mlp.shared_expert.gate_proj",
    ffn_up_shexp: "mlp.shared_expert.up_proj",
    ffn_down_shexp: "mlp.shared_expert.down_proj",
    ffn_gate_inp_shexp: "mlp.shared_expert_gate",
  }),
);

const SANDWICH_MODULES: ReadonlyMap<string, string> = new Map([
  ...LAYER_MODULES,
  ["ffn_norm", "pre_feedforward_layernorm"],
  ["post_attention_norm", "post_attention_layernorm"],
  ["post_ffw_norm", "post_feedforward_layernorm"],
]);

const EXPERT_PARTS: ReadonlyMap<string, "gate" | "down" | "up"> = new Map([
  ["ffn_gate", "gate"],
  ["ffn_down", "down"],
  ["ffn_up", "up"],
]);

/**
 * All tensors of a file under their Hugging Face names; a stack of experts becomes one tensor for each.
 * @throws UNSUPPORTED_MODEL for a tensor that the architecture does not have, GGUF_INVALID for a shape that cannot be
 */
export function mapTensors(header: GgufHeader, traits: NameTraits): MappedTensor[] {
  const count = [...header.tensors.values()].reduce((sum, { dimensions }) => sum + (dimensions[2] ?? 1), 0);
  if (count > MAX_TENSORS) {
    throw ggufInvalid(header.file, `has ${count} matrices, counting experts; the limit is ${MAX_TENSORS}`);
  }
  return [...header.tensors.values()]
    .filter(({ name }) => name !== ROPE_FACTORS)
    .flatMap((tensor) => mapTensor(header, tensor, traits));
}

function mapTensor(header: GgufHeader, tensor: GgufTensor, traits: NameTraits): MappedTensor[] {
  const name = MODEL_TENSORS.get(tensor.name);
  if (name !== undefined) return [plainTensor(header, tensor, name)];
  const [, layer, module = "", expert, suffix] =
    /^blk\.(\d{1,6})\.([a-z_]+)(?:\.(\d{1,6}))?\.(weight|bias)$/.exec(tensor.name) ?? [];
  const prefix = `model.layers.${layer}`;
  const { experts } = traits;
  if (layer !== undefined && experts) {
    const part = EXPERT_PARTS.get(module.replace(/_exps$/, ""));
    const nameOf = (index: string) => part && `${prefix}.${experts.prefix}.${index}.${experts[part]}.${suffix}`;
    if (module === "ffn_gate_inp") return [plainTensor(header, tensor, `${prefix}.${experts.router}.${suffix}`)];
    if (part && module.endsWith("_exps"))
      return splitExperts(header, tensor, (index) => nameOf(String(index)) as string);
    if (part && expert !== undefined) return [plainTensor(header, tensor, nameOf(expert) as string)];
  }
  const known = (traits.sandwichNorms ? SANDWICH_MODULES : LAYER_MODULES).get(module);
  if (layer === undefined || known === undefined || expert !== undefined) throw unknownTensor(header, tensor);
  const mapped = plainTensor(header, tensor, `${prefix}.${known}.${suffix}`);
  // A matrix of one row, which the converter squeezes.
  if (module === "ffn_gate_inp_shexp" && mapped.shape.length === 1) mapped.shape.unshift(1);
  const { rotatedNeighbours } = traits;
  if (rotatedNeighbours === undefined) return [mapped];
  if (module === "attn_q") return [withHalves(header, mapped, rotatedNeighbours.queryHeads)];
  return [module === "attn_k" ? withHalves(header, mapped, rotatedNeighbours.keyHeads) : mapped];
}

function unknownTensor(header: GgufHeader, { name, offset }: GgufTensor): LayerstreamError {
  return new LayerstreamError(
    "UNSUPPORTED_MODEL",
    `${header.file}: tensor "${name}" is none that layerstream knows in a model of this architecture.`,
    { file: header.file, tensor: name, offset, remedy: "Use a file made by llama.cpp's convert_hf_to_gguf.py." },
  );
}

/** Dimensions the other way round, since ggml names the fastest first. */
function plainTensor({ file }: GgufHeader, tensor: GgufTensor, name: string): MappedTensor {
  const { dimensions, type, offset, byteLength } = tensor;
  const shape = [...dimensions].reverse();
  while (shape.length > 2 && shape[0] === 1) shape.shift();
  if (shape.length > 2) {
    throw ggufInvalid(file, `tensor "${tensor.name}" has shape [${shape.join(", ")}], which is no matrix`, {
      tensor: tensor.name,
      offset,
    });
  }
  return { name, dtype: type.dtype, shape, offset, byteLength };
}

function splitExperts({ file }: GgufHeader, tensor: GgufTensor, nameOf: (expert: number) => string): MappedTensor[] {
  const { dimensions, type, offset, byteLength, name } = tensor;
  const [columns = 0, rows = 0, experts = 0] = dimensions;
  if (dimensions.length !== 3) {
    throw ggufInvalid(file, `tensor "${name}" has ${dimensions.length} dimensions; a stack of experts has 3`, {
      tensor: name,
      offset,
    });
  }
  const expertBytes = byteLength / experts;
  return Array.from({ length: experts }, (_, expert) => ({
    name: nameOf(expert),
    dtype: type.dtype,
    shape: [rows, columns],
    offset: offset + expert * expertBytes,
    byteLength: expertBytes,
  }));
}

/**
 * The file pairs rows (2i, 2i + 1) of a head where Hugging Face pairs (i, i + half): row (head, half, i) there is row
 * (head, i, half) here.
 */
function withHalves(header: GgufHeader, tensor: MappedTensor, heads: number): MappedTensor {
  const rows = tensor.shape[0] ?? 0;
  if (rows % (2 * heads) !== 0) {
    throw ggufInvalid(header.file, `tensor "${tensor.name}" has ${rows} rows, which ${heads} heads cannot share`, {
      tensor: tensor.name,
      offset: tensor.offset,
    });
  }
  const headDim = rows / heads;
  return {
    ...tensor,
    rowDims: [
      [heads, headDim],
      [2, 1],
      [headDim / 2, 2],
    ],
  };
}
