/** Writes GGUF files, with none of the code under test. */

/** A metadata value with its type; arrays are of one type. */
export type Value =
  | { u8: number }
  | { u32: number }
  | { i32: number }
  | { u64: bigint }
  | { f32: number }
  | { boolean: boolean }
  | { string: string }
  | { strings: readonly string[] }
  | { f32s: readonly number[] }
  | { i32s: readonly number[] }
  | { booleans: readonly boolean[] }
  | { raw: Buffer };

export interface Tensor {
  name: string;
  /** Number of the ggml type; 0 is F32. */
  type: number;
  /** The fastest first. */
  dimensions: readonly (number | bigint)[];
  bytes: Buffer;
  /** Instead of the place where it lies. */
  offset?: bigint;
}

export interface Gguf {
  version?: number;
  metadata: ReadonlyMap<string, Value> | readonly (readonly [string, Value])[];
  tensors: readonly Tensor[];
  alignment?: number;
  /** Instead of the true numbers. */
  tensorCount?: bigint;
  keyCount?: bigint;
}

export const F32 = 0;

export function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}

export function u64(value: number | bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt(value));
  return buffer;
}

function i32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32LE(value);
  return buffer;
}

export function f32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeFloatLE(value);
  return buffer;
}

export function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

function array(type: number, elements: readonly Buffer[]): Buffer {
  return Buffer.concat([u32(9), u32(type), u64(elements.length), ...elements]);
}

function encodeValue(value: Value): Buffer {
  if ("u8" in value) return Buffer.concat([u32(0), Buffer.from([value.u8])]);
  if ("u32" in value) return Buffer.concat([u32(4), u32(value.u32)]);
  if ("i32" in value) return Buffer.concat([u32(5), i32(value.i32)]);
  if ("u64" in value) return Buffer.concat([u32(10), u64(value.u64)]);
  if ("f32" in value) return Buffer.concat([u32(6), f32(value.f32)]);
  if ("boolean" in value) return Buffer.concat([u32(7), Buffer.from([value.boolean ? 1 : 0])]);
  if ("string" in value) return Buffer.concat([u32(8), text(value.string)]);
  if ("strings" in value) return array(8, value.strings.map(text));
  if ("f32s" in value) return array(6, value.f32s.map(f32));
  if ("i32s" in value) return array(5, value.i32s.map(i32));
  if ("booleans" in value)
    return array(
      7,
      value.booleans.map((flag) => Buffer.from([flag ? 1 : 0])),
    );
  return value.raw;
}

export function encodeGguf(gguf: Gguf): Buffer {
  const { version = 3, tensors, alignment = 32 } = gguf;
  const metadata = [...gguf.metadata];
  const pad = (length: number) => -length & (alignment - 1);
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  let offset = 0;
  for (const tensor of tensors) {
    const { name, type, dimensions, bytes } = tensor;
    infos.push(text(name), u32(dimensions.length), ...dimensions.map(u64), u32(type), u64(tensor.offset ?? offset));
    data.push(bytes, Buffer.alloc(pad(bytes.length)));
    offset += bytes.length + pad(bytes.length);
  }
  const header = Buffer.concat([
    Buffer.from("GGUF"),
    u32(version),
    u64(gguf.tensorCount ?? tensors.length),
    u64(gguf.keyCount ?? metadata.length),
    ...metadata.flatMap(([key, value]) => [text(key), encodeValue(value)]),
    ...infos,
  ]);
  return Buffer.concat([header, Buffer.alloc(pad(header.length)), ...data]);
}

export interface LlamaShape {
  hidden?: number;
  intermediate?: number;
  heads?: number;
  kvHeads?: number;
  layers?: number;
  vocab?: number;
}

/** Metadata of a small model of the architecture. */
export function modelMetadata(architecture: string, shape: LlamaShape = {}): Map<string, Value> {
  const { hidden = 32, intermediate = 64, heads = 4, kvHeads = 2, layers = 2 } = shape;
  return new Map<string, Value>([
    ["general.architecture", { string: architecture }],
    [`${architecture}.block_count`, { u32: layers }],
    [`${architecture}.embedding_length`, { u32: hidden }],
    [`${architecture}.feed_forward_length`, { u32: intermediate }],
    [`${architecture}.attention.head_count`, { u32: heads }],
    [`${architecture}.attention.head_count_kv`, { u32: kvHeads }],
    [`${architecture}.attention.layer_norm_rms_epsilon`, { f32: 1e-5 }],
    [`${architecture}.context_length`, { u32: 128 }],
    [`${architecture}.rope.freq_base`, { f32: 10_000 }],
  ]);
}

/** F32 tensors of a small Llama; element i of a tensor is (index of the tensor) + i / 1000. */
export function llamaTensors(shape: LlamaShape = {}): Tensor[] {
  const { hidden = 32, intermediate = 64, heads = 4, kvHeads = 2, layers = 2, vocab = 40 } = shape;
  const keys = (hidden / heads) * kvHeads;
  const shapes: [string, number[]][] = [["token_embd.weight", [hidden, vocab]]];
  for (let layer = 0; layer < layers; layer++) {
    shapes.push(
      [`blk.${layer}.attn_norm.weight`, [hidden]],
      [`blk.${layer}.attn_q.weight`, [hidden, hidden]],
      [`blk.${layer}.attn_k.weight`, [hidden, keys]],
      [`blk.${layer}.attn_v.weight`, [hidden, keys]],
      [`blk.${layer}.attn_output.weight`, [hidden, hidden]],
      [`blk.${layer}.ffn_norm.weight`, [hidden]],
      [`blk.${layer}.ffn_gate.weight`, [hidden, intermediate]],
      [`blk.${layer}.ffn_up.weight`, [hidden, intermediate]],
      [`blk.${layer}.ffn_down.weight`, [intermediate, hidden]],
    );
  }
  shapes.push(["output_norm.weight", [hidden]], ["output.weight", [hidden, vocab]]);
  return shapes.map(([name, dimensions], index) => {
    const count = dimensions.reduce((product, size) => product * size, 1);
    const values = Float32Array.from({ length: count }, (_, i) => index + i / 1000);
    return { name, type: F32, dimensions, bytes: Buffer.from(values.buffer) };
  });
}
